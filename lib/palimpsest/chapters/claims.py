"""What Borkar et al. (arXiv 2601.15394) claim of memorization in distillation, held against a study's own numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from palimpsest.errors import InputError
from palimpsest.measure.lineage import ratio
from palimpsest.measure.prediction import Prediction, savings
from palimpsest.measure.statistics import rate_of

SOFT = ("fkl", "word_kd")  # their soft targets are the teacher's distribution on reference text, forward KL
HARD = "seq_kd"
CLAIMS = {  # claim -> (their number, the value that would speak against it, which side of it the claim is on)
    "a student recites less than half of what its baseline recites": ("0.23 to 0.48", 0.48, 1.0, -1),
    "what a student recites, teacher and baseline recite too": ("96 %", 0.96, 0.5, +1),
    "soft targets pass on little of what only the teacher knows": ("18 of 1,955", 18 / 1955, 0.5, -1),
    "hard targets pass on little of it, too": ("50 of 1,955", 50 / 1955, 0.5, -1),
    "hard targets pass on more than soft ones": ("2.7 times", 2.7, 1.0, +1),
    "what a student will memorize is known before it is distilled (AUC)": ("0.9997", 0.9997, 0.5, +1),
    "leaving out the records predicted avoids nearly all of it": ("99.8 %", 0.998, 0.5, +1),
}


def check(sorted_records: pd.DataFrame, forecasts: Mapping[tuple, Prediction]) -> pd.DataFrame:
    """One row per claim, size and method: their number beside ours, and which way it came out.

    "1,955" is read as the records that the teacher memorized and the baseline did not.

    Args:
        sorted_records: as `lineage.origins` gives.
        forecasts: (size, method, seed) -> `Prediction` of that arm.

    Returns:
        `claim`, `theirs`, `size`, `method`, `ours`, `low`, `high` (95 %), `outcome`: "agrees" (the interval reaches their
        number or lies beyond it), "weaker" (on the claim's side, but short of their number), "disagrees" (on the other side),
        "undecided" (both sides possible) or "not measurable" (too few records).
    """
    rows = []
    methods = list(dict.fromkeys(sorted_records["method"]))
    soft = next((m for m in SOFT if m in methods), None)
    names = list(CLAIMS)
    for size, part in sorted_records.groupby("size", sort=False):
        of = {m: _wide(arms) for m, arms in part.groupby("method", sort=False)}
        for method, sets in of.items():
            found = ratio(sets["student"], sets["baseline"])
            rows.append(_row(names[0], size, method, found["ratio"], found["ratio_low"], found["ratio_high"]))
            easy = sets["student"] & sets["teacher"] & sets["baseline"]
            rows.append(_row(names[1], size, method, **share(easy, sets["student"])))
            if method in (*SOFT, HARD):
                own = sets["teacher"] & ~sets["baseline"]
                rows.append(_row(names[2 + (method == HARD)], size, method, **share(own & sets["student"], own)))
        if soft and HARD in of:
            passed = [s["teacher"] & s["student"] & ~s["baseline"] for s in (of[HARD], of[soft])]
            found = ratio(*passed)
            pair = f"{HARD} / {soft}"
            rows.append(_row(names[4], size, pair, found["ratio"], found["ratio_low"], found["ratio_high"]))
        for method in of:
            mine = [f for (s, m, _), f in forecasts.items() if (s, m) == (size, method)]
            rows.append(_row(names[5], size, method, **_over_seeds([f.auc for f in mine if not f.note])))
            saved = [savings(f.table, ()).iloc[0].to_dict() for f in mine if not f.note]
            rows.append(_row(names[6], size, method, **_over_seeds(saved)))
    order = {name: i for i, name in enumerate(names)}
    return pd.DataFrame(rows).sort_values("claim", key=lambda c: c.map(order), kind="stable", ignore_index=True)


def share(part: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """Share of `whole` that is in `part`, booleans `[seeds, records]`, with a Wilson interval for the mean seed's counts.

    Several seeds narrow nothing here: they look at the same records, so the interval is that of a single one.
    """
    if part.shape != whole.shape:
        raise InputError(f"shapes {part.shape} and {whole.shape}: wanted the same seeds and records")
    found = rate_of(round(part.sum() / len(part)), round(whole.sum() / len(whole)))
    value = part.sum() / whole.sum() if whole.any() else np.nan
    return {"ours": value, "low": found["low"], "high": found["high"]}


def _wide(part: pd.DataFrame) -> dict[str, np.ndarray]:
    roles = ("teacher", "student", "baseline")
    return {r: part.pivot(index="seed", columns="id", values=r).to_numpy(bool) for r in roles}


def _over_seeds(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over seeds with the widest of their intervals."""
    if not found:
        return dict.fromkeys(("ours", "low", "high"), np.nan)
    return {
        "ours": float(np.mean([f["rate"] for f in found])),
        "low": min(f["low"] for f in found),
        "high": max(f["high"] for f in found),
    }


def _row(claim: str, size: str, method: str, ours: float, low: float, high: float) -> dict:
    theirs, number, against, side = CLAIMS[claim]
    where = {"claim": claim, "theirs": theirs, "size": size, "method": method}
    return {**where, "ours": ours, "low": low, "high": high, "outcome": outcome(low, high, number, against, side)}


def outcome(low: float, high: float, number: float, against: float, side: int) -> str:
    """Which way an interval speaks; see `check`."""
    if np.isnan(low) or np.isnan(high):
        return "not measurable"
    if side < 0:
        low, high, number, against = -high, -low, -number, -against
    if high < against:
        return "disagrees"
    if low <= against:
        return "undecided"
    return "agrees" if high >= number else "weaker"
