"""The figures of an audit's report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from palimpsest.audit.records import NO_END, attack_scores, column, sample
from palimpsest.measure.membership_inference import LABELS

DRAWN = 20_000  # most records a group behind a figure of single records
POINTS = 1_000  # most thresholds of a drawn ROC curve
LOOK = {"font.size": 10, "legend.frameon": False, "axes.grid": True, "grid.color": "#e8e8e8", "axes.axisbelow": True}
LOOK |= {"axes.edgecolor": "#cccccc", "axes.spines.top": False, "axes.spines.right": False}
STYLES = {  # group, model -> color, line, label
    ("members", "model"): ("#b2182b", "-", "members"),
    ("non_members", "model"): ("#2166ac", "--", "non-members"),
    ("members", "reference"): ("#d98880", ":", "members, reference model"),
    ("non_members", "reference"): ("#85a9d0", ":", "non-members, reference model"),
    ("members", "teacher"): ("#7f6000", "-.", "members, teacher"),
    ("non_members", "teacher"): ("#7f8c6d", "-.", "non-members, teacher"),
    ("members", "baseline"): ("#1b7837", ":", "members, baseline"),
    ("non_members", "baseline"): ("#88b999", ":", "non-members, baseline"),
}
VIEWS = {
    f"extraction_strength{NO_END}": "extraction strength",
    "longest_span": "longest span, tokens",
    "loss": "loss, nats per token",
}


def _axes(count: int, width: float, height: float) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(count * width, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def plot_by_prefix(summary: Mapping[str, Any]) -> Figure:
    """Verbatim rate for every number of given tokens, with 95 % bands."""
    figure, (ax,) = _axes(1, 7, 3.4)
    for (group, model), rows in pd.DataFrame(summary["curve"]).groupby(["group", "model"], sort=False):
        color, line, label = STYLES[group, model]
        ax.plot(rows["k"], rows["rate"], line, color=color, label=label)
        if model == "model":
            ax.fill_between(rows["k"], rows["low"].astype(float), rows["high"].astype(float), color=color, alpha=0.15)
    ax.set(xlabel="tokens of the record given, k", ylabel="share recited from there")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend()
    return figure


def plot_distributions(path: Path, summary: Mapping[str, Any]) -> Figure:
    """How the records of each group are spread over some numbers: share of records up to a value.

    Above it stands which records these are, where they were drawn.
    """
    figure, axes = _axes(len(VIEWS), 3.6, 3.2)
    of = {group: facts["records"] for group, facts in summary["data"].items()}
    for ax, (name, label) in zip(axes, VIEWS.items(), strict=True):
        for group, count in of.items():
            color, line, title = STYLES[group, "model"]
            values = column(path, group, name).iloc[sample(count, DRAWN)].dropna().astype(float)
            ax.ecdf(values, linestyle=line, color=color, label=title)
        ax.set(xlabel=label, ylim=(0, 1.02))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    if max(of.values()) > DRAWN:
        parts = [f"{min(count, DRAWN):,} of {count:,} {STYLES[group, 'model'][2]}" for group, count in of.items()]
        figure.suptitle(f"{' and '.join(parts)}, drawn at random", fontsize="small")
    axes[0].set_ylabel("share of records up to there")
    axes[0].legend()
    return figure


def plot_roc(path: Path) -> Figure:
    """Receiver operating characteristic of every attack in a `records.parquet`, on log axes from one false positive upwards."""
    figure, (ax,) = _axes(1, 5, 4)
    least = 1 / max(1, len(column(path, "non_members", "row")))
    for attack, scores in attack_scores(path):
        sides = [side[~np.isnan(side)] for side in scores]
        if min(map(len, sides)):
            fpr, tpr = roc_points(*sides)
            ax.plot(fpr.clip(least), tpr.clip(least), lw=1.2, label=LABELS[attack])
    ax.plot([least, 1], [least, 1], ":", color="#777777", label="guessing")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="false positive rate",
        ylabel="true positive rate",
        xlim=(min(least, 0.5), 1),
    )
    ax.legend(fontsize=7)
    return figure


def roc_points(members: np.ndarray, non_members: np.ndarray, most: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a ROC curve, false and true positive rates, in memory of the scores alone.

    At every score of a non-member, just above it and at it; where those are more than `most`, at as many of them, evenly
    spaced on a log scale, so that the points are exact and only corners between them are cut.
    """
    mine, theirs = np.sort(members), np.sort(non_members)
    ranks = np.unique(np.geomspace(1, len(theirs), min(most, len(theirs))).round().astype(int))
    ranks = np.arange(1, len(theirs) + 1) if len(theirs) <= most else ranks
    thresholds = theirs[len(theirs) - ranks]  # falling
    above = [1 - np.searchsorted(side, thresholds, "right") / len(side) for side in (theirs, mine)]
    there = [1 - np.searchsorted(side, thresholds, "left") / len(side) for side in (theirs, mine)]
    fpr, tpr = (np.stack(pair, 1).ravel() for pair in zip(above, there, strict=True))
    return np.concatenate([[0], fpr, [1]]), np.concatenate([[0], tpr, [1]])
