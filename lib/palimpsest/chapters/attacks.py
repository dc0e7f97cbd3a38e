"""Membership attacks and canary exposure on every measured model of a study: tidy tables and their figures."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters.figures import COLORS, LABELS, legend, percent
from palimpsest.measure import canaries, finished, membership_inference, results
from palimpsest.measure.models import load_tokenizer
from palimpsest.measure.results import load_records
from palimpsest.study import Study
from palimpsest.study.runs import locate

DOSE = ["size", "method", "role", "teacher_only", "copies", "canaries", "exposure", "exposure_low", "exposure_high"]
DOSE += ["chance", "ceiling", "count", "total"]
NO_CANARIES = "This study plants no canaries, so there is no exposure to measure."


def letters(run_dir: str | Path) -> pd.DataFrame:
    """The records attacked, `finished.letters`."""
    return finished.letters(load_records(run_dir))


def scores(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """Every attack on every model, one row per model and record.

    The attacked text is the response, given its prompt. A model is calibrated on the checkpoint it was fine-tuned from,
    `base-<size>`; a base itself has none, so it gets the attacks that need no reference. Lowercased scores are read from
    `scores/<model>/lowercase.parquet` where the measuring stage wrote them.

    Returns:
        `results.describe`'s columns, `id`, `split`, and one column per attack (NaN where its inputs are missing).
    """
    rows, names = letters(run_dir), results.model_names(study, run_dir)
    out = []
    for name in names:
        who = results.describe(name)
        base = f"base-{who['size']}"
        before = None if who["role"] == "base" or base not in names else results.scores(run_dir, base)
        lower = locate(run_dir) / "scores" / name / "lowercase.parquet"
        table = results.scores(run_dir, name).set_index("id").loc[rows["id"]].reset_index()
        found = membership_inference.membership(
            table, list(rows["response"]), before, pd.read_parquet(lower) if lower.exists() else None
        )
        out.append(found.assign(split=rows["split"].to_numpy(), **who))
    return pd.concat(out, ignore_index=True)


def evaluate(scored: pd.DataFrame) -> pd.DataFrame:
    """`membership_inference.evaluate` of every model in `scores`' table, attacks without inputs left out."""
    out = []
    for name, part in scored.groupby("model", sort=False):
        used = [a for a in membership_inference.LABELS if a in part and part[a].notna().any()]
        ids = [part.loc[part["split"] == split, "id"] for split in finished.COMPARED]
        out.append(membership_inference.evaluate(part[["id", *used]], *ids).assign(**results.describe(name)))
    return pd.concat(out, ignore_index=True)


def roc(scored: pd.DataFrame, attack: str) -> pd.DataFrame:
    """The ROC curve of one attack on every model it was possible on: `results.describe`'s columns, `fpr`, `tpr`."""
    out = []
    for name, part in scored.dropna(subset=[attack]).groupby("model", sort=False):
        member, other = (part.loc[part["split"] == split, attack].to_numpy() for split in finished.COMPARED)
        out.append(membership_inference.roc(member, other)[["fpr", "tpr"]].assign(**results.describe(name)))
    return pd.concat(out, ignore_index=True)


def exposures(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """`canaries.exposure` of every model, with `results.describe`'s columns; no rows if the study has no canaries."""
    records = load_records(run_dir)
    planted = records[records["kind"] != "letter"]
    if planted.empty:
        return pd.DataFrame(columns=["model", "size", "method", "role", "id", "twins", "exposure"])
    tokenizer = load_tokenizer(locate(run_dir) / "data" / "tokenizer")
    examples = finished.examples_of(study, planted, tokenizer)
    tables = {name: results.scores(run_dir, name) for name in results.model_names(study, run_dir)}
    parts = [canaries.exposure(t, records, examples).assign(**results.describe(n)) for n, t in tables.items()]
    return pd.concat(parts, ignore_index=True)


def doses(exposed: pd.DataFrame) -> pd.DataFrame:
    """`canaries.dose_response` of every size and method, seeds together."""
    out = []
    for (size, method, role), part in exposed.groupby(["size", "method", "role"], sort=False):
        out.append(canaries.dose_response(part).assign(size=size, method=method, role=role))
    return pd.concat(out, ignore_index=True) if out else pd.DataFrame(columns=DOSE)


# ---------------------------------------------------------------- tables and sentences


def auc_table(rated: pd.DataFrame) -> pd.DataFrame:
    """AUC with its 95 % interval as text, one row per model, one column per attack."""
    rows = rated[rated["measure"] == "AUC"]
    text = [f"{r:.2f} ({a:.2f} to {b:.2f})" for r, a, b in rows[["rate", "low", "high"]].to_numpy()]
    wide = rows.assign(shown=text).pivot(index="model", columns="attack", values="shown")
    wide = wide.loc[rows["model"].unique(), rows["attack"].unique()]
    return wide.fillna("").rename(columns=membership_inference.LABELS)


def strongest(rated: pd.DataFrame) -> str:
    """The attack with the highest AUC on the teacher: chosen there once, so that no student's figure is a best of many."""
    rows = rated[(rated["measure"] == "AUC") & (rated["model"] == "teacher")]
    return rows.loc[rows["rate"].idxmax(), "attack"]


def told(rated: pd.DataFrame, attack: str) -> list[str]:
    """One line per size: how well one attack tells members by the fine-tuned baseline and by the distilled students.

    Of several seeds, the mean AUC and the mean of the ends of their intervals.
    """
    rows = rated[(rated["measure"] == "AUC") & (rated["attack"] == attack)]
    teacher = rows[rows["role"] == "teacher"].iloc[0]
    lines = [f"- **teacher**: {_auc(teacher)} with {membership_inference.LABELS[attack]}."]
    for size, part in rows[rows["role"].isin(["baseline", "student"])].groupby("size", sort=False):
        mean = part.groupby("method", sort=False)[["rate", "low", "high", "members", "non_members"]].mean()
        line = f"- **{size}**: {_auc(mean.loc['sft'])} when fine-tuned on the members"
        if len(others := mean.drop("sft").sort_values("rate")):
            least, most = others.iloc[0], others.iloc[-1]
            ends = [f"{_auc(row)} ({LABELS[row.name]})" for row in (least, most)]
            line += f"; distilled, from {' to '.join(ends)}"
        blind = part[(part["low"] <= 0.5) & (part["high"] >= 0.5)]
        lines.append(f"{line}. Chance (0.5) is within the interval of {len(blind)} of {len(part)} models.")
    return lines


def _auc(row: pd.Series) -> str:
    counts = f"{row['members']:.0f} + {row['non_members']:.0f} letters"
    return f"AUC {row['rate']:.2f} ({counts}; 95 % interval {row['low']:.2f} to {row['high']:.2f})"


def low_told(rated: pd.DataFrame, attack: str, name: str = "teacher") -> str:
    """What one attack finds of one model's members at the lowest false positive rate there are non-members for."""
    rows = rated[(rated["measure"] == "TPR") & (rated["attack"] == attack) & (rated["model"] == name)]
    without = ", ".join(f"{100 * f:g} %" for f in rows.loc[rows["rate"].isna(), "fpr"])
    missing = f" Not measurable with {rows['non_members'].iloc[0]} non-members: {without}." if without else ""
    if rows["rate"].isna().all():
        return f"No false positive rate is low enough to matter and measurable.{missing}"
    least = rows[rows["rate"].notna()].sort_values("fpr").iloc[0]
    return (
        f"At {100 * least['fpr']:g} % false positives {membership_inference.LABELS[attack]} finds {percent(least)} of the members "
        f"by the {name}.{missing}"
    )


def dose_told(table: pd.DataFrame) -> list[str]:
    """One line per size and fine-tuned method: exposure at the fewest and the most copies, and how many were recited."""
    lines = []
    tuned = table[(table["method"] != "none") & ~table["teacher_only"].astype(bool)]
    for (size, method), part in tuned.groupby(["size", "method"], sort=False):
        few, many = part.loc[part["copies"].idxmin()], part.loc[part["copies"].idxmax()]
        recited = f"{int(many['count'])} of {int(many['total'])} recited"
        lines.append(f"- **{size}, {LABELS[method]}**: {_bits(few)}, {_bits(many)}, {recited}.")
    return lines or [NO_CANARIES]


def only_told(table: pd.DataFrame) -> str:
    """Which students show more than chance on canaries that only the teacher was fine-tuned on."""
    rows = table[table["teacher_only"].astype(bool) & table["role"].isin(["student", "baseline"])]
    if rows.empty:
        return NO_CANARIES if table.empty else "No canary of this study is the teacher's alone."
    above = rows[rows["exposure_low"] > rows["chance"]]
    named = "".join(f"; {r.size}, {LABELS[r.method]}: {r.exposure:.1f} bits" for r in above.itertuples(index=False))
    return (
        f"Of {len(rows)} pairs of size and method, {len(above)} show more than chance ({rows['chance'].iloc[0]:.2f} bits, "
        f"below their interval) on the {rows['canaries'].iloc[0]} secrets that only the teacher has seen{named}."
    )


def _bits(row: pd.Series) -> str:
    copies = f"{row['copies']} cop{'y' if row['copies'] == 1 else 'ies'}"
    if np.isnan(row["exposure_low"]):
        return f"{row['exposure']:.1f} bits at {copies} (one canary)"
    return f"{row['exposure']:.1f} bits at {copies} ({row['exposure_low']:.1f} to {row['exposure_high']:.1f})"


# ---------------------------------------------------------------- figures


def auc_figure(rated: pd.DataFrame) -> plt.Figure:
    """AUC of every attack, one panel per size, one mark per model; bars are 95 % DeLong intervals."""
    table = rated[rated["measure"] == "AUC"]
    sizes, kinds = list(table["size"].unique()), [a for a in membership_inference.LABELS if a in set(table["attack"])]
    figure, axes = plt.subplots(
        1, len(sizes), figsize=(2 + 2.8 * len(sizes), 4.2), sharex=True, sharey=True, squeeze=False
    )
    for ax, size in zip(axes[0], sizes, strict=True):
        rows = table[table["size"] == size]
        models = list(rows["model"].unique())
        for i, (_, part) in enumerate(rows.groupby("model", sort=False)):
            y = part["attack"].map(kinds.index) + 0.8 * ((i + 0.5) / len(models) - 0.5)
            method = part["method"].iloc[0]
            errors = np.abs(part[["low", "high"]].to_numpy().T - part["rate"].to_numpy())
            style = {"fmt": "o", "markersize": 3.5, "color": COLORS[method], "elinewidth": 0.8}
            ax.errorbar(part["rate"], y, xerr=errors, label=LABELS[method], **style)
        ax.axvline(0.5, color="#999999", lw=1, ls="--")
        ax.set(
            title=size,
            xlabel="AUC",
            yticks=range(len(kinds)),
            yticklabels=[membership_inference.LABELS[a] for a in kinds],
        )
    axes[0, 0].invert_yaxis()
    return legend(figure, axes)


def roc_figure(curves: pd.DataFrame, non_members: int) -> plt.Figure:
    """ROC on log axes, one panel per size: the left end is where an attacker accuses almost nobody wrongly."""
    sizes, least = list(curves["size"].unique()), 1 / non_members
    figure, axes = plt.subplots(1, len(sizes), figsize=(1.8 + 2.9 * len(sizes), 3.3), sharey=True, squeeze=False)
    for ax, size in zip(axes[0], sizes, strict=True):
        for (_, method), part in curves[curves["size"] == size].groupby(["model", "method"], sort=False):
            x, y = part["fpr"].clip(lower=least / 2), part["tpr"].clip(lower=least / 2)  # 0 has no place on a log axis
            ax.step(x, y, where="post", color=COLORS[method], lw=1.2, label=LABELS[method])
        ax.plot([least / 2, 1], [least / 2, 1], color="#999999", lw=1, ls="--")
        ax.axvspan(least / 2, least, color="#eeeeee", lw=0)
        ax.set(title=size, xlabel="false positive rate", xscale="log", yscale="log", xlim=(least / 2, 1))
        ax.set_ylim(least / 2, 1.1)
    axes[0, 0].set_ylabel("true positive rate")
    return legend(figure, axes)


def dose_figure(table: pd.DataFrame) -> plt.Figure:
    """Mean exposure over copies, one panel per size; hollow marks: canaries in the teacher's text only."""
    sizes = list(table["size"].unique()) or [NO_CANARIES]
    figure, axes = plt.subplots(1, len(sizes), figsize=(1.8 + 2.9 * len(sizes), 3.3), sharey=True, squeeze=False)
    for ax, size in zip(axes[0], sizes, strict=True):
        for i, (method, part) in enumerate(table[table["size"] == size].groupby("method", sort=False)):
            for only, rows in part.groupby("teacher_only"):
                errors = np.abs(rows[["exposure_low", "exposure_high"]].to_numpy().T - rows["exposure"].to_numpy())
                x = rows["copies"] * 1.04**i  # side by side, so that intervals don't cover each other
                style = {"color": COLORS[method], "mfc": "white"} if only else {"color": COLORS[method]}
                line = {"fmt": "D" if only else "o-", "markersize": 4, "elinewidth": 0.8, "lw": 1.2}
                ax.errorbar(x, rows["exposure"], yerr=errors, label=None if only else LABELS[method], **line, **style)
        for level, color, line in (("ceiling", "#444444", ":"), ("chance", "#999999", "--")):
            ax.axhline(table[level].max(), color=color, lw=1, ls=line)
        ax.set(title=size, xlabel="copies in the training text", xscale="log")
        ticks = sorted(table["copies"].unique())
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
    axes[0, 0].set_ylabel("exposure, bits")
    return legend(figure, axes)
