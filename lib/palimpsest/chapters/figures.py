"""The figures and sentences of the notebooks: one look, every rate with its count and 95 % interval."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import Markdown

from palimpsest.study.methods import METHODS

ORDER = ["none", *METHODS]
LABELS = {"none": "before fine-tuning", **{name: rule.label for name, rule in METHODS.items()}}
# Seaborn's "colorblind" with a dark red for the paper's RKLD; markers tell methods apart where colours don't.
PALETTE = ["#bbbbbb", "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#56b4e9", "#7a0019", "#949494"]
PALETTE += ["#4b4b9b", "#c9b400", "#8c6d31", "#5a7d2a", "#111111"]
COLORS = dict(zip(ORDER, PALETTE, strict=True))
MARKERS = dict(zip(ORDER, "xosD^vP*X<>phd", strict=True))
SPLITS = {"member": ("#b2182b", "-", "members"), "non_member": ("#2166ac", "--", "non-members")}


def set_theme() -> None:
    """One look for all figures and tables."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.85)
    plt.rcParams.update({"figure.dpi": 110, "figure.constrained_layout.use": True, "axes.spines.top": False})
    plt.rcParams.update({"axes.spines.right": False, "legend.frameon": False, "grid.color": "#e8e8e8"})
    pd.set_option("display.precision", 3)
    pd.set_option("display.max_columns", 30)
    pd.set_option("display.max_rows", 200)  # a row per model, several seeds: none may be left out


def say(*lines: str) -> Markdown:
    """Sentences computed from the results, shown as text of the page."""
    return Markdown("\n".join(lines))


def interval(rate: float, low: float, high: float) -> str:
    """ "27.6 % (23.1 to 32.6)", or "not measurable" where there is nothing to count."""
    return "not measurable" if pd.isna(rate) else f"{100 * rate:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def percent(row, name: str = "rate", total: str = "total") -> str:
    """A rate with its count and interval, as running text: "27.6 % (n = 337; 95 % interval 23.1 to 32.6)"."""
    low, high = (row["low"], row["high"]) if name == "rate" else (row[f"{name}_low"], row[f"{name}_high"])
    if pd.isna(row[name]):
        return "not measurable (n = 0)"
    return f"{100 * row[name]:.1f} % (n = {int(row[total])}; 95 % interval {100 * low:.1f} to {100 * high:.1f})"


def facts(run: dict) -> pd.DataFrame:
    """What a stage's `run.json` says of a model, as a small table."""
    shown = {
        "parameters": f"{run['parameters']:,}",
        "started from": run["start"],
        "optimizer steps": run.get("steps", 0),
        "epochs": run.get("epochs", 0),
        "training seconds": run.get("train_seconds", 0),
        "text per epoch, tokens": run.get("tokens_per_epoch", 0),
        "labelled tokens per epoch": run.get("labelled_tokens_per_epoch", 0),
        **({"records left out": run["left_out"]} if "left_out" in run else {}),
        **({"privacy spent": _privacy(run["privacy"])} if "privacy" in run else {}),
        "device": run["device"],
        "commit": run["commit"],
        "torch / transformers / trl": " / ".join(run["versions"][k] or "-" for k in ("torch", "transformers", "trl")),
    }
    return pd.Series(shown, name="value").to_frame()


def _privacy(spent: dict) -> str:
    return (
        f"ε = {spent['epsilon']:.2f} at δ = {spent['delta']:.2g}; noise {spent['noise_multiplier']:.2f} x clip {spent['clip']:g}, "
        f"sampling rate {spent['sampling_rate']:.2f}"
    )


def rate_table(table: pd.DataFrame, index: list[str], columns: str) -> pd.DataFrame:
    """Rates as text with intervals, one row per `index`, one column per value of `columns`, in order of appearance."""
    text = [interval(*v) for v in table[["rate", "low", "high"]].to_numpy(float)]
    wide = table.assign(shown=text).pivot_table(
        index=index, columns=columns, values="shown", aggfunc="first", sort=False
    )
    return wide.fillna("")


def legend(figure: plt.Figure, axes: np.ndarray) -> plt.Figure:
    """One legend for all panels, each label once. The figure is closed: a notebook shows it as the value of its cell."""
    handles = {label: h for ax in axes.flat for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=7)
    plt.close(figure)
    return figure


def trajectory(path: pd.DataFrame) -> plt.Figure:
    """Loss, verbatim and recited shares per epoch, members and non-members."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    for split, (color, line, name) in SPLITS.items():
        rows = path[path["split"] == split]
        left.plot(rows["epoch"], rows["loss"], line, color=color, label=name)
        for what, marker in (("verbatim", "o"), ("recited", "s")):
            right.plot(
                rows["epoch"], rows[what], line, color=color, marker=marker, markersize=3, label=f"{what}, {name}"
            )
            right.fill_between(rows["epoch"], rows[f"{what}_low"], rows[f"{what}_high"], color=color, alpha=0.12)
    left.set(xlabel="epoch", ylabel="loss, nats per response token")
    right.set(xlabel="epoch", ylabel="share", ylim=(-0.02, 1.02))
    right.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
    left.legend()
    right.legend(fontsize=7)
    plt.close(figure)
    return figure


def rates(table: pd.DataFrame, paper: pd.DataFrame | None = None) -> plt.Figure:
    """Size x method with 95 % intervals: filled = members, hollow = non-members (chance level); lines = teacher, base.

    `paper` rows (size, method, rate) go into a panel of their own on the right.
    """
    sizes = [s for s in table["size"].unique() if s != "teacher"]
    panels = len(sizes) + (paper is not None)
    figure, axes = plt.subplots(1, panels, figsize=(1.5 + 3.0 * panels, 3.6), sharex=True, squeeze=False)
    methods = [m for m in METHODS if m in set(table["method"])]
    place = {m: i for i, m in enumerate(reversed(methods))}
    teacher = table[(table["role"] == "teacher") & (table["split"] == "member")]["rate"].mean()
    for ax, size in zip(axes[0], sizes, strict=False):
        rows = table[(table["size"] == size) & table["role"].isin(["student", "baseline", "mitigated"])]
        for split, (_, _, _) in SPLITS.items():
            part = rows[rows["split"] == split]
            seeds = part.groupby("method").cumcount() - (part.groupby("method")["rate"].transform("size") - 1) / 2
            y = part["method"].map(place) + 0.12 * seeds + (0.0 if split == "member" else -0.25)
            errors = np.abs(part[["low", "high"]].to_numpy().T - part["rate"].to_numpy())
            for i, method in enumerate(part["method"]):
                fill = COLORS[method] if split == "member" else "white"
                ax.errorbar(
                    part["rate"].iloc[i],
                    y.iloc[i],
                    xerr=errors[:, [i]],
                    fmt="o",
                    color=COLORS[method],
                    mfc=fill,
                    markersize=5,
                    capsize=2,
                )
        base = table[(table["size"] == size) & (table["role"] == "base") & (table["split"] == "member")]["rate"].mean()
        ax.axvline(teacher, color="#444444", lw=1, ls=":")
        ax.axvline(base, color="#999999", lw=1, ls="--")
        ax.set(title=f"student: {size}", yticks=list(place.values()), yticklabels=[LABELS[m] for m in place])
    if paper is not None:
        ax = axes[0, -1]
        for mark, (size, rows) in zip("osDX", paper.groupby("size", sort=False), strict=False):
            rows = rows[rows["method"].isin(place)]
            ax.plot(rows["rate"], rows["method"].map(place), mark, color="#444444", mfc="none", label=size)
        ax.set(title="paper: GPT-2 on Dolly", yticks=list(place.values()), yticklabels=[LABELS[m] for m in place])
        ax.legend(fontsize=7)
    for i, ax in enumerate(axes[0]):
        ax.xaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.6, len(methods) - 0.5), xlabel="memorized share")
        if i:
            ax.tick_params(labelleft=False)
    plt.close(figure)
    return figure


def curve(table: pd.DataFrame) -> plt.Figure:
    """Verbatim share of members against the number of response tokens given, one panel per size; grey: non-members."""
    sizes = list(table["size"].unique())
    figure, axes = plt.subplots(1, len(sizes), figsize=(1.2 + 3.0 * len(sizes), 3.0), sharey=True, squeeze=False)
    for ax, size in zip(axes[0], sizes, strict=True):
        for (method, split), rows in table[table["size"] == size].groupby(["method", "split"], sort=False):
            mean = rows.groupby("k")["rate"].mean()
            color, width = (COLORS[method], 1.6) if split == "member" else ("#bbbbbb", 0.8)
            ax.plot(mean.index, mean, color=color, lw=width, label=LABELS[method] if split == "member" else None)
        ax.set(title=size, xlabel="response tokens given, k")
        ax.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
    axes[0, 0].set_ylabel("share decoded verbatim from there")
    return legend(figure, axes)


def tradeoff(paths: pd.DataFrame) -> plt.Figure:
    """Memorization of members against held-out loss, one line per arm, one point per epoch; left and low is better."""
    sizes = [s for s in paths["size"].unique() if s != "teacher"]
    figure, axes = plt.subplots(1, len(sizes), figsize=(1.5 + 3.6 * len(sizes), 3.6), sharey=True, squeeze=False)
    for ax, size in zip(axes[0], sizes, strict=True):
        for (_, method), rows in paths[paths["size"].isin([size])].groupby(["model", "method"], sort=False):
            ax.plot(rows["held_out_loss"], rows["memorized"], "-", color=COLORS[method], lw=1, alpha=0.7)
            ax.scatter(
                rows["held_out_loss"],
                rows["memorized"],
                color=COLORS[method],
                marker=MARKERS[method],
                s=12,
                label=LABELS[method],
            )
            ax.scatter(
                rows["held_out_loss"].iloc[-1:],
                rows["memorized"].iloc[-1:],
                color=COLORS[method],
                marker=MARKERS[method],
                s=60,
            )
        ax.set(title=f"student: {size}", xlabel="held-out loss, nats per token")
        ax.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
    ceiling = max(0.1, 1.05 * paths["memorized"].max())
    axes[0, 0].set(ylabel=f"members' {paths['unit'].iloc[0]} recited", ylim=(-0.02, ceiling))
    return legend(figure, axes)


def stopped_table(best: pd.DataFrame, end: pd.DataFrame) -> pd.DataFrame:
    """Every model at its epoch of lowest held-out loss (`best`) and after its last one (`end`), one row per model."""
    parts = {}
    for when, rows in (("best epoch", best), ("at the end", end)):
        shown = rows.set_index("label")
        recited = [interval(*v) for v in shown[["memorized", "memorized_low", "memorized_high"]].to_numpy(float)]
        parts[when] = pd.DataFrame(
            {"epoch": shown["epoch"], "held-out loss": shown["held_out_loss"].round(2), "recited": recited},
            index=shown.index,
        )
    return pd.concat(parts, axis=1)


def matched_table(equal: pd.DataFrame) -> pd.DataFrame:
    """The rows of `tradeoff.matched` as text: percentage points, and nats per token."""
    if equal.empty:
        return equal
    shown = pd.DataFrame(
        {
            "student": equal["label"],
            "held-out loss": equal["held_out_loss"].round(2),
            "recited": [f"{100 * v:.1f} %" for v in equal["first_rate"]],
            "fine-tuned, same loss": [f"{100 * v:.1f} %" for v in equal["second_rate"]],
            "difference, points": points(equal),
            "members' loss, difference": gap(equal, "member_loss"),
        }
    )
    return shown.set_index("student")


def points(table: pd.DataFrame) -> list[str]:
    """Differences of shares with intervals: "-12.1 (-15.0 to -9.3)"."""
    rows = 100 * table[["difference", "low", "high"]].to_numpy(float)
    return [f"{d:+.1f} ({a:+.1f} to {b:+.1f})" for d, a, b in rows]


def gap(table: pd.DataFrame, loss: str) -> list[str]:
    """Differences of a loss with intervals: "+0.21 (+0.18 to +0.25)"."""
    rows = table[[f"{loss}_{end}" for end in ("difference", "low", "high")]].to_numpy(float)
    return [f"{d:+.2f} ({a:+.2f} to {b:+.2f})" for d, a, b in rows]


def cost_table(costs: pd.DataFrame) -> pd.DataFrame:
    """The rows of `cost.table` with units."""
    shown = pd.DataFrame(
        {
            "model": costs["label"],
            "parameters": [f"{n:,}" for n in costs["parameters"]],
            "training, GFLOP": (costs["training_flops"] / 1e9).round(0),
            "training, s": costs["seconds"].round(1),
            "peak memory, MiB": (costs["peak_memory_bytes"] / 2**20).round(0),
            "size, MiB": (costs["bytes"] / 2**20).round(2),
            "writes, tokens per s": costs["decode_tokens_per_second"].round(0),
        }
    )
    return shown.set_index("model")


def cost(costs: pd.DataFrame) -> plt.Figure:
    """Training arithmetic against recited secrets at the end, one marker per student."""
    figure, ax = plt.subplots(figsize=(6.5, 3.4))
    for (method, size), rows in costs[~costs["role"].isin(["base", "teacher"])].groupby(
        ["method", "size"], sort=False
    ):
        big = size == costs["size"].iloc[-1]
        ax.scatter(
            rows["training_flops"] / 1e9,
            rows["memorized"],
            color=COLORS[method],
            marker=MARKERS[method],
            s=60 if big else 30,
            label=f"{LABELS[method]}, {size}",
        )
    ax.set(xlabel="training arithmetic, GFLOP", ylabel=f"members' {costs['unit'].iloc[0]} recited", xlim=(0, None))
    ax.set_ylim(-0.02, max(0.1, 1.05 * costs["memorized"].max()))
    ax.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
    figure.legend(loc="outside right center", fontsize=7)
    plt.close(figure)
    return figure
