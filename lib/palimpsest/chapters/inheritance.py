"""The chapter on inheritance: its tables, figures and sentences, from a study's score tables."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import PercentFormatter

from palimpsest.chapters.figures import COLORS, LABELS, interval, percent
from palimpsest.data.records import encode, template
from palimpsest.measure import canaries, lineage, prediction, results
from palimpsest.measure.models import load_tokenizer
from palimpsest.measure.prediction import Prediction
from palimpsest.study import Arm, Study
from palimpsest.study.runs import locate

SHOWN = {  # the sets drawn, with their colors
    "easy": "#4d4d4d",
    "small_only": "#999999",
    "inherited": "#b2182b",
    "student_only": "#f4a582",
    "shed": "#92c5de",
    "baseline_only": "#2166ac",
    "teacher_only": "#e0e0e0",
}
READINGS = {
    "window": "recites the first {window} response tokens from the prompt",
    "whole": "recites the whole response from the prompt",
    "secret": "recites at least one of its secrets from the text before it",
}


def arms(study: Study, memorized: pd.DataFrame) -> list[Arm]:
    """The study's arms that have been measured, together with their baseline."""
    measured = [arm for arm in study.arms() if arm.name in memorized]
    return [arm for arm in measured if Arm(arm.size, "sft", arm.seed).name in memorized]


def sets(study: Study, memorized: pd.DataFrame, rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """`lineage.origins` over the records of one split."""
    ids = memorized.index.intersection(rows.loc[rows["split"] == split, "id"])
    return lineage.origins(memorized.loc[ids], arms(study, memorized))


def predictions(
    study: Study, run_dir: str | Path, rows: pd.DataFrame, sorted_records: pd.DataFrame
) -> dict[tuple, Prediction]:
    """(size, method, seed) -> what `prediction.predict` tells of that student from its teacher's and baseline's scores."""
    teacher, found = results.scores(run_dir, "teacher"), {}
    for (size, seed), part in sorted_records.groupby(["size", "seed"], sort=False):
        baseline = results.scores(run_dir, Arm(size, "sft", seed).name)
        asked = rows[rows["id"].isin(set(part["id"]))]
        inputs = prediction.features(asked, teacher, baseline)
        for method, arm in part.groupby("method", sort=False):
            found[size, method, seed] = prediction.predict(inputs, arm.set_index("id")["student"])
    return found


def prediction_table(found: Mapping[tuple, Prediction]) -> pd.DataFrame:
    """One row per arm: AUC with its interval, standardized weights, and what leaving out the records above 1/2 would save."""
    rows = []
    for (size, method, seed), one in found.items():
        positive = int(one.table["memorized"].sum())
        row = {"size": size, "method": method, "seed": seed, "memorized": positive, "records": len(one.table)}
        row |= {"auc": one.auc["rate"], "auc_low": one.auc["low"], "auc_high": one.auc["high"], "note": one.note}
        saved = prediction.savings(one.table, ()).drop(columns="rule").iloc[0].to_dict()
        saved = dict.fromkeys(saved, np.nan) if one.note else saved
        rows.append({**row, **saved, **one.weights.add_prefix("weight_")})
    return pd.DataFrame(rows)


def counterfactual(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """`lineage.counterfactual` of teacher and arms, with who they are; empty if no canary is the teacher's alone."""
    records = results.load_records(run_dir)
    planted = records[records["kind"].isin(["canary", "twin"])]
    planted = planted[planted["teacher_only"] | (planted["kind"] == "twin")]
    planted = planted.assign(form=[" ".join(s["kind"] for s in spans) for spans in planted["secrets"]])
    planted = planted[planted["form"].isin(planted.loc[planted["kind"] == "canary", "form"])]
    if planted.empty:
        return pd.DataFrame(columns=["model", "role", "canaries", "twins", "recited", "auc", "low", "high", "p"])
    tokenizer = load_tokenizer(locate(run_dir) / "data" / "tokenizer")
    examples = encode(planted, tokenizer, template(study.data.template))

    def secret(name: str) -> pd.DataFrame:
        table = results.scores(run_dir, name)
        return canaries.secret_logprob(table[table["id"].isin(planted["id"])], examples).set_index("id")

    parts = []
    for who in map(results.describe, results.model_names(study, run_dir)):
        if who["role"] != "base":
            after, before = secret(who["model"]), secret(f"base-{who['size']}")
            gain = pd.DataFrame({"gain": after["logprob"] - before["logprob"], "recited": after["recited"]})
            parts.append(planted[["id", "kind", "form"]].merge(gain, on="id").assign(model=who["model"]))
    found = lineage.counterfactual(pd.concat(parts, ignore_index=True))
    return pd.DataFrame([results.describe(name) for name in found["model"]]).merge(found, on="model")


# ---------------------------------------------------------------- tables for reading


def set_table(pooled: pd.DataFrame) -> pd.DataFrame:
    """Share of every set, one row per size and method."""
    text = [interval(*v) for v in pooled[["rate", "low", "high"]].to_numpy()]
    shown = pooled.assign(text=text, method=pooled["method"].map(LABELS), set=pooled["set"].str.replace("_", " "))
    wide = shown.pivot_table(index=["size", "method"], columns="set", values="text", aggfunc="first", sort=False)
    return wide[[name.replace("_", " ") for name in lineage.MEANING if name != "none"]]


def pair_table(compared: pd.DataFrame) -> pd.DataFrame:
    """Paired comparisons as text."""
    rows = compared.to_dict("records")
    points = [f"{100 * r['difference']:+.1f} ({100 * r['low']:+.1f} to {100 * r['high']:+.1f})" for r in rows]
    p = [f"{r['p_lowest']:.2g}" + (f" to {r['p_highest']:.2g}" if r["seeds"] > 1 else "") for r in rows]
    ratios = [
        "not measurable"
        if np.isnan(r["ratio_low"])
        else f"{r['ratio']:.2f} ({r['ratio_low']:.2f} to {r['ratio_high']:.2f})"
        for r in rows
    ]
    shown = compared[["size", "total"]].assign(method=compared["method"].map(LABELS), points=points, ratio=ratios, p=p)
    names = {"points": "difference, points", "p": "McNemar p", "total": "records"}
    return shown.rename(columns=names).set_index(["size", "method"])


def canary_table(found: pd.DataFrame) -> pd.DataFrame:
    """The counterfactual as text, one row per model."""
    rows = found.to_dict("records")
    seeds = ["" if np.isnan(r["seed"]) else f"{r['seed']:.0f}" for r in rows]
    recited = [f"{r['recited']} of {r['canaries']}" for r in rows]
    pairs = [interval(r["auc"], r["low"], r["high"]) for r in rows]
    shown = found[["label"]].assign(seed=seeds, recited=recited, pairs=pairs, p=[f"{r['p']:.2g}" for r in rows])
    return shown.rename(columns={"label": "model", "pairs": "more gained than on a twin"}).set_index(["model", "seed"])


def forecast_table(predicted: pd.DataFrame) -> pd.DataFrame:
    """The predictions as text, one row per student of which there is something to tell."""
    known = predicted[predicted["note"] == ""]
    rows = known.to_dict("records")
    shown = known[["size", "seed"]].assign(
        method=known["method"].map(LABELS),
        recited=[f"{r['memorized']} of {r['records']}" for r in rows],
        auc=[f"{r['auc']:.3f} ({r['auc_low']:.3f} to {r['auc_high']:.3f})" for r in rows],
        out=[f"{r['removed']:.0f} ({100 * r['removed_share']:.0f} %)" for r in rows],
        avoided=[interval(r["rate"], r["low"], r["high"]) for r in rows],
    )
    names = {"auc": "AUC", "out": "left out at 1/2", "avoided": "recited letters avoided"}
    return shown.rename(columns=names).set_index(["size", "method", "seed"])


def claim_table(checked: pd.DataFrame) -> pd.DataFrame:
    """What can be said of the claims, as text: their number, ours per size, and the outcome."""
    known = checked[checked["outcome"] != "not measurable"]
    values = known[["ours", "low", "high", "outcome"]].itertuples(index=False)
    text = [f"{r.ours:.2f} ({r.low:.2f} to {r.high:.2f}): {r.outcome}" for r in values]
    labels = [" / ".join(LABELS[m] for m in method.split(" / ")) for method in known["method"]]
    wide = known.assign(text=text, method=labels).pivot_table(
        index=["claim", "theirs", "method"], columns="size", values="text", aggfunc="first", sort=False
    )
    return wide.fillna("not measurable")


# ---------------------------------------------------------------- sentences


def inherited_told(members: pd.DataFrame, others: pd.DataFrame) -> list[str]:
    """One line per size: what the methods inherit, and the same of records that nobody was trained on."""
    lines = []
    for size, rows in members[members["set"] == "inherited"].groupby("size", sort=False):
        some, none = rows[rows["count"] > 0].sort_values("rate", ascending=False), rows[rows["count"] == 0]
        parts = [f"{LABELS[r['method']]} {percent(r)}" for _, r in some.iterrows()]
        if len(none):
            names = ", ".join(LABELS[m] for m in none["method"])
            parts.append(f"nothing with {names} (at most {100 * none['high'].max():.1f} %)")
        chance = others[(others["size"] == size) & (others["set"] == "inherited")]["rate"].max()
        lines.append(f"- **{size}** inherits: {'; '.join(parts)}. Of non-members, at most {100 * chance:.1f} %.")
    return lines


def fewer_told(compared: pd.DataFrame, other: str) -> str:
    """How many of the comparisons show a student reciting fewer, or more, than the other model."""
    fewer, more = int((compared["high"] < 0).sum()), int((compared["low"] > 0).sum())
    return (
        f"Of {len(compared)} pairs of size and method, {fewer} recite demonstrably fewer records than {other}, {more} "
        f"demonstrably more, and {len(compared) - fewer - more} cannot be told apart from it (95 % intervals of the paired "
        "difference)."
    )


def counterfactual_told(found: pd.DataFrame) -> str:
    """Which students know the canaries that they never read."""
    if found.empty:
        return "This study has no canaries that only the teacher was fine-tuned on."
    teacher = found[found["role"] == "teacher"].iloc[0]
    lines = [
        f"The teacher gained more on its {teacher['canaries']} own canaries than on their twins in {100 * teacher['auc']:.0f} % of "
        f"pairs (95 % interval {100 * teacher['low']:.0f} to {100 * teacher['high']:.0f}) and recites {teacher['recited']} of them."
    ]
    for role, words in (("student", "distilled students"), ("baseline", "baselines, which can't know them")):
        rows = found[found["role"] == role]
        above = rows[rows["p"] < 0.05]
        named = ", ".join(f"{r.label}, seed {r.seed:.0f} ({100 * r.auc:.0f} %)" for r in above.itertuples())
        lines.append(
            f"Of {len(rows)} {words}, {len(above)} did so above chance (exact test, p < 0.05, which one in twenty passes by luck){': ' + named if named else ''}; "
            f"{int((rows['recited'] > 0).sum())} recite any."
        )
    return " ".join(lines)


def predicted_told(table: pd.DataFrame) -> list[str]:
    """How well, before distillation, the records that a student will recite are told."""
    known = table[table["note"] == ""]
    lines = [f"- Not measurable for {len(table) - len(known)} of {len(table)} students: they recite too few records."]
    if len(known) == 0:
        return lines
    best, worst = known.loc[known["auc"].idxmax()], known.loc[known["auc"].idxmin()]
    for name, row in (("Best", best), ("Worst", worst)):
        lines.append(
            f"- {name} told: {row['size']}, {LABELS[row['method']]}, seed {row['seed']}: AUC {row['auc']:.3f} (95 % interval "
            f"{row['auc_low']:.3f} to {row['auc_high']:.3f}). Leaving out the {row['removed']:.0f} records given one half or more "
            f"would avoid {percent(row)} of what it recites."
        )
    return lines if len(known) < len(table) else lines[1:]


def claims_told(checked: pd.DataFrame) -> list[str]:
    """How every claim came out, counted over sizes and methods."""
    lines = []
    for claim, rows in checked.groupby("claim", sort=False):
        counts = ", ".join(f"{n} {outcome}" for outcome, n in rows["outcome"].value_counts().items())
        lines.append(f"- *{claim}* ({rows['theirs'].iloc[0]}): {counts}.")
    return lines


# ---------------------------------------------------------------- figures


def set_figure(pooled: pd.DataFrame) -> plt.Figure:
    """Stacked shares of the sets, one bar per method, one panel per size."""
    sizes = list(pooled["size"].unique())
    figure, axes = plt.subplots(1, len(sizes), figsize=(2.5 + 3.2 * len(sizes), 3.4), sharey=True, squeeze=False)
    for ax, (_, rows) in zip(axes[0], pooled.groupby("size", sort=False), strict=True):
        wide = rows.pivot(index="method", columns="set", values="rate").loc[rows["method"].unique()[::-1]]
        left = np.zeros(len(wide))
        for name, color in SHOWN.items():
            ax.barh([LABELS[m] for m in wide.index], wide[name], left=left, color=color, label=name.replace("_", " "))
            left += wide[name].to_numpy()
        ax.set(
            title=f"student: {rows['size'].iloc[0]}", xlabel="share of members", xlim=(0, max(0.02, 1.05 * left.max()))
        )
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    plt.close(figure)
    return figure


def counterfactual_figure(found: pd.DataFrame) -> plt.Figure:
    """Share of canary-twin pairs in which more was gained on the canary, per model, with 95 % intervals."""
    figure, ax = plt.subplots(figsize=(6, 0.8 + 0.26 * len(found)))
    for y, row in enumerate(found.iloc[::-1].itertuples()):
        errors = [[row.auc - row.low], [row.high - row.auc]]
        ax.errorbar(row.auc, y, xerr=errors, fmt="o", color=COLORS[row.method], capsize=2, markersize=4)
    seeds = found["seed"].nunique() > 1
    names = [
        r.label + (f", seed {r.seed:.0f}" if seeds and r.seed == r.seed else "") for r in found.iloc[::-1].itertuples()
    ]
    ax.set(
        yticks=range(len(found)),
        yticklabels=names,
        xlim=(-0.02, 1.02),
        xlabel="more gained on the canary than on its twin",
    )
    ax.axvline(0.5, color="#777777", lw=1, ls=":")
    ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    plt.close(figure)
    return figure


def saving_figure(found: Mapping[tuple, Prediction]) -> plt.Figure:
    """Share of recited records avoided against the share of records left out, likeliest first, one line per student."""
    figure, ax = plt.subplots(figsize=(5.5, 3.6))
    for (size, method, _), one in found.items():
        if not one.note:
            ranked = one.table.sort_values("probability", ascending=False)["memorized"].cumsum()
            removed = np.arange(1, len(ranked) + 1) / len(ranked)
            ax.plot(removed, ranked / ranked.iloc[-1], color=COLORS[method], lw=1, label=f"{size}, {LABELS[method]}")
    ax.plot([0, 1], [0, 1], ":", color="#777777", label="left out at random")
    ax.set(xlabel="share of members left out", ylabel="share of recited records avoided", xlim=(0, 1), ylim=(0, 1.02))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    handles = dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=7)
    plt.close(figure)
    return figure
