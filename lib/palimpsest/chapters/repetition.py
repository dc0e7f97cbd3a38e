"""Chapter 07, what repetition does: what is recited by copies in the training text, of the table `by_dose`, which `tradeoffs.tables` makes."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.figures import COLORS, ORDER
from palimpsest.chapters.tradeoffs import WHEN, in_every_size
from palimpsest.measure.statistics import rate_of, say_copies

DOSES = {"once": "text that stands once", "repeated": "repeated text"}


def doses_of_letters(by_dose: pd.DataFrame) -> pd.DataFrame:
    """Members, canaries left out, by copies: `size, method, copies, when`, `rate`, `low`, `high`.

    Over replicates the rate is their mean and `low` to `high` the least and the most of one; of a single training, a 95 % Wilson
    interval.
    """
    rows = by_dose[(by_dose["split"] == "member") & (by_dose["kind"] == "letter") & (by_dose["secrets"] > 0)]
    out, by = [], ["size", "method", "copies", "when"]
    for key, part in rows.groupby(by, sort=False):
        share, single = part["recited"], part.iloc[0]
        ends = {"rate": share.mean(), "low": share.min(), "high": share.max()}
        if len(part) == 1:
            one = rate_of(round(single["recited"] * single["secrets"]), int(single["secrets"]))
            ends |= {name: one[name] for name in ("low", "high")}
        out.append({**dict(zip(by, key, strict=True)), **ends})
    return pd.DataFrame(out, columns=[*by, "rate", "low", "high"]).sort_values("copies", kind="stable")


def counted_doses(by_dose: pd.DataFrame, when: str) -> pd.DataFrame:
    """What each model recites of the letters of its own half, replicates together: a row per `label`, `size`, `method`, `role` and
    `dose` (once, repeated), with `rate`, `count`, `total`, `low`, `high` over all their secrets (or records) and `replicates`.

    The interval is over records, not over trainings: no verdict on a method follows from it.
    """
    rows = by_dose[(by_dose["when"] == when) & (by_dose["kind"] == "letter") & (by_dose["split"] == "member")]
    rows = rows[rows["secrets"] > 0]
    rows = rows.assign(dose=np.where(rows["copies"] > 1, "repeated", "once"), count=rows["recited"] * rows["secrets"])
    out, by = [], ["label", "size", "method", "role", "dose"]
    for key, part in rows.groupby(by, sort=False):
        found = rate_of(round(part["count"].sum()), int(part["secrets"].sum()))
        out.append({**dict(zip(by, key, strict=True)), **found, "replicates": part["replicate"].nunique()})
    return pd.DataFrame(out, columns=[*by, "rate", "count", "total", "low", "high", "replicates"])


def show_baseline_doses(by_dose: pd.DataFrame) -> pd.DataFrame:
    """What plain fine-tuning recites, by copies in the training text: a row per dose, a column per size and moment."""
    rows = doses_of_letters(by_dose[by_dose["role"] == "baseline"])
    wide = figures.rate_table(rows.assign(when=rows["when"].map(WHEN)), "copies", ["size", "when"])
    return wide.rename_axis(columns=[None, None])


def say_baseline_doses(by_dose: pd.DataFrame, unit: str) -> list[str]:
    """Whether plain fine-tuning, stopped at its best, recites some doses and not others: else there is a floor or a ceiling."""
    rows, lines = doses_of_letters(by_dose[(by_dose["role"] == "baseline") & (by_dose["when"] == "best")]), []
    for size, part in rows.groupby("size", sort=False):
        fewest, most = part.iloc[0], part.iloc[-1]
        line = f"- Stopped at its best, the fine-tuned {size} student recites {_percent(fewest)} of {unit} with {say_copies(fewest['copies'])}."
        lines.append(
            line + (f" Of those with {say_copies(most['copies'])}: {_percent(most)}." if len(part) > 1 else "")
        )
        if not part["rate"].between(0.2, 0.8).any():
            lines.append("  No dose lies between 20 and 80 %, so what is recited tells methods badly apart there.")
    return lines or [f"- No {unit} of members were asked for."]


def plot_by_dose(
    by_dose: pd.DataFrame, unit: str, when: str = "best", methods: Sequence[str] | None = None
) -> plt.Figure | None:
    """What each method recites by copies in the training text: a panel per size, a line per method, named at its end, the teacher's
    dotted; bars are the intervals of `doses_of_letters`. None of none.

    Args:
        when: at the lowest validation loss ("best") or after the last step ("end").
        methods: those drawn; if None, those that all sizes have.
    """
    at = by_dose[by_dose["when"] == when]
    rows, teacher = at[at["size"] != "teacher"], doses_of_letters(at[at["size"] == "teacher"])
    rows = doses_of_letters(in_every_size(rows) if methods is None else rows[rows["method"].isin(methods)])
    if rows.empty:
        return None
    sizes = sorted(rows["size"].unique(), key=list(by_dose["size"].unique()).index)
    figure, axes = figures.panels(1, len(sizes), height=3.0)
    figure.set_figwidth(1.2 + 2.2 * len(sizes))  # the names at the lines' ends need room, too
    places = {copies: place for place, copies in enumerate(sorted(rows["copies"].unique()))}
    for ax, size in zip(axes[0], sizes, strict=True):
        part, ends = rows[rows["size"] == size], {}
        for method in sorted(part["method"].unique(), key=ORDER.index):
            line = part[part["method"] == method]
            ax.plot(line["copies"].map(places), line["rate"], lw=1.6, color=COLORS[method])
            ax.vlines(line["copies"].map(places), line["low"], line["high"], color=COLORS[method], lw=0.8)
            for copies, rate in zip(line["copies"], line["rate"], strict=True):
                mark = figures.mark_of("member", copies)
                ax.plot([places[copies]], [rate], ms=4.5, color=COLORS[method], **mark)
            ends[method] = line["rate"].iloc[-1]
        ax.plot(teacher["copies"].map(places), teacher["rate"], color="#444444", lw=1, ls=":")
        ax.set(title=f"{size} student", xlabel="copies in the training text", ylim=(-0.03, 1.03))
        figures.name_lines(ax, max(places.values()), ends)
        ax.set_xticks(list(places.values()), list(places))
    axes[0, 0].set_ylabel(f"{unit} recited")
    figures.in_percent(*(ax.yaxis for ax in axes[0]))
    return figure


def _percent(row: pd.Series) -> str:
    return f"{100 * row['rate']:.0f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})"
