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
from palimpsest.audit.records import Records, best_log_probability, column, of_model
from palimpsest.audit.signoff import recited_from_prompt
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


def by_person(path: Path, group: str, records: Records, summary: Mapping[str, Any]) -> pd.DataFrame:
    """What an audit's `records.parquet` says of each person of a group, the one most at risk first; indexed by `person`.

    Returns:
        `records` (theirs that were measured), `recited` (from the prompt alone), of these by every other model `<role>_recited`,
        `row` (of the record that a sample gives most easily) and `log_probability` (nats, of that). Persons of whom no record
        was measured are left out.
    """
    models = ("model", *summary["others"])
    of = pd.DataFrame({"record": record_hashes(path, group), "row": column(path, group, "row")})
    for model in models:
        verdicts = recited_from_prompt(path, group, summary["settings"], model)
        of[of_model(model, "recited")] = verdicts.fillna(False).astype(bool)
    of["log_probability"] = best_log_probability(path, group).fillna(-np.inf)
    every = pd.read_parquet(records.path.with_suffix(".people")).merge(of.assign(records=1), on="record")
    # Most extractable last, of equals the first row last: a dictionary of rows per person would be slower by far.
    every = every.sort_values(["log_probability", "row"], ascending=[True, False], kind="stable")
    counts = {name: "sum" for name in ["records", *(of_model(model, "recited") for model in models)]}
    table = every.groupby("person").agg({**counts, "row": "last", "log_probability": "last"})
    return table.sort_values(["log_probability", "recited"], ascending=False, kind="stable")


def person_rates(path: Path, groups: Mapping[str, Records], summary: Mapping[str, Any]) -> tuple[list[dict], dict]:
    """Rates of the measure "persons" (at least one record recited), and each group's table `by_person`."""
    there = [group for group, records in groups.items() if records.path.with_suffix(".people").exists()]
    tables = {group: by_person(path, group, groups[group], summary) for group in there}
    settings = summary["settings"]
    setting = {"measure": "persons", "k": min(settings["prefix_lengths"]), "m": settings["window"]}
    rows = [
        {"group": group, "model": model, **setting, **rate(table[of_model(model, "recited")] > 0)}
        for group, table in tables.items()
        for model in ("model", *summary["others"])
    ]
    return rows, tables
