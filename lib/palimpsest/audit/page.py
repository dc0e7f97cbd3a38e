"""An audit's report: tables, figures and words of one audit's files, put into the page `report.html` that stands beside this."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from palimpsest.audit.records import attack_scores, column, sample
from palimpsest.data.masking import escape, to_html
from palimpsest.errors import InputError
from palimpsest.measure.membership_inference import LABELS
from palimpsest.measure.near_verbatim import NEAR
from palimpsest.measure.statistics import interval

DRAWN = 20_000  # most records a group behind a figure of single records
POINTS = 1_000  # most thresholds of a drawn ROC curve
PAGE = Path(__file__).with_name("report.html")
LOOK = {"font.size": 10, "legend.frameon": False, "axes.grid": True, "grid.color": "#e8e8e8", "axes.axisbelow": True}
LOOK |= {"axes.edgecolor": "#cccccc", "axes.spines.top": False, "axes.spines.right": False}
STYLES = {  # group, model -> color, line, label
    ("members", "model"): ("#b2182b", "-", "members"),
    ("non_members", "model"): ("#2166ac", "--", "non-members"),
    ("members", "reference"): ("#d98880", ":", "members, reference model"),
    ("non_members", "reference"): ("#85a9d0", ":", "non-members, reference model"),
}
ALTS = (
    "Share of records recited against the number of tokens given",
    "Cumulative distributions of extraction strength, longest span and loss",
    "True against false positive rate of every membership attack, on log axes",
)
VIEWS = {
    "extraction_strength": "extraction strength",
    "longest_span": "longest span, tokens",
    "loss": "loss, nats per token",
}


def report(folder: str | Path) -> Path:
    """Write `report.html` and `figures/` beside the `summary.json` and `records.parquet` of an audit in `folder`.

    The page loads nothing from elsewhere and runs no script; its policy forbids both.

    Raises:
        InputError: no audit there.
    """
    folder = Path(folder)
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} holds no audit (no summary.json): run `palimpsest audit --out {folder}` first"
        ) from None
    path, settings = folder / "records.parquet", summary["settings"]
    (folder / "figures").mkdir(exist_ok=True)

    def rates(measure: str, *setting: str) -> str:
        return to_html(show_rates(summary, measure, *setting))

    def figure(name: str, alt: str, drawn: Figure) -> str:
        file = folder / "figures" / f"{name}.png"
        drawn.savefig(file, dpi=150)
        return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'

    with matplotlib.rc_context(LOOK):
        parts = {
            "headline": _listed(summary["headline"]),
            "warnings": "<p>Read with it:</p>" + _listed(summary["warnings"]) if summary["warnings"] else "",
            "facts": to_html(show_facts(summary)),
            "files": to_html(show_files(summary)),
            "verbatim": rates("verbatim", "k", "m"),
            "verbatim_figure": figure("verbatim", ALTS[0], plot_by_prefix(summary)),
            "distributions_figure": figure("distributions", ALTS[1], plot_distributions(path, summary)),
            "means": to_html(show_means(summary)),
            "left_truncated": "<p>Not measured (<code>--left-truncated</code>).</p>",
            "discoverable": rates("discoverable", "sampling", "n", "p", "m"),
            "near": NEAR,
            "nearly_verbatim": "<p>Not measured (<code>--no-approximate</code>).</p>",
            "attacks": "<p>Not measurable without <code>--non-members</code>.</p>",
            "roc_figure": "",
            "blind": _said_of_texts(summary["blind"]) if summary["blind"] else "",
            "most_memorized": to_html(pd.DataFrame(summary["most_memorized"])),
            "near_ties": rates("near-tie", "m"),
            "versions": to_html(show_versions(summary)),
        }
        if settings["left_truncated"]:
            parts["left_truncated"] = rates("left-truncated", "k", "m")
        if settings["approximate"]:
            parts["nearly_verbatim"] = rates("nearly verbatim")
        if summary["membership"]:
            parts |= {"attacks": to_html(show_attacks(summary)), "roc_figure": figure("roc", ALTS[2], plot_roc(path))}
    page = folder / "report.unfinished"
    page.write_text(Template(PAGE.read_text(encoding="utf-8")).substitute(parts), encoding="utf-8")
    return page.replace(folder / "report.html")


def _listed(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


# ---------------------------------------------------------------- tables


def show_rates(summary: Mapping[str, Any], measure: str, *setting: str) -> pd.DataFrame:
    """The rates of one measure as text: a row per setting, a column per group and model, and members minus non-members."""
    rates, more = ([row for row in summary[name] if row["measure"] == measure] for name in ("rates", "excess"))
    rows = [
        {**r, "label": STYLES[r["group"], r["model"]][2], "text": f"{interval(*_limits(r, 'rate'))}, n = {r['total']}"}
        for r in rates
    ]
    for row in (row for row in more if row["model"] == "model"):
        apart, low, high = (100 * v for v in _limits(row, "excess"))
        text = f"{apart:+.1f} points ({low:.1f} to {high:.1f})"
        rows.append({**row, "label": "members minus non-members", "text": text})
    return _wide(rows, ["measure", *setting])


def show_means(summary: Mapping[str, Any]) -> pd.DataFrame:
    """The means over records as text with intervals, a row per measure and a column per group."""
    rows = []
    for row in summary["means"]:
        mean, low, high = _limits(row, "mean")
        text = f"{mean:.3g} ({low:.3g} to {high:.3g}), n = {row['total']}"
        rows.append({**row, "label": STYLES[row["group"], "model"][2], "text": text})
    return _wide(rows, ["measure"])


def show_attacks(summary: Mapping[str, Any]) -> pd.DataFrame:
    """One row per membership attack: AUC and TPR at three false positive rates, "not measurable" where they aren't."""
    rows = []
    for row in summary["membership"]:
        (rate, low, high), auc = _limits(row, "rate"), row["measure"] == "AUC"
        text = row["note"] or (f"{rate:.3f} ({low:.3f} to {high:.3f})" if auc else interval(rate, low, high))
        label = "AUC" if auc else f"TPR at {100 * row['fpr']:g} % FPR"
        rows.append({"attack": LABELS[row["attack"]], "label": label, "text": text})
    return _wide(rows, ["attack"])


def _limits(row: Mapping[str, Any], name: str) -> list[float]:
    return [float("nan") if row[key] is None else row[key] for key in (name, "low", "high")]


def _wide(rows: Sequence[Mapping[str, Any]], index: Sequence[str]) -> pd.DataFrame:
    """A row per `index`, a column per label, in each cell the text."""
    words = [{key: "all" if row[key] is None else f"{row[key]}" for key in index} for row in rows]
    table = pd.DataFrame([{**row, **said} for row, said in zip(rows, words, strict=True)])
    wide = table.pivot_table(index=list(index), columns="label", values="text", aggfunc="first", sort=False)
    return wide.fillna("").reset_index().rename_axis(columns=None)


def _said_of_texts(found: Mapping[str, Any]) -> str:
    """What the two groups' texts alone give away."""
    return (
        f"<p>Without any model, word n-grams alone tell members from non-members with an AUC of {found['auc']:.3f} "
        f"(95 % interval {found['low']:.3f} to {found['high']:.3f}; read: {found['members']:,} members and "
        f"{found['non_members']:,} non-members{found['drawn']}). "
        + (
            "<strong>The attacks above read that difference too.</strong></p>"
            if found["warning"]
            else "Chance is within the interval: the groups are not shown to differ in their words.</p>"
        )
    )


def show_facts(summary: Mapping[str, Any]) -> pd.DataFrame:
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


def show_files(summary: Mapping[str, Any]) -> pd.DataFrame:
    """The two files: columns, and what became of their records."""
    rows = []
    for group, f in summary["data"].items():
        columns = ", ".join(f"{ours} = {theirs}" for ours, theirs in f["columns"].items())
        counts = {k: f[k] for k in ("read", "empty", "duplicates", "long", "records")}
        rows.append({"group": group.replace("_", "-"), "file": Path(f["source"]).name, "columns": columns, **counts})
    return pd.DataFrame(rows)


def show_versions(summary: Mapping[str, Any]) -> pd.DataFrame:
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


# ---------------------------------------------------------------- figures


def _axes(count: int, width: float, height: float) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=(count * width, height), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def plot_by_prefix(summary: Mapping[str, Any]) -> Figure:
    """Verbatim rate for every number of given tokens, with 95 % bands."""
    figure, (ax,) = _axes(1, 7, 3.4)
    for (group, model), rows in pd.DataFrame(summary["curve"]).groupby(["group", "model"], sort=False):
        color, line, label = STYLES[group, model]
        ax.plot(rows["k"], rows["rate"], line, color=color, label=label)
        if model == "model":
            ax.fill_between(rows["k"], rows["low"].astype(float), rows["high"].astype(float), color=color, alpha=0.15)
    ax.set(xlabel="tokens of the record given, k", ylabel="share recited from there")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.legend()
    return figure


def plot_distributions(path: Path, summary: Mapping[str, Any]) -> Figure:
    """How the records of each group are spread over some numbers: share of records up to a value.

    Above it stands which records these are, where they were drawn.
    """
    figure, axes = _axes(len(VIEWS), 3.6, 3.2)
    of = {group: facts["records"] for group, facts in summary["data"].items()}
    for ax, (name, label) in zip(axes, VIEWS.items(), strict=True):
        for group, count in of.items():
            color, line, title = STYLES[group, "model"]
            values = column(path, group, name).iloc[sample(count, DRAWN)].dropna().astype(float)
            ax.ecdf(values, linestyle=line, color=color, label=title)
        ax.set(xlabel=label, ylim=(0, 1.02))
        ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    if max(of.values()) > DRAWN:
        parts = [f"{min(count, DRAWN):,} of {count:,} {STYLES[group, 'model'][2]}" for group, count in of.items()]
        figure.suptitle(f"{' and '.join(parts)}, drawn at random", fontsize="small")
    axes[0].set_ylabel("share of records up to there")
    axes[0].legend()
    return figure


def plot_roc(path: Path) -> Figure:
    """Receiver operating characteristic of every attack in a `records.parquet`, on log axes from one false positive upwards."""
    figure, (ax,) = _axes(1, 5, 4)
    least = 1 / max(1, len(column(path, "non_members", "id")))
    known = pq.read_schema(path).names
    for attack in (a for a in LABELS if a in known):
        sides = [side[~np.isnan(side)] for side in attack_scores(path, attack)]
        if min(map(len, sides)):
            fpr, tpr = roc_points(*sides)
            ax.plot(fpr.clip(least), tpr.clip(least), lw=1.2, label=LABELS[attack])
    ax.plot([least, 1], [least, 1], ":", color="#777777", label="guessing")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="false positive rate",
        ylabel="true positive rate",
        xlim=(min(least, 0.5), 1),
    )
    ax.legend(fontsize=7)
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
