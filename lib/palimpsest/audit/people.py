"""Persons instead of records: how many have at least one record recited, and what of each comes out most easily.

A person is known by the first row of the file that names them: whoever holds the file can look it up, nobody else. Their names
are in no result.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from palimpsest.audit.inputs import Reading
from palimpsest.audit.records import Records, best_log_probability, column, no_end
from palimpsest.measure.score_file import row_groups
from palimpsest.measure.statistics import rate
from palimpsest.study.files import write_parquet


def write_persons(reading: Reading, path: Path) -> None:
    """Of every row of a reading that names persons, repetitions too: `record` (its id's hash) and `person` (their first row).

    A text that two persons share is measured once and counts for both. A row that names nobody is a person of its own.
    """
    if "person" not in reading.facts["columns"]:
        return
    frames = (table.select(["id", "row", "person"]).to_pandas() for table in row_groups(reading.path))
    parts = [
        (
            pd.util.hash_array(part["person"].to_numpy(object), categorize=False),
            (part["person"] == "").to_numpy(),
            part["row"].to_numpy(),
            _numbers(part["id"]),
        )
        for part in frames  # of each some bytes a row stay in memory, and no name
    ]
    names, nobody, rows, records = (np.concatenate(one) for one in zip(*parts, strict=True))
    reading.facts["unnamed"] = int(nobody.sum())
    _, first, whose = np.unique(names, return_index=True, return_inverse=True)
    table = pd.DataFrame({"record": records, "person": np.where(nobody, rows, rows[first][whose])})
    write_parquet(table.drop_duplicates(ignore_index=True), path)


def _numbers(ids: pd.Series) -> np.ndarray:
    return np.array([int(i, 16) for i in ids], np.uint64)


def record_hashes(path: Path, group: str) -> np.ndarray:
    """The ids of a group's records in an audit's `records.parquet` as eight bytes each, never all of them as text."""
    with pq.ParquetFile(path) as file:
        parts = (batch.to_pandas() for batch in file.iter_batches(columns=["id", "group"]))
        return np.concatenate([_numbers(part["id"][part["group"] == group]) for part in parts])


def by_person(path: Path, group: str, records: Records, settings: Mapping[str, Any]) -> pd.DataFrame:
    """What an audit's `records.parquet` says of each person of a group, the one most at risk first; indexed by `person`.

    Returns:
        `records` (theirs that were measured), `recited` (from the prompt alone), of these by every other model `<role>_recited`,
        `row` (of the record that a sample gives most easily) and `log_probability` (nats, of that). Persons of whom no record
        was measured are left out.
    """
    known, first = pq.read_schema(path).names, f"verbatim_{min(settings['prefix_lengths'])}"
    verdicts = {
        name: name.removesuffix(first) for name in known if name.endswith(first)
    }  # ours, and the other models'
    of = pd.DataFrame({"record": record_hashes(path, group), "row": column(path, group, "row")})
    for name, role in verdicts.items():
        of[f"{role}recited"] = column(path, group, no_end(path, name)).fillna(False).astype(bool)
    of["log_probability"] = best_log_probability(path, group).fillna(-np.inf)
    every = pd.read_parquet(records.path.with_suffix(".people")).merge(of.assign(records=1), on="record")
    # Most extractable last, of equals the first row last: a dictionary of rows per person would be slower by far.
    every = every.sort_values(["log_probability", "row"], ascending=[True, False], kind="stable")
    counts = {name: "sum" for name in ["records", *(f"{role}recited" for role in verdicts.values())]}
    table = every.groupby("person").agg({**counts, "row": "last", "log_probability": "last"})
    return table.sort_values(["log_probability", "recited"], ascending=False, kind="stable")


def person_rates(path: Path, groups: Mapping[str, Records], settings: Mapping[str, Any]) -> tuple[list[dict], dict]:
    """Rates of the measure "persons" (at least one record recited), and each group's table `by_person`."""
    rows, tables = [], {}
    for group, records in groups.items():
        if not records.path.with_suffix(".people").exists():
            continue
        table = tables[group] = by_person(path, group, records, settings)
        setting = {"measure": "persons", "k": min(settings["prefix_lengths"]), "m": settings["window"]}
        for name in (name for name in table if name.endswith("recited")):
            model = name.removesuffix("recited").removesuffix("_") or "model"
            rows.append({"group": group, "model": model, **setting, **rate(table[name] > 0)})
    return rows, tables
