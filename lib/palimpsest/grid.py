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


SHORT = {  # labels that fit beside one another
    **LABELS,
    "fkl_student": "forward KL (own text)",
    "rkl_student": "RKLD",
    "sft_dedup": "de-duplicated SFT",
    "sft_goldfish": "goldfish SFT",
    "sft_dropped": "SFT, left out",
    "fkl_dropped": "forward KL, left out",
    "sft_private": "DP-SGD",
}


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
        """In words, e.g. "RKLD vs. SFT"."""
        return self.title or f"{SHORT[self.first[0]]} vs. {SHORT[self.second[0]]}"


DISTILLED = [m for m, rule in METHODS.items() if rule.distilled and not rule.leave_out]
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
    """The effects that answer `questions` as text, one row per contrast and size: points and losses with intervals."""
    rows = found[found["question"].isin(questions)]
    parts = {}
    for when, part in rows.groupby("when", sort=False):
        part = part.set_index(["contrast", "size"])
        loss, name = ("member_loss", "members' loss") if when == "equal" else ("held_out_loss", "held-out loss")
        parts[WHEN[when]] = pd.DataFrame({"points": points(part), name: gap(part, loss)}, index=part.index)
    order = rows.set_index(["contrast", "size"]).index.unique()
    return pd.concat(parts, axis=1).reindex(order).fillna("")


def told(found: pd.DataFrame, *questions: str) -> list[str]:
    """One line per moment: which contrasts come out with less, which with more, and which stay undecided."""
    rows, lines = found[found["question"].isin(questions)], []
    for when, part in rows.groupby("when", sort=False):
        said = [
            f"**{verdict}** memorized with {_listed(some)}"
            if verdict != "undecided"
            else f"**undecided**: {_listed(some)}"
            for verdict in ("less", "more", "undecided")
            if len(some := part[part["verdict"] == verdict])
        ]
        lines.append(f"- {WHEN[when][0].upper()}{WHEN[when][1:]}: {'. '.join(said)}.")
    return lines


def _listed(rows: pd.DataFrame) -> str:
    """Contrasts with their sizes and differences: "RKLD vs. SFT (medium -60.1, small -40.2 points)"."""
    return "; ".join(
        f"{name} ({', '.join(f'{r.size_} {100 * r.difference:+.1f}' for r in part.rename(columns={'size': 'size_'}).itertuples())} points)"
        for name, part in rows.groupby("contrast", sort=False)
    )


def spread(found: pd.DataFrame) -> str:
    """How far single seeds lie from the mean over seeds."""
    away = np.maximum(found["seed_most"] - found["difference"], found["difference"] - found["seed_least"])
    worst = found.loc[away.idxmax()]
    return (
        f"A single seed lies at most {100 * away.max():.1f} points from the mean of {worst['seeds']} seeds ({worst['contrast']}, {worst['size']}, "
        f"{WHEN[worst['when']]}), and half of the comparisons keep every seed within {100 * away.median():.1f} points."
    )


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
            moments = [f"{WHEN[when]}: {_listed(part)}" for when, part in some.groupby("when", sort=False)]
            lines.append(
                f"- **{words}**, {len(some)} of {len(rows)} comparisons. {'. '.join(m[0].upper() + m[1:] for m in moments)}."
            )
    return lines


def dose_table(doses: pd.DataFrame) -> pd.DataFrame:
    """Mean exposure, in bits, of the canaries with the fewest and with the most copies, one row per method."""
    rows = _repeated(doses)
    text = [f"{r.exposure:.1f} ({r.exposure_low:.1f} to {r.exposure_high:.1f})" for r in rows.itertuples()]
    copies = [f"{n} cop{'y' if n == 1 else 'ies'}" for n in rows["copies"]]
    wide = rows.assign(text=text, method=rows["method"].map(SHORT), copies=copies).pivot_table(
        index="method", columns=["size", "copies"], values="text", aggfunc="first", sort=False
    )
    return wide.rename_axis(columns=[None, None])


def _repeated(doses: pd.DataFrame) -> pd.DataFrame:
    rows = doses[~doses["teacher_only"].astype(bool) & (doses["role"] != "base") & (doses["role"] != "teacher")]
    return rows[rows["copies"].isin([rows["copies"].min(), rows["copies"].max()])]


def dose_told(doses: pd.DataFrame) -> list[str]:
    """Which methods expose the most repeated canaries demonstrably less than plain fine-tuning does, size by size."""
    rows, lines = _repeated(doses), []
    if rows.empty:
        return ["This study has no canaries."]
    for size, part in rows[rows["copies"] == rows["copies"].max()].groupby("size", sort=False):
        base, others = part[part["method"] == "sft"].iloc[0], part[part["method"] != "sft"]
        less = others[others["exposure_high"] < base["exposure_low"]]
        names = ", ".join(f"{SHORT[r.method]} ({r.exposure:.1f})" for r in less.itertuples()) or "none"
        lines.append(
            f"- **{size}**: canaries with {base['copies']} copies have {base['exposure']:.1f} bits after plain fine-tuning (95 % interval "
            f"{base['exposure_low']:.1f} to {base['exposure_high']:.1f}; chance {base['chance']:.1f}, ceiling {base['ceiling']:.1f}; "
            f"{base['canaries']} canaries). Intervals wholly below it: {names}."
        )
    return lines


def summary(found: pd.DataFrame) -> list[str]:
    """How many contrasts are decided at the end and at equal loss, and what early stopping does."""
    lines = []
    for when in ("end", "equal"):
        rows = found[found["when"] == when]
        counts = rows["verdict"].value_counts()
        lines.append(
            f"- {WHEN[when][0].upper()}{WHEN[when][1:]}, {counts.get('less', 0)} of {len(rows)} comparisons show less memorization, "
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
