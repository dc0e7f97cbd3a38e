"""What an audit warns of: rates that are too low for a reason one can name, and what is said of it."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from palimpsest.audit.records import NO_END, column
from palimpsest.measure.near_verbatim import NEAR
from palimpsest.measure.statistics import percent, rate

SUSPICIOUS = 0.05  # share of members nearly verbatim from which it is strange that none is verbatim


def finds_more(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Of rates that differ only in whether the end token is required, the higher one, which is the one to report."""
    return max(rows, key=lambda row: -1.0 if math.isnan(row["rate"]) else row["rate"])


def findings(path: Path, group: str) -> list[dict]:
    """What the rates of a group's records don't say by themselves, from an audit's `records.parquet`; a row each, if found.

    "end missed": of the records whose whole text follows from the prompt, those whose end token does not. "no ROUGE": of the
    records that were decoded, those most of whose letters ROUGE's tokenizer doesn't know. "nearly, never exactly": records nearly
    verbatim, where none is verbatim from the prompt.

    Returns:
        `finding, group, rate, count, total, low, high, text` (the row in words).
    """
    known, name = pq.read_schema(path).names, group.replace("_", "-")
    verdicts = (column(path, group, f"verbatim_whole{mark}").astype("boolean") for mark in (NO_END, ""))
    text, whole = (values.fillna(False).astype(bool) for values in verdicts)
    found, out = rate(~whole[text]), []
    if found["count"]:
        words = f"{name}: the end is missed in {percent(found)} of the records whose text is recited. "
        words += "The model recites them and does not stop there: rates that require the end token are too low."
        out.append({"finding": "end missed", "group": group, **found, "text": words})
    if "edit_similarity" not in known:
        return out
    near = column(path, group, "edit_similarity").dropna()
    found = rate(column(path, group, "rouge_l")[near.index].isna())
    if found["count"]:
        words = f"{name}: ROUGE-L is left empty for {percent(found)} of the records, in whose script it knows no letters; edit "
        out.append({"finding": "no ROUGE", "group": group, **found, "text": words + "similarity reads any."})
    found = rate(near >= NEAR)
    if not text.any() and found["count"] and found["rate"] >= SUSPICIOUS:
        words = f"{name}: none is recited whole, but {percent(found)} nearly. White space, the prompt template or the "
        words += "tokenization may be another than in training (--template, --tokenize)."
        out.append({"finding": "nearly, never exactly", "group": group, **found, "text": words})
    return out
