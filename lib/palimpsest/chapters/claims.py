"""What the rows of `claims` say, in words: no other page says *less* or *more* of two methods.

A claim is decided by the replicates (`measure.comparison.compare_methods`); here it is only read out. README's list of claims is made here,
too (`say_headline`), and a test holds it to the published table.
"""

import pandas as pd

from palimpsest.chapters.figures import LABELS
from palimpsest.measure.comparison import ENOUGH_REPLICATES

# Measure -> what a table calls it, the form of a difference in it, and what the student of a method does with less or more of it.
PHRASES = {
    "recited_repeated": ("repeated text recited", "{:+.0f} points", "recites {} repeated text"),
    "recited_unrepeated": ("unrepeated text recited", "{:+.0f} points", "recites {} text that stands once"),
    "auc": ("AUC of the loss attack", "{:+.2f}", "tells {} of who was in the data"),
    "exposure": ("exposure, bits", "{:+.1f} bits", "knows {} of planted secrets"),
    "transferred_auc": ("transferred AUC", "{:+.2f}", "tells {} of records only its teacher read"),
    "transferred_exposure": (
        "transferred exposure, bits",
        "{:+.1f} bits",
        "knows {} of secrets only its teacher read",
    ),
}
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
OF_PAPER = {"more": "contradicts", "undecided": "undecided", "less": "agrees"}
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
    rows = claims.assign(moment=["end" if quality == "none" else "equal" for quality in claims["quality"]])
    out = []
    for key, part in rows.groupby(by, sort=False):
        known = part if part["estimate"].isna().all() else part.dropna(subset="estimate")
        closest = known.loc[known["estimate"].abs().sort_values().index[0]]
        because = _in_short(part["because"]) if closest["verdict"] == "undecided" else ""
        out.append({**dict(zip(by, key, strict=True)), **closest[kept], "because": because})
    return pd.DataFrame(out, columns=[*by, *kept, "because"])


def _in_short(reasons: pd.Series) -> str:
    for start, short in REASONS.items():
        if reasons.str.startswith(start).any():
            return short
    return reasons.iloc[0]


def amount(measure: str, value: float, unit: bool = True) -> str:
    """A difference in a measure as text: shares in percentage points, exposure in bits."""
    form = PHRASES[measure][1]
    return (form if unit else form.split()[0]).format(100 * value if "points" in form else value)


def name_of(methods: str) -> str:
    """A side of a claim in words."""
    if methods == "sft":
        return "plain fine-tuning"
    return " and ".join(f"*{LABELS[method]}*" for method in methods.split("+"))


def say_decided(found: pd.DataFrame) -> list[str]:
    """A sentence for every decided comparison of `outcomes`, its sizes together."""
    lines, by = [], ["first", "second", "measure", "moment", "verdict"]
    decided = found[found["verdict"] != "undecided"]
    for (first, second, measure, moment, verdict), part in decided.groupby(by, sort=False):
        does = PHRASES[measure][2].format(verdict)
        each = zip(part["size"], part["estimate"], strict=True)
        sizes = ", ".join(f"{size} {amount(measure, value)}" for size, value in each)
        lines.append(
            f"- {MOMENTS[moment].capitalize()}, {name_of(first)} {does} than {name_of(second)}. By size: {sizes}."
        )
    return lines


def say_undecided(found: pd.DataFrame) -> list[str]:
    """How many comparisons of `outcomes` are undecided, and why, the most frequent reason first."""
    open_ = found[found["verdict"] == "undecided"]
    if open_.empty:
        return []
    reasons = "; ".join(f"{reason} ({count})" for reason, count in open_["because"].value_counts().head(3).items())
    return [f"- We cannot tell in {len(open_)} of {len(found)} comparisons: {reasons}."]


def paper_findings(claims: pd.DataFrame) -> pd.DataFrame:
    """The `outcomes` of what the paper compares, by what is recited, with its `outcome`: contradictions first, then what is
    undecided, then what agrees."""
    found = outcomes(claims[claims["measure"].isin(["recited_repeated", "recited_unrepeated"])])
    asked = [pair in PAPER for pair in zip(found["first"], found["second"], strict=True)]
    found = found[pd.Series(asked, index=found.index, dtype=bool)].drop_duplicates(
        ["first", "second", "size", "measure", "moment"]
    )
    found = found.assign(outcome=found["verdict"].map(OF_PAPER))
    return found.sort_values("outcome", key=lambda column: column.map(list(OF_PAPER.values()).index), kind="stable")


def say_paper(claims: pd.DataFrame) -> list[str]:
    """How the paper's findings fare: what contradicts them, what agrees, and of how many we cannot tell."""
    found = paper_findings(claims)
    if found.empty:
        return ["There are none of the comparisons that the paper makes."]
    lines = []
    for outcome, title in (("contradicts", "Contradicts the paper"), ("agrees", "Agrees with it")):
        told = say_decided(found[found["outcome"] == outcome])
        lines += [f"**{title}**", "", *(told or ["- Nothing that is decided."]), ""]
    equal = found[found["moment"] == "equal"]
    decided = (equal["verdict"] != "undecided").sum()
    so_far = (
        "At the end, methods also differ in how good they became, and a student that learned little recites little. At equal quality, "
        f"{decided or 'none'} of these comparisons {'is' if decided < 2 else 'are'} decided."
    )
    return [*lines, so_far, "", "**Undecided**", "", *(say_undecided(found) or ["- Nothing."])]


def say_headline(claims: pd.DataFrame) -> list[str]:
    """The claims that README and front page make: the paper's comparisons, and what a student knows that it was never given.

    Nothing else may be claimed there; without a decided row, nothing is.
    """
    found = outcomes(claims)
    if found.empty or found["replicates"].max() < ENOUGH_REPLICATES:
        return [NONE_YET]
    if (found["verdict"] == "undecided").all():
        return [f"No claim about methods is made: of {len(found)} comparisons none is decided."]
    never = found[
        (found["measure"] == "transferred_exposure")
        & (found["second"] == "sft")
        & found["family"].str.startswith("transferred")
    ]
    lines = [*say_paper(claims), "", "**What a student was never given**", ""]
    return [*lines, *(say_decided(never) or ["- Nothing that is decided."]), *say_undecided(never)]
