"""Chapter 04, an attacker who has a part of a record already, or samples many times: shown and read out of `by_prefix`, `context` and
`discoverable`, which `memorization.tables` makes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.figures import COLORS, LABELS, SPLITS, rate_text
from palimpsest.chapters.memorization import PLAIN
from palimpsest.data.splits import COMPARED


def plot_by_prefix(by_prefix: pd.DataFrame) -> plt.Figure:
    """Verbatim share of members against the number of response tokens given, one panel per size; grey: non-members.

    Lines end where fewer than 20 records have a target."""
    enough = by_prefix[by_prefix["total"] >= min(20, by_prefix["total"].max())]
    figure, axes = figures.panels(1, enough["size"].nunique())
    for ax, (size, part) in zip(axes[0], enough.groupby("size", sort=False), strict=True):
        for (method, split), rows in part.groupby(["method", "split"], sort=False):
            mean = rows.groupby("k")["rate"].mean()
            member = {"color": COLORS[method], "lw": 1.6, "label": LABELS[method]}
            ax.plot(mean.index, mean, **(member if split == "member" else {"color": "#bbbbbb", "lw": 0.8}))
        ax.set(title=size, xlabel="response tokens given, k")
    figures.in_percent(axes[0, 0].yaxis)
    axes[0, 0].set_ylabel("share recited from there")
    return figures.legend(figure, axes)


def say_by_prefix(by_prefix: pd.DataFrame) -> list[str]:
    """`plot_by_prefix` read out: what each size's fine-tuned model recites when no token of the response is given, and at the most
    tokens for which half of the members still have a target."""
    rows, lines = by_prefix[(by_prefix["role"] == "baseline") & (by_prefix["split"] == "member")], []
    for size, part in rows.groupby("size", sort=False):
        mean = part[part["total"] >= 0.5 * part["total"].max()].groupby("k")["rate"].mean()
        first, last = mean.index[0], mean.index[-1]
        lines.append(
            f"- **{size}**: fine-tuned, it recites {100 * mean[first]:.0f} % of the members from {first:g} tokens, {100 * mean[last]:.0f} % "
            f"from {last:g}."
        )
    return lines


def plot_context(context: pd.DataFrame) -> plt.Figure | None:
    """Share recited over the tokens of context, a row of panels per design; None where the study has it off."""
    return figures.by_setting(context, "design", "k", "tokens given, k") if len(context) else None


def show_context(context: pd.DataFrame) -> pd.DataFrame:
    """Both designs of the models fine-tuned on the members, a column per split."""
    tuned = context[context["role"].isin(["teacher", "baseline"])]
    given = ["all" if np.isinf(k) else f"{k:.0f}" for k in tuned["k"]]
    shown = tuned.assign(given=given, split=tuned["split"].map({s: SPLITS[s][2] for s in COMPARED}))
    return figures.rate_table(shown, ["size", "design", "given"], "split")


def say_context(context: pd.DataFrame) -> list[str]:
    """What the teacher completes of the endings of members, given all the text before them and only the fewest tokens."""
    rows = context[(context["role"] == "teacher") & (context["split"] == "member")]
    rows = rows[rows["design"] == "left-truncated"].sort_values("k")
    if rows.empty:
        return []
    few, all_ = rows.iloc[0], rows.iloc[-1]
    return [
        f"Given all that precedes, the teacher completes the ending of {rate_text(all_)} of {all_['total']:.0f} members. Given only "
        f"{few['k']:.0f} tokens: of {rate_text(few)}."
    ]


def plot_discoverable(discoverable: pd.DataFrame) -> plt.Figure:
    """Share discoverable over n samples, a row of panels per way of sampling."""
    return figures.by_setting(discoverable[discoverable["sampling"] != "greedy"], "sampling", "n", "samples, n")


def show_discoverable(discoverable: pd.DataFrame) -> pd.DataFrame:
    """The members by greedy decoding and plain sampling: a row per size and method, a column per number of samples."""
    asked = (discoverable["split"] == "member") & discoverable["sampling"].isin(["greedy", PLAIN])
    shown = discoverable[asked & (discoverable["n"] != 1)]  # one sample says little beside greedy decoding
    samples = shown["n"].map("{:,} samples".format).replace("0 samples", "greedy")
    return figures.rate_table(shown.assign(model=figures.names_of(shown), samples=samples), ["model"], "samples")


def say_discoverable(discoverable: pd.DataFrame) -> list[str]:
    """What the most samples give by every way of sampling: of members by the worst student, of non-members by any model."""
    most, lines = discoverable["n"].max(), []
    for rule, part in discoverable[discoverable["n"] == most].groupby("sampling", sort=False):
        students = part[(part["split"] == "member") & ~part["role"].isin(["base", "teacher"])]
        top, chance = (rows.loc[rows["rate"].idxmax()] for rows in (students, part[part["split"] == "non_member"]))
        line = f"- With {rule}, {most:,} samples give at most {rate_text(top)} of the members"
        lines.append(f"{line} ({top['size']}, {LABELS[top['method']]}). Of non-members, at most {rate_text(chance)}.")
    return lines
