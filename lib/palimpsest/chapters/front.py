"""Page 00, the answer, read from `tables.rates` and `tables.equal_quality`: nothing is computed here but differences of rates."""

import pandas as pd

from palimpsest.chapters.figures import LABELS, rate_text
from palimpsest.chapters.memorization import arm_rates
from palimpsest.measure.statistics import newcombe
from palimpsest.study import METHODS, Study

NO_STUDENT = "This study distils no student, so there is nothing to compare plain fine-tuning with."


def against_baseline(rates: pd.DataFrame, target: str) -> pd.DataFrame:
    """Every size and method against `sft` of that size: `size, method, difference, low, high` (Newcombe), `verdict`."""
    out = []
    for size, rows in arm_rates(rates, target).groupby("size", sort=False):
        base = rows[rows["method"] == "sft"].iloc[0]
        for _, row in rows[rows["method"] != "sft"].iterrows():
            low, high = newcombe(row["count"], row["total"], base["count"], base["total"])
            verdict = "less" if high < 0 else "more" if low > 0 else "undecided"
            out.append((size, row["method"], row["rate"] - base["rate"], low, high, verdict))
    return pd.DataFrame(out, columns=["size", "method", "difference", "low", "high", "verdict"])


def show_comparison(rates: pd.DataFrame, target: str) -> pd.DataFrame:
    """The rows of `against_baseline` as text, differences in percentage points."""
    found = against_baseline(rates, target)
    shown = {"recites": found["verdict"].array, "difference, points": [_points(row) for _, row in found.iterrows()]}
    return pd.DataFrame(shown, index=pd.Index([_student(row) for _, row in found.iterrows()], name="student"))


def say_comparison(rates: pd.DataFrame, target: str) -> str:
    """How many distilled students recite less or more than plain fine-tuning of their size, and the largest difference."""
    found = against_baseline(rates, target)
    if found.empty:
        return NO_STUDENT
    less, more, open_ = ((found["verdict"] == verdict).sum() for verdict in ("less", "more", "undecided"))
    largest = found.loc[found["difference"].abs().idxmax()]
    return (
        f"At the end of training, {less} of {len(found)} distilled students recite less than the fine-tuned one of their size, "
        f"{more} more. For {open_} we cannot tell. The largest difference is that of {_student(largest)}: {_points(largest)} points."
    )


def say_answer(rates: pd.DataFrame, equal_quality: pd.DataFrame, target: str, unit: str) -> list[str]:
    """The book's answer: at the end of training, against plain fine-tuning, and at equal quality."""
    first = []
    for size, rows in arm_rates(rates, target).groupby("size", sort=False):
        base, others = rows[rows["method"] == "sft"].iloc[0], rows.loc[rows["method"] != "sft", "rate"]
        line = f"Fine-tuned, the {size} student recites {rate_text(base)} of the members' {base['total']:.0f} {unit}"
        spread = f"; distilled, {100 * others.min():.0f} % to {100 * others.max():.0f} % by method"
        first.append(line + (spread if len(others) else "") + ".")
    lines = [f"1. {' '.join(first)} (In brackets: 95 % intervals.)", f"2. {say_comparison(rates, target)}"]
    if total := len(equal_quality):
        less, more = (equal_quality["high"] < 0).sum(), (equal_quality["low"] > 0).sum()
        lines.append(
            f"3. At equal quality, {less} of {total} students recite less than plain fine-tuning, {more} more. For "
            f"{total - less - more} we cannot tell. Equal quality: both are stopped at the lowest held-out loss that both reach."
        )
    return lines


def say_study(study: Study, splits: dict[str, int]) -> str:
    """What was run: data, models, methods, seeds; and, for invented data, that it is invented.

    Args:
        splits: records of each split, as the data stage counted them.
    """
    records = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in splits.items())
    nature = "**The data is invented**; nobody's secrets are in it. " if study.synthetic else ""
    return (
        f"*{study.title}* (study `{study.name}`). {nature}Records: {records}. Student sizes: {', '.join(study.models.students)}. "
        f"Methods: {'; '.join(METHODS[m].label for m in study.methods)}. Seeds: {', '.join(map(str, study.seeds))}; "
        f"{len(study.arms())} students in all."
    )


def _points(row: pd.Series) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * row[["difference", "low", "high"]].to_numpy(float)))


def _student(row: pd.Series) -> str:
    return f"{row['size']}, {LABELS[row['method']]}"
