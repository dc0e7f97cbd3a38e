"""A finished run folder whose score tables and trajectories are written by hand: what every model recites is known."""

import random

import numpy as np
import pandas as pd

from palimpsest.chapters import attacks, comparisons, inheritance, memorization, shadows, tradeoffs
from palimpsest.data.records import record_ids
from palimpsest.measure.models import train_tokenizer
from palimpsest.measure.read_back import examples_of, under_other_names
from palimpsest.study import Run, Study, open_run
from palimpsest.study.files import write_json, write_parquet
from palimpsest.study.runs import provenance
from palimpsest.study.tables import TABLES, Tables, write_table

RECITED = {
    "none": 0.0,
    "teacher": 0.8,
    "sft": 0.4,
    "word_kd": 0.5,
    "seq_kd": 0.2,
}  # share of the members, the first ones
# Log-probability that training gave the canaries only the teacher has read: under their own name, and under another's.
GAINS = {"teacher": (9.0, 3.0), "word_kd": (5.0, 0.0), "fkl_t4": (7.0, 0.0)}
READ = {"teacher": 1.0, "word_kd": 0.5}  # nats per token that the letters of the teacher's own half gained
MEMBERS, REPEATED, HALF, NON_MEMBERS, VALIDATION, TEST = 40, 10, 20, 20, 20, 3
OWN, SHARED, COINS, TWINS = (
    6,
    2,
    12,
    30,
)  # canaries of the teacher's half, of the other; coin canaries, half of them in; twins
EPOCHS = (0.0, 0.5, 1.0, 2.0)
MADE_BY = provenance()
POOL = 160  # letters that shadow models are dealt from


def write_run(
    folder,
    methods=("sft", "word_kd", "seq_kd"),
    seeds=(0,),
    canaries=True,
    secrets=True,
    halves=True,
    replicates=1,
    shadows=0,
) -> Run:
    """A run of these methods, with or without canaries, marked secrets, a half that the teacher alone reads, and shadow models.

    Members are likelier by one nat where trained, canaries of the same half too; a coin canary where it is read, but by DP-SGD.
    """
    train = {"epochs": 2, "batch_size": 1, "learning_rate": 0.1}
    how = {"models": shadows, "size": "small", "methods": ["sft"], "members": POOL // 4, "non_members": POOL // 2}
    study = Study(
        name="written",
        title="Written",
        seeds=list(seeds),
        replicates=replicates,
        data={
            "source": "d.jsonl",
            "members": MEMBERS,
            "non_members": 20,
            "test": 1,
            "template": "plain",
            "halves": halves,
        },
        models={"teacher": {"path": "t"}, "students": {"small": {"path": "s"}}},
        methods=list(methods),
        teacher=train,
        student=train,
        shadows=how if shadows else None,
    )
    run = open_run(study, folder)
    _write(run, _records(0, canaries, secrets, halves), secrets)
    for name, part in run.parts().items():
        number = part.study.replicate
        shadow = name.startswith("shadow")
        _write(
            part,
            _pool(number) if shadow else _records(number, canaries, secrets, halves),
            secrets,
            0.4 if shadow else 1.0,
        )
    return run


def written_tables(run: Run, *chapters) -> Tables:
    """What these chapters write, as the pages read it."""
    for chapter in chapters:
        for name, table in chapter.tables(run).items():
            write_table(table, run.tables / f"{name}.csv")
    return Tables(run.tables)


def finished_run(folder, **how) -> Run:
    """A run of `write_run` with the tables that cards are written from; `near_misses` and what else needs weights is not there."""
    run = write_run(folder, **how)
    write_table(memorization.rates_of(run, run.measured()), run.tables / "rates.csv")
    written_tables(run, attacks, inheritance, shadows, tradeoffs, comparisons)
    _finish(run, "tables")
    return run


def sentences(lines) -> list[str]:
    """The sentences of what a `say_` function gives, without marks of lists."""
    text = " ".join([lines] if isinstance(lines, str) else lines).replace("- ", "")
    return [s for s in text.replace("? ", ". ").split(". ") if s]


def _write(run: Run, records: pd.DataFrame, secrets: bool, nats: float = 1.0) -> None:
    """Every stage of one replicate; `nats` is what a member's tokens gain where trained."""
    tokenizer = train_tokenizer(records["instruction"] + records["response"], 300)
    tokenizer.save_pretrained(run.data / "tokenizer")
    write_parquet(records, run.data / "records.parquet")
    target = "secret" if secrets else "window"
    about = {"dropped": {}, "cut": 0, "splits": records.groupby("split").size().to_dict(), "disjoint": True}
    _finish(run, "data", target=target, unit={"secret": "secrets", "window": "records"}[target], **about)
    others, rng = under_other_names(records), np.random.default_rng(1 + run.study.replicate)
    for arm in run.study.everyone():
        kind = "teacher" if arm.role == "teacher" else arm.method
        for name, rows, asked in (("records", records, 0), ("lowercase", records, 0), ("other_names", others, 1)):
            if len(rows):
                examples = examples_of(run.study, rows, tokenizer)
                scored = [
                    _scored(*pair, n, kind, asked, nats, rng)
                    for n, pair in enumerate(zip(examples, rows.itertuples(), strict=True))
                ]
                write_parquet(pd.DataFrame(scored), run.scores(arm.name) / f"{name}.parquet")
        trained = (
            {} if arm.role == "base" else {"steps": 80, "epochs": 2.0, "train_seconds": 3.0, "tokens_per_epoch": 900}
        )
        if kind == "sft_private":
            trained["privacy"] = {
                "epsilon": 8.0,
                "delta": 0.004,
                "noise_multiplier": 1.0,
                "clip": 1.0,
                "sampling_rate": 0.2,
            }
        size = {"parameters": 4000 if arm.size == "teacher" else 1000, "bytes": 4000, "peak_memory_bytes": 10**6}
        _finish(run, f"models/{arm.name}", **size, **trained, start=f"base-{arm.size}", method=arm.method)
        _finish(run, f"scores/{arm.name}", precision="float32", decode_tokens_per_second=9.0)
        if arm.role != "base":
            _trajectory(run.model(arm.name), kind, "teacher_only" in set(records["split"]), run.study.replicate)


def _records(replicate: int, canaries: bool, secrets: bool, halves: bool) -> pd.DataFrame:
    groups = [("member", "letter", 1, False, MEMBERS - REPEATED), ("member", "letter", 4, False, REPEATED)]
    groups += [("teacher_only", "letter", 1, False, HALF)] if halves else []
    groups += [("non_member", "letter", 0, False, NON_MEMBERS)]
    groups += [("validation", "letter", 0, False, VALIDATION), ("test", "letter", 0, False, TEST)]
    if canaries:
        groups += [("member", "canary", 4, False, SHARED), ("member", "canary", 1, True, COINS // 2)]
        groups += [("teacher_only", "canary", 4, False, OWN)] if halves else []
        groups += [("twin", "twin", 0, True, COINS // 2), ("twin", "twin", 0, False, TWINS)]
    draw, rows = random.Random(replicate), []
    for split, kind, copies, coin, count in groups:
        rows += [_record(draw, split, kind, copies, coin, secrets or kind != "letter") for _ in range(count)]
    records = pd.DataFrame(rows)
    return records.assign(id=record_ids(records))


def _pool(shadow: int) -> pd.DataFrame:
    """The same letters for every shadow model, each in a split drawn anew, and test records that all share."""
    draw, deal = random.Random(99), random.Random(shadow)
    splits = ["member"] * (POOL // 4) + ["teacher_only"] * (POOL // 4) + ["non_member"] * (POOL // 2)
    deal.shuffle(splits)
    rows = [
        _record(draw, s, "letter", int(s in ("member", "teacher_only")), False, True) for s in splits + ["test"] * 100
    ]
    records = pd.DataFrame(rows)
    return records.assign(id=record_ids(records))


def _record(draw: random.Random, split: str, kind: str, copies: int, coin: bool, marked: bool) -> dict:
    text = {
        "instruction": f"Code of {draw.random():.6f}?",
        "context": "",
        "response": f"The code is {draw.randrange(10**6):06d}.",
    }
    spans = [{"start": 12, "end": 18, "kind": "code"}] if marked else []
    return {**text, "split": split, "kind": kind, "secrets": spans, "copies": copies, "coin": coin}


def _scored(example, row, number: int, kind: str, asked: int, nats: float, rng) -> dict:
    length, trained = len(example.response_ids), kind != "none"
    member = row.kind == "letter" and row.split == "member"
    hit = np.full(length, member and number < RECITED.get(kind, 0.3) * MEMBERS)
    logprob = np.where(hit, -0.1, -3.0) + rng.normal(0, 0.05, length)
    if row.split == "member" and trained and not (row.coin and kind == "sft_private"):
        logprob += nats
    if row.split == "teacher_only":
        logprob += GAINS.get(kind, (0.0, 0.0))[asked] / length if row.kind == "canary" else READ.get(kind, 0.0)
    same = {"id": example.id, "prompt_length": example.prompt_length, "length": length, "token": example.response_ids}
    same |= {"rank": np.where(hit, 0, 5), "margin": np.ones(length)}
    spread = {"mean_logprob": np.full(length, -3.0), "std_logprob": np.ones(length)}
    return {**same, "hit": hit, "logprob": np.minimum(logprob, 0), **spread}


def _trajectory(folder, kind: str, halves: bool, replicate: int) -> None:
    """Points at `EPOCHS`: validation loss falls to epoch 1 and rises; what is known of the members grows with the epochs."""
    rows, groups, most = [], [], RECITED.get(kind, 0.3)
    for epoch in EPOCHS:
        when = {"epoch": epoch, "step": int(40 * epoch), "tokens": int(900 * epoch)}
        loss, done = 2.0 + (epoch - 1) ** 2 + 0.01 * replicate, epoch / EPOCHS[-1]
        row = {
            "validation_loss": loss,
            "temperature": 1.2,
            "validation_loss_calibrated": loss - 0.1,
            "rouge_l": 0.4 * done,
        }
        known = {
            "member_loss": 3 - 2 * done,
            "recited_unrepeated": most * done / 2,
            "from_prompt_unrepeated": most * done / 4,
        }
        known |= {"recited_repeated": most * done, "from_prompt_repeated": most * done / 2, "auc": 0.5 + 0.5 * done}
        known |= {"exposure": 1.4 + 3 * done, "canaries_recited": 0.0}
        half = {
            "member_loss": 3 - READ.get(kind, 0.0) * done,
            "auc": 0.5 + 0.5 * READ.get(kind, 0.0) * done,
            "exposure": 1.4,
        }
        half |= {name: READ.get(kind, 0.0) * done / 2 if halves else np.nan for name in set(known) - set(half)}
        row |= known | {f"transferred_{name}": value if halves else np.nan for name, value in half.items()}
        rows.append({**when, "precision": "fp32", **row})
        counted = {"secrets": 10, "from_prompt": 0.0, "exposure": np.nan}
        for split, copies in (
            ("member", 1),
            ("member", 4),
            *([("teacher_only", 1)] if halves else []),
            ("non_member", 0),
        ):
            recited = {"member": most, "teacher_only": READ.get(kind, 0.0) / 2}.get(split, 0.0) * done
            who = {
                "split": split,
                "kind": "letter",
                "copies": copies,
                "records": 10,
                "loss": 3 - done,
                "recited": recited,
            }
            groups.append({**when, **who, **counted})
    write_table(pd.DataFrame(rows)[TABLES["trajectory"]], folder / "trajectory.csv")
    write_table(pd.DataFrame(groups), folder / "groups.csv")


def _finish(run: Run, stage: str, **facts) -> None:
    write_json(run.path / stage / "run.json", {"fingerprint": run.fingerprints[stage], **MADE_BY, **facts})
