"""What a study's methods do, over all its seeds: divergence, text, early stopping, and simpler ways of leaking less.

Every comparison is a `Contrast` of two methods (or of two averages of methods) of the same size and seeds, read at the end of
training and at equal held-out loss (`tradeoff.effect`).
"""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.figures import LABELS, gap, points
from palimpsest.methods import METHODS
from palimpsest.study import Study
from palimpsest.tradeoff import Curves, effect

WHEN = {
    "end": "at the end of training",
    "equal": "at equal held-out loss",
    "stopped": "stopped early, against the end",
}


@dataclass(frozen=True)
class Contrast:
    """`first` methods against `second` ones; `paper`: arXiv 2506.16170 finds that the first memorize less."""

    question: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    paper: bool = False
    when: tuple[str, ...] = ("end", "equal")

    @property
    def name(self) -> str:
        """In words, e.g. "reverse KL for forward KL"."""
        if self.when == ("stopped",):
            return f"{LABELS[self.first[0]]}, stopped early"
        return " for ".join(" + ".join(LABELS[m] for m in side) for side in (self.first, self.second))


DISTILLED = [m for m, rule in METHODS.items() if rule.distilled and not rule.leave_out]
CONTRASTS = [
    Contrast("early stopping", ("sft",), ("sft",), when=("stopped",)),
    *(Contrast("distilling", (m,), ("sft",), paper=m in ("word_kd", "seq_kd", "rkl_student")) for m in DISTILLED),
    Contrast("distilling", ("rkl_student",), ("word_kd",), paper=True),
    Contrast("distilling", ("rkl_student",), ("seq_kd",), paper=True),
    Contrast("divergence", ("rkl",), ("fkl",)),
    Contrast("divergence", ("rkl_student",), ("fkl_student",)),
    Contrast("divergence", ("rkl", "rkl_student"), ("fkl", "fkl_student")),
    Contrast("text", ("fkl_student",), ("fkl",)),
    Contrast("text", ("rkl_student",), ("rkl",)),
    Contrast("text", ("fkl_student", "rkl_student"), ("fkl", "rkl")),
    *(Contrast("mitigation", (m,), ("sft",)) for m in ("sft_dedup", "sft_goldfish", "sft_dropped", "sft_private")),
    Contrast("mitigation", ("fkl_dropped",), ("fkl",)),
    *(Contrast("distilling or masking", (m,), ("sft_goldfish",)) for m in ("word_kd", "fkl", "rkl_student")),
]


def effects(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """Every contrast whose methods the study has, one row per size and moment.

    Returns:
        `question, contrast, first, second` (methods joined by +), `paper` (whether the paper finds less), `size`, `when` (a key
        of `WHEN`), the columns of `tradeoff.effect`, and `verdict`: "less", "more" or "undecided", by the interval.
    """
    curves, rows = Curves(study, run_dir), []
    for size in study.models.students:
        for contrast in CONTRASTS:
            if not curves.has(size, *contrast.first, *contrast.second):
                continue
            for when in contrast.when:
                found = effect(
                    curves, size, contrast.first, contrast.second, when, "end" if when == "stopped" else None
                )
                verdict = "less" if found["high"] < 0 else "more" if found["low"] > 0 else "undecided"
                who = {"question": contrast.question, "contrast": contrast.name}
                who |= {
                    "first": "+".join(contrast.first),
                    "second": "+".join(contrast.second),
                    "paper": contrast.paper,
                }
                rows.append({**who, "size": size, "when": when, **found, "verdict": verdict})
    return pd.DataFrame(rows)


def table(found: pd.DataFrame, *questions: str) -> pd.DataFrame:
    """The effects that answer `questions`, as text: rates, difference in points with the range over seeds, and losses."""
    rows = found[found["question"].isin(questions)]
    shown = pd.DataFrame(
        {
            "contrast": rows["contrast"],
            "size": rows["size"],
            "when": rows["when"].map(WHEN),
            "first, second": [
                f"{100 * a:.1f} %, {100 * b:.1f} %" for a, b in rows[["first_rate", "second_rate"]].to_numpy()
            ],
            "difference, points": points(rows),
            "single seeds": [
                f"{100 * a:+.1f} to {100 * b:+.1f}" for a, b in rows[["seed_least", "seed_most"]].to_numpy()
            ],
            "held-out loss, difference": gap(rows, "held_out_loss"),
            "members' loss, difference": gap(rows, "member_loss"),
        }
    )
    return shown.set_index(["contrast", "size", "when"])


def told(found: pd.DataFrame, *questions: str) -> list[str]:
    """One line per moment: which contrasts come out with less, which with more, and which stay undecided."""
    rows, lines = found[found["question"].isin(questions)], []
    for when, part in rows.groupby("when", sort=False):
        said = []
        for verdict, words in (("less", "less"), ("more", "more"), ("undecided", "undecided")):
            some = part[part["verdict"] == verdict]
            names = "; ".join(
                f"{r.contrast} ({r.size}, {100 * r.difference:+.1f} points, {100 * r.low:+.1f} to {100 * r.high:+.1f})"
                for r in some.itertuples()
            )
            if names:
                said.append(
                    f"**{words}** memorized with {names}" if verdict != "undecided" else f"**undecided**: {names}"
                )
        lines.append(f"- {WHEN[when].capitalize()}: {'. '.join(said)}.")
    return lines


def mean_paths(paths: pd.DataFrame) -> pd.DataFrame:
    """Every student's path, averaged over seeds epoch by epoch, for `figures.tradeoff`."""
    students = paths[paths["role"] != "teacher"]
    by = ["size", "method", "role", "unit", "epoch"]
    mean = students.groupby(by, sort=False)[["held_out_loss", "memorized"]].mean().reset_index()
    return mean.assign(model=mean["size"] + "-" + mean["method"])


def paper_told(found: pd.DataFrame) -> list[str]:
    """How the paper's findings fare: what contradicts them first, then what stays open, then what agrees."""
    rows, lines = found[found["paper"].astype(bool)], []
    for verdict, words in (
        ("more", "Contradicts the paper"),
        ("undecided", "Not shown"),
        ("less", "Agrees with the paper"),
    ):
        some = rows[rows["verdict"] == verdict]
        if len(some):
            names = "; ".join(f"{r.contrast} ({r.size}, {WHEN[r.when]})" for r in some.itertuples())
            lines.append(f"- **{words}**, {len(some)} of {len(rows)}: {names}.")
    return lines


def summary(found: pd.DataFrame) -> list[str]:
    """How many contrasts are decided at the end and at equal loss, and what early stopping does."""
    lines = []
    for when in ("end", "equal"):
        rows = found[found["when"] == when]
        counts = rows["verdict"].value_counts()
        lines.append(
            f"- {WHEN[when].capitalize()}, {counts.get('less', 0)} of {len(rows)} comparisons show less memorization, "
            f"{counts.get('more', 0)} more, {counts.get('undecided', 0)} are undecided."
        )
    for row in found[found["when"] == "stopped"].itertuples():
        lines.append(
            f"- Plain fine-tuning of the {row.size} student, stopped at its lowest held-out loss, recites "
            f"{100 * row.first_rate:.1f} % of {row.total} {row.unit} instead of {100 * row.second_rate:.1f} % ({row.seeds} seeds), at a held-out loss "
            f"{-row.held_out_loss_difference:.2f} nats per token lower."
        )
    return lines


def figure(found: pd.DataFrame) -> plt.Figure:
    """Differences with 95 % intervals, a row per contrast, a panel per size; filled: at the end, hollow: at equal loss."""
    sizes, names = list(found["size"].unique()), list(found["contrast"].unique())[::-1]
    hues = dict(zip(found["question"].unique(), plt.get_cmap("Dark2").colors, strict=False))
    figure, axes = plt.subplots(
        1, len(sizes), figsize=(4.2 + 2.7 * len(sizes), 1.0 + 0.24 * len(names)), sharey=True, squeeze=False
    )
    for ax, size in zip(axes[0], sizes, strict=True):
        for row in found[found["size"] == size].itertuples():
            y = names.index(row.contrast) + (0.16 if row.when != "equal" else -0.16)
            color, fill = hues[row.question], "white" if row.when == "equal" else hues[row.question]
            errors = [[row.difference - row.low], [row.high - row.difference]]
            ax.errorbar(
                100 * row.difference, y, xerr=100 * np.array(errors).clip(0), fmt="o", color=color, mfc=fill, ms=4
            )
        ax.axvline(0, color="#777777", lw=1, ls=":")
        ax.set(title=f"student: {size}", xlabel=f"difference in {found['unit'].iloc[0]} recited, points")
    axes[0, 0].set(yticks=range(len(names)), yticklabels=names, ylim=(-0.6, len(names) - 0.4))
    plt.close(figure)
    return figure
