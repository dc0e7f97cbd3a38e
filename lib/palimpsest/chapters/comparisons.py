"""Chapter 08, methods compared: every question asked of the replicates, and what tuning chose.

The questions were written down before any result was looked at. Each is asked of every measure it is about, at equal quality and at
the end of training. p-values are corrected (Holm) within a family: one question, one measure, one moment. So a reader who picks a
family is told something false in at most one of twenty; a reader of all families is not, and the page says how many there are.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters import figures, tradeoffs
from palimpsest.chapters.claims import MOMENTS, PAPER, PHRASES, of_question, with_interval
from palimpsest.chapters.figures import LABELS
from palimpsest.measure.comparison import QUALITIES, Question, compare_methods, differences_at_distances
from palimpsest.study import METHODS, Run
from palimpsest.study.fingerprints import tuned_name
from palimpsest.study.parts import rates_tried
from palimpsest.study.tables import TABLES

OWN_HALF = ("recited_repeated", "recited_unrepeated", "auc", "exposure")
OTHER_HALF = ("transferred_auc", "transferred_exposure")
ADAPTED = [m for m, rule in METHODS.items() if rule.settings.get("lora")]
DISTILLED = [
    m
    for m, rule in METHODS.items()
    if rule.distilled and not rule.leave_out and not rule.settings.get("temperature") and m not in ADAPTED
]
ANNEALED = [m for m in METHODS if m.startswith("sft_annealed")]
MITIGATED = [m for m, rule in METHODS.items() if not rule.distilled and m not in ("sft", *ANNEALED, *ADAPTED)]
PAPERS_OWN = [first for first, second in PAPER if second == "sft"]
OWN_TEXT = [m for m in DISTILLED if METHODS[m].samples]
DISTANCES = ("nats above the best loss", "ROUGE-L below the best", "share of the tokens left unread")  # as `QUALITIES`
# Question -> pairs of methods, and the measures asked of. A family holds at most eight comparisons over two sizes: with five replicates
# Holm's correction leaves little power in larger ones (`benchmarks/comparing.py`).
ASKED: dict[str, tuple[list[tuple[str, str]], tuple[str, ...]]] = {
    "distilling as in the paper": ([(m, "sft") for m in PAPERS_OWN], OWN_HALF),
    "distilling otherwise": ([(m, "sft") for m in DISTILLED if m not in PAPERS_OWN], OWN_HALF),
    "the least": (
        [(first, second) for first in ("rkl_student", "rkl_student_warm") for second in ("word_kd", "seq_kd")],
        OWN_HALF,
    ),
    "divergence": ([("rkl", "fkl"), ("rkl_student", "fkl_student")], OWN_HALF + OTHER_HALF),
    "text": ([("fkl_student", "fkl"), ("rkl_student", "rkl")], OWN_HALF + OTHER_HALF),
    "warm start": ([("rkl_student_warm", "rkl_student")], OWN_HALF + OTHER_HALF),
    "early stopping": ([(m, "sft") for m in ANNEALED], OWN_HALF),
    "mitigation": (
        [(m, METHODS[m].leave_out if METHODS[m].distilled else "sft") for m in [*MITIGATED, "fkl_dropped"]],
        OWN_HALF,
    ),
    "adapters": ([(m, m.removesuffix("_lora")) for m in ADAPTED], OWN_HALF + OTHER_HALF),
    "temperature": ([(m, m[:-3]) for m in METHODS if METHODS[m].settings.get("temperature")], OWN_HALF + OTHER_HALF),
    "transferred by own text": ([(m, "sft") for m in OWN_TEXT], OTHER_HALF),
    "transferred by given text": ([(m, "sft") for m in DISTILLED if m not in OWN_TEXT], OTHER_HALF),
}


def questions() -> list[Question]:
    """Every comparison that is asked for; a study answers those whose methods it has."""
    return [
        Question(f"{asked}: {PHRASES[measure][0]}, {MOMENTS[moment]}", claim(*pair), *pair, measure, moment)
        for asked, (pairs, measures) in ASKED.items()
        for measure in measures
        for moment in MOMENTS
        for pair in pairs
    ]


def claim(first: str, second: str) -> str:
    """What a comparison is called."""
    return f"{LABELS[first]} vs. {LABELS[second]}"


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """`claims`: every question that the study's methods allow, answered from the trajectories of all replicates; `distances`: those at
    equal quality, at points of it; `tuning`: the grid."""
    trajectories, _ = tradeoffs.points_of(run)
    return {**claims_and_distances(trajectories), "tuning": tuning(run)}


def claims_and_distances(trajectories: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables `claims` and `distances`, which need nothing but `trajectories`."""
    students, asked = trajectories[trajectories["size"] != "teacher"], questions()
    found, apart = (compare(students, asked) for compare in (compare_methods, differences_at_distances))
    return {"claims": found, "distances": apart}


def tuning(run: Run) -> pd.DataFrame:
    """A row per arm, learning rate and point of its trajectory from one epoch on; `chosen`: the lowest calibrated validation loss.

    The models are those of a replicate that is reported nowhere else, and nothing but validation records was looked at. No rows of a
    study that tunes nothing.
    """
    part, out = run.parts().get("tuning"), []
    for arm in part.study.arms() if part else ():
        paths = [
            tradeoffs.model_path(part, arm, tuned_name(arm, rate)).assign(learning_rate=rate)
            for rate in rates_tried(part.study, arm)
        ]
        if paths:
            grid = pd.concat(paths, ignore_index=True)
            grid = grid[grid["epoch"] >= 1]
            who = {"size": arm.size, "method": arm.method, "chosen": grid.index == tradeoffs.best_point(grid)}
            out.append(grid.assign(**who))
    return pd.concat(out, ignore_index=True)[TABLES["tuning"]] if out else pd.DataFrame()


# ---------------------------------------------------------------- shown


def show_claims(claims: pd.DataFrame, question: str, moment: str) -> pd.DataFrame | None:
    """First minus second with its 95 % interval, and its verdict where it is decided: a row per comparison and size, a column per
    measure; None of none."""
    found = of_question(claims, question)
    found = found[(found["moment"] == moment) & found["estimate"].notna()]
    if found.empty:
        return None
    names = [f"{name}, {size}" for name, size in zip(found["claim"], found["size"], strict=True)]
    heads = [PHRASES[m][0] + (", points" if "points" in PHRASES[m][1] else "") for m in found["measure"]]
    verdicts = [f" {verdict}" if verdict != "undecided" else "" for verdict in found["verdict"]]
    texts = [with_interval(row, unit=False) + said for row, said in zip(found.itertuples(), verdicts, strict=True)]
    shown = found.assign(comparison=names, measure=heads)
    return figures.spread_out(shown, texts, "comparison", "measure", "not measured").rename_axis(columns=None)


def say_families(claims: pd.DataFrame) -> str:
    """How many families there are, and of how many a chance finding is to be expected at worst."""
    if claims.empty:
        return "This study has plain fine-tuning alone, so there is nothing to compare it with."
    families, replicates = claims["family"].nunique(), int(claims["replicates"].max())
    line = f"{families} families of questions, each about one measure at one moment, were asked of {replicates} replicate{'s' * (replicates != 1)}."
    if (claims["verdict"] == "undecided").all():
        return line + " Nothing is decided."
    return (
        line
        + f" Were there no difference anywhere, at most {np.ceil(families / 20):.0f} of them would be expected to show one."
    )


def plot_claims(claims: pd.DataFrame, question: str) -> plt.Figure | None:
    """First minus second with 95 % intervals: a row per comparison and size, a panel per measure; a mark at equal quality, a tick at
    the end, in the first method's colour where decided. Grey band: what a method differs from itself in another replicate. None where there is no number."""
    found = of_question(claims, question)
    found = found[found["estimate"].notna()]
    if found.empty:
        return None
    measures = [m for m in PHRASES if m in set(found["measure"])]
    rows = list(dict.fromkeys(zip(found["claim"], found["size"], strict=True)))[::-1]
    figure, axes = figures.panels(1, len(measures), height=0.6 + 0.42 * len(rows), sharex=False)
    for ax, measure in zip(axes[0], measures, strict=True):
        scale = 100 if "points" in PHRASES[measure][1] else 1
        for row in found[found["measure"] == measure].itertuples():
            y = rows.index((row.claim, row.size)) + (0.17 if row.moment == "equal" else -0.17)
            value, low, high, null = (scale * v for v in (row.estimate, row.low, row.high, row.null_largest))
            ax.plot([-null, null], [y, y], color="#d8d8d8", lw=5, solid_capstyle="butt", zorder=0)
            errors = np.nan_to_num([[value - low], [high - value]]).clip(0)
            color = "#777777" if row.verdict == "undecided" else figures.COLORS[row.first]
            mark = figures.mark_of(*tradeoffs.MARKED.get(measure, ("member", 1)))
            style = mark if row.moment == "equal" else {"marker": "|", "ms": 9, "mew": 1.6}
            ax.errorbar(value, y, xerr=errors, ls="", **{"ms": 4.5, "lw": 1.1, "color": color, **style})
        ax.axvline(0, color="#777777", lw=1, ls=":")
        unit = ", points" if scale == 100 else ""
        ax.set_title(f"{PHRASES[measure][0]}{unit}")
    names = [f"{name}, {size}" for name, size in rows]
    for ax in axes[0]:
        figures.name_rows(ax, names, 22)
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.locator_params(axis="x", nbins=5)
    return figure


def plot_distances(distances: pd.DataFrame, measure: str) -> plt.Figure | None:
    """Distilled minus fine-tuned with 95 % intervals, at stated distances from the worse of the two best qualities: a row of panels per
    size, a column per meaning of quality, which gets better to the right. None where there is no number."""
    rows = distances[
        (distances["measure"] == measure) & (distances["second"] == "sft") & distances["estimate"].notna()
    ]
    rows = rows[rows["first"].isin(DISTILLED)]
    if rows.empty:
        return None
    sizes, methods = list(rows["size"].unique()), [m for m in DISTILLED if m in set(rows["first"])]
    figure, axes = figures.panels(len(sizes), len(QUALITIES), sharex="col")
    for (size, quality), part in rows.groupby(["size", "quality"], sort=False):
        ax, places = axes[sizes.index(size), list(QUALITIES).index(quality)], QUALITIES[quality].distances[::-1]
        for i, method in enumerate(methods):
            found = part[part["first"] == method]
            at = found["distance"].map(places.index) + 0.09 * (i - (len(methods) - 1) / 2)
            errors = np.abs(found[["low", "high"]].sub(found["estimate"], axis=0).fillna(0).to_numpy().T)
            mark = figures.mark_of(*tradeoffs.MARKED.get(measure, ("member", 1)))
            style = {"ls": "", "color": figures.COLORS[method], "ms": 4, "lw": 1, **mark}
            ax.errorbar(at, found["estimate"], yerr=errors, label=LABELS[method], **style)
        ax.axhline(0, color="#777777", lw=1, ls=":")
        ax.set_xticks(range(len(places)), [f"{place:g}" for place in places])
    for ax, name in zip(axes[-1], DISTANCES, strict=True):
        ax.set_xlabel(name)
    for ax, size in zip(axes[:, 0], sizes, strict=True):
        ax.set_ylabel(f"{size}: {PHRASES[measure][0]}")
        if "points" in PHRASES[measure][1]:
            figures.in_percent(ax.yaxis)
    return figures.legend(figure, axes)


def say_distances(distances: pd.DataFrame, measure: str) -> str:
    """`plot_distances` read out: of how many points the interval excludes zero, which decides nothing."""
    rows = distances[(distances["measure"] == measure) & (distances["second"] == "sft") & distances["low"].notna()]
    rows = rows[rows["first"].isin(DISTILLED)]
    if rows.empty:
        return "No two curves of this study meet at any stated distance."
    apart = ((rows["low"] > 0) | (rows["high"] < 0)).sum()
    return (
        f"At {apart} of {len(rows)} points the interval excludes zero. They are not corrected for their number, so none of them is a "
        "claim."
    )


def show_choices(claims: pd.DataFrame) -> pd.DataFrame | None:
    """Divergence, text, warm start and temperature at equal quality: a row per comparison and size; None of none."""
    parts = {q: show_claims(claims, q, "equal") for q in ("divergence", "text", "warm start", "temperature")}
    parts = {question: part for question, part in parts.items() if part is not None}
    asked = ["repeated text recited, points", "exposure, bits", "transferred exposure, bits"]
    return pd.concat(parts, names=["question"]).reindex(columns=asked).fillna("not measured") if parts else None


def show_tuning(tuning: pd.DataFrame) -> pd.DataFrame | None:
    """What each arm was given by its grid: learning rate, epoch and validation loss; None where nothing was tuned."""
    if tuning.empty:
        return None
    rows = tuning[tuning["chosen"]]
    shown = {"student": figures.names_of(rows)}
    shown |= {"learning rate": rows["learning_rate"].map("{:g}".format), "epoch": rows["epoch"].map("{:g}".format)}
    shown["validation loss, calibrated"] = tradeoffs.loss_of(rows).round(2)
    return pd.DataFrame(shown).set_index("student")


def say_tuning(tuning: pd.DataFrame) -> str:
    """The grid, and how many arms were best at one of its edges."""
    if tuning.empty:
        return "This study tunes nothing: every method has the settings of the study file."
    rates = sorted(tuning["learning_rate"].unique())
    chosen = tuning[tuning["chosen"]]
    edge = chosen["learning_rate"].isin([rates[0], rates[-1]]).sum()
    return (
        f"{len(chosen)} arms were each trained at the learning rates {', '.join(f'{rate:g}' for rate in rates)}. For {edge} of them the "
        "lowest calibrated validation loss lies at an edge of that grid."
    )
