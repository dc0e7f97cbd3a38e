"""Pages 02 and 03: what a model is, and what it learned and recites while it is trained.

These pages run before the tables are written, so they read what their own stages wrote: facts and trajectory of a model.
"""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from palimpsest.chapters.figures import SPLITS, in_percent, legend, mark_of, panels, rate_text
from palimpsest.measure.statistics import rate_of
from palimpsest.study import METHODS, Run
from palimpsest.study.tables import read_table

OURS, THEIRS = SPLITS["member"][0], "#e08214"  # members, the teacher's half
PLAIN_TEXT = SPLITS["non_member"][0]  # validation
RECITED = "recited"
PANELS = {  # title -> column: label, color, line, the records asked as `mark_of` takes them
    "loss, nats per response token": {
        "validation_loss": ("validation", PLAIN_TEXT, "-", ("validation",)),
        "validation_loss_calibrated": ("validation, calibrated", PLAIN_TEXT, ":", ("validation",)),
        "member_loss": ("members", OURS, "-", ("member",)),
        "transferred_member_loss": ("the teacher's own half", THEIRS, "-", ("teacher_only",)),
    },
    "ROUGE-L of answers to validation prompts": {"rouge_l": ("validation", PLAIN_TEXT, "-", ("validation",))},
    RECITED: {
        "recited_unrepeated": ("members", OURS, "-", ("member",)),
        "recited_repeated": ("members, repeated", OURS, "--", ("member", 2)),
        "transferred_recited_unrepeated": ("the teacher's own half", THEIRS, "-", ("teacher_only",)),
        "transferred_recited_repeated": ("the teacher's own half, repeated", THEIRS, "--", ("teacher_only",)),
    },
    "AUC of the loss attack": {
        "auc": ("members", OURS, "-", ("member",)),
        "transferred_auc": ("the teacher's own half", THEIRS, "-", ("teacher_only",)),
    },
}
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
    """What was measured while a model was trained: a row per point, as the table `trajectory` is declared, and its `model`.

    Args:
        name: a teacher, student or warm start; a model before fine-tuning has no trajectory.

    Raises:
        InputError: the model is not trained, or was made from other settings than the study has now.
    """
    run.require(f"models/{name}")
    return read_table(run.model(name) / "trajectory.csv").assign(model=name)


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
    """Loss, likeness of its text to the references, what it recites and the loss attack's AUC over epochs, by half; what a study
    does not measure is not drawn."""
    figure, axes = panels(2, 2, figsize=(9, 5.4), sharex=True, sharey=False)
    for ax, (title, lines) in zip(axes.flat, PANELS.items(), strict=True):
        for name, (label, color, style, asked) in lines.items():
            if path[name].notna().any():
                ax.plot(path["epoch"], path[name], style, color=color, label=label, ms=4, **mark_of(*asked))
        ax.set(title=title)
        if title == RECITED:
            ax.set_ylim(-0.02, 1.02)
            in_percent(ax.yaxis)
    for ax in axes[1]:
        ax.set_xlabel("epoch")
    return legend(figure, axes)


def say_trajectory(path: pd.DataFrame, unit: str) -> list[str]:
    """Where quality is best and where it ends, in each meaning of quality; then what is recited at the end, by half.

    Args:
        unit: what is counted, "secrets" or "records" (`run.require("data")["unit"]`).
    """
    loss, last = path.set_index("epoch")["validation_loss"], path.iloc[-1]
    first = f"Validation loss is lowest after epoch {loss.idxmin():g}, at {loss.min():.2f} nats per token, and ends at {loss.iloc[-1]:.2f}."
    if pd.notna(last["validation_loss_calibrated"]):
        first += f" With one temperature fitted to its certainty it ends at {last['validation_loss_calibrated']:.2f}."
    lines, likeness = [first], path.set_index("epoch")["rouge_l"]
    if likeness.notna().any():
        lines.append(
            f"Its answers are most like the references after epoch {likeness.idxmax():g}, with a ROUGE-L of {likeness.max():.2f}, "
            f"and end at {likeness.iloc[-1]:.2f}."
        )
    given = "the text before them" if unit == "secrets" else "the prompt"
    halves = {
        "": f"Of the members' {unit} it then recites, given {given},",
        "transferred_": f"Of the {unit} of the teacher's own half, it recites",
    }
    for prefix, start in halves.items():
        shares = {name: last[f"{prefix}recited_{name}"] for name in ("unrepeated", "repeated")}
        told = [f"{share:.0%} of {name} ones" for name, share in shares.items() if pd.notna(share)]
        if told:
            lines.append(f"{start} {' and '.join(told)}.")
    return lines


def say_teacher_text(run: Run) -> str:
    """How much of the text that the teacher wrote is the reference itself."""
    if not any(METHODS[method].text == "teacher" for method in run.study.every_method()):
        return "No method of this study trains on text that the teacher wrote, so it wrote none."
    facts = run.require("teacher_text")
    same = rate_text(rate_of(facts["same_as_reference"], facts["records"]))
    return (
        f"Of {facts['records']} texts the teacher wrote for the students' prompts, {same} equal the reference, token for token. So "
        f"large a part of that corpus *is* the private data. Decoding: {run.study.teacher_text.decode}."
    )
