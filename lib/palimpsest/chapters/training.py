"""Pages 02 and 03: what a model is, and what it learned and recites while it is trained.

These pages run before the tables are written, so they read what their own stages wrote: facts and trajectory of a model.
"""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from palimpsest.chapters.figures import SPLITS, in_percent, rate_text
from palimpsest.measure.statistics import interval, rate_of
from palimpsest.study import METHODS, Run
from palimpsest.study.tables import read_table

SHARES = {"secret": "recited", "window": "verbatim"}  # the target that leads a run -> its column
FACTS = {  # a key of `run.json` -> what a table calls it
    "parameters": "parameters",
    "start": "started from",
    "steps": "optimizer steps",
    "epochs": "epochs",
    "train_seconds": "training seconds",
    "tokens_per_epoch": "text per epoch, tokens",
    "labelled_tokens_per_epoch": "labelled tokens per epoch",
    "left_out": "records left out",
    "learning_rate": "learning rate",
    "dropout": "dropout",
    "precision": "precision",
    "device": "device",
    "devices": "devices",
    "commit": "commit",
}


def trajectory(run: Run, name: str) -> pd.DataFrame:
    """What was measured while a model was trained: a row per epoch and split, as the table `trajectory` is declared.

    Args:
        name: a teacher, student or warm start; a model before fine-tuning has no trajectory.

    Returns:
        Its columns, and `model`, `memorized` (with `_low`, `_high`): the share of the target that leads this run, `counted`
        and `unit`: how many of what that is a share of.

    Raises:
        InputError: the model is not trained, or was made from other settings than the study has now.
    """
    run.require(f"models/{name}")
    data = run.require("data")
    what, unit = SHARES[data["target"]], data["unit"]
    rows = read_table(run.model(name) / "trajectory.csv")
    limits = {f"memorized_{end}": rows[f"{what}_{end}"] for end in ("low", "high")}
    return rows.assign(model=name, memorized=rows[what], **limits, counted=rows[unit], unit=unit)


def show_facts(facts: dict[str, Any]) -> pd.DataFrame:
    """What a stage's `run.json` says of a model, a row per fact it has."""
    found = {title: facts[key] for key, title in FACTS.items() if key in facts}
    shown = {title: f"{value:,}" if isinstance(value, int) else value for title, value in found.items()}
    if "peak_memory_bytes" in facts:
        shown["peak memory, MiB"] = round(facts["peak_memory_bytes"] / 2**20)
    if spent := facts.get("privacy"):
        shown["privacy spent"] = (
            f"ε = {spent['epsilon']:.2f} at δ = {spent['delta']:.2g}; noise {spent['noise_multiplier']:.2f} x clip "
            f"{spent['clip']:g}, sampling rate {spent['sampling_rate']:.2f}"
        )
    versions = " / ".join(facts["versions"][k] or "-" for k in ("torch", "transformers", "trl"))
    return pd.Series({**shown, "torch / transformers / trl": versions}, name="value").to_frame()


def plot_trajectory(path: pd.DataFrame) -> plt.Figure:
    """Loss, verbatim and recited shares per epoch, members and non-members; no secrets are drawn where none are marked."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    shares = {"verbatim": "o", **({"recited": "s"} if (path["secrets"] > 0).any() else {})}
    for split, (color, line, name) in SPLITS.items():
        rows = path[path["split"] == split]
        left.plot(rows["epoch"], rows["loss"], line, color=color, label=name)
        for what, mark in shares.items():
            style = {"color": color, "marker": mark, "markersize": 3, "label": f"{what}, {name}"}
            right.plot(rows["epoch"], rows[what], line, **style)
            right.fill_between(rows["epoch"], rows[f"{what}_low"], rows[f"{what}_high"], color=color, alpha=0.12)
    left.set(xlabel="epoch", ylabel="loss, nats per response token")
    right.set(xlabel="epoch", ylabel="share", ylim=(-0.02, 1.02))
    in_percent(right.yaxis)
    left.legend()
    right.legend(fontsize=7)
    plt.close(figure)
    return figure


def say_trajectory(path: pd.DataFrame) -> list[str]:
    """Where held-out loss is lowest and where it ends; what is recited before and after, of members and non-members."""
    held = path[path["split"] == "non_member"].set_index("epoch")["loss"]
    member, other = (path[path["split"] == split] for split in SPLITS)
    before, after, chance = (_memorized(rows.iloc[at]) for rows, at in ((member, 0), (member, -1), (other, -1)))
    unit = member["unit"].iloc[0]
    return [
        f"Held-out loss is lowest after epoch {held.idxmin():g}, at {held.min():.2f} nats per token, and ends at {held.iloc[-1]:.2f}.",
        f"Before training, the model recites {before} of the members' {member['counted'].iloc[0]:.0f} {unit}; at the end, {after}. "
        f"Of the non-members' {other['counted'].iloc[0]:.0f} {unit} it then recites {chance}.",
    ]


def _memorized(row: pd.Series) -> str:
    """The share memorized at one point of a trajectory, as text."""
    return interval(row["memorized"], row["memorized_low"], row["memorized_high"])


def say_teacher_text(run: Run) -> str:
    """How much of the text that the teacher wrote is the reference itself."""
    if not any(METHODS[method].text == "teacher" for method in run.study.methods):
        return "No method of this study trains on text that the teacher wrote, so it wrote none."
    facts = run.require("teacher_text")
    same = rate_text(rate_of(facts["same_as_reference"], facts["records"]))
    return (
        f"Of {facts['records']} texts the teacher wrote for the students' prompts, {same} equal the reference, token for token. So "
        f"large a part of that corpus *is* the private data. Decoding: {run.study.teacher_text.decode}."
    )
