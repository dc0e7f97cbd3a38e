"""Chapter 08, methods compared: divergence, text, early stopping, and simpler ways of leaking less.

Every comparison is a `Contrast` of two methods (or of two averages of methods) of the same size and seeds, read at the end of
training and at equal held-out loss (`measure.equal_loss`).
"""

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.figures import LABELS
from palimpsest.chapters.tradeoffs import differences, say_decided
from palimpsest.measure.equal_loss import Curves
from palimpsest.study import METHODS, Arm, Run

WHEN = {
    "end": "at the end of training",
    "equal": "at equal held-out loss",
    "stopped": "stopped early, against the end",
}
OUTCOMES = {
    "more": "contradicts",
    "closer": "contradicts",
    "undecided": "not shown",
    "less": "agrees",
    "less close": "agrees",
}
NO_CONTRAST = "There are no two methods to compare here."


@dataclass(frozen=True)
class Contrast:
    """`first` methods against `second` ones; `paper`: arXiv 2506.16170 finds that the first memorize less."""

    question: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    paper: bool = False
    when: tuple[str, ...] = ("end", "equal")
    title: str = ""

    @property
    def name(self) -> str:
        """In words, e.g. "Word-KD vs. SFT"."""
        return self.title or f"{LABELS[self.first[0]]} vs. {LABELS[self.second[0]]}"


DISTILLED = [m for m, rule in METHODS.items() if rule.distilled and not rule.leave_out]
MITIGATED = [m for m, rule in METHODS.items() if not rule.distilled and m != "sft"]
REVERSE, FORWARD = ("rkl", "rkl_student"), ("fkl", "fkl_student")
OWN, GIVEN = ("fkl_student", "rkl_student"), ("fkl", "rkl")
CONTRASTS = [
    Contrast("early stopping", ("sft",), ("sft",), when=("stopped",), title="SFT, stopped vs. to the end"),
    *(Contrast("distilling", (m,), ("sft",), paper=m in ("word_kd", "seq_kd", "rkl_student")) for m in DISTILLED),
    Contrast("distilling", ("rkl_student",), ("word_kd",), paper=True),
    Contrast("distilling", ("rkl_student",), ("seq_kd",), paper=True),
    Contrast("divergence", ("rkl",), ("fkl",)),
    Contrast("divergence", ("rkl_student",), ("fkl_student",)),
    Contrast("divergence", REVERSE, FORWARD, title="reverse vs. forward, mean"),
    Contrast("text", ("fkl_student",), ("fkl",)),
    Contrast("text", ("rkl_student",), ("rkl",)),
    Contrast("text", OWN, GIVEN, title="own text vs. references, mean"),
    *(Contrast("mitigation", (m,), ("sft",)) for m in MITIGATED),
    *(Contrast("mitigation", (m,), (r.leave_out,)) for m, r in METHODS.items() if r.distilled and r.leave_out),
    *(Contrast("distilling or masking", (m,), ("sft_goldfish",)) for m in ("word_kd", "fkl", "rkl_student")),
]


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """`effects`: every contrast whose methods the study has, by size and moment. `equal_quality` (chapter 07): every other method
    beside plain fine-tuning of its size, at equal held-out loss.

    By their intervals, `verdict` says what the first recites (less, more, undecided), `fit` how it fits the members (closer, less
    close, undecided).
    """
    curves, study, effects, equal = Curves(run), run.study, [], []
    for size in study.models.students:
        for contrast in CONTRASTS:
            if curves.has(size, *contrast.first, *contrast.second):
                effects += [_effect(curves, size, contrast, when) for when in contrast.when]
        for method in study.methods:
            if method != "sft" and curves.has(size, method, "sft"):
                arm = Arm(size, method, study.seeds[0])
                who = {"size": size, "method": method, "role": arm.role, "label": arm.label}
                equal.append({**who, **curves.effect(size, (method,), ("sft",), "equal")})
    return {"effects": pd.DataFrame(effects), "equal_quality": pd.DataFrame(equal)}


def _effect(curves: Curves, size: str, contrast: Contrast, when: str) -> dict:
    elsewhere = ("end",) if when == "stopped" else ()
    found = curves.effect(size, contrast.first, contrast.second, when, *elsewhere)
    who = {"question": contrast.question, "contrast": contrast.name, "paper": contrast.paper}
    who |= {"first": "+".join(contrast.first), "second": "+".join(contrast.second), "size": size, "when": when}
    verdict = "less" if found["high"] < 0 else "more" if found["low"] > 0 else "undecided"
    closer, further = found["member_loss_high"] < 0, found["member_loss_low"] > 0
    fit = "closer" if closer else "less close" if further else "undecided"
    return {**who, **found, "verdict": verdict, "fit": fit}


# ---------------------------------------------------------------- shown


def show_effects(effects: pd.DataFrame, *questions: str) -> pd.DataFrame | None:
    """The effects that answer `questions` as text, one row per contrast and size: points and losses with intervals; None of none."""
    rows = effects[effects["question"].isin(questions)]
    if rows.empty:
        return None
    parts = {}
    moment = rows["when"].replace("stopped", "end")  # whose name says what is compared
    for when, part in rows.groupby(moment, sort=False):
        part = part.set_index(["contrast", "size"])
        loss, name = ("member_loss", "members' loss") if when == "equal" else ("held_out_loss", "held-out loss")
        columns = {"points": differences(part), name: differences(part, loss)}
        order = list(columns)[:: -1 if when == "equal" else 1]  # what is worth reading first
        parts[WHEN[when]] = pd.DataFrame(columns, index=part.index)[order]
    names = rows.set_index(["contrast", "size"]).index.unique()
    return pd.concat(parts, axis=1).reindex(names).fillna("")


def say_effects(effects: pd.DataFrame, *questions: str) -> list[str]:
    """How many contrasts of these questions (of all, if none is named) are decided, by moment and measure, and the furthest one.

    What is recited is counted at every moment; at equal held-out loss, where often neither side recites anything, the fit to the
    members too.
    """
    rows, lines = effects[effects["question"].isin(questions or effects["question"])], []
    for row in rows[rows["when"] == "stopped"].itertuples():
        lines += [
            f"- Stopped at its lowest held-out loss, the fine-tuned {row.size} student recites {100 * row.first_rate:.1f} % of {row.total:.0f} "
            f"{row.unit} instead of {100 * row.second_rate:.1f} %.",
            f"- Its held-out loss is then {-row.held_out_loss_difference:.2f} nats per token lower.",
        ]
    for when, part in rows[rows["when"] != "stopped"].groupby("when", sort=False):
        start = f"- {WHEN[when][0].upper()}{WHEN[when][1:]}"
        some = part[(part["first_rate"] > 0) | (part["second_rate"] > 0)]
        if len(some):
            lines.append(f"{start}, the first {say_decided(some, _named(some))}")
        if silent := len(part) - len(some):
            lines.append(f"{start}, neither side recites anything in {silent} of {len(part)} comparisons.")
        if when == "equal":
            lines.append(f"{start}, the first {say_decided(part, _named(part), 'member_loss')}")
    return lines or [NO_CONTRAST]


def _named(effects: pd.DataFrame) -> pd.Series:
    return effects["contrast"] + ", " + effects["size"]


def say_spread(effects: pd.DataFrame) -> str:
    """How far single seeds lie from the mean over seeds."""
    if effects["seeds"].max() == 1:
        return "With one seed, the intervals cover other records only, not other seeds."
    away = np.maximum(effects["seed_most"] - effects["difference"], effects["difference"] - effects["seed_least"])
    worst = effects.loc[away.idxmax()]
    return (
        f"A single seed lies at most {100 * away.max():.1f} points from the mean of {worst['seeds']} seeds ({worst['contrast']}, "
        f"{worst['size']}, {WHEN[worst['when']]}). Half of the comparisons keep every seed within {100 * away.median():.1f} points."
    )


def show_paper(effects: pd.DataFrame) -> pd.DataFrame | None:
    """How each finding of the paper fares, contradictions first: at the end by what is recited, at equal held-out loss by the fit to
    the members; None where the study has none of its comparisons."""
    rows = effects[effects["paper"]]
    if rows.empty:
        return None
    rows = rows.assign(
        outcome=rows["verdict"].where(rows["when"] == "end", rows["fit"]).map(OUTCOMES), when=rows["when"].map(WHEN)
    )
    wide = rows.pivot_table(index=["contrast", "size"], columns="when", values="outcome", aggfunc="first", sort=False)
    rank = list(dict.fromkeys(OUTCOMES.values())).index
    return wide.sort_values(list(wide.columns[::-1]), key=lambda column: column.map(rank)).rename_axis(columns=None)


def say_paper(effects: pd.DataFrame) -> list[str]:
    """How many of the paper's findings are contradicted, stay open, and hold (`show_paper`)."""
    found = show_paper(effects)
    if found is None:
        return ["There are none of the comparisons that the paper makes."]
    return [
        f"- **{outcome[0].upper()}{outcome[1:]}**: "
        + "; ".join(f"{(found[c] == outcome).sum()} of {len(found)} {c}" for c in found)
        + "."
        for outcome in dict.fromkeys(OUTCOMES.values())
    ]


def plot_effects(effects: pd.DataFrame, fit: bool = False) -> plt.Figure | None:
    """Differences with 95 % intervals, a row per contrast, a panel per size; None of none.

    In what is recited (filled: at the end, hollow: at equal loss), or with `fit` in the members' loss at equal held-out loss.
    """
    rows = effects[effects["when"] == "equal"] if fit else effects
    if rows.empty:
        return None
    names = list(rows["contrast"].unique())[::-1]
    hues = dict(zip(rows["question"].unique(), plt.get_cmap("Dark2").colors[fit:], strict=False))
    columns = [f"member_loss_{end}" for end in ("difference", "low", "high")] if fit else ["difference", "low", "high"]
    scale, label = (1, "members' loss, nats") if fit else (100, f"{rows['unit'].iloc[0]} recited, points")
    figure, axes = figures.panels(1, rows["size"].nunique(), height=0.5 + 0.24 * len(names))
    figure.set_figwidth(figure.get_figwidth() + 3.4)  # room for the contrasts' names
    for ax, (size, part) in zip(axes[0], rows.groupby("size", sort=False), strict=True):
        for row in part.to_dict("records"):
            hollow = row["when"] == "equal" and not fit
            y = names.index(row["contrast"]) + (0 if fit else -0.16 if hollow else 0.16)
            value, low, high = (scale * row[c] for c in columns)
            color = hues[row["question"]]
            errors = np.array([[value - low], [high - value]]).clip(0)
            ax.errorbar(value, y, xerr=errors, fmt="o", color=color, mfc="white" if hollow else color, ms=4)
        ax.axvline(0, color="#777777", lw=1, ls=":")
        ax.set(title=f"student: {size}", xlabel=f"difference in {label}")
    axes[0, 0].set(yticks=range(len(names)), yticklabels=names, ylim=(-0.6, len(names) - 0.4))
    plt.close(figure)
    return figure


def mean_trajectories(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Every student's trajectory, averaged over seeds epoch by epoch."""
    by = ["size", "method", "role", "unit", "epoch"]
    students = trajectories[trajectories["role"] != "teacher"]
    mean = students.groupby(by, sort=False)[["held_out_loss", "memorized"]].mean().reset_index()
    return mean.assign(model=mean["size"] + "-" + mean["method"])


def show_repeated(doses: pd.DataFrame) -> pd.DataFrame | None:
    """Mean exposure, in bits, of the canaries with the fewest and with the most copies, one row per method; None without canaries."""
    rows = _repeated(doses, "base")
    if rows.empty:
        return None
    text = [f"{r.exposure:.1f} ({r.exposure_low:.1f} to {r.exposure_high:.1f})" for r in rows.itertuples()]
    copies = [f"{n} cop{'y' if n == 1 else 'ies'}" for n in rows["copies"]]
    wide = rows.assign(text=text, method=rows["method"].map(LABELS), copies=copies).pivot_table(
        index="method", columns=["size", "copies"], values="text", aggfunc="first", sort=False
    )
    return wide.rename_axis(columns=[None, None])


def _repeated(doses: pd.DataFrame, *more: str) -> pd.DataFrame:
    """Students (and models of the roles `more`) on the canaries with the fewest and the most copies."""
    roles = ["baseline", "student", "mitigated", *more]
    rows = doses[~doses["teacher_only"] & doses["role"].isin(roles) & (doses["size"] != "teacher")]
    return rows[rows["copies"].isin([rows["copies"].min(), rows["copies"].max()])]


def say_repeated(doses: pd.DataFrame) -> list[str]:
    """How many methods expose the most repeated canaries demonstrably less than plain fine-tuning does, size by size."""
    rows, lines = _repeated(doses), []
    if rows.empty:
        return ["There are no canaries."]
    for size, part in rows[rows["copies"] == rows["copies"].max()].groupby("size", sort=False):
        base, others = part[part["method"] == "sft"].iloc[0], part[part["method"] != "sft"]
        less = others[others["exposure_high"] < base["exposure_low"]]
        lines.append(
            f"- **{size}**: fine-tuned, canaries with {base['copies']} copies have {base['exposure']:.1f} bits ({base['exposure_low']:.1f} to "
            f"{base['exposure_high']:.1f}; chance {base['chance']:.1f}, ceiling {base['ceiling']:.1f})."
        )
        if len(others):
            lowest = others.loc[others["exposure"].idxmin()]
            lines.append(
                f"  The intervals of {len(less)} of {len(others)} other methods lie wholly below; the lowest is {LABELS[lowest['method']]} "
                f"({lowest['exposure']:.1f})."
            )
    return lines


def say_hidden(effects: pd.DataFrame, doses: pd.DataFrame) -> str:
    """Students that recite no secret of the members at the end of training and yet rank the most repeated ones above all unseen ones."""
    rows = _repeated(doses)
    rows = rows[(rows["copies"] == rows["copies"].max()) & np.isclose(rows["exposure"], rows["ceiling"])]
    end = effects[(effects["when"] == "end") & (effects["second"] == "sft") & (effects["first_rate"] == 0)]
    known = end[["first", "size"]].merge(rows, left_on=["first", "size"], right_on=["method", "size"])
    if known.empty:
        return "No student recites nothing at the end and still has the most repeated canaries at the ceiling."
    return (
        f"**Reciting nothing is not knowing nothing.** Students that recite none of {end['total'].iloc[0]:.0f} {end['unit'].iloc[0]} at "
        f"the end of training, and yet rank every canary with {known['copies'].iloc[0]} copies above its unseen twins: {len(known)}. Of "
        f"those canaries they recite {100 * known['rate'].min():.0f} to {100 * known['rate'].max():.0f} %."
    )
