"""An audit's report: tables, figures and words of one audit's files, put into the page `report.html` that stands beside this."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from palimpsest.audit import first_page
from palimpsest.audit.drawings import LOOK, STYLES, plot_by_prefix, plot_distributions, plot_roc
from palimpsest.audit.layout import facts_of_tokens
from palimpsest.data.markup import SCRIPT
from palimpsest.data.masking import escape
from palimpsest.errors import InputError
from palimpsest.measure.membership_inference import LABELS
from palimpsest.measure.near_verbatim import NEAR
from palimpsest.measure.statistics import interval

PAGE = Path(__file__).with_name("report.html")
ALTS = {
    "verbatim": "Share of records recited against the number of tokens given",
    "distributions": "Cumulative distributions of extraction strength, longest span and loss",
    "roc": "True against false positive rate of every membership attack, on log axes",
}


def report(folder: str | Path) -> Path:
    """Write `report.html` and `figures/` beside the `summary.json` and `records.parquet` of an audit in `folder`.

    The page loads nothing from elsewhere and runs one script, which searches and sorts its records; its policy forbids any other,
    and knows this one by its hash.

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
    path = folder / "records.parquet"
    (folder / "figures").mkdir(exist_ok=True)

    def rates(measure: str, *setting: str, flag: str = "") -> str:
        if not any(row["measure"] == measure for row in summary["rates"]):
            return f"<p>Not measured (<code>{flag}</code>).</p>"
        same, table = same_throughout(show_rates(summary, measure, *setting), setting)
        beside = show_others(summary, measure, *setting)
        return (
            (f"<p>Throughout: {escape(same)}.</p>" if same else "")
            + first_page.in_frame(table)
            + ("<p>The other models, given the same tokens:</p>" + first_page.in_frame(beside) if len(beside) else "")
        )

    def figure(name: str, drawn: Figure) -> str:
        file = folder / "figures" / f"{name}.png"
        drawn.savefig(file, dpi=150)
        return f'<img alt="{ALTS[name]}" src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'

    with matplotlib.rc_context(LOOK):
        parts = {
            "headline": _listed(summary["headline"]),
            "warnings": "<p>Read with it:</p>" + _listed(summary["warnings"]) if summary["warnings"] else "",
            "facts": first_page.in_frame(show_facts(summary)),
            "files": first_page.in_frame(show_files(summary)),
            "verbatim": rates("verbatim", "k", "m", "end_token"),
            "verbatim_figure": figure("verbatim", plot_by_prefix(summary)),
            "distributions_figure": figure("distributions", plot_distributions(path, summary)),
            "means": first_page.in_frame(show_means(summary)),
            "left_truncated": rates("left-truncated", "k", "m", "end_token", flag="--left-truncated"),
            "discoverable": rates("discoverable", "sampling", "n", "p", "m", "end_token"),
            "near": NEAR,
            "nearly_verbatim": rates("nearly verbatim", flag="--no-approximate"),
            "attacks": first_page.in_frame(show_attacks(summary))
            if summary["membership"]
            else "<p>Not measurable without <code>--non-members</code>.</p>",
            "roc_figure": figure("roc", plot_roc(path)) if summary["membership"] else "",
            "blind": _said_of_texts(summary["blind"]) if summary["blind"] else "",
            "at_risk": first_page.risk_section(summary),
            "tested": first_page.in_frame(first_page.show_tested(summary)),
            "family": first_page.family_section(summary),
            "secrets": first_page.secrets_section(summary),
            "near_ties": rates("near-tie", "m"),
            "versions": first_page.in_frame(show_versions(summary)),
        }
    script = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts |= {"script": script, "script_source": f"'sha256-{digest}'"}
    page = folder / "report.unfinished"
    page.write_text(Template(PAGE.read_text(encoding="utf-8")).substitute(parts), encoding="utf-8")
    return page.replace(folder / "report.html")


def _listed(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


# ---------------------------------------------------------------- tables


def show_rates(summary: Mapping[str, Any], measure: str, *setting: str) -> pd.DataFrame:
    """The rates of one measure by the audited model, as text: a row per setting, a column per group, and members minus non-members."""
    rows = [row for row in _said_rates(summary, measure) if row["model"] == "model"]
    for row in (row for row in summary["excess"] if (row["measure"], row["model"]) == (measure, "model")):
        apart, low, high = (100 * row[key] for key in ("excess", "low", "high"))
        text = f"{apart:+.1f} points ({low:.1f} to {high:.1f})"
        rows.append({**row, "label": "members minus non-members", "text": text})
    return _wide(rows, list(setting) or ["measure"])


def show_others(summary: Mapping[str, Any], measure: str, *setting: str) -> pd.DataFrame:
    """The same rates by the other models, where they were measured; the end of a response is not asked for."""
    rows = [
        row for row in _said_rates(summary, measure) if row["model"] != "model" and row.get("end_token") != "required"
    ]
    return _wide(rows, ["model", *(name for name in setting if name != "end_token")]) if rows else pd.DataFrame()


def _said_rates(summary: Mapping[str, Any], measure: str) -> list[dict[str, Any]]:
    return [
        {
            **r,
            "label": r["group"].replace("_", "-"),
            "text": f"{interval(r['rate'], r['low'], r['high'])}, n = {r['total']}",
        }
        for r in summary["rates"]
        if r["measure"] == measure
    ]


def same_throughout(table: pd.DataFrame, setting: Sequence[str]) -> tuple[str, pd.DataFrame]:
    """The settings that no row changes, in words, and the table without their columns."""
    same = [name for name in setting if name in table and len(table) > 1 and table[name].nunique() == 1]
    said = ", ".join(f"{name.replace('_', ' ')} = {table[name].iloc[0]}" for name in same)
    return said, table.drop(columns=same).rename(columns=lambda name: name.replace("_", " "))


def show_means(summary: Mapping[str, Any]) -> pd.DataFrame:
    """The means over records as text with intervals, a row per measure and a column per group."""
    rows = []
    for row in summary["means"]:
        mean, low, high = (float("nan") if row[key] is None else row[key] for key in ("mean", "low", "high"))
        text = f"{mean:.3g} ({low:.3g} to {high:.3g}), n = {row['total']}"
        rows.append({**row, "label": STYLES[row["group"], "model"][2], "text": text})
    return _wide(rows, ["measure"])


def show_attacks(summary: Mapping[str, Any]) -> pd.DataFrame:
    """One row per membership attack: AUC and TPR at three false positive rates, "not measurable" where they aren't."""
    rows = []
    for row in summary["membership"]:
        (rate, low, high), auc = (row[key] for key in ("rate", "low", "high")), row["measure"] == "AUC"
        text = row["note"] or (f"{rate:.3f} ({low:.3f} to {high:.3f})" if auc else interval(rate, low, high))
        label = "AUC" if auc else f"TPR at {100 * row['fpr']:g} % FPR"
        rows.append({"attack": LABELS[row["attack"]], "label": label, "text": text})
    return _wide(rows, ["attack"])


def _wide(rows: Sequence[Mapping[str, Any]], index: Sequence[str]) -> pd.DataFrame:
    """A row per `index`, a column per label, in each cell the text."""
    table = pd.DataFrame([row | {key: "all" if row[key] is None else f"{row[key]}" for key in index} for row in rows])
    wide = table.pivot_table(index=list(index), columns="label", values="text", aggfunc="first", sort=False)
    return wide.fillna("").reset_index().rename_axis(columns=None)


def _said_of_texts(found: Mapping[str, Any]) -> str:
    """What the two groups' texts alone give away."""
    apart = "<strong>The attacks above read that difference too.</strong>"
    alike = "Chance is within the interval: the groups are not shown to differ in their words."
    return (
        f"<p>Without any model, word n-grams alone tell members from non-members with an AUC of {found['auc']:.3f} "
        f"(95 % interval {found['low']:.3f} to {found['high']:.3f}; read: {found['members']:,} members and "
        f"{found['non_members']:,} non-members{found['drawn']}). {apart if found['warning'] else alike}</p>"
    )


def show_facts(summary: Mapping[str, Any]) -> pd.DataFrame:
    """The models and the settings that numbers depend on."""
    model, settings = summary["model"], summary["settings"]
    shown = {
        "model": f"{model['model']} ({model['class']}, {model['parameters']:,} parameters)",
        **{f"{role} model": other["model"] for role, other in summary["others"].items()},
        "arithmetic": f"{model['dtype']} on {model['device']}, {model['attention']} attention",
        "context, tokens": settings["context"],
        "prompt template": settings["template"],
        **facts_of_tokens(settings["tokens"]),
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
        "seconds, since it was last started": f"{summary['seconds']:g}",
        "peak memory, MB": f"{summary['peak_memory_bytes'] / 1e6:.0f}",
        **{k: v for k, v in summary["versions"].items() if v},
        "commit": summary["commit"],
    }
    return pd.DataFrame(shown.items(), columns=["", "value"])
