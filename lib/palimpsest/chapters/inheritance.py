"""Chapter 05, what a student inherits: whose memory a record is, whether the student recites fewer, and what can be predicted.

`tables` reads every score table once; the rest takes the frames it made. Records on which some model has no verdict (no secret
in it, say) are left out for all, so that each comparison is over the same records.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters import figures, transfer
from palimpsest.chapters.figures import COLORS, LABELS, between, least_to_most, rate_text
from palimpsest.chapters.published_claims import published_claims
from palimpsest.data.splits import COMPARED, load_records, select
from palimpsest.measure import lineage, prediction
from palimpsest.measure.read_back import examples_of, load_scores, tokenizer_of
from palimpsest.study import Arm, Run

SHOWN = {  # the sets drawn: greys, but for what only students recite of small models; no colour of a method
    "easy": "#444444",
    "small_only": "#777777",
    "inherited": "#b2182b",
    "student_only": "#e08214",
    "shed": "#999999",
    "baseline_only": "#bbbbbb",
    "teacher_only": "#d8d8d8",
}
MAIN = ("inherited", "easy", "shed", "teacher_only")  # in all of them the teacher recites the record
TARGETS = {
    "window": "the first {window} response tokens from the prompt",
    "secret": "at least one of its secrets from the text before it",
}
ALONE = "This study distils no student, so there is nothing to compare with teacher and baseline."


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """This chapter's tables, as `study.tables` declares them; those that compare students have no rows where there is none."""
    arms, rows, target = run.measured(), select(load_records(run)), run.require("data")["target"]
    examples = examples_of(run.study, rows, tokenizer_of(run))
    verdicts, logprobs = {}, {}
    for arm in arms:
        asked = load_scores(run, arm.name).set_index("id").loc[rows["id"]].reset_index()
        if arm.role in ("teacher", "baseline", "student"):
            verdicts[arm.name] = lineage.recites(asked, examples, target, run.study.measure.window)
        if arm.role in ("teacher", "baseline"):
            logprobs[arm.name] = asked[["id", "logprob"]]
    memorized = pd.DataFrame(verdicts).dropna().astype(bool)
    ids = {split: memorized.index.intersection(rows.loc[rows["split"] == split, "id"]) for split in COMPARED}
    sets = {split: lineage.origins(memorized.loc[ids[split]], arms) for split in COMPARED}
    compared = {other: lineage.compare(sets["member"], other) for other in ("baseline", "teacher")}
    paired, (predictions, savings) = _stacked(compared, "against"), _foretold(sets["member"], rows, logprobs)
    return {
        "origins": _stacked({split: lineage.across_seeds(part) for split, part in sets.items()}, "split"),
        "origins_by_seed": _stacked({split: lineage.count_sets(part) for split, part in sets.items()}, "split"),
        "paired": paired,
        **transfer.tables(run),
        "predictions": predictions,
        "savings": savings,
        "published_claims": published_claims(sets["member"], paired, predictions),
    }


def _stacked(parts: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    return pd.concat([part.assign(**{column: name}) for name, part in parts.items()], ignore_index=True)


def _foretold(members: pd.DataFrame, rows: pd.DataFrame, logprobs: Mapping) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `prediction.predict` tells of every student from its teacher's and baseline's scores, and the curves of what it saves."""
    predictions, savings = [], [pd.DataFrame()]
    for (size, seed), part in members.groupby(["size", "seed"], sort=False):
        asked = rows[rows["id"].isin(set(part["id"]))]
        inputs = prediction.features(asked, logprobs["teacher"], logprobs[Arm(size, "sft", seed).name])
        for method, student in part.groupby("method", sort=False):
            found = prediction.predict(inputs, student.set_index("id")["student"])
            who, auc = {"size": size, "method": method, "seed": seed}, found.auc
            row = {**who, "records": len(asked), "auc": auc["rate"], "auc_low": auc["low"], "auc_high": auc["high"]}
            saved = prediction.avoided(found.table)
            predictions.append({**row, "note": found.note, **saved, **found.weights.add_prefix("weight_")})
            savings.append(prediction.savings(found.table).assign(**who))
    return pd.DataFrame(predictions), pd.concat(savings, ignore_index=True)


# ---------------------------------------------------------------- whose memory it is


def say_verdicts(origins: pd.DataFrame, target: str, window: int) -> str:
    """What "recites" means here, and how many records it is asked about."""
    if origins.empty:
        return ALONE
    members, others = (origins.loc[origins["split"] == split, "total"].iloc[0] for split in COMPARED)
    what = TARGETS[target].format(window=window)
    return f"Here a model recites a record if it recites {what}. All models are asked about the same {members:.0f} members and {others:.0f} non-members."


def show_origins(origins: pd.DataFrame) -> pd.DataFrame | None:
    """The members' share in every set, a row per size and method; None without a distilled student."""
    rows = origins[(origins["split"] == "member") & (origins["set"] != "none")]
    if rows.empty:
        return None
    rows = rows.assign(model=figures.names_of(rows))
    main = rows["set"].isin(MAIN)
    wide = figures.rate_table(rows[main].assign(set=rows["set"].str.replace("_", " ")), ["model"], "set")
    others = rows[~main].groupby("model", sort=False)["rate"].sum()
    return wide.assign(**{"without the teacher": others.map(lambda share: f"{100 * share:.1f} %")})


def plot_origins(origins: pd.DataFrame) -> plt.Figure | None:
    """Stacked shares of the members' sets, one bar per method, one panel per size; None without a distilled student."""
    members = origins[origins["split"] == "member"]
    if members.empty:
        return None
    figure, axes = figures.panels(1, members["size"].nunique(), height=2.9)
    for ax, (size, rows) in zip(axes[0], members.groupby("size", sort=False), strict=True):
        wide = rows.pivot(index="method", columns="set", values="rate").loc[rows["method"].unique()[::-1]]
        left = np.zeros(len(wide))
        for name, color in SHOWN.items():
            if members.loc[members["set"] == name, "rate"].any():
                bars = {"color": color, "edgecolor": "white", "label": name.replace("_", " ")}
                ax.barh(range(len(wide)), wide[name], left=left, **bars)
            left += wide[name].to_numpy()
        figures.name_rows(ax, [LABELS[m] for m in wide.index])
        ax.set(title=f"student: {size}", xlabel="share of members", xlim=(0, max(0.02, 1.05 * left.max())))
        figures.in_percent(ax.xaxis)
    return figures.legend(figure, axes)


def say_origins(origins: pd.DataFrame) -> list[str]:
    """One line per size: most and least inherited of the members, and what students "inherit" of records nobody was trained on."""
    lines, inherited = [], origins[origins["set"] == "inherited"]
    for size, rows in inherited.groupby("size", sort=False):
        members, others = (rows[rows["split"] == split] for split in COMPARED)
        most, nothing = members.loc[members["rate"].idxmax()], members[members["count"] == 0]
        chance = others.loc[others["rate"].idxmax()]
        line = f"- **{size}** inherits most with {LABELS[most['method']]}: {rate_text(most)} of {most['total']:.0f} members."
        if len(nothing):
            line += f" By {len(nothing)} of {len(members)} methods it inherits none (interval up to {100 * nothing['high'].max():.1f} %)."
        lines.append(f"{line} Of non-members, it inherits at most {rate_text(chance)}.")
    return lines or [ALONE]


def show_paired(paired: pd.DataFrame, against: str = "baseline") -> pd.DataFrame | None:
    """Students against their baseline, or the teacher, on the same records; None without a distilled student."""
    rows = paired[paired["against"] == against]
    if rows.empty:
        return None
    shown = {"student": figures.names_of(rows), "records": rows["total"].astype(int)}
    points = 100 * rows[["difference", "low", "high"]].to_numpy(float)
    shown["difference, points"] = [between(*v, "+.1f") for v in points]
    shown["ratio"] = [between(*v) for v in rows[["ratio", "ratio_low", "ratio_high"]].to_numpy(float)]
    shown["p"] = [least_to_most(pair, ".2g") for _, pair in rows[["p_lowest", "p_highest"]].iterrows()]
    return pd.DataFrame(shown).set_index("student")


def say_paired(paired: pd.DataFrame, against: str = "baseline") -> str:
    """How many pairs of size and method recite fewer records, or more, than the other model."""
    rows = paired[paired["against"] == against]
    if rows.empty:
        return ALONE
    fewer, more = int((rows["high"] < 0).sum()), int((rows["low"] > 0).sum())
    name = {"baseline": "their baseline", "teacher": "the teacher"}[against]
    counts = {"fewer records in": fewer, "more in": more, "undecided in": len(rows) - fewer - more}
    told = ", ".join(f"{what} {count}" for what, count in counts.items() if count)
    return (
        f"Recited by {len(rows)} distilled students, against {name}: {told}. That is one replicate; the chapter *Methods "
        "compared* asks what holds in others."
    )


# ---------------------------------------------------------------- what can be predicted


def show_predictions(predictions: pd.DataFrame) -> pd.DataFrame | None:
    """One row per student of which there is something to tell; None if there is none."""
    rows = predictions[predictions["note"] == ""]
    if rows.empty:
        return None
    named = figures.label_seeds(rows.assign(label=figures.names_of(rows)))
    shown = {"student": named["label"]}
    shown["recited"] = [f"{n:.0f} of {total}" for n, total in zip(rows["total"], rows["records"], strict=True)]
    shown["AUC"] = [between(*v, ".3f") for v in rows[["auc", "auc_low", "auc_high"]].to_numpy(float)]
    left_out = rows[["removed", "removed_share"]].to_numpy(float)
    shown["left out at 1/2"] = [f"{n:.0f} ({100 * share:.0f} %)" for n, share in left_out]
    shown["recited records avoided"] = [rate_text(row) for _, row in rows.iterrows()]
    return pd.DataFrame(shown).set_index("student")


def plot_savings(savings: pd.DataFrame) -> plt.Figure | None:
    """Share of recited records avoided against the share of records left out, one line per student; None if there is none."""
    if savings.empty:
        return None
    figure, axes = figures.panels(1, 1, height=3.1)
    for (size, method, _), rows in savings.groupby(["size", "method", "seed"], sort=False):
        style = {"color": COLORS[method], "lw": 1, "label": f"{size}, {LABELS[method]}"}
        axes[0, 0].plot(rows["share_left_out"], rows["share_avoided"], **style)
    axes[0, 0].plot([0, 1], [0, 1], ":", color="#777777", label="left out at random")
    axes[0, 0].set(xlabel="share of members left out", ylabel="share of recited records avoided", ylim=(0, 1.02))
    figures.in_percent(axes[0, 0].xaxis, axes[0, 0].yaxis)
    return figures.legend(figure, axes)


def say_predictions(predictions: pd.DataFrame) -> list[str]:
    """How well, before distillation, the records that a student will recite are told: the best case and the worst."""
    if predictions.empty:
        return [f"- {ALONE}"]
    known = predictions[predictions["note"] == ""]
    few, lines = len(predictions) - len(known), []
    if few:
        lines.append(
            f"- Not measurable for {few} of {len(predictions)} students: they recite too few records, or too many."
        )
    for name, end in (("Best", "idxmax"), ("Worst", "idxmin")) if len(known) else ():
        row = known.loc[known["auc"].agg(end)]
        lines.append(
            f"- {name} predicted: {row['size']}, {LABELS[row['method']]}, seed {row['seed']:.0f}, AUC "
            f"{between(row['auc'], row['auc_low'], row['auc_high'], '.3f')}. Leaving out the {row['removed']:.0f} likeliest "
            f"records would avoid {rate_text(row)} of what it recites."
        )
    return lines
