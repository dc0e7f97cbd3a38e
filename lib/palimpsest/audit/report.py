"""An audit's report: the notebook that comes with the package, run on one audit's files and turned into a single page."""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import papermill
from matplotlib.ticker import PercentFormatter
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from palimpsest.audit import scores
from palimpsest.chapters.figures import interval
from palimpsest.errors import InputError
from palimpsest.measure import membership_inference

DRAWN = 20_000  # most records a group behind a figure of single records
POINTS = 1_000  # most thresholds of a drawn ROC curve
NOTEBOOK = Path(__file__).with_name("report.ipynb")
STYLES = {  # group, model -> color, line, label
    ("members", "model"): ("#b2182b", "-", "members"),
    ("non_members", "model"): ("#2166ac", "--", "non-members"),
    ("members", "reference"): ("#d98880", ":", "members, reference model"),
    ("non_members", "reference"): ("#85a9d0", ":", "non-members, reference model"),
}
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Memorization audit</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; color: #222; max-width: 54rem; margin: 2rem auto; padding: 0 1rem }}
h1, h2 {{ line-height: 1.2; margin-top: 2rem }} img {{ max-width: 100% }} .anchor-link, .prompt {{ display: none }}
table {{ border-collapse: collapse; font-size: .85rem; display: block; overflow-x: auto }}
table {{ margin: .8rem 0 }} th, td {{ padding: .25rem .6rem; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }}
pre, code {{ white-space: pre-wrap; overflow-wrap: anywhere }}
</style></head><body>
{body}
</body></html>
"""


def build(folder: Path) -> Path:
    """Run the report's notebook on the `summary.json` and `records.parquet` in `folder`; write `report.html` and `figures/`.

    The page loads nothing from elsewhere and runs no script; its policy forbids both.

    Raises:
        InputError: the disk refused what the notebook wrote.
        PapermillExecutionError: the notebook failed otherwise.
    """
    executed, page = folder / "report.ipynb", folder / "report.html"
    (folder / "figures").mkdir(exist_ok=True)
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # the kernel's debugger complains on stderr otherwise
    try:
        papermill.execute_notebook(
            NOTEBOOK,
            executed,
            {"folder": str(folder)},
            kernel_name="python3",
            progress_bar=False,
            extra_arguments=["--log-level=40"],  # the kernel's advice on its transport is no part of an audit
        )
    except PapermillExecutionError as error:
        if error.ename in ("OSError", "PermissionError"):
            raise InputError(f"the report can't be written to {folder}: {error.evalue}") from None
        raise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exporter = HTMLExporter(template_name="basic", exclude_input=True, exclude_anchor_links=True)
        body, _ = exporter.from_notebook_node(nbformat.read(executed, as_version=4))
    page.with_suffix(".unfinished").write_text(PAGE.format(body=body), encoding="utf-8")
    page.with_suffix(".unfinished").replace(page)
    executed.unlink()
    return page


def rates(summary: Mapping[str, Any], measure: str, setting: Sequence[str] = ()) -> pd.DataFrame:
    """The rates of one measure as text: a row per setting, a column per group and model, and members minus non-members."""
    keys = ["measure", *setting]
    table, more = (pd.DataFrame(summary[name]) for name in ("rates", "excess"))
    parts = [_labelled(table[table["measure"] == measure])]
    if len(more):
        more = more[(more["measure"] == measure) & (more["model"] == "model")]
        text = [f"{100 * r.excess:+.1f} points ({100 * r.low:.1f} to {100 * r.high:.1f})" for r in more.itertuples()]
        parts.append(more.assign(label="members minus non-members", text=text))
    rows = pd.concat(parts)
    for key in setting:
        rows[key] = ["all" if pd.isna(v) else f"{v:g}" if isinstance(v, float) else str(v) for v in rows[key]]
    wide = rows.pivot_table(index=keys, columns="label", values="text", aggfunc="first", sort=False)
    return wide.fillna("").reset_index().rename_axis(columns=None)


def _labelled(table: pd.DataFrame) -> pd.DataFrame:
    label = table["group"].str.replace("_", "-") + np.where(table["model"] == "reference", ", reference model", "")
    shown = table[["rate", "low", "high"]].astype(float).to_numpy()
    text = [f"{interval(*v)}, n = {n}" for v, n in zip(shown, table["total"], strict=True)]
    return table.assign(label=label, text=text)


def means(summary: Mapping[str, Any]) -> pd.DataFrame:
    """The means over records as text with intervals, a row per measure and a column per group."""
    table = pd.DataFrame(summary["means"])
    numbers_ = table[["mean", "low", "high"]].astype(float).to_numpy()
    text = [
        f"{m:.3g} ({low:.3g} to {high:.3g}), n = {n}"
        for (m, low, high), n in zip(numbers_, table["total"], strict=True)
    ]
    table = table.assign(text=text, label=table["group"].str.replace("_", "-"))
    wide = table.pivot_table(index="measure", columns="label", values="text", aggfunc="first", sort=False)
    return wide.fillna("").reset_index().rename_axis(columns=None)


def attacks(summary: Mapping[str, Any]) -> pd.DataFrame:
    """One row per membership attack: AUC and TPR at three false positive rates, "not measurable" where they aren't."""
    table = pd.DataFrame(summary["membership"])
    if table.empty:
        return table
    fpr = table["fpr"].astype(float)
    what = ["AUC" if m == "AUC" else f"TPR at {100 * f:g} % FPR" for m, f in zip(table["measure"], fpr, strict=True)]
    shown = table[["rate", "low", "high"]].astype(float).to_numpy()
    text = [
        note or (f"{r:.3f} ({low:.3f} to {high:.3f})" if w == "AUC" else interval(r, low, high))
        for (r, low, high), note, w in zip(shown, table["note"], what, strict=True)
    ]
    table = table.assign(what=what, text=text, attack=table["attack"].map(membership_inference.LABELS))
    wide = table.pivot_table(index="attack", columns="what", values="text", aggfunc="first", sort=False)
    return wide.reset_index().rename_axis(columns=None)


def blind(found: Mapping[str, Any]) -> str:
    """What the two groups' texts alone give away."""
    return (
        f"Without any model, word n-grams alone tell members from non-members with an AUC of {found['auc']:.3f} "
        f"(95 % interval {found['low']:.3f} to {found['high']:.3f}; read: {found['members']:,} members and "
        f"{found['non_members']:,} non-members{found['drawn']}). "
        + (
            "**The attacks above read that difference too.**"
            if found["warning"]
            else "Chance is within the interval: the groups are not shown to differ in their words."
        )
    )


def facts(summary: Mapping[str, Any]) -> pd.DataFrame:
    """Model, reference and the settings that numbers depend on."""
    model, before, settings = summary["model"], summary["reference"], summary["settings"]
    shown = {
        "model": f"{model['model']} ({model['class']}, {model['parameters']:,} parameters)",
        "reference model": before["model"] if before else "none",
        "arithmetic": f"{model['dtype']} on {model['device']}, {model['attention']} attention",
        "context, tokens": settings["context"],
        "prompt template": settings["template"],
        "window m, tokens": settings["window"],
        "nearly tied, logits": f"less than {settings['tie']:g} apart",
        "sampling rules": ", ".join(settings["sampling"]) or "plain only",
        "text of the data": "shown" if settings["show_secrets"] else "masked",
    }
    return pd.DataFrame(shown.items(), columns=["", "value"])


def files(summary: Mapping[str, Any]) -> pd.DataFrame:
    """The two files: columns, and what became of their records."""
    rows = []
    for group, f in summary["data"].items():
        columns = ", ".join(f"{ours} = {theirs}" for ours, theirs in f["columns"].items())
        counts = {k: f[k] for k in ("read", "empty", "duplicates", "long", "records")}
        rows.append({"group": group.replace("_", "-"), "file": Path(f["source"]).name, "columns": columns, **counts})
    return pd.DataFrame(rows)


def versions(summary: Mapping[str, Any]) -> pd.DataFrame:
    """What it takes to make the numbers again."""
    shown = {
        "weights, SHA-256": summary["model"]["weights"],
        "tokenizer": summary["tokenizer"],
        **{f"{group.replace('_', '-')}, SHA-256": f["sha256"] for group, f in summary["data"].items()},
        "device": summary["device"],
        "seconds, in this sitting": f"{summary['seconds']:g}",
        "peak memory, MB": f"{summary['peak_memory_bytes'] / 1e6:.0f}",
        **{k: v for k, v in summary["versions"].items() if v},
        "commit": summary["commit"],
    }
    return pd.DataFrame(shown.items(), columns=["", "value"])


def curve(summary: Mapping[str, Any]) -> plt.Figure:
    """Verbatim rate for every number of given tokens, with 95 % bands."""
    table = pd.DataFrame(summary["curve"])
    figure, ax = plt.subplots(figsize=(7, 3.4))
    for (group, model), rows in table.groupby(["group", "model"], sort=False):
        color, line, label = STYLES[group, model]
        ax.plot(rows["k"], rows["rate"], line, color=color, label=label)
        if model == "model":
            ax.fill_between(rows["k"], rows["low"].astype(float), rows["high"].astype(float), color=color, alpha=0.15)
    ax.set(xlabel="tokens of the record given, k", ylabel="share recited from there")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend()
    plt.close(figure)
    return figure


def distributions(
    records: Mapping[str, pd.DataFrame], columns: Mapping[str, str], summary: Mapping[str, Any]
) -> plt.Figure:
    """How the records of each group are spread over some numbers (column -> axis label): share of records up to a value.

    Above it stands which records these are, where they were drawn.
    """
    figure, axes = plt.subplots(1, len(columns), figsize=(3.6 * len(columns), 3.2), squeeze=False)
    for ax, (column, label) in zip(axes[0], columns.items(), strict=True):
        for group, rows in records.items():
            color, line, name = STYLES[group, "model"]
            ax.ecdf(rows[column].dropna().astype(float), linestyle=line, color=color, label=name)
        ax.set(xlabel=label, ylim=(0, 1.02))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    of = {group: summary["data"][group]["records"] for group in records}
    if any(of[group] > len(rows) for group, rows in records.items()):
        parts = [f"{len(rows):,} of {of[g]:,} {STYLES[g, 'model'][2]}" for g, rows in records.items()]
        figure.suptitle(f"{' and '.join(parts)}, drawn at random", fontsize="small")
    axes[0, 0].set_ylabel("share of records up to there")
    axes[0, 0].legend()
    plt.close(figure)
    return figure


def roc(path: Path) -> plt.Figure:
    """Receiver operating characteristic of every attack in a `records.parquet`, on log axes from one false positive upwards."""
    figure, ax = plt.subplots(figsize=(5, 4))
    least = 1 / max(1, scores.group_sizes(path).get("non_members", 0))
    known = scores.columns(path)
    for attack in (a for a in membership_inference.LABELS if a in known):
        sides = [side[~np.isnan(side)] for side in scores.scores(path, attack)]
        if min(map(len, sides)):
            fpr, tpr = roc_points(*sides)
            ax.plot(fpr.clip(least), tpr.clip(least), lw=1.2, label=membership_inference.LABELS[attack])
    ax.plot([least, 1], [least, 1], ":", color="#777777", label="guessing")
    ax.set(xscale="log", yscale="log", xlabel="false positive rate", ylabel="true positive rate", xlim=(least, 1))
    ax.legend(fontsize=7)
    plt.close(figure)
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
