"""Chapter 07, what repetition does: what is recited by copies in the training text, of the table `by_dose`, which `tradeoffs.tables` makes."""

import matplotlib.pyplot as plt
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.figures import COLORS, LABELS, MARKERS, ORDER
from palimpsest.chapters.tradeoffs import WHEN, in_every_size
from palimpsest.measure.statistics import interval, rate_of, say_copies


def doses_of_letters(by_dose: pd.DataFrame, split: str = "member") -> pd.DataFrame:
    """Records of one half, canaries left out, by copies: `size, method, copies, when`, `rate`, `low`, `high`.

    Over replicates the rate is their mean and `low` to `high` the least and the most of one; of a single training, a 95 % Wilson
    interval.
    """
    rows = by_dose[(by_dose["split"] == split) & (by_dose["kind"] == "letter") & (by_dose["secrets"] > 0)]
    out, by = [], ["size", "method", "copies", "when"]
    for key, part in rows.groupby(by, sort=False):
        share, single = part["recited"], part.iloc[0]
        ends = {"rate": share.mean(), "low": share.min(), "high": share.max()}
        if len(part) == 1:
            one = rate_of(round(single["recited"] * single["secrets"]), int(single["secrets"]))
            ends |= {name: one[name] for name in ("low", "high")}
        out.append({**dict(zip(by, key, strict=True)), **ends})
    return pd.DataFrame(out, columns=[*by, "rate", "low", "high"]).sort_values("copies", kind="stable")


def show_baseline_doses(by_dose: pd.DataFrame) -> pd.DataFrame:
    """What plain fine-tuning recites, by copies in the training text: a row per dose, a column per size and moment."""
    rows = doses_of_letters(by_dose[by_dose["role"] == "baseline"])
    text = [interval(*v) for v in rows[["rate", "low", "high"]].to_numpy(float)]
    wide = rows.assign(shown=text, when=rows["when"].map(WHEN)).pivot_table(
        index="copies", columns=["size", "when"], values="shown", aggfunc="first", sort=False
    )
    return wide.fillna("").rename_axis(columns=[None, None])


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


def plot_by_dose(by_dose: pd.DataFrame, unit: str) -> plt.Figure | None:
    """What each method recites by copies, at the lowest validation loss: a panel per size, a line per method; None of none."""
    rows = doses_of_letters(in_every_size(by_dose[(by_dose["when"] == "best") & (by_dose["size"] != "teacher")]))
    if rows.empty:
        return None
    sizes = sorted(rows["size"].unique(), key=list(by_dose["size"].unique()).index)
    figure, axes = figures.panels(1, len(sizes), height=2.9)
    places = {copies: place for place, copies in enumerate(sorted(rows["copies"].unique()))}
    for ax, size in zip(axes[0], sizes, strict=True):
        part = rows[rows["size"] == size]
        for method in sorted(part["method"].unique(), key=ORDER.index):
            line = part[part["method"] == method]
            style = {"color": COLORS[method], "marker": MARKERS[method], "ms": 4, "lw": 1.2, "label": LABELS[method]}
            ax.plot(line["copies"].map(places), line["rate"], **style)
        ax.set(title=f"student: {size}", xlabel="copies in the training text", ylim=(-0.03, 1.03))
        ax.set_xticks(list(places.values()), list(places))
    axes[0, 0].set_ylabel(f"{unit} recited")
    figures.in_percent(axes[0, 0].yaxis)
    return figures.legend(figure, axes)


def _percent(row: pd.Series) -> str:
    return f"{100 * row['rate']:.0f} % ({100 * row['low']:.0f} to {100 * row['high']:.0f})"
