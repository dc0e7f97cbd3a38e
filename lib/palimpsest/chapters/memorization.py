"""Memorization of every measured model of a study as tidy tables: one row per model, split and reading."""

from pathlib import Path

import pandas as pd

from palimpsest.measure import extraction, finished, results
from palimpsest.measure.models import load_tokenizer
from palimpsest.measure.statistics import newcombe, over_seeds, rate
from palimpsest.study import Study
from palimpsest.study.runs import locate

PAPER = pd.DataFrame(  # arXiv 2506.16170, Table 1: GPT-2 on Dolly, no intervals published
    [
        ("1.5B (teacher)", "sft", 0.654),
        *[
            ("760M", m, r)
            for m, r in zip(("sft", "word_kd", "seq_kd", "rkl_student"), (0.523, 0.472, 0.315, 0.090), strict=True)
        ],
        *[
            ("340M", m, r)
            for m, r in zip(("sft", "word_kd", "seq_kd", "rkl_student"), (0.433, 0.140, 0.134, 0.075), strict=True)
        ],
        *[
            ("120M", m, r)
            for m, r in zip(("sft", "word_kd", "seq_kd", "rkl_student"), (0.330, 0.100, 0.129, 0.060), strict=True)
        ],
    ],
    columns=["size", "method", "rate"],
)


def letters(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """`finished.letters` with their tokens and secret flags in `example`."""
    rows = finished.letters(results.load_records(run_dir))
    tokenizer = load_tokenizer(locate(run_dir) / "data" / "tokenizer")
    return rows.assign(example=finished.examples_of(study, rows, tokenizer))


def rates(study: Study, run_dir: str | Path, names: list[str] | None = None) -> pd.DataFrame:
    """Every model (or those named) x split (member, non_member) x reading.

    Returns:
        `model, label, size, method, role, seed, split, reading` and `rate, count, total, low, high` (95 % Wilson). Readings
        as in `extraction`; `total` is the number of eligible records (of secrets for reading "secret").
    """
    rows, window = letters(study, run_dir), study.measure.window
    out = []
    for name in names or results.model_names(study, run_dir):
        table = results.scores(run_dir, name).set_index("id")
        for split, part in rows.groupby("split"):
            scored = table.loc[part["id"]].reset_index()
            for reading in ("window", "whole", "carlini"):
                verdict = extraction.reading(scored, reading, window)
                out.append({**results.describe(name), "split": split, "reading": reading, **rate(verdict)})
            recited = extraction.secrets(scored, list(part["example"]))["recited"]
            out.append({**results.describe(name), "split": split, "reading": "secret", **rate(recited)})
    return results.label_seeds(pd.DataFrame(out))


def seeds_together(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `rates` with the seeds of each arm together (`statistics.over_seeds`): `label, split, reading` and the rate."""
    labels = table["model"].map(lambda name: results.describe(name)["label"])
    return over_seeds(table.assign(label=labels), ["label", "split", "reading"])


def curve(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """Verbatim rate against the number k of response tokens given, for members and non-members of every model."""
    rows, window = finished.letters(results.load_records(run_dir)), study.measure.window
    out = []
    for name in results.model_names(study, run_dir):
        table = results.scores(run_dir, name).set_index("id")
        for split, part in rows.groupby("split"):
            points = extraction.verbatim_by_prefix(table.loc[part["id"]].reset_index(), window)
            out.append(points.assign(**results.describe(name), split=split))
    return pd.concat(out, ignore_index=True)


def excess(table: pd.DataFrame) -> pd.DataFrame:
    """Member minus non-member rate per arm and reading, with Newcombe's 95 % interval for two independent shares.

    Returns:
        `label, reading, rate` (the difference), `low, high`, from the rows of `rates`, seeds together.
    """
    out = []
    for (label, reading), rows in seeds_together(table).groupby(["label", "reading"], sort=False):
        one, other = (rows[rows["split"] == split].iloc[0] for split in finished.COMPARED)
        low, high = newcombe(one["count"], one["total"], other["count"], other["total"])
        difference = one["rate"] - other["rate"]
        out.append({"label": label, "reading": reading, "rate": difference, "low": low, "high": high})
    return pd.DataFrame(out)


def quality(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """Held-out loss and ROUGE-1/2/L F-measures on the test prompts, mean and 95 % normal interval over records."""
    records = results.load_records(run_dir)
    held = set(records.loc[(records["kind"] == "letter") & (records["split"] == "test"), "id"])
    out = []
    for name in results.model_names(study, run_dir):
        table = results.scores(run_dir, name)
        table = table[table["id"].isin(held)]
        loss = -sum(row.sum() for row in table["logprob"]) / table["length"].sum()
        texts = results.test_texts(run_dir, name)
        means = {f"{k}": texts[k].mean() for k in ("rouge1", "rouge2", "rougeL")}
        errors = {f"{k}_error": 1.96 * texts[k].sem() for k in means}
        out.append({**results.describe(name), "test_loss": loss, "records": len(texts), **means, **errors})
    return results.label_seeds(pd.DataFrame(out))


def quality_table(found: pd.DataFrame) -> pd.DataFrame:
    """The rows of `quality` as text, one row per model."""
    shown = {"test loss": found["test_loss"].round(2)}
    for name, title in (("rouge1", "ROUGE-1"), ("rouge2", "ROUGE-2"), ("rougeL", "ROUGE-L")):
        shown[title] = [f"{m:.3f} ± {e:.3f}" for m, e in found[[name, f"{name}_error"]].to_numpy(float)]
    return pd.DataFrame({**shown, "records": found["records"]}).set_index(found["label"])
