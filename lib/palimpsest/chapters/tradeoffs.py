"""Chapter 07, what memorization buys: against what a model is good for, over its whole training, and against what it costs.

`tables` writes `trajectories`, `stopped` and `costs`; `equal_quality`, whose rows are effects, is written with chapter 08's.
"""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from palimpsest.chapters import figures, training
from palimpsest.chapters.figures import COLORS, LABELS, MARKERS
from palimpsest.measure.statistics import interval, over_seeds
from palimpsest.study import METHODS, Arm, Run

MEMORIZED = ["memorized", "memorized_low", "memorized_high"]
NO_STUDENT = "This study has plain fine-tuning alone, so there is nothing to compare it with."


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """A row per model and epoch; each model at its epoch of lowest held-out loss; what each measured model costs.

    The training of the models before fine-tuning is not counted with those that start from them.
    """
    measured = run.measured()
    paths = pd.concat([_trajectory(run, arm) for arm in measured if arm.role != "base"], ignore_index=True)
    costs = []
    for arm in measured:
        facts = run.facts(arm)
        cost = {name: facts[name] for name in ("parameters", "bytes", "peak_memory_bytes")}
        cost |= {"training_flops": training_flops(facts, arm.method), "seconds": facts.get("train_seconds", 0.0)}
        speed = facts["measured"]["decode_tokens_per_second"]
        costs.append({**arm.columns(), **cost, "decode_tokens_per_second": speed})
    best = paths.groupby("model", sort=False)["held_out_loss"].idxmin()
    return {"trajectories": paths, "stopped": paths.loc[best], "costs": pd.DataFrame(costs)}


def _trajectory(run: Run, arm: Arm) -> pd.DataFrame:
    parts = {split: part.set_index("epoch") for split, part in training.trajectory(run, arm.name).groupby("split")}
    member, other = parts["member"], parts["non_member"]
    wide = member[[*MEMORIZED, "counted", "unit", "verbatim"]].assign(
        member_loss=member["loss"], held_out_loss=other["loss"], non_member_memorized=other["memorized"]
    )
    return wide.reset_index().assign(**arm.columns())


def training_flops(facts: dict[str, Any], method: str) -> float:
    """Floating-point operations of one training, by the usual 6 N D (Kaplan et al. 2020); none of a model that was only loaded.

    2 N per token for a forward pass, 4 N for the backward one. Student text adds 2 N per token to write it (key-value cache,
    so each token is computed once) and 2 N_teacher per token for the teacher's opinion of it. With references the teacher
    runs once, not every epoch.

    Args:
        facts: `run.json` of the model.
        method: "none" before fine-tuning, where a training from scratch is plain cross-entropy.
    """
    if "steps" not in facts:
        return 0.0
    tokens, epochs, n = facts["tokens_per_epoch"], facts["epochs"], facts["parameters"]
    rule, teacher = METHODS["sft" if method == "none" else method], facts.get("teacher_parameters", 0)
    share = {"student": 1.0, "mixed": 0.5}.get(rule.text, 0.0)
    own = share * tokens * epochs
    once = tokens if rule.needs_teacher and rule.text in ("references", "mixed") else 0
    return 6 * n * tokens * epochs + own * (2 * n + 2 * teacher) + 2 * teacher * once


# ---------------------------------------------------------------- shown


def differences(rows: pd.DataFrame, loss: str = "") -> list[str]:
    """Differences with their intervals as text, "-12.1 (-15.0 to -9.3)": of what is recited, in points, or of a `loss`, in nats."""
    ends = [_signed(rows[f"{loss}_{end}".strip("_")], loss) for end in ("difference", "low", "high")]
    return [f"{value} ({low} to {high})" for value, low, high in zip(*ends, strict=True)]


def _signed(values: pd.Series, loss: str) -> list[str]:
    return [f"{value:+.2f}" if loss else f"{100 * value:+.1f}" for value in values]


def say_decided(effects: pd.DataFrame, names: pd.Series, loss: str = "") -> str:
    """In how many comparisons the first method recites less and more, or has the lower and higher `loss`, by the intervals; and
    which of the decided ones, by its name in `names`, goes furthest."""
    value, low, high = (effects[f"{loss}_{end}".strip("_")] for end in ("difference", "low", "high"))
    less, more = ("fits the members closer", "less closely") if loss else ("recites less", "more")
    decided = (high < 0) | (low > 0)
    line = f"{less} in {(high < 0).sum()} of {len(effects)} comparisons, {more} in {(low > 0).sum()}"
    line += "." if decided.all() else f"; for {(~decided).sum()} we cannot tell."
    if not decided.any():
        return line
    furthest = value.where(decided).abs().argmax()
    return (
        f"{line} Furthest: {names.iloc[furthest]} ({_signed(value, loss)[furthest]} {'nats' if loss else 'points'})."
    )


def show_stopped(stopped: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """Every model at its epoch of lowest held-out loss and after its last one, one row per model."""
    parts = {}
    for when, rows in (("best epoch", stopped), ("at the end", _last(trajectories))):
        rows = figures.label_seeds(rows).set_index("label")
        shown = {"epoch": rows["epoch"], "held-out loss": rows["held_out_loss"].round(2)}
        parts[when] = pd.DataFrame({**shown, "recited": [interval(*v) for v in rows[MEMORIZED].to_numpy(float)]})
    return pd.concat(parts, axis=1)


def say_stopped(stopped: pd.DataFrame, trajectories: pd.DataFrame) -> list[str]:
    """What plain fine-tuning recites when stopped at its best epoch, and at the end, by size."""
    early, late = (_baseline(rows) for rows in (stopped, _last(trajectories)))
    line = "- The {} student, fine-tuned: {} at its best epoch, {} after the last."
    return [line.format(size, early[size], late[size]) for size in early]


def show_equal_quality(equal_quality: pd.DataFrame) -> pd.DataFrame | None:
    """Every student beside plain fine-tuning: percentage points, and nats per token; None where there is none."""
    if equal_quality.empty:
        return None
    shown = {
        "held-out loss": equal_quality["held_out_loss"].round(2).array,
        "recited": [f"{100 * v:.1f} %" for v in equal_quality["first_rate"]],
        "fine-tuned, same loss": [f"{100 * v:.1f} %" for v in equal_quality["second_rate"]],
        "difference, points": differences(equal_quality),
        "members' loss, difference": differences(equal_quality, "member_loss"),
    }
    return pd.DataFrame(shown, index=pd.Index(equal_quality["label"], name="student"))


def say_equal_quality(equal_quality: pd.DataFrame) -> list[str]:
    """How many students memorize less than plain fine-tuning at the same held-out loss, and how many fit the members closer."""
    if equal_quality.empty:
        return [NO_STUDENT]
    names = equal_quality["label"]
    return [
        f"- At the same held-out loss as plain fine-tuning, the other method {say_decided(equal_quality, names)}",
        f"- There it {say_decided(equal_quality, names, 'member_loss')}",
        "- A closer fit at the same quality is knowledge of the members short of reciting them.",
    ]


def plot_trajectories(trajectories: pd.DataFrame) -> plt.Figure:
    """Memorization of members against held-out loss, one line per student, one point per epoch; left and low is better."""
    students = trajectories[trajectories["role"] != "teacher"]
    figure, axes = figures.panels(1, students["size"].nunique(), height=3.1)
    for ax, (size, part) in zip(axes[0], students.groupby("size", sort=False), strict=True):
        for (_, method), rows in part.groupby(["model", "method"], sort=False):
            path, style = (
                rows[["held_out_loss", "memorized"]].to_numpy().T,
                {"color": COLORS[method], "marker": MARKERS[method]},
            )
            ax.plot(*path, lw=1, ms=3.5, alpha=0.7, label=LABELS[method], **style)
            ax.plot(*path[:, -1:], ms=8, **style)
        ax.set(title=f"student: {size}", xlabel="held-out loss, nats per token")
    _recited(axes[0, 0], students)
    return figures.legend(figure, axes)


def show_costs(costs: pd.DataFrame) -> pd.DataFrame:
    """What each model costs, with units."""
    shown = {
        "parameters": [f"{n:,}" for n in costs["parameters"]],
        "training, GFLOP": (costs["training_flops"] / 1e9).round(0).array,
        "training, s": costs["seconds"].round(1).array,
        "peak memory, MiB": (costs["peak_memory_bytes"] / 2**20).round(0).array,
        "size, MiB": (costs["bytes"] / 2**20).round(2).array,
        "writes, tokens per s": costs["decode_tokens_per_second"].round(0).array,
    }
    return pd.DataFrame(shown, index=pd.Index(figures.label_seeds(costs)["label"], name="model"))


def plot_costs(costs: pd.DataFrame, trajectories: pd.DataFrame) -> plt.Figure:
    """Training arithmetic against what is recited at the end, one marker per student; the last size of the study is drawn larger."""
    end = _last(trajectories[trajectories["role"] != "teacher"])
    rows = costs.merge(end[["model", "memorized", "unit"]], on="model")
    figure, axes = figures.panels(1, 1, height=3.1)
    figure.set_figwidth(6.5)
    for (method, size), part in rows.groupby(["method", "size"], sort=False):
        style = {"color": COLORS[method], "marker": MARKERS[method], "s": 60 if size == rows["size"].iloc[-1] else 30}
        axes[0, 0].scatter(part["training_flops"] / 1e9, part["memorized"], label=f"{LABELS[method]}, {size}", **style)
    axes[0, 0].set(xlabel="training arithmetic, GFLOP", xlim=(0, None))
    _recited(axes[0, 0], rows)
    return figures.legend(figure, axes)


def say_tradeoffs(trajectories: pd.DataFrame, equal_quality: pd.DataFrame) -> list[str]:
    """The best student of all epochs, and how far the comparisons at equal quality go."""
    students = trajectories[trajectories["role"] != "teacher"]
    best = students.loc[students["held_out_loss"].idxmin()]
    lines = [
        f"- The lowest held-out loss of any student is {best['held_out_loss']:.2f} nats per token ({best['label']}, epoch {best['epoch']:g}).",
        f"- There it recites {interval(*best[MEMORIZED])} of the members' {best['counted']} {best['unit']}.",
    ]
    if len(equal_quality):
        decided = (equal_quality["high"] < 0) | (equal_quality["low"] > 0)
        reach = 50 * (equal_quality["high"] - equal_quality["low"]).max()
        lines.append(
            f"- At equal held-out loss, {decided.sum()} of {len(decided)} comparisons with plain fine-tuning are decided. Their "
            f"intervals reach at most {reach:.1f} points to either side."
        )
    return lines


def _last(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Each model after its last epoch."""
    return trajectories.groupby("model", sort=False).tail(1)


def _baseline(rows: pd.DataFrame) -> dict[str, str]:
    """What plain fine-tuning recites, with its interval, by size."""
    rows = rows[rows["role"] == "baseline"].assign(count=rows["memorized"] * rows["counted"], total=rows["counted"])
    mean = over_seeds(rows, ["size"])
    return {size: interval(*v) for size, *v in mean[["size", "rate", "low", "high"]].itertuples(index=False)}


def _recited(ax: plt.Axes, rows: pd.DataFrame) -> None:
    """The y-axis is the share of the members' secrets, or records, recited."""
    ax.set(ylabel=f"members' {rows['unit'].iloc[0]} recited", ylim=(-0.02, max(0.1, 1.05 * rows["memorized"].max())))
    figures.in_percent(ax.yaxis)
