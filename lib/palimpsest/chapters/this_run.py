"""Page 00, what one run shows at the end of training, without a verdict on methods: one training of each decides nothing."""

import pandas as pd

from palimpsest.chapters.claims import name_of
from palimpsest.chapters.figures import LABELS, percents, rate_text
from palimpsest.chapters.front import NO_STUDENT
from palimpsest.chapters.memorization import arm_rates
from palimpsest.measure.statistics import newcombe
from palimpsest.study import METHODS, Study


def groups_of(rates: pd.DataFrame, unit: str) -> dict[str, str]:
    """The groups of members that are rated apart, and what they are called: those repeated in the training text first, if there are
    any, since what stands once may be recited by nobody."""
    if not (rates["split"] == "repeated").any():
        return {"member": unit}
    return {"repeated": f"{unit} that are repeated in the training text", "member": f"{unit} that stand there once"}


def against_baseline(rates: pd.DataFrame, target: str) -> pd.DataFrame:
    """Every size and method minus `sft` of that size, in this run: `size, method, difference, low, high` (Newcombe). Of repeated
    members, where the study has some.

    The interval holds other records, not another training: no verdict follows from it.
    """
    out, split = [], next(iter(groups_of(rates, "")))
    for size, rows in arm_rates(rates, target, split).groupby("size", sort=False):
        base = rows[rows["method"] == "sft"].iloc[0]
        for _, row in rows[rows["method"] != "sft"].iterrows():
            low, high = newcombe(row["count"], row["total"], base["count"], base["total"])
            out.append((size, row["method"], row["rate"] - base["rate"], low, high))
    return pd.DataFrame(out, columns=["size", "method", "difference", "low", "high"])


def say_comparison(rates: pd.DataFrame, target: str) -> str:
    """The largest difference from plain fine-tuning in this run, with its interval and without a verdict."""
    found = against_baseline(rates, target)
    if found.empty:
        return NO_STUDENT
    row = found.loc[found["difference"].abs().idxmax()]
    points = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * row[["difference", "low", "high"]].to_numpy(float)))
    return (
        f"The largest difference from {name_of('sft')} of the same size is that of the {row['size']} student of "
        f"*{LABELS[row['method']]}*: {points} points."
    )


def say_run(rates: pd.DataFrame, target: str, unit: str) -> list[str]:
    """What this run shows at the end of training: each size fine-tuned, and the spread over methods of distillation."""
    lines = []
    for split, called in groups_of(rates, unit).items():
        for size, rows in arm_rates(rates, target, split).groupby("size", sort=False):
            base, others = rows[rows["method"] == "sft"].iloc[0], rows.loc[rows["method"] != "sft", "rate"]
            line = f"- Fine-tuned, the {size} student recites {rate_text(base)} of the members' {base['total']:.0f} {called}"
            spread = f"; distilled, {percents(others)}"
            lines.append(line + (spread if len(others) else "") + ".")
    return [*lines, f"- {say_comparison(rates, target)}"]


def say_study(study: Study, splits: dict[str, int]) -> list[str]:
    """What was run: data, models, methods, replicates, seeds; and, for invented data, that it is invented.

    Args:
        splits: records of each split, as the data stage counted them.
    """
    records = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in splits.items())
    nature = " **The data is invented**; nobody's secrets are in it." if study.synthetic else ""
    some = [f"{METHODS[m].label} ({size} alone)" for size, more in study.methods_by_size.items() for m in more]
    return [
        f"*{study.title}* (study `{study.name}`).{nature}",
        "",
        f"- Records: {records}.",
        f"- Student sizes: {', '.join(study.models.students)}. Methods: {'; '.join([*(METHODS[m].label for m in study.methods), *some])}.",
        f"- Replicates: {study.replicates}. Seeds: {', '.join(map(str, study.seeds))}; {len(study.arms())} students in each replicate.",
    ]
