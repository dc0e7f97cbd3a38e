"""The look that all chapters share: theme, colours and names of methods, marks of splits, rates as text, panels and legends.

Colour says which method, the mark which records: `mark_of`. Where one model is drawn alone, colour says which records, too.
"""

import re
import textwrap
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display

from palimpsest.chapters import drawing
from palimpsest.measure.statistics import interval
from palimpsest.study.methods import METHODS

ORDER = ["none", *METHODS]
LABELS = {"none": "before fine-tuning", **{name: rule.label for name, rule in METHODS.items()}}
# Seaborn's "colorblind" with a dark red for the paper's RKLD.
PALETTE = ["#bbbbbb", "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#56b4e9", "#7a0019", "#949494"]
PALETTE += ["#4b4b9b", "#c9b400", "#8c6d31", "#5a7d2a", "#111111"]
PALETTE += sns.color_palette("husl", max(0, len(ORDER) - len(PALETTE))).as_hex()  # of methods added since
COLORS = dict(zip(ORDER, PALETTE, strict=False))
drawing.COLORS.update(
    {color: f"m-{name}" for name, color in COLORS.items()}
)  # a page may show them otherwise when it is dark
MARKS = {
    "member": "o",
    "teacher_only": "D",
    "non_member": "o",
    "twin": "o",
    "validation": "^",
    "test": "v",
    "public": "P",
}
READ = ("member", "teacher_only", "public")  # by some model; all others are controls
SPLITS = {"member": ("#b2182b", "-", "members"), "non_member": ("#2166ac", "--", "non-members")}


PERCENT = re.compile(r"(?<=\d) ?%")  # no line ends before the sign
PLACES = {"member": 0.0, "repeated": 0.25, "non_member": -0.25}  # of a group's marks beside a method's line


def mark_of(split: str, copies: int = 1) -> dict[str, str | None]:
    """The mark of a group of records, as `marker` and `mfc`: circles stand once in the training text, squares more often, diamonds in
    the teacher's alone; what no model was trained on is hollow."""
    repeated = copies > 1 and split == "member"
    return {"marker": "s" if repeated else MARKS[split], "mfc": None if split in READ else "white"}


def set_theme() -> None:
    """One look for all figures and tables."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.85)
    plt.rcParams.update({"figure.dpi": 110, "figure.constrained_layout.use": True, "axes.spines.top": False})
    plt.rcParams.update({"axes.spines.right": False, "legend.frameon": False, "grid.color": "#e8e8e8"})
    drawing.show_inline()
    pd.set_option("display.precision", 3)
    pd.set_option("display.max_columns", 30)
    pd.set_option("display.max_rows", 200)  # a row per model, several seeds: none may be left out


def say(*lines: str) -> Markdown | None:
    """Sentences computed from the results, shown as text of the page; nothing, if there are none."""
    return Markdown(PERCENT.sub("\u00a0%", "\n".join(lines))) if any(lines) else None


def read_out(table: pd.DataFrame | None, *lines: str) -> Markdown | None:
    """A table, if there is one, and below it the sentences that read it."""
    if table is not None:
        display(table)
    return say(*lines)


def methods_at(rows: pd.DataFrame, row: pd.Series) -> str:
    """The methods of the rows whose rate is that of `row`; how many they are, if more than two."""
    names = dict.fromkeys(LABELS[method] for method in rows.loc[rows["rate"] == row["rate"], "method"])
    return ", ".join(names) if len(names) < 3 else f"{len(names)} methods"


def rate_text(row: pd.Series) -> str:
    """`interval` of a row with `rate`, `low` and `high`."""
    return interval(row["rate"], row["low"], row["high"])


def auc_text(row: pd.Series) -> str:
    """`between` of a row with an AUC as its `rate`, and `low` and `high`."""
    return between(row["rate"], row["low"], row["high"])


def least_to_most(values: pd.Series, form: str) -> str:
    """The least and the most of the values that are known: "0.2 to 0.4", or "0.2" where both read the same; empty of none."""
    known = values.dropna()
    return " to ".join(dict.fromkeys(f"{end:{form}}" for end in (known.min(), known.max()))) if len(known) else ""


def percents(rates: pd.Series) -> str:
    """Where the rates of several methods lie: "2 % to 40 % by method", or "0 % by every method"."""
    least, most = (f"{100 * rate:.0f} %" for rate in (rates.min(), rates.max()))
    return f"{least} to {most} by method" if least != most else f"{least} by every method"


def between(value: float, low: float, high: float, form: str = ".2f") -> str:
    """ "1.11 (0.91 to 1.38)", or "not measurable" without an interval; what is rounded to nothing has no minus."""
    form = form.replace(".", "z.")
    return "not measurable" if pd.isna(low) else f"{value:{form}} ({low:{form}} to {high:{form}})"


def label_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """With the seed in the labels of a table that has several, so that no two models share one."""
    if table["seed"].nunique() < 2:
        return table
    seeds = ["" if pd.isna(seed) else f", seed {seed:.0f}" for seed in table["seed"]]
    return table.assign(label=table["label"] + seeds)


def names_of(table: pd.DataFrame) -> list[str]:
    """Every row's model as one text, from `size` and `method`: "small, Word-KD"."""
    pairs = zip(table["size"], table["method"], strict=True)
    return [
        "teacher" if (size, method) == ("teacher", "sft") else f"{size}, {LABELS[method]}" for size, method in pairs
    ]


def spread_out(
    table: pd.DataFrame, texts: Sequence[str], index: str | list[str], columns: str | list[str], lacking: str = ""
) -> pd.DataFrame:
    """A text per row of a table, set out: a row per `index`, a column per value of `columns`, in order of appearance."""
    shown = table.assign(shown=texts)
    wide = shown.pivot_table(index=index, columns=columns, values="shown", aggfunc="first", sort=False)
    return wide.fillna(lacking)


def rate_table(table: pd.DataFrame, index: str | list[str], columns: str | list[str]) -> pd.DataFrame:
    """Rates as text with intervals, one row per `index`, one column per value of `columns`, in order of appearance."""
    return spread_out(table, [rate_text(row) for _, row in table.iterrows()], index, columns)


def panels(rows: int, columns: int, *, height: float = 2.4, **options) -> tuple[plt.Figure, np.ndarray]:
    """A figure of `[rows, columns]` axes of one width, which share their y-axis (options as `plt.subplots` has them). It is closed: a
    notebook shows it as the value of its cell."""
    shape = {"figsize": (1.5 + 2.9 * columns, 0.5 + height * rows), "sharey": True}
    figure, axes = plt.subplots(rows, columns, squeeze=False, **{**shape, **options})
    plt.close(figure)
    return figure, axes


def dots(ax: plt.Axes, value, low, high, y, **style) -> None:
    """Marks at `value` with their intervals (numbers, or arrays of them) in the rows `y`; `style` as `errorbar` has it."""
    errors = np.abs([np.atleast_1d(end - value) for end in (low, high)])
    ax.errorbar(value, y, xerr=errors, **{"ls": "", "markersize": 4, "capsize": 2, **style})


def name_rows(ax: plt.Axes, names: list[str], width: int = 20) -> None:
    """The names of an axis' rows, from below, broken after `width` characters: on a telephone the panel needs the room."""
    ax.set_yticks(range(len(names)), [textwrap.fill(name, width, break_on_hyphens=False) for name in names])


def in_percent(*axes: plt.matplotlib.axis.Axis) -> None:
    """Shares on these axes (`ax.xaxis`, `ax.yaxis`) are written in percent."""
    for axis in axes:
        axis.set_major_locator(plt.matplotlib.ticker.MaxNLocator(5))
        axis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))


def legend(figure: plt.Figure, axes: np.ndarray) -> plt.Figure:
    """The figure with one legend for all panels, each label once."""
    handles = {label: h for ax in axes.flat for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=7)
    return figure


def name_lines(ax: plt.Axes, x: float, ends: dict[str, float], gap: float = 0.075) -> None:
    """Every line's method beside its end, at `x` and the value in `ends`, instead of a legend; names that would cover each other are
    pushed apart, `gap` of the axis from one to the next, and led to by a line in the method's colour."""
    low, high = ax.get_ylim()
    least, at, where = gap * (high - low), -np.inf, {}
    for method, end in sorted(ends.items(), key=lambda item: item[1]):
        at = where[method] = max(end, at + least)
    at = high
    for method in reversed(where):  # what was pushed beyond the top comes down again
        at = where[method] = min(where[method], at)
        at -= least
    for method, y in where.items():
        ax.plot([x + 0.08, x + 0.4], [ends[method], y], color=COLORS[method], lw=1, clip_on=False)
        name = "plain fine-tuning" if method == "sft" else LABELS[method]
        ax.text(x + 0.45, y, name, fontsize=8, va="center", color="#262626")
    ax.set(xlim=(ax.get_xlim()[0], x + 0.1), ylim=(low, high))


def by_method(table: pd.DataFrame, paper: pd.DataFrame | None = None) -> plt.Figure:
    """Rates, size x method, with 95 % intervals: filled = members, square = repeated ones, hollow = non-members (chance level); the
    teacher in a row of its own; the line is the size's base.

    `paper`, rates by method (index) and size (columns), goes into a panel of its own on the right.
    """
    sizes = [size for size in table["size"].unique() if size != "teacher"]
    figure, axes = panels(1, len(sizes) + (paper is not None), height=3.1, sharex=True)
    methods = [m for m in METHODS if m in set(table.loc[table["size"].isin(sizes), "method"])]
    place = {m: i for i, m in enumerate([*reversed(methods), "teacher"])}
    mean = table[table["split"] == "member"].groupby(["role", "size"])["rate"].mean()
    for ax, size in zip(axes[0], sizes, strict=False):
        rows = table[table["size"].isin([size, "teacher"]) & (table["role"] != "base")]
        rows = rows.assign(row=rows["method"].where(rows["size"] == size, "teacher"))
        for (method, split), part in rows.groupby(["row", "split"], sort=False):
            y = place[method] + 0.12 * (np.arange(len(part)) - (len(part) - 1) / 2) + PLACES[split]
            mark = mark_of("member", 2) if split == "repeated" else mark_of(split)
            style = {"color": COLORS.get(method, "#444444"), "markersize": 5, **mark}
            dots(ax, part["rate"], part["low"], part["high"], y, **style)
        ax.axvline(mean.get(("base", size), np.nan), color="#999999", lw=1, ls="--")
        ax.set_title(f"student: {size}")
    if paper is not None:
        shown = paper[paper.index.isin(methods)]
        # One kind of record, so one mark; its size tells the models' sizes apart, the larger the larger.
        for i, size in enumerate(shown):
            style = {"color": "#444444", "mfc": "none", "ms": 9 - 2 * i, "label": size}
            axes[0, -1].plot(shown[size], shown.index.map(place), "o", **style)
        axes[0, -1].set_title("paper: GPT-2 on Dolly")
    for ax in axes[0]:
        name_rows(ax, [LABELS.get(m, m) for m in place])
        in_percent(ax.xaxis)
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(place) - 0.5), xlabel="share recited")
    return legend(figure, axes) if paper is not None else figure


def by_setting(table: pd.DataFrame, rows: str, x: str, title: str) -> plt.Figure:
    """Rates over the values of column `x`, a row of panels per value of column `rows`, a column per size; grey: non-members."""
    kinds, sizes = (list(table[column].unique()) for column in (rows, "size"))
    places = {value: place for place, value in enumerate(sorted(table[x].unique()))}
    figure, axes = panels(len(kinds), len(sizes), sharex=True)
    for (kind, size), part in table.groupby([rows, "size"], sort=False):
        ax = axes[kinds.index(kind), sizes.index(size)]
        for i, (method, lines) in enumerate(part.groupby("method", sort=False)):
            members, others = (lines[lines["split"] == split].sort_values(x) for split in SPLITS)
            errors = np.abs(members[["low", "high"]].to_numpy().T - members["rate"].to_numpy())
            style = {"markersize": 3, "lw": 1.2, "elinewidth": 0.7, "color": COLORS[method], **mark_of("member")}
            at = members[x].map(places) + 0.03 * i
            ax.errorbar(at, members["rate"], yerr=errors, label=LABELS[method], **style)
            grey = {"lw": 0.8, "color": "#999999", "zorder": 1, "label": "any of them, non-members"}
            ax.plot(others[x].map(places), others["rate"], "--", **grey)
        ax.set_xticks(list(places.values()), [f"{value:,.0f}" if np.isfinite(value) else "all" for value in places])
        ax.set_ylim(-0.03, 1.03)
        in_percent(ax.yaxis)
        if kind == kinds[0]:
            ax.set_title(size)
    for ax, kind in zip(axes[:, 0], kinds, strict=True):
        ax.set_ylabel(kind)
    for ax in axes[-1]:
        ax.set_xlabel(title)
    return legend(figure, axes)
