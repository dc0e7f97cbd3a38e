"""Whose memory is it? Records sorted by which of teacher, student and baseline recite them, with counts and paired tests.

The baseline is the student's own size fine-tuned without a teacher (method `sft`, same seed). A record that it recites too
needed no teacher; one recited by teacher and student but not by the baseline is *inherited* (Borkar et al., arXiv 2601.15394).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure import extraction
from palimpsest.measure.statistics import (
    auc,
    bootstrap,
    bootstrap_means,
    compare_verdicts,
    rate,
    rate_of,
)
from palimpsest.study import Arm

# Records of a kind up to which a rank test is exact; beyond, its normal approximation is as good and faster.
EXACT = 50
SETS = {  # name -> whether teacher, student and baseline recite the record
    "inherited": (True, True, False),
    "easy": (True, True, True),
    "teacher_only": (True, False, False),
    "student_only": (False, True, False),
    "baseline_only": (False, False, True),
    "shed": (True, False, True),
    "small_only": (False, True, True),
    "none": (False, False, False),
}


def recites(scores: pd.DataFrame, examples: Sequence[Example], target: str, window: int) -> pd.Series:
    """Whether a model recites each record of a score table, indexed by id; missing where that can't be decided.

    Args:
        examples: the scored examples, for the target "secret".
        target: one of `extraction.TARGETS`, or "secret": greedy decoding gives at least one of the record's secrets from
            the true text before it. Records without a secret are left out there.
    """
    if target == "secret":
        return extraction.secrets(scores, examples).groupby("id")["recited"].any()
    return extraction.verbatim_target(scores, target, window)


def origins(memorized: pd.DataFrame, arms: Iterable[Arm]) -> pd.DataFrame:
    """Which of `SETS` each record falls into, for every distilled student among the arms.

    Args:
        memorized: a row per record id, a boolean column per model: "teacher", each student, and each one's baseline.

    Returns:
        pd.DataFrame: One row per student and record: `size`, `method`, `seed`, `id`, `teacher`, `student`, `baseline` (booleans),
        `set`.

    Raises:
        InputError: a model of the comparison has no column.
    """
    columns = ["size", "method", "seed", "id", "teacher", "student", "baseline", "set"]
    parts = []
    for arm in arms:
        if arm.role != "student":
            continue
        roles = {"teacher": "teacher", "student": arm.name, "baseline": Arm(arm.size, "sft", arm.seed).name}
        if missing := [name for name in roles.values() if name not in memorized]:
            raise InputError(
                f"arm {arm.name} cannot be compared: no verdicts of {', '.join(missing)}; measure them first"
            )
        part = pd.DataFrame({role: memorized[name].to_numpy() for role, name in roles.items()})
        part = part.assign(set=sorted_into_sets(part), size=arm.size, method=arm.method, seed=arm.seed)
        parts.append(part.assign(id=memorized.index)[columns])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def sorted_into_sets(recited: pd.DataFrame) -> pd.Categorical:
    """The one of `SETS` that each record is in, by the boolean columns `teacher`, `student`, `baseline`."""
    place = np.empty(8, dtype=np.int8)
    place[np.array([*SETS.values()]) @ [4, 2, 1]] = range(len(SETS))
    patterns = recited[["teacher", "student", "baseline"]].to_numpy(bool) @ [4, 2, 1]
    return pd.Categorical.from_codes(place[patterns], list(SETS))


def count_sets(origins: pd.DataFrame) -> pd.DataFrame:
    """Per student and set: `rate`, `count`, `total`, `low`, `high` (95 %) over its records; every set has a row."""
    rows = []
    for (size, method, seed), part in _by(origins, "size", "method", "seed"):
        who, counts = {"size": size, "method": method, "seed": seed}, part["set"].value_counts()
        rows += [{**who, "set": name, **rate_of(int(counts[name]), len(part))} for name in SETS]
    return pd.DataFrame(rows)


def across_seeds(origins: pd.DataFrame) -> pd.DataFrame:
    """Per size, method and set, over all seeds: mean `rate` and `count` of `total` records, `seeds`, and `low`, `high`.

    The 95 % interval is a two-level bootstrap: seeds are drawn, then records, the same ones for every seed drawn. With one
    seed it covers other records only, not other seeds. Of an empty set every resample is empty, so there (and for a set that
    holds every record) it is Wilson's.
    """
    rows = []
    for (size, method), part in _by(origins, "size", "method"):
        wide = part.pivot(index="seed", columns="id", values="set")
        for name in SETS:
            inside = (wide == name).to_numpy()
            same = inside.all() or not inside.any()
            found = rate(inside[0]) if same else bootstrap(inside)
            seeds, total = inside.shape
            row = {"size": size, "method": method, "set": name, "seeds": seeds, "rate": inside.mean()}
            rows.append(
                {**row, "count": inside.sum() / seeds, "total": total, "low": found["low"], "high": found["high"]}
            )
    return pd.DataFrame(rows)


def compare(origins: pd.DataFrame, other: str = "baseline") -> pd.DataFrame:
    """Does a student recite fewer records than its baseline, or than the teacher, on the same records?

    Args:
        other: "baseline" or "teacher".

    Returns:
        pd.DataFrame: Per size and method: mean rates `student` and `other`; `difference` (student minus other) with `low`, `high`,
        and `ratio` (student over other) with `ratio_low`, `ratio_high`: 95 % paired bootstrap over seeds and records, NaN for a
        ratio that can divide by zero; exact McNemar p-values, one per seed, as `p_lowest` and `p_highest`; `seeds`, `total`.
    """
    rows = []
    for (size, method), part in _by(origins, "size", "method"):
        student, held = (part.pivot(index="seed", columns="id", values=c).to_numpy(bool) for c in ("student", other))
        paired = bootstrap(student.astype(float) - held)
        p = [compare_verdicts(a, b)["p"] for a, b in zip(student, held, strict=True)]
        rows.append(
            {
                **{"size": size, "method": method, "student": student.mean(), "other": held.mean()},
                **{"difference": paired["mean"], "low": paired["low"], "high": paired["high"]},
                **ratio(student, held),
                **{"p_lowest": min(p), "p_highest": max(p), "seeds": len(student), "total": student.shape[1]},
            }
        )
    return pd.DataFrame(rows)


def ratio(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """`ratio` of two rates over the same records, booleans `[seeds, records]`, with `ratio_low`, `ratio_high`.

    95 % paired bootstrap; NaN where a resample (or the sample) would divide by zero. Where `first` is empty, so that every
    resample is, `ratio_high` is Wilson's upper bound of no record, over the second rate.
    """
    mine, theirs = (bootstrap_means(x) for x in (first, second))  # the same draws for both
    low, high = np.quantile(mine / theirs, [0.025, 0.975]) if theirs.all() else (np.nan, np.nan)
    value = np.mean(first) / np.mean(second) if np.any(second) else np.nan
    if not np.any(first):
        high = rate_of(0, np.shape(first)[-1])["high"] / np.mean(second) if theirs.all() else np.nan
    return {"ratio": float(value), "ratio_low": float(low), "ratio_high": float(high)}


def transferred(known: pd.DataFrame) -> dict[str, float]:
    """What a model knows of the canaries that only the teacher was fine-tuned on.

    A model that never met them has learned no more about a canary than about any of its unseen twins, so it gains more on the
    canary half of the time; anything above came through the teacher.

    Args:
        known: one row per planted secret: `kind` ("canary" or "twin"), `form` (secrets compared with each other), `gain`
            (log-probability over that before fine-tuning, nats: what the model started with drops out), `recited`.

    Returns:
        dict[str, float]: `canaries`, `twins`, how many canaries are `recited`; `auc` (share of canary-twin pairs in which more is
        gained on the canary) with `low`, `high` (95 %: DeLong's error with Student's t, as canaries are few), and `p`, the
        one-sided Mann-Whitney probability of such ranks under a model that learned nothing (exact up to `EXACT` of the fewer
        kind). NaN with fewer than two canaries.
    """
    canary = known["kind"] == "canary"
    median = known[~canary].groupby("form")["gain"].median()  # makes forms comparable
    gain = known["gain"] - known["form"].map(median)
    first, second = gain[canary].to_numpy(), gain[~canary].to_numpy()
    row = {"canaries": len(first), "twins": len(second), "recited": int(known["recited"][canary].sum())}
    if min(len(first), len(second)) < 2:
        return row | dict.fromkeys(("auc", "low", "high", "p"), np.nan)
    found = auc(first, second, few=True)
    how = "exact" if min(len(first), len(second)) <= EXACT else "asymptotic"
    p = mannwhitneyu(first, second, alternative="greater", method=how).pvalue
    return row | {"auc": found["rate"], "low": found["low"], "high": found["high"], "p": p}


def _by(frame: pd.DataFrame, *columns: str):
    return frame.groupby(list(columns), sort=False, observed=True)
