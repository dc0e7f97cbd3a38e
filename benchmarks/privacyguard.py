"""PrivacyGuard and `palimpsest audit` on the same models and records: verdict by verdict, and the time of each.

    python3.11 -m venv pg && pg/bin/pip install privacyguard-platform==0.0.2    # wants pandas below 3, so an environment of its own
    python benchmarks/privacyguard.py --python pg/bin/python [--records 160] [--folder DIR]

Trains two tiny models here on invented letters until they recite half of them: one that learned to stop (`stops`), and one whose
end token was left out of the loss, as happens where padding is end-of-text (`runs_on`). Both tools then read the same files,
on one thread. Where two verdicts differ, the model's own `generate`, from the record's own tokens, says who is right.
Seconds are of the processor, so that whatever else the machine does hardly matters.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from palimpsest import audit
from palimpsest.audit.inputs import AS_IT_STANDS
from palimpsest.data.encoding import encode
from palimpsest.data.examples import IGNORED, collate
from palimpsest.measure.extraction import verbatim, without_end
from palimpsest.measure.models import build_model, load_model, load_tokenizer, train_tokenizer
from palimpsest.measure.scoring import score
from palimpsest.measure.shadow_attacks import lira
from palimpsest.measure.statistics import auc
from palimpsest.study.sections import Scratch

LETTERS = Path(__file__).parents[1] / "data" / "helpdesk" / "records.jsonl"
OTHERS, SHADOWS, WINDOW = 100, 16, 96
RULES = {"top_k10": {"top_k": 10}, "temperature0.7_top_p0.9": {"temperature": 0.7, "top_p": 0.9}}


def make(folder: Path, count: int) -> None:
    """The models and files that both tools read."""
    letters = pd.read_json(LETTERS, lines=True)
    letters = letters[letters["secrets"].map(bool)].drop_duplicates(["instruction", "response"]).head(count + OTHERS)
    frame = pd.DataFrame({"prompt": letters["instruction"] + "\n", "target": letters["response"]})
    for name, rows in (("members", frame[:count]), ("others", frame[count:])):
        rows.to_json(folder / f"{name}.jsonl", orient="records", lines=True)
    tokenizer = train_tokenizer(frame["prompt"] + frame["target"], 512)
    for name in ("base", "stops", "runs_on"):
        model = build_model(Scratch(architecture="llama", layers=2, width=96, heads=3, context=192), tokenizer, 0)
        if name != "base":
            train(model, examples_of(folder, tokenizer), tokenizer.eos_token_id, ends=name == "stops")
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def examples_of(folder: Path, tokenizer) -> list:
    rows = pd.read_json(folder / "members.jsonl", lines=True).rename(
        columns={"prompt": "instruction", "target": "response"}
    )
    return encode(rows.assign(context="", id=rows.index.map("{:016x}".format)), tokenizer, AS_IT_STANDS)


def train(model, examples: list, end: int, ends: bool) -> None:
    """Until half of the texts are recited; `ends`: the token that closes a text counts in the loss."""
    optimizer, shuffle = torch.optim.AdamW(model.parameters(), lr=3e-3), torch.Generator().manual_seed(0)
    for _ in range(200):
        model.train()
        for rows in torch.randperm(len(examples), generator=shuffle).split(16):
            batch = collate([examples[i] for i in rows], end)
            labels = batch["labels"] if ends else batch["labels"].masked_fill(batch["labels"] == end, IGNORED)
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
            model(**inputs, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        table = score(model.eval(), examples)
        if verbatim(without_end(table, [e.closing for e in examples])).mean() >= 0.5:
            return
    raise SystemExit("the model did not learn half of its records")


# ---------------------------------------------------------------- both sides


def ours(folder: Path) -> tuple[dict[str, pd.DataFrame], dict, dict[str, float]]:
    """Rows per record of both models, the summary of the first, and seconds; models are loaded inside, as on the other side."""
    tables, seconds = {}, {}
    common = {"response_column": "target", "window": WINDOW, "progress": False, "prefix_lengths": (0,)}
    more = {"non_members": folder / "others.jsonl", "reference": folder / "base", "sampling": list(RULES.values())}
    summaries = {}
    for model, options in (("stops", more), ("runs_on", {})):
        out, began = folder / f"audit-{model}", time.process_time()
        settings = audit.Settings(**common, **options)
        summaries[model] = audit.run(folder / model, folder / "members.jsonl", out, settings)
        seconds[f"audit, {model}"] = time.process_time() - began
        table = pd.read_parquet(out / "records.parquet")
        tables[model] = table[table["group"] == "members"].reset_index(drop=True)
    return tables, summaries["stops"], seconds


def decoded(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Whether `generate`, from the record's own tokens, gives the text; and whether it then stops."""
    model, tokenizer = load_model(folder / name), load_tokenizer(folder / name)
    verdicts = []
    for one in examples_of(folder, tokenizer):
        given = torch.tensor([one.input_ids[: one.prompt_length]])
        options = {"do_sample": False, "max_new_tokens": len(one.response_ids), "pad_token_id": tokenizer.eos_token_id}
        new = model.generate(given, attention_mask=torch.ones_like(given), **options)[0, one.prompt_length :].tolist()
        text = one.response_ids[: len(one.response_ids) - one.closing]
        verdicts.append((new[: len(text)] == text, new == one.response_ids))
    return tuple(np.array(verdicts).T)


def shadow_scores(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Signals of a target and its shadows, drawn at random: written for the other side, and our scores of them."""
    draw = np.random.default_rng(0)
    inside = draw.random((SHADOWS + 1, 1_000)) < 0.5
    signal = draw.normal(size=inside.shape) + inside + draw.normal(size=inside.shape[1])
    frame = {"score_orig": signal[0], "member": inside[0]}
    for name, seen in (("in", inside[1:]), ("out", ~inside[1:])):
        there = np.ma.masked_array(signal[1:], ~seen)
        frame |= {f"score_mean_{name}": there.mean(0).data, f"score_std_{name}": there.std(0, ddof=1).data}
    (folder / "scores.json").write_text(json.dumps({key: value.tolist() for key, value in frame.items()}))
    return lira(signal, inside)[0], inside[0]


def compared(folder: Path, tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row per model, run and pair of verdicts: on how many records they agree, and who is right where they don't."""
    theirs, rows = pd.read_json(folder / "theirs.jsonl", lines=True), []
    runs = {"stops": ["stops, batch 1"], "runs_on": ["runs_on, batch 1"]}
    runs["stops"] += [f"stops, batch 16, padded on the {side}" for side in ("left", "right")]
    for model, table in tables.items():
        text, ended = decoded(folder, model)
        pairs = {"exact_match": ("verbatim_whole", ended), "inclusion": ("verbatim_whole_no_end", text)}
        for run, (their, (our, true)) in ((run, pair) for run in runs[model] for pair in pairs.items()):
            a = theirs.loc[theirs["run"] == run, their].to_numpy(bool)
            b = table[our].to_numpy(bool)
            row = {"run": run, "theirs": their, "ours": our, "records": len(a)}
            row |= {
                "theirs_found": a.sum(),
                "ours_found": b.sum(),
                "generate_found": true.sum(),
                "differ": (a != b).sum(),
            }
            rows.append(row | {"ours_as_generate": (b == true).sum(), "theirs_as_generate": (a == true).sum()})
    return pd.DataFrame(rows)


def report(folder: Path, tables: dict[str, pd.DataFrame], summary: dict, seconds: dict, shadows: tuple) -> None:
    """Print all of it."""
    theirs = json.loads((folder / "theirs.json").read_text())
    print(compared(folder, tables).to_csv(index=False))
    drawn, table = pd.read_json(folder / "theirs_sampled.jsonl", lines=True), tables["stops"]
    for name in drawn:
        our = table["logprob_window" + ("" if name == "plain" else f"_{name}") + "_no_end"]
        their = np.log(drawn[name].where(drawn[name] > 0))
        there = their.notna() & np.isfinite(our)
        print(
            f"log-probability, {name}: largest difference {np.abs(their - our)[there].max():.2g} nats on {there.sum()} records; "
            f"zero by theirs alone {((drawn[name] == 0) & np.isfinite(our)).sum()}, by ours alone {(~np.isfinite(our) & (drawn[name] > 0)).sum()}"
        )
    loss = next(row for row in summary["membership"] if row["attack"] == "loss" and row["measure"] == "AUC")
    print(
        f"AUC of the loss: ours {loss['rate']:.4f} ({loss['low']:.4f} to {loss['high']:.4f}), theirs {theirs['loss']}"
    )
    scores, inside = shadows
    said = {key: value for key, value in theirs["lira"].items() if key != "score"}
    print(
        f"LiRA: AUC ours {auc(scores[inside], scores[~inside])['rate']:.4f}, theirs {said}; correlation of the scores "
        f"{np.corrcoef(scores, theirs['lira']['score'])[0, 1]:.6f}"
    )
    similar = pd.read_json(folder / "theirs.jsonl", lines=True).groupby("run")["edit_similarity"]
    print(f"edit similarity above 1, by run: {similar.agg(lambda values: int((values > 1).sum())).to_dict()}")
    pair = table[["verbatim_whole", "reference_verbatim_whole"]].astype(bool).value_counts()
    print(f"target and reference: ours {pair.to_dict()}, theirs {theirs['pairs']}\n\nseconds:")
    for name, value in {**seconds, **theirs["seconds"]}.items():
        print(f"{value:8.2f}  {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, required=True, help="the Python of PrivacyGuard's environment")
    parser.add_argument("--records", type=int, default=160, help="members (default 160)")
    parser.add_argument("--folder", type=Path, help="keep models and results here (default: a temporary folder)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "runs_on").exists():
            make(folder, args.records)
        shadows = shadow_scores(folder)
        tables, summary, seconds = ours(folder)
        own = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
        side = Path(__file__).with_name("privacyguard_side.py")
        subprocess.run([args.python, side, folder], env=own, check=True)
        report(folder, tables, summary, seconds, shadows)


if __name__ == "__main__":
    main()
