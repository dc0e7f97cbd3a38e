"""Chapter 07, what memorization buys: against what a model is good for, over its whole training, and against what it costs.

`tables` writes `trajectories`, `stopped`, `by_dose` and `costs`. No method is judged here: what can be said of two of them stands
in chapter 08's claims.
"""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.figures import COLORS, LABELS, mark_of
from palimpsest.chapters.training import trajectory
from palimpsest.study import METHODS, Arm, Run
from palimpsest.study.fingerprints import warm_name
from palimpsest.study.tables import read_table

# What is held against quality, and what an axis calls it; shares are drawn in percent.
MEASURES = {
    "recited_repeated": "repeated {unit} recited",
    "recited_unrepeated": "unrepeated {unit} recited",
    "auc": "AUC of the loss attack",
    "exposure": "exposure, bits",
    "transferred_exposure": "transferred exposure, bits",
    "transferred_auc": "transferred AUC",
}
MARKED = {
    "recited_repeated": ("member", 2),
    "transferred_exposure": ("teacher_only", 1),
    "transferred_auc": ("teacher_only", 1),
}
# The three meanings of quality; the plain loss stands in for the calibrated one where validation is too small to fit a temperature.
QUALITIES = {
    "validation_loss_calibrated": "calibrated validation loss, nats",
    "rouge_l": "ROUGE-L of greedy answers",
    "tokens": "tokens read",
}
WHEN = {"best": "at its best", "end": "at the end"}


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """`trajectories`: every point of every model of every replicate; `stopped`: each model at its lowest calibrated validation loss
    (plain, where none could be calibrated); `by_dose`: what is known by copies, there and at the end; `costs`, of the first
    replicate.

    A warm-started student has read its warm start's tokens, too. The training of the models before fine-tuning is not counted with
    those that start from them.

    Raises:
        InputError: a model of a replicate is not finished.
    """
    trajectories, by_dose = points_of(run)
    models = trajectories.groupby(["replicate", "model"], sort=False)
    stopped = trajectories.loc[[best_point(path) for _, path in models]]
    costs = pd.DataFrame([_cost(run, arm) for arm in run.measured()])
    return {"trajectories": trajectories, "stopped": stopped, "by_dose": by_dose, "costs": costs}


def points_of(run: Run) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tables `trajectories` and `by_dose`."""
    paths, doses = [], []
    for part in run.replicates():
        for arm in (arm for arm in part.study.everyone() if arm.role != "base"):
            path, groups = model_path(part, arm), read_table(part.model(arm.name) / "groups.csv")
            who = {**arm.columns(), "replicate": part.study.replicate}
            paths.append(path.drop(columns="precision").assign(**who))
            for when, point in (("best", path.loc[best_point(path)]), ("end", path.iloc[-1])):
                rows = groups[groups["step"] == point["step"]].drop(columns=["step", "tokens"])
                doses.append(rows.assign(**who, when=when))
    return pd.concat(paths, ignore_index=True), pd.concat(doses, ignore_index=True)


def model_path(run: Run, arm: Arm, name: str | None = None) -> pd.DataFrame:
    """The trajectory of a model, with the tokens that its warm start read before it.

    Args:
        name: its folder, where that is not the arm's own (one of the tuning grid).
    """
    path = trajectory(run, name or arm.name)
    epochs = 0 if arm.seed is None else run.study.training(arm.size, arm.method).warm_start_epochs
    if epochs:
        path["tokens"] += read_table(run.model(warm_name(arm, epochs)) / "trajectory.csv")["tokens"].iloc[-1]
    return path


def best_point(path: pd.DataFrame) -> Any:
    """The index of the lowest calibrated validation loss; where none could be calibrated, of the lowest plain one."""
    return loss_of(path).idxmin()


def loss_of(path: pd.DataFrame) -> pd.Series:
    """The calibrated validation loss, or the plain one where none could be calibrated."""
    loss = path["validation_loss_calibrated"]
    return path["validation_loss"] if loss.isna().any() else loss


def _cost(run: Run, arm: Arm) -> dict[str, Any]:
    facts = run.facts(arm)
    cost = {name: facts[name] for name in ("parameters", "bytes", "peak_memory_bytes")}
    cost |= {"training_flops": training_flops(facts, arm.method), "seconds": facts.get("train_seconds", 0.0)}
    return {**arm.columns(), **cost, "decode_tokens_per_second": facts["measured"]["decode_tokens_per_second"]}


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


def plot_tradeoff(
    trajectories: pd.DataFrame, unit: str, quality: str = "validation_loss_calibrated", further: bool = False
) -> plt.Figure | None:
    """What is known of the records over a meaning of `quality`: a row per measure that was taken, a column per size, a line per
    method, which is the mean over replicates and seeds at the same point of training; large: the last. None of none.

    Args:
        unit: what is recited, "secrets" or "records".
        further: the methods that only some sizes have, beside plain fine-tuning, instead of those that all have.
    """
    rows, measures = _drawn(trajectories, quality, further)
    if not measures:
        return None
    rows = rows.assign(point=rows.groupby(["replicate", "model"]).cumcount())
    sizes = rows["size"].unique()
    figure, axes = figures.panels(len(measures), len(sizes), height=2.1, sharey="row", sharex="col")
    for (size, method), part in rows.groupby(["size", "method"], sort=False):
        mean = part.groupby("point")[[quality, *measures]].mean()
        for ax, measure in zip(axes[:, list(sizes).index(size)], measures, strict=True):
            style = {"color": COLORS[method], **mark_of(*MARKED.get(measure, ("member", 1)))}
            ax.plot(mean[quality], mean[measure], lw=1, ms=3, alpha=0.8, label=LABELS[method], **style)
            ax.plot(mean[quality].iloc[-1:], mean[measure].iloc[-1:], ms=7, **style)
    for ax, measure in zip(axes[:, 0], measures, strict=True):
        ax.set_ylabel(MEASURES[measure].format(unit=unit))
        if measure.startswith("recited"):
            figures.in_percent(ax.yaxis)
    for ax, size in zip(axes[0], sizes, strict=True):
        ax.set_title(f"student: {size}")
    for ax in axes[-1]:
        ax.set_xlabel(QUALITIES[quality])
        if quality == "tokens":
            ax.xaxis.set_major_formatter(plt.matplotlib.ticker.EngFormatter(sep=""))
    return figures.legend(figure, axes)


def say_tradeoff(
    trajectories: pd.DataFrame, unit: str, quality: str = "validation_loss_calibrated", further: bool = False
) -> list[str]:
    """`plot_tradeoff` read out: per size, from where to where the last points lie, in quality and in the first measure, and whose they
    are. Where they lie is no verdict on a method."""
    rows, measures = _drawn(trajectories, quality, further)
    if not measures:
        return ["- There are none in this study."] if further else []
    lines, name = [], measures[0]
    share = name.startswith("recited")
    form = "{:.0f}" if quality == "tokens" else "{:.2f}"
    for size, part in last_points(rows).groupby("size", sort=False):
        mean = part.groupby("method")[[quality, name]].mean()
        ends = [(mean[name].agg(end), LABELS[mean[name].agg(f"idx{end}")]) for end in ("min", "max")]
        told = " to ".join(f"{100 * v:.0f} % ({who})" if share else f"{v:.2f} ({who})" for v, who in ends)
        where = " to ".join(form.format(mean[quality].agg(end)) for end in ("min", "max"))
        lines.append(
            f"- **{size}**: at the end, {MEASURES[name].format(unit=unit)} runs from {told}; {QUALITIES[quality].split(',')[0]} from {where}."
        )
    return lines


def measured(trajectories: pd.DataFrame) -> list[str]:
    """The measures that a study has: unrepeated records stand in for repeated ones where none are, and likewise the transferred AUC
    for exposure."""
    there = [name for name in MEASURES if trajectories[name].notna().any()]
    for first, other in (("recited_repeated", "recited_unrepeated"), ("transferred_exposure", "transferred_auc")):
        if first in there and other in there:
            there.remove(other)
    return there


def in_every_size(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of methods that all sizes have."""
    return rows[rows["method"].map(rows.groupby("method")["size"].nunique()) == rows["size"].nunique()]


def _drawn(trajectories: pd.DataFrame, quality: str, further: bool) -> tuple[pd.DataFrame, list[str]]:
    """The rows of `plot_tradeoff`, and which measures it draws; none where nothing can be drawn."""
    students = trajectories[trajectories["size"] != "teacher"]
    rows = in_every_size(students)
    if further:
        chosen = ~students.index.isin(rows.index)
        rows = students[(chosen | (students["method"] == "sft")) & students["size"].isin(students.loc[chosen, "size"])]
    rows = rows.assign(validation_loss_calibrated=loss_of(rows))
    return rows, measured(rows) if rows[quality].notna().any() else []


def show_stopped(stopped: pd.DataFrame, trajectories: pd.DataFrame, unit: str) -> pd.DataFrame:
    """Every method at its lowest calibrated validation loss and at the end, one row per size: means over replicates and seeds."""
    parts, measures = {}, measured(trajectories)[:1]
    for when, rows in (("best", stopped), ("end", last_points(trajectories))):
        mean = rows.assign(loss=loss_of(rows)).groupby("label", sort=False)[["epoch", "loss", *measures]].mean()
        shown = {"epoch": mean["epoch"].map("{:.1f}".format)} if when == "best" else {}
        shown["loss"] = mean["loss"].map("{:.2f}".format)
        for name in measures:
            share = name.startswith("recited")
            form = "{:.0%}" if share else "{:.2f}" if name.endswith("auc") else "{:.1f}"
            text = mean[name].map(form.format).str.replace("%", " %").where(mean[name].notna(), "")
            shown[MEASURES[name].format(unit=unit)] = text
        parts[WHEN[when]] = pd.DataFrame(shown)
    return pd.concat(parts, axis=1).rename_axis("model")


def last_points(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Each model of each replicate after its last step."""
    return trajectories.groupby(["replicate", "model"], sort=False).tail(1)


def show_costs(costs: pd.DataFrame) -> pd.DataFrame:
    """What each model costs, with units."""
    numbers = {
        "parameters": costs["parameters"],
        "training, GFLOP": costs["training_flops"] / 1e9,
        "training, s": costs["seconds"],
        "peak memory, MiB": costs["peak_memory_bytes"] / 2**20,
        "tokens written per s": costs["decode_tokens_per_second"],
    }
    shown = {name: column.map("{:,.0f}".format) for name, column in numbers.items()}
    return pd.DataFrame({"model": figures.label_seeds(costs)["label"], **shown}).set_index("model")


def say_tradeoffs(trajectories: pd.DataFrame, unit: str) -> list[str]:
    """How many trainings stand behind the chapter, the best student, and what it recites there."""
    students = trajectories[trajectories["size"] != "teacher"]
    replicates, models = students["replicate"].nunique(), len(students.groupby(["replicate", "model"]))
    best = students.loc[best_point(students)]
    lines = [
        f"- Shown are {models} students in {replicates} replicate{'s' * (replicates > 1)}.",
        f"- The lowest calibrated validation loss is {loss_of(students)[best.name]:.2f} nats per token ({best['label']}, epoch {best['epoch']:g}).",
    ]
    shares = {n: 100 * best[f"recited_{n}"] for n in ("repeated", "unrepeated") if pd.notna(best[f"recited_{n}"])}
    told = " and ".join(f"{share:.0f} % of {name} {unit}" for name, share in shares.items())
    return [*lines, f"- There that student recites {told}."] if told else lines
