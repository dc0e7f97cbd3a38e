"""What the rows of `claims` say, in words: no other page says *less* or *more* of two methods.

A claim is decided by the replicates (`measure.comparison.compare_methods`); here it is only read out.
"""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from palimpsest.chapters.figures import LABELS

# Measure -> what a table calls it, and the form of a difference in it.
PHRASES = {
    "recited_repeated": ("repeated text recited", "{:+.0f} points"),
    "recited_unrepeated": ("unrepeated text recited", "{:+.0f} points"),
    "auc": ("AUC of the loss attack", "{:+.2f}"),
    "exposure": ("exposure, bits", "{:+.1f} bits"),
    "transferred_auc": ("transferred AUC", "{:+.2f}"),
    "transferred_exposure": ("transferred exposure, bits", "{:+.1f} bits"),
}
NOTHING = re.compile(r"^[+-](0(?:\.0+)?)(?![\d.])")  # a difference that rounds to none has no sign
MOMENTS = {"equal": "at equal quality", "end": "at the end"}
# arXiv 2506.16170 finds that the first memorize less than the second.
PAPER = [
    ("word_kd", "sft"),
    ("seq_kd", "sft"),
    ("rkl_student", "sft"),
    ("rkl_student_warm", "sft"),
    ("rkl_student", "word_kd"),
    ("rkl_student", "seq_kd"),
    ("rkl_student_warm", "word_kd"),
    ("rkl_student_warm", "seq_kd"),
]
OF_PAPER = {"more": "contradicted", "undecided": "undecided", "less": "confirmed"}
# How `because` begins, and the reason in short.
REASONS = {
    "the meanings of quality disagree": "not decided under every meaning of quality",
    "the curves share no range": "no range of quality that both reach",
    "p_holm": "not significant among its family's questions",
}
NONE_YET = "No claim about methods is made: there are no tables of five replicates to make one from."


def outcomes(claims: pd.DataFrame) -> pd.DataFrame:
    """The rows of `claims` with the meanings of quality together: one per comparison, size, measure and `moment` (equal, end).

    A `verdict` at equal quality is that of every meaning already; `estimate`, `low`, `high` are those of the meaning whose estimate lies
    closest to zero. `because` says in short why it is undecided.
    """
    by = ["family", "claim", "size", "first", "second", "measure", "moment"]
    kept = ["estimate", "low", "high", "null_largest", "p_holm", "replicates", "verdict"]
    starts, short = list(REASONS), [*REASONS.values(), None]
    rows = claims.assign(
        moment=np.where(claims["quality"] == "none", "end", "equal"),
        far=claims["estimate"].abs(),
        reason=[next((i for i, s in enumerate(starts) if b.startswith(s)), len(starts)) for b in claims["because"]],
    )
    same = rows.groupby(by, sort=False)
    rows = rows.assign(
        place=same.ngroup(), first_said=same["because"].transform("first"), reason=same["reason"].transform("min")
    )
    closest = rows.sort_values("far", kind="stable").drop_duplicates("place").sort_values("place")  # unknown ones last
    told = [short[i] or own for i, own in zip(closest["reason"], closest["first_said"], strict=True)]
    because = [text if v == "undecided" else "" for text, v in zip(told, closest["verdict"], strict=True)]
    return closest.assign(because=because).reset_index(drop=True)[[*by, *kept, "because"]]


def amount(measure: str, value: float, unit: bool = True) -> str:
    """A difference in a measure as text: shares in percentage points, exposure in bits."""
    form = PHRASES[measure][1]
    text = (form if unit else form.split()[0]).format(100 * value if "points" in form else value)
    return NOTHING.sub(r"\1", text)


def with_interval(row, unit: bool = True) -> str:
    """A row's difference and its interval as text. Shares and AUCs differ by 1 at most, whatever t says of few replicates."""
    value, most = amount(row.measure, row.estimate, unit), float("inf") if "bits" in PHRASES[row.measure][1] else 1
    low, high = (amount(row.measure, min(max(end, -most), most), unit=False) for end in (row.low, row.high))
    return f"{value} ({low} to {high})" if pd.notna(row.low) else value


def name_of(methods: str) -> str:
    """A side of a claim in words."""
    if methods == "sft":
        return "plain fine-tuning"
    return " and ".join(f"*{LABELS[method]}*" for method in methods.split("+"))


def say_undecided(found: pd.DataFrame) -> list[str]:
    """How many comparisons of `outcomes` are undecided, and why, the most frequent reason first."""
    open_ = found[found["verdict"] == "undecided"]
    if open_.empty:
        return []
    counts = open_["because"].value_counts().head(3)
    reasons = "; ".join(f"{reason} ({count})" if len(counts) > 1 else reason for reason, count in counts.items())
    if len(open_) == len(found):
        return [f"**None of {len(found)} comparisons is decided**: {reasons}."]
    return [f"We cannot tell in {len(open_)} of {len(found)} comparisons: {reasons}."]


def counted(values: pd.Series, names: Iterable[str]) -> str:
    """How often each of the names is among the values, as text: "less in 14, undecided in 2"."""
    counts = values.value_counts()
    return ", ".join(f"{name} in {counts[name]}" for name in names if name in counts) or "not asked"


def paper_findings(claims: pd.DataFrame) -> pd.DataFrame:
    """The `outcomes` of what the paper compares, by what is recited, with its `outcome`: contradictions first, then what is
    undecided, then what is confirmed."""
    found = outcomes(claims[claims["measure"].isin(["recited_repeated", "recited_unrepeated"])])
    found = found[pd.MultiIndex.from_frame(found[["first", "second"]]).isin(PAPER)]
    found = found.drop_duplicates(["first", "second", "size", "measure", "moment"])
    found = found.assign(outcome=found["verdict"].map(OF_PAPER))
    return found.sort_values("outcome", key=lambda column: column.map(list(OF_PAPER.values()).index), kind="stable")


def say_paper(claims: pd.DataFrame) -> list[str]:
    """How the paper's findings fare at equal quality and at the end of training, contradictions first, and of how many we cannot tell."""
    found = paper_findings(claims)
    if found.empty:
        return ["There are none of the comparisons that the paper makes."]
    if (found["outcome"] == "undecided").all():
        return say_undecided(found)
    parts = [(name, found[found["moment"] == moment]) for moment, name in MOMENTS.items()]
    told = [f"{name}: {counted(part['outcome'], OF_PAPER.values())}" for name, part in parts if len(part)]
    reading = "; ".join(told) + ("" if (found["outcome"] == "contradicted").any() else "; none is contradicted")
    caution = (
        "At the end methods also differ in how good they became, and a student that learned little recites little."
    )
    return [f"**{reading[0].upper()}{reading[1:]}.** {caution}", "", *say_undecided(found)]


def of_question(claims: pd.DataFrame, question: str) -> pd.DataFrame:
    """The `outcomes` of the question, or of those whose names begin so."""
    return outcomes(claims[claims["family"].str.startswith(question)])


def show_tally(claims: pd.DataFrame, *asked: str) -> pd.DataFrame | None:
    """How the comparisons of these questions came out: a row per question (where there are several) and measure of which any is decided; at
    equal quality, at the end, and the decided one furthest from no difference. None of none."""
    rows = []
    for question in asked:
        for measure, part in of_question(claims, question).groupby("measure", sort=False):
            decided = part[part["verdict"] != "undecided"]
            if decided.empty:
                continue
            row = {"question": question} if len(asked) > 1 else {}
            row["measure"] = PHRASES[measure][0]
            for moment, name in MOMENTS.items():
                row[name] = counted(part.loc[part["moment"] == moment, "verdict"], ("less", "more", "undecided"))
            far = decided.loc[decided["estimate"].abs().idxmax()]
            row["largest decided difference"] = f"{far['claim']}, {far['size']}: {amount(measure, far['estimate'])}"
            rows.append(row)
    if not rows:
        return None
    return pd.DataFrame(rows).set_index(["question", "measure"] if len(asked) > 1 else "measure")


def say_tally(claims: pd.DataFrame, *asked: str) -> list[str]:
    """The one reading of `show_tally`: how many comparisons are decided at equal quality and at the end, and why the others are not."""
    found = pd.concat([of_question(claims, question) for question in asked])
    if found.empty:
        return ["This study has no two methods that differ in this."]
    if (found["verdict"] == "undecided").all():
        return say_undecided(found)
    told = []
    for moment, name in MOMENTS.items():
        part = found[found["moment"] == moment]
        told.append(f"{(part['verdict'] != 'undecided').sum() or 'none'} of {len(part)} comparisons {name}")
    return [f"**Decided: {', '.join(told)}.**", "", *say_undecided(found)]


def show_paper(claims: pd.DataFrame) -> pd.DataFrame | None:
    """Which findings of the paper are decided here, contradictions first: a row per comparison of which some are, a column per moment with
    measure and sizes; None where none is."""
    found, rows = paper_findings(claims), {}
    decided = found[found["outcome"] != "undecided"]
    several = decided["measure"].nunique() > 1
    for name, part in decided.groupby("claim", sort=False):
        row = rows.setdefault(name, dict.fromkeys(MOMENTS.values(), "undecided"))
        for moment, said in part.groupby("moment"):
            row[MOMENTS[moment]] = "; ".join(
                f"{outcome}{f', {PHRASES[measure][0]}' * several} ({', '.join(some['size'])})"
                for (outcome, measure), some in said.groupby(["outcome", "measure"], sort=False)
            )
    if not rows:
        return None
    what = "" if several else f" {PHRASES[decided['measure'].iloc[0]][0]}"
    return pd.DataFrame(rows).T.rename_axis(f"the paper finds less{what} in")
