"""What Borkar et al. (arXiv 2601.15394) claim of memorization in distillation, held against a study's own numbers."""

import numpy as np
import pandas as pd

from palimpsest.chapters.figures import LABELS, between, spread_out
from palimpsest.measure.lineage import ratio
from palimpsest.measure.statistics import rate_of

SOFT = ("fkl", "word_kd")  # their soft targets are the teacher's distribution on reference text, forward KL
HARD = "seq_kd"
CLAIMS = {  # the claim, their number as they write it and as a number, the value that would speak against it, and the claim's side
    "ratio": ("a student recites less than half of what its baseline recites", "0.23 to 0.48", 0.48, 1.0, -1),
    "easy": ("what a student recites, teacher and baseline recite too", "96 %", 0.96, 0.5, +1),
    "soft": ("soft targets pass on little of what only the teacher knows", "18 of 1,955", 18 / 1955, 0.5, -1),
    "hard": ("hard targets pass on little of it, too", "50 of 1,955", 50 / 1955, 0.5, -1),
    "hard over soft": ("hard targets pass on more than soft ones", "2.7 times", 2.7, 1.0, +1),
    "foretold": ("what a student will memorize is known before it is distilled (AUC)", "0.9997", 0.9997, 0.5, +1),
    "avoided": ("leaving out the records predicted avoids nearly all of it", "99.8 %", 0.998, 0.5, +1),
}


def published_claims(members: pd.DataFrame, paired: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per claim, size and method: their number beside ours, and which way it came out.

    "1,955" is read as the records that the teacher memorized and the baseline did not.

    Args:
        members: as `lineage.origins` gives.
        paired, predictions: the tables of those names.

    Returns:
        pd.DataFrame: `claim`, `theirs`, `size`, `method`, `ours`, `low`, `high` (95 %), `outcome`: "agrees" (the interval reaches
        their number or lies beyond it), "weaker" (on the claim's side, but short of their number), "disagrees" (on the other
        side), "undecided" (both sides possible) or "not measurable" (too few records). No rows without a distilled student.
    """
    rows, passed = [], {}
    for (size, method), part in members.groupby(["size", "method"], sort=False):
        teacher, student, baseline = (
            part.pivot(index="seed", columns="id", values=role).to_numpy(bool)
            for role in ("teacher", "student", "baseline")
        )
        own, mine = teacher & ~baseline, (paired["size"] == size) & (paired["method"] == method)
        found = paired[mine & (paired["against"] == "baseline")].iloc[0]
        rows.append(("ratio", size, method, *found[["ratio", "ratio_low", "ratio_high"]]))
        rows.append(("easy", size, method, *_share(student & teacher & baseline, student)))
        if method in (*SOFT, HARD):
            passed[size, method] = own & student
            rows.append(("hard" if method == HARD else "soft", size, method, *_share(own & student, own)))
        known = predictions[(predictions["size"] == size) & (predictions["method"] == method)]
        known = known[known["note"] == ""]
        for claim, columns in (("foretold", ["auc", "auc_low", "auc_high"]), ("avoided", ["rate", "low", "high"])):
            # The mean over seeds, the widest of their intervals.
            ours, low, high = (known[column] for column in columns)
            rows.append((claim, size, method, ours.mean(), low.min(), high.max()))
    for size in members["size"].unique():
        soft = next((method for method in SOFT if (size, method) in passed), None)
        if soft and (size, HARD) in passed:
            found = ratio(passed[size, HARD], passed[size, soft])
            rows.append(("hard over soft", size, f"{HARD} / {soft}", *found.values()))
    rows.sort(key=lambda row: list(CLAIMS).index(row[0]))
    return pd.DataFrame([_row(*row) for row in rows])


def _share(part: np.ndarray, whole: np.ndarray) -> tuple[float, float, float]:
    """Share of `whole` that is in `part`, booleans `[seeds, records]`, with a Wilson interval for the mean seed's counts.

    Several seeds narrow nothing here: they look at the same records, so the interval is that of a single one.
    """
    found = rate_of(round(part.sum() / len(part)), round(whole.sum() / len(whole)))
    return part.sum() / whole.sum() if whole.any() else np.nan, found["low"], found["high"]


def _row(name: str, size: str, method: str, ours: float, low: float, high: float) -> dict:
    claim, theirs, number, against, side = CLAIMS[name]
    where = {"claim": claim, "theirs": theirs, "size": size, "method": method}
    return {**where, "ours": ours, "low": low, "high": high, "outcome": outcome(low, high, number, against, side)}


def outcome(low: float, high: float, number: float, against: float, side: int) -> str:
    """Which way an interval speaks; see `published_claims`."""
    if np.isnan(low) or np.isnan(high):
        return "not measurable"
    if side < 0:
        low, high, number, against = -high, -low, -number, -against
    if high < against:
        return "disagrees"
    if low <= against:
        return "undecided"
    return "agrees" if high >= number else "weaker"


def show_published_claims(claims: pd.DataFrame) -> pd.DataFrame | None:
    """What can be said of the claims: their number, ours per size, and the outcome; None of nothing."""
    known = claims[claims["outcome"] != "not measurable"]
    if known.empty:
        return None
    text = [f"{between(*ours)} {outcome}" for *ours, outcome in known[["ours", "low", "high", "outcome"]].to_numpy()]
    labels = [" / ".join(LABELS[m] for m in method.split(" / ")) for method in known["method"]]
    shown = known.assign(method=labels, claim=known["claim"] + ": theirs " + known["theirs"])
    return spread_out(shown, text, ["claim", "method"], "size", "not measurable")


def say_published_claims(claims: pd.DataFrame) -> list[str]:
    """How many checks, over claims, sizes and methods, came out which way."""
    if claims.empty:
        return ["- Without a distilled student there is nothing to hold against them."]
    counts = claims["outcome"].value_counts()
    agree, weaker, against = (counts.get(name, 0) for name in ("agrees", "weaker", "disagrees"))
    return [
        f"- Of {len(claims)} checks of published claims, {agree} agree, {weaker} are weaker, {against} disagree. The others cannot be "
        "decided here."
    ]
