"""Chapter 09, what a real language model is held against: what the small models foretold, the paper's numbers, natural text.

`small` and `real` are tables of claims (`comparisons.tables`) of models trained from scratch in five replicates, and of the real one.
"""

import numpy as np
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.claims import MOMENTS, PHRASES, counted, outcomes, with_interval
from palimpsest.chapters.figures import LABELS, methods_at, rate_text
from palimpsest.chapters.memorization import PAPER, arm_rates
from palimpsest.measure.comparison import ENOUGH_REPLICATES
from palimpsest.measure.statistics import over_seeds

DIRECTIONS = ("agrees", "opposite", "cannot tell")
# What the front page's answers rest on, each against `sft`: a measure and moment.
FRONT = [("recited_repeated", "equal"), ("recited_repeated", "end"), ("transferred_exposure", "equal")]
KEY = ["first", "second", "measure", "moment"]


def direction(claims: pd.DataFrame) -> pd.DataFrame:
    """Which way each comparison of a study points: a row per `claim, first, second, measure, moment` and `size`, with `estimate`, `low`,
    `high`, `replicates` and `points`: less, more, or nothing.

    It points somewhere if, under every meaning of quality asked for, the interval over replicates excludes zero on the same side and the
    estimate exceeds what a method differs from itself. That is less than a verdict, which takes five replicates and corrected p-values.
    """
    apart, by = claims["estimate"].abs() > claims["null_largest"], ["family", "claim", "size", *KEY]
    ways = np.select([apart & (claims["low"] > 0), apart & (claims["high"] < 0)], ["more", "less"], "nothing")
    rows = claims.assign(points=ways, moment=np.where(claims["quality"] == "none", "end", "equal"))
    points = rows.groupby(by)["points"].agg(lambda all_: all_.iloc[0] if all_.nunique() == 1 else "nothing")
    found = outcomes(claims).drop(columns=["verdict", "because", "null_largest", "p_holm"])
    return found.merge(points.reset_index(), on=by).drop_duplicates([*KEY, "size"])


def foretold(small: pd.DataFrame, real: pd.DataFrame) -> pd.DataFrame:
    """Every comparison that the small models decided, in one size at least and in none the other way, beside the real model's.

    Returns:
        `claim`, `first`, `second`, `measure`, `moment`; `verdict` of the small models, `decided` of `sizes` there; of the real model
        the `size` with most replicates, `replicates`, `estimate`, `low`, `high`; and `outcome`, one of `DIRECTIONS`, or "not asked".
    """
    found, there = outcomes(small).drop_duplicates([*KEY, "size"]), direction(real)
    found["verdict"] = found["verdict"].where(found["verdict"] != "undecided")
    rows = found.groupby(KEY, sort=False).agg(
        claim=("claim", "first"),
        verdict=("verdict", "first"),
        verdicts=("verdict", "nunique"),
        decided=("verdict", "count"),
        sizes=("size", "size"),
    )
    there = there[there["estimate"].notna()].sort_values("replicates", ascending=False, kind="stable")
    there, ours = there.drop_duplicates(KEY), ["size", "replicates", "estimate", "low", "high"]
    rows = rows[rows["verdicts"] == 1].reset_index().merge(there[[*KEY, *ours, "points"]], on=KEY, how="left")
    ways = [rows["points"].isna(), rows["points"] == rows["verdict"], rows["points"] == "nothing"]
    rows["outcome"] = np.select(ways, ["not asked", "agrees", "cannot tell"], "opposite")
    return rows[["claim", *KEY, "verdict", "decided", "sizes", *ours, "outcome"]]


def of_front_page(found: pd.DataFrame) -> pd.DataFrame:
    """Of `foretold`, what the front page rests on and the real model was asked."""
    spoken = pd.MultiIndex.from_frame(found[["measure", "moment"]]).isin(FRONT)
    return found[spoken & (found["second"] == "sft") & (found["outcome"] != "not asked")]


def show_foretold(small: pd.DataFrame, real: pd.DataFrame) -> pd.DataFrame | None:
    """What the front page says of small models beside the real one; None where there is nothing to hold it against."""
    rows = of_front_page(foretold(small, real))
    if rows.empty:
        return None
    shown = {"method": [f"{LABELS[m]}" for m in rows["first"]]}
    shown["of"] = [f"{PHRASES[row.measure][0]}, {MOMENTS[row.moment]}" for row in rows.itertuples()]
    shown["small models"] = [f"{row.verdict} in {row.decided} of {row.sizes}" for row in rows.itertuples()]
    shown["real model"] = [with_interval(row) for row in rows.itertuples()]
    shown["replicates"] = rows["replicates"].map("{:.0f}".format)
    return pd.DataFrame({**shown, "so it": rows["outcome"]}).set_index(["method", "of"])


def say_foretold(small: pd.DataFrame, real: pd.DataFrame) -> list[str]:
    """How many of the small models' decided comparisons the real model was asked, and how these came out; of the front page apart."""
    found = foretold(small, real)
    asked = found[found["outcome"] != "not asked"]
    if asked.empty:
        return [f"The small models decided {len(found)} comparisons; the real model was asked none of them."]
    some = of_front_page(found)
    lines = [f"Of these {len(some)} comparisons: {counted(some['outcome'], DIRECTIONS)}."] if len(some) else []
    alone, moments = (asked["replicates"] < 2).sum(), asked["moment"].unique()
    how = (f", all {MOMENTS[moments[0]]}" if len(moments) == 1 else "") + (
        f", {alone} in one replicate" if alone else ""
    )
    lines.append(
        f"Of all {len(found)} comparisons that the small models decide, the real model was asked {len(asked)}{how}: "
        f"{counted(asked['outcome'], DIRECTIONS)}."
    )
    few = asked["replicates"].max()
    if few < ENOUGH_REPLICATES:
        lines.append(
            f"Fewer than {ENOUGH_REPLICATES} replicates show a *direction* alone, and decide nothing; here are {few:.0f} at most."
        )
    return lines


# ---------------------------------------------------------------- the paper


def show_beside_paper(natural: pd.DataFrame, letters: pd.DataFrame) -> pd.DataFrame | None:
    """The paper's Table 1 beside the same methods here, the first window from the prompt, of text that stands once: a row per method;
    None where neither study is there."""
    here = {name: rates for name, rates in (("Dolly, here", natural), ("letters, here", letters)) if len(rates)}
    if not here:
        return None
    ours = {name: _windows(rates) for name, rates in here.items()}
    methods = dict.fromkeys([*PAPER.index, *(m for found in ours.values() for m in found if m != "teacher")])
    theirs = PAPER.iloc[:, 1:].reindex([*methods, "teacher"])
    shown = theirs.map(lambda share: f"{100 * share:.1f} %" if pd.notna(share) else "")
    shown.loc["teacher", theirs.columns[0]] = f"{100 * PAPER.iloc[0, 0]:.1f} % (1.5B)"
    cells = {name: [found.get(method, "") for method in shown.index] for name, found in ours.items()}
    return shown.add_prefix("paper, ").assign(**cells).rename(index=LABELS).rename_axis("method")


def _windows(rates: pd.DataFrame) -> dict[str, str]:
    """The rates of the window, of members that stand once, as text: of the teacher, and of each method at the first size that has it,
    which is named where it is not the first."""
    asked = rates[(rates["target"] == "window") & (rates["split"] == "member") & (rates["role"] != "base")]
    asked = asked.assign(method=asked["method"].where(asked["role"] != "teacher", "teacher"))
    first = over_seeds(asked, ["size", "method"]).drop_duplicates("method")
    largest = next((size for size in first["size"] if size != "teacher"), "")
    return {
        row["method"]: rate_text(row) + ("" if row["size"] in ("teacher", largest) else f" {row['size']}")
        for _, row in first.iterrows()
    }


def say_beside_paper(natural: pd.DataFrame) -> list[str]:
    """How far the fine-tuned student here is from the paper's, on natural text, and why the two can't be set equal."""
    if natural.empty:
        return []
    rows = arm_rates(natural, "window")
    base, smallest = rows[rows["method"] == "sft"].iloc[0], 100 * PAPER.loc["sft"].iloc[-1]
    return [
        f"On Dolly the fine-tuned student recites {rate_text(base)} of {base['total']:.0f} members that stand once; the paper's smallest "
        f"{smallest:.1f} %. Its models and the number of its records are others, so the two are not the same question."
    ]


# ---------------------------------------------------------------- natural text


def show_next_window(rates: pd.DataFrame) -> pd.DataFrame | None:
    """Tokens 50 to 100 from the prompt and the first 50: a row per model, a column per group of records; None where none is asked."""
    rows = rates[(rates["target"] == "next_window") & (rates["total"] > 0)]
    if rows.empty:
        return None
    together = over_seeds(rows, ["label", "split"])
    heads = {"member": "members, once", "repeated": "members, repeated", "non_member": "non-members"}
    together = together.assign(split=together["split"].map(heads)).rename(columns={"label": "model"})
    return figures.rate_table(together, ["model"], "split")


def say_next_window(rates: pd.DataFrame) -> list[str]:
    """What the teacher recites so, and the least and most of a student, of repeated records and of those that stand once, with counts."""
    rows, lines = rates[(rates["target"] == "next_window") & (rates["total"] > 0)], []
    for split, name in (("repeated", "repeated members"), ("member", "members that stand once")):
        part = rows[rows["split"] == split]
        teacher, students = part[part["role"] == "teacher"], arm_rates(part, "next_window", split)
        if teacher.empty or students.empty:
            continue
        first = teacher.iloc[0]
        line = f"- Of {first['total']:.0f} {name}, the teacher recites the next 50 tokens in {rate_text(first)}"
        least, most = (students.loc[students["rate"].agg(end)] for end in ("idxmin", "idxmax"))
        told = " to ".join(f"{rate_text(row)} ({methods_at(students, row)})" for row in (least, most))
        told = told if least["rate"] < most["rate"] else f"{rate_text(least)} by every method"
        lines.append(f"{line}; students in {told}.")
    others = rows[rows["split"] == "non_member"].sort_values("rate")
    if lines and len(others):
        most = others.iloc[-1]
        lines.append(f"- Chance: of {most['total']:.0f} non-members no model recites more than {rate_text(most)}.")
    return lines or ["- No record has the hundred response tokens that this takes."]
