"""Teacher, student and baseline on the same records: what the student kept, what it dropped, what came only through its teacher."""

from collections.abc import Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pandas as pd

from palimpsest.audit.records import best_log_probability
from palimpsest.audit.signoff import recited_from_prompt
from palimpsest.measure.extraction import PROBABILITY, samples_needed
from palimpsest.measure.lineage import SETS
from palimpsest.measure.score_file import pick
from palimpsest.measure.statistics import compare_verdicts, holm, rate

LISTED = 10  # records listed as known only through the teacher
LEVEL = 0.05
ROLES = {"teacher": "teacher", "student": "model", "baseline": "baseline"}  # -> which of the audit's models it is
KEPT = {  # what a sign-off asks of the sets: name -> who recites the record, of those who matter
    "kept": {"teacher": True, "student": True},
    "dropped": {"teacher": True, "student": False},
    "only through the teacher": {"teacher": True, "student": True, "baseline": False},
    "recited by the baseline too": {"teacher": True, "student": True, "baseline": True},
    "recited by the student alone": {"teacher": False, "student": True, "baseline": False},
    "recited by none": {"teacher": False, "student": False, "baseline": False},
}


def recited_by_each(path: Path, group: str, summary: Mapping[str, Any]) -> pd.DataFrame:
    """Whether the teacher, the student and the baseline, those that are there, recite each record from the prompt alone."""
    there = {role: model for role, model in ROLES.items() if model in ("model", *summary["others"])}
    verdicts = {role: recited_from_prompt(path, group, summary["settings"], model) for role, model in there.items()}
    return pd.DataFrame(verdicts).dropna().astype(bool)


def of_family(path: Path, summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a family's models recite of the same records; None where there is neither teacher nor baseline.

    Returns:
        dict[str, Any] | None: `sets`: per group and name of `KEPT` that the models there can tell, `rate, count, total, low,
        high`; with all three also the `set` of every kind, of `measure.lineage.SETS`. `comparisons`: of members, a row per two
        models: `first`, `second`, and `compare_verdicts`' numbers, `p_holm` (Holm over the rows) and `verdict` (less, more or
        undecided, the first by the second). `through_teacher`: rows of members that only teacher and student recite, the likeliest
        first.
    """
    if not {"teacher", "baseline"} & set(summary["others"]):
        return None
    asked = [("name", name, wanted) for name, wanted in KEPT.items()]
    asked += [("set", name, dict(zip(ROLES, wanted, strict=True))) for name, wanted in SETS.items()]
    recited = {group: recited_by_each(path, group, summary) for group in summary["data"]}
    sets = []
    for (group, found), (key, name, wanted) in product(recited.items(), asked):
        if set(wanted) <= set(found):
            here = (found[list(wanted)] == list(wanted.values())).all(axis=1)
            sets.append({"group": group, "name": None, "set": None, key: name, **rate(here)})
    members = recited["members"]
    return {
        "sets": sets,
        "comparisons": compared({(a, b): (members[a], members[b]) for a, b in combinations(members, 2)}),
        "through_teacher": _through_teacher(path, members) if set(ROLES) <= set(members) else [],
    }


def compared(pairs: Mapping[tuple[str, str], tuple[pd.Series, pd.Series]]) -> list[dict]:
    """Every comparison of an audit: `first`, `second`, the numbers of `compare_verdicts`, `p_holm` over all pairs, `verdict`."""
    rows = [{"first": a, "second": b, **compare_verdicts(one, other)} for (a, b), (one, other) in pairs.items()]
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p
        row["verdict"] = "undecided" if p >= LEVEL else "less" if row["difference"] < 0 else "more"
    return rows


def _through_teacher(path: Path, recited: pd.DataFrame) -> list[dict]:
    inherited = recited.index[recited["teacher"] & recited["student"] & ~recited["baseline"]]
    likely = best_log_probability(path, "members")[inherited]
    first = likely.sort_values(ascending=False, kind="stable").index[:LISTED]
    there = first.sort_values()
    listed = pick(path, there.to_numpy(), ["id", "row", "length"]).set_axis(there)
    for role, model in ROLES.items():
        listed[f"{role}_samples"] = samples_needed(best_log_probability(path, "members", model)[there], PROBABILITY)
    return listed.loc[first].to_dict("records")


def say_family(said: Mapping[str, Any]) -> list[str]:
    """What was kept and dropped, and what the tests say, in sentences."""
    of = {row["name"]: row for row in said["sets"] if row["group"] == "members"}
    lines = []
    if "kept" in of:
        kept, dropped = of["kept"]["count"], of["dropped"]["count"]
        line = f"Of {kept + dropped} members that the teacher recites, the student recites {kept} (kept) and not {dropped} (dropped)."
        if "only through the teacher" in of:
            line += f" {of['only through the teacher']['count']} it knows only through the teacher: the baseline does not recite them."
        lines.append(line)
    for row in said["comparisons"]:
        apart, low, high = (100 * row[name] for name in ("difference", "low", "high"))
        size = f"({apart:+.1f} points; 95 % interval {low:.1f} to {high:.1f})"
        if row["verdict"] == "undecided":
            lines.append(f"Whether {row['first']} or {row['second']} recites more we cannot tell {size}.")
        else:
            lines.append(
                f"The {row['first']} recites {'fewer' if row['verdict'] == 'less' else 'more'} members than the {row['second']} {size}."
            )
    return lines
