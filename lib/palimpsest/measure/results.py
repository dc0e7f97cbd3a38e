"""Read what the stages wrote: small tables only, so a book is rebuilt without models or a GPU."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from palimpsest.errors import InputError
from palimpsest.study import Arm, Study
from palimpsest.study.methods import METHODS
from palimpsest.study.runs import Folder, locate, require


def load_records(run_dir: str | Path) -> pd.DataFrame:
    """The prepared records of all splits."""
    folder = Folder.of(run_dir).data
    require(folder, "the data stage (notebook 01)")
    records = pd.read_parquet(folder / "records.parquet")
    return records.assign(secrets=[list(s) for s in records["secrets"]])


def model_names(study: Study, run_dir: str | Path) -> list[str]:
    """Names of the measured models in reading order: bases, teacher, arms as the study lists them.

    Raises:
        InputError: none is measured yet.
    """
    folder = locate(run_dir) / "scores"
    wanted = [
        "base-teacher",
        *(f"base-{s}" for s in study.models.students),
        "teacher",
        *(a.name for a in study.arms()),
    ]
    names = [n for n in wanted if (folder / n / "run.json").exists()]
    if not names:
        raise InputError(f"no measured models under {folder}: run notebooks 01 to 03, or the whole study, first")
    return names


def scores(run_dir: str | Path, name: str) -> pd.DataFrame:
    """The score table of one model (see `score`), list columns as NumPy arrays."""
    return pd.read_parquet(locate(run_dir) / "scores" / name / "records.parquet")


def test_texts(run_dir: str | Path, name: str) -> pd.DataFrame:
    """What one model wrote for the test prompts, with ROUGE."""
    return pd.read_parquet(locate(run_dir) / "scores" / name / "test.parquet")


def run_facts(run_dir: str | Path, name: str) -> dict:
    """`run.json` of a model's training, with that of its measuring under `measured`."""
    root = locate(run_dir)
    facts = json.loads((root / "models" / name / "run.json").read_text())
    return {**facts, "measured": json.loads((root / "scores" / name / "run.json").read_text())}


def trajectory(run_dir: str | Path, name: str) -> pd.DataFrame:
    """Per epoch and split: loss, verbatim and recited shares with intervals (see `trajectory`).

    `memorized` (with `_low`, `_high`), `counted` and `unit` are the share and number of secrets recited, or of whole records
    where a study's data does not say where its secrets are.
    """
    rows = pd.read_csv(locate(run_dir) / "models" / name / "trajectory.csv").assign(model=name)
    what, total = ("recited", "secrets") if (rows["secrets"] > 0).any() else ("verbatim", "records")
    limits = {f"memorized_{end}": rows[f"{what}_{end}"] for end in ("low", "high")}
    return rows.assign(memorized=rows[what], **limits, counted=rows[total], unit=total)


def trajectory_lists(run_dir: str | Path, name: str) -> pd.DataFrame:
    """What `trajectory` is made of, a row per epoch and split: lists over records and secrets (see `trajectory.point`)."""
    return pd.read_parquet(locate(run_dir) / "models" / name / "trajectory.parquet")


def label_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Add the seed to the labels of a study that has several, so that no two models share one."""
    if "seed" not in table or table["seed"].nunique() < 2:
        return table
    named = [
        label if pd.isna(s) else f"{label}, seed {s:.0f}"
        for label, s in zip(table["label"], table["seed"], strict=True)
    ]
    return table.assign(label=named)


def describe(name: str) -> dict:
    """`size`, `method`, `seed`, `role` and a readable `label` of a model name; bases and the teacher have no method or seed.

    Roles: base (before fine-tuning), teacher, baseline (plain `sft`), student (distilled), mitigated (fine-tuned some other way).
    """
    if name == "teacher":
        return {
            "model": name,
            "size": "teacher",
            "method": "sft",
            "role": "teacher",
            "seed": np.nan,
            "label": "teacher",
        }
    if name.startswith("base-"):
        size = name.removeprefix("base-")
        return {
            "model": name,
            "size": size,
            "method": "none",
            "role": "base",
            "seed": np.nan,
            "label": f"{size}, before",
        }
    arm = Arm.parse(name)
    rule = METHODS[arm.method]
    role = "baseline" if arm.method == "sft" else "student" if rule.distilled else "mitigated"
    return {
        "model": name,
        "size": arm.size,
        "method": arm.method,
        "role": role,
        "seed": arm.seed,
        "label": f"{arm.size}, {rule.label}",
    }
