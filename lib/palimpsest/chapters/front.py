"""Page 00, the answer in plain words, from the tables of the replicates (`claims`, `trajectories`, `by_dose`).

No sentence here says less or more of two methods unless a row of `claims` decides it. README's top is written by the same functions.
"""

import matplotlib.pyplot as plt
import pandas as pd

from palimpsest.chapters import repetition, tradeoffs
from palimpsest.chapters.claims import NONE_YET, amount, name_of, outcomes
from palimpsest.chapters.figures import least_to_most, rate_text
from palimpsest.data.markup import markdown_table
from palimpsest.measure.comparison import ENOUGH_REPLICATES
from palimpsest.study import METHODS

NO_STUDENT = "This study distils no student, so there is nothing to compare plain fine-tuning with."
# The paper's methods, and the one that a decision is about.
DRAWN = ("sft", "word_kd", "seq_kd", "rkl_student", "fkl_student")
# What a reader may do -> the methods that do it, each held against plain fine-tuning of its size.
DECISIONS = {
    "distil?": [name for name, rule in METHODS.items() if rule.distilled],
    "stop early?": [name for name in METHODS if name.startswith("sft_annealed")],
    "de-duplicate?": ["sft_dedup"],
}
WHAT = {"recited_repeated": "repeated private text", "recited_unrepeated": "private text"}


# ---------------------------------------------------------------- what the replicates say


def against_fine_tuning(claims: pd.DataFrame, trajectories: pd.DataFrame, methods: list[str]) -> pd.DataFrame:
    """The `outcomes` of what these methods recite, held against plain fine-tuning of the same size, with the mean validation losses at
    the end of training: `loss` of the method, `loss_sft`.

    Of repeated text; of a study that repeats none, of what stands once.
    """
    found = outcomes(claims)
    found = found[found["first"].isin(methods) & (found["second"] == "sft")]
    measure = next((name for name in WHAT if (found["measure"] == name).any()), None)
    found = found[found["measure"] == measure].drop_duplicates(["first", "size", "moment"])
    last = tradeoffs.last_points(trajectories)
    loss = last.assign(loss=tradeoffs.loss_of(last)).groupby(["size", "method"])["loss"].mean()
    return found.join(loss, on=["size", "first"]).join(loss.rename("loss_sft"), on=["size", "second"])


def say_answer(claims: pd.DataFrame, trajectories: pd.DataFrame, by_dose: pd.DataFrame, unit: str) -> list[str]:
    """The answer in three points: what a distilled student gives away; whether it is less than a fine-tuned one does, at equal quality
    and at the end of training; and what it knows that it was never given.

    Without five replicates there is none, and that is said instead.
    """
    if claims.empty or claims["replicates"].max() < ENOUGH_REPLICATES:
        return [NONE_YET]
    found = against_fine_tuning(claims, trajectories, DECISIONS["distil?"])
    if found.empty:
        return [NO_STUDENT]
    equal, end = (found[found["moment"] == moment] for moment in ("equal", "end"))
    both = f"{_say_equal(equal, claims)} {_say_end(end)}"
    return [_say_given_away(by_dose, unit), both, _say_never(outcomes(claims))]


def _say_given_away(by_dose: pd.DataFrame, unit: str) -> str:
    """What distilled students recite at the end of training, by method; beside fine-tuned ones and the teacher."""
    (often, beside), (once, _) = (_recited(by_dose, dose) for dose in ("repeated", "once"))
    if not often["count"].any() and not once["count"].any():
        told = f"**No distilled student recites any of the {unit} it was trained on**, which does not show that it knows none."
    else:
        told = "**A distilled student can still give private text away.**"
    if len(often):
        told += f" Of {often['total'].max():,} {unit} that its training text repeats, it recites {_span(often)} when training ends, "
        told += f"by method.{f' A {beside}.' if beside else ''}"
    if len(once):
        told += f" Of {once['total'].max():,} that stand there once, no distilled student recites more than {rate_text(once.iloc[-1])}."
    return told


def say_real(by_dose: pd.DataFrame, unit: str, title: str) -> list[str]:
    """What a real language model and its students recite, of what stands once first: small models may recite nothing of it. Nothing
    where none was run."""
    (once, beside), (often, _) = (_recited(by_dose, dose) for dose in ("once", "repeated"))
    if once.empty:
        return []
    earlier = _recited(by_dose, "once", "best")[1]
    earlier = f" Stopped at its lowest calibrated validation loss, a {earlier} of what stands once." if earlier else ""
    beside = f" A {beside}." if beside else ""
    repeated = f" Of {_total(often)} repeated ones, distilled students recite {_span(often)}." if len(often) else ""
    fewest, most = once["replicates"].min(), once["replicates"].max()
    each = f"{fewest} to {most} trainings" if fewest < most else f"{most} trainings" if most > 1 else "one training"
    decided = "" if most >= ENOUGH_REPLICATES else ", which decides nothing between methods"
    return [
        f"**These models are small; a real language model may recite what stands once.** {title}: of {_total(once)} {unit} "
        f"that stand once, distilled students recite {_span(once)} when training ends.{beside}{repeated}{earlier} "
        f"That is {each} each{decided}."
    ]


def _total(rows: pd.DataFrame) -> str:
    return f"{'up to ' if rows['total'].nunique() > 1 else ''}{rows['total'].max():,}"


def _recited(by_dose: pd.DataFrame, dose: str, when: str = "end") -> tuple[pd.DataFrame, str]:
    """Distilled students by what they recite, the least first; and what is said of the others, if they are there."""
    found = repetition.counted_doses(by_dose, when).sort_values("rate", kind="stable")
    found = found[found["dose"] == dose]
    tuned, teacher = found[found["role"] == "baseline"], found[found["size"] == "teacher"]
    beside = ""
    if len(tuned) and len(teacher):
        beside = f"fine-tuned one recites up to {rate_text(tuned.iloc[-1])}, the teacher {rate_text(teacher.iloc[-1])}"
    return found[found["method"].isin(DECISIONS["distil?"]) & (found["size"] != "teacher")], beside


def _span(rows: pd.DataFrame) -> str:
    return " to ".join(dict.fromkeys(rate_text(rows.iloc[end]) for end in (0, -1)))


def _say_equal(found: pd.DataFrame, claims: pd.DataFrame) -> str:
    """The verdicts at equal quality; where there are none, how large a difference, in points, some interval holds by any meaning of
    quality, and how many students share no range of validation loss with the other."""
    what, (less, more) = WHAT[found["measure"].iloc[0]] if len(found) else "", _counts(found)
    if found.empty:
        return "**Whether distilling hides private text at equal quality was not asked.**"
    if not less + more:
        asked = claims.merge(found[["first", "second", "measure", "size"]]).query("quality != 'none'")
        never = asked[(asked["quality"] == "validation_loss_calibrated") & asked["estimate"].isna()]
        missed = 100 * asked[["low", "high"]].abs().max().max()
        line = (
            "**We cannot tell whether distilling hides private text.** Compared when both are equally good, none of "
            f"{len(found)} distilled students recites demonstrably less {what} than a fine-tuned one of its size, and none more. "
            f"That is not equality: differences of up to {missed:.0f} points may have been missed."
        )
        return line + (
            f" {len(never)} of these students could not be compared at equal validation loss." if len(never) else ""
        )
    start = "Distilling does not hide private text by itself" if more else "Distilling can hide private text"
    return (
        f"**{start}.** Compared when both are equally good, {less} of {len(found)} distilled students recite less {what} "
        f"than a fine-tuned one of the same size, and {more} more."
    )


def _say_end(found: pd.DataFrame) -> str:
    less, more = _counts(found)
    if not less + more:
        return f"Nor can we tell at the end of training: none of {len(found)} comparisons is decided."
    line = f"At the end of training {less} of {len(found)} recite less" + (f", and {more} more" if more else "")
    worse = found[(found["verdict"] == "less") & (found["loss"] > found["loss_sft"])]
    if len(worse):
        line += f", but {len(worse)} of these {less} had, on average, also learned less: a worse student looks more private"
        others = found[(found["verdict"] == "less") & ~found.index.isin(worse.index)]
        names = ", ".join(dict.fromkeys(map(name_of, others["first"])))
        line += f". The other {len(others)} had learned no less: {names}" if len(others) else ""
    return line + "."


def _say_never(found: pd.DataFrame) -> str:
    asked = found[(found["measure"] == "transferred_exposure") & (found["second"] == "sft")]
    asked = asked[asked["first"].isin(DECISIONS["distil?"])]
    known = asked[asked["verdict"] == "more"]
    if asked.empty:
        return "What a student knows that it was never shown was not asked."
    if known.empty:
        return f"**That a student knows secrets which it was never shown is not decided** in any of {len(asked)} comparisons."
    moment = "equal" if (known["moment"] == "equal").any() else "end"
    best, asked = (rows[rows["moment"] == moment] for rows in (known, asked))
    when = "even when both are equally good" if moment == "equal" else "at the end of training"
    row = best.loc[best["estimate"].idxmax()]
    return (
        f"**A student can know of secrets that it was never shown**, in {len(best)} of {len(asked)} comparisons. Distilled by {name_of(row['first'])}, it finds secrets that only "
        f"its teacher read more probable than a fine-tuned one does, {when} ({row['size']}: {amount(row['measure'], row['estimate'])} "
        f"of exposure, {amount(row['measure'], row['low'], unit=False)} to {amount(row['measure'], row['high'], unit=False)}). "
        "That is less than reciting them."
    )


def as_list(sentences: list[str]) -> list[str]:
    """Sentences as a numbered list in Markdown, if there are several."""
    return (
        [f"{number}. {sentence}" for number, sentence in enumerate(sentences, 1)] if len(sentences) > 1 else sentences
    )


def _counts(found: pd.DataFrame) -> tuple[int, int]:
    less, more = ((found["verdict"] == verdict).sum() for verdict in ("less", "more"))
    return int(less), int(more)


def show_decisions(claims: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame | None:
    """Should you distil, stop early, de-duplicate? A row each: how many students recite less, at equal quality and at the end; the range
    of their validation losses there; what follows. None where too few replicates answer."""
    if claims.empty or claims["replicates"].max() < ENOUGH_REPLICATES:
        return None
    rows = {}
    for question, methods in DECISIONS.items():
        found = against_fine_tuning(claims, trajectories, methods)
        equal, end = (found[found["moment"] == moment] for moment in ("equal", "end"))
        if len(end):
            losses = (least_to_most(end[name], ".2f") for name in ("loss", "loss_sft"))
            rows[question] = {
                "students that recite less, equally good": _told(equal),
                "the same at the end": _told(end),
                "calibrated validation loss (fine-tuned)": "{} ({})".format(*losses),
                "so": advice(equal, end),
            }
    return pd.DataFrame(rows).T.rename_axis("should you ...") if rows else None


def in_markdown(
    claims: pd.DataFrame, trajectories: pd.DataFrame, by_dose: pd.DataFrame, unit: str, real: list[str]
) -> list[str]:
    """`say_answer`, what `say_real` says, and `show_decisions` as Markdown: README's top."""
    lines, table = as_list(say_answer(claims, trajectories, by_dose, unit)), show_decisions(claims, trajectories)
    lines += ["", *real] if real else []
    if table is None:
        return lines
    rows = [[f"**{name}**", *row] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return [*lines, "", markdown_table([table.index.name, *table.columns], rows)]


def advice(equal: pd.DataFrame, end: pd.DataFrame) -> str:
    """What follows for a reader from the verdicts at equal quality and at the end; in doubt, nothing that makes anyone feel safe."""
    less, more = (a + b for a, b in zip(_counts(equal), _counts(end), strict=True))
    if more:
        return "not for privacy: some recite more"
    if not less:
        return "we cannot tell"
    if (equal["verdict"] == "less").all() and len(equal):
        return "yes, then audit"
    if (end["verdict"] == "less").all() and (end["loss"] <= end["loss_sft"]).all():
        tried = "the one student tried" if len(end) == 1 else "any student tried"
        return f"it helped, and no quality was lost, in {tried}; then audit"
    free = ((end["verdict"] == "less") & (end["loss"] <= end["loss_sft"])).sum()
    some = f"{free} of {len(end)} recite less and lost no quality" if free else "weigh the quality"
    return f"not for privacy alone: {some}; then audit"


def _told(found: pd.DataFrame) -> str:
    less, more = _counts(found)
    return f"{less} of {len(found)}" + (f", {more} more" if more else "")


def plot_answer(by_dose: pd.DataFrame, unit: str) -> plt.Figure | None:
    """What students of the methods `DRAWN` recite at the end of training, over how often a text stood in the training data."""
    return repetition.plot_by_dose(by_dose, unit, "end", DRAWN)


def say_figure(by_dose: pd.DataFrame, unit: str) -> str:
    """The figure read out: what the fine-tuned students recite of the rarest and of the most repeated text."""
    rows = repetition.doses_of_letters(by_dose[(by_dose["when"] == "end") & (by_dose["role"] == "baseline")])
    if rows.empty:
        return f"No {unit} were asked for."
    first, last = rows["copies"].min(), rows["copies"].max()
    told = [rows.loc[rows["copies"] == copies, "rate"] for copies in (first, last)]
    once, often = (least_to_most(100 * part, ".0f") for part in told)
    line = f"**Repetition matters:** of {unit} that stood there {_times(first)} a fine-tuned student recites {once} % on average"
    return line + (f", of those that stood there {_times(last)} {often} %." if last > first else ".")


def _times(copies: int) -> str:
    return "once" if copies == 1 else f"{copies} times"
