"""Chapter 06, attacks: can members be told from non-members by a model, and how far do planted secrets stand out?

`tables` reads every score table once; the rest takes the frames it made. The attacked text is the response, given its prompt.
Models are compared by one attack, the strongest on the teacher: choosing it for each would make every number the best of eight.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.figures import COLORS, LABELS, auc_text, between, rate_text
from palimpsest.chapters.transfer import GROUP, WHO
from palimpsest.data.splits import COMPARED, load_records, select
from palimpsest.measure import canaries, membership_inference
from palimpsest.measure.read_back import examples_of, load_scores, tokenizer_of
from palimpsest.measure.statistics import say_copies
from palimpsest.study import Run

ATTACKS = membership_inference.LABELS
NO_CANARIES = "This study plants no canaries, so there is no exposure to measure."


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """This chapter's tables, as `study.tables` declares them; `exposure` and `doses` have no rows without canaries.

    A model is calibrated on the one it was fine-tuned from, `base-<size>`; a base itself has none, so it gets the attacks that
    need no reference. A member is a record of the half that the students' text is drawn from, whatever a method left out of it.
    """
    records, tokenizer = load_records(run), tokenizer_of(run)
    rows, planted = select(records), records[records["kind"].isin(["canary", "twin"])]
    texts, marked = list(rows["response"]), examples_of(run.study, planted, tokenizer) if len(planted) else []
    ids = [rows.loc[rows["split"] == split, "id"] for split in COMPARED]
    bases, attacked, rated, exposed = {}, {}, [], []
    for arm in run.measured():  # every base stands before the models made from it
        scores = load_scores(run, arm.name)
        asked = scores.set_index("id").loc[rows["id"]].reset_index()
        if arm.role == "base":
            bases[arm.size] = asked
        before = None if arm.role == "base" else bases[arm.size]
        found = membership_inference.membership(asked, texts, before, load_scores(run, arm.name, "lowercase"))
        attacked[arm] = found.set_index("id")
        rated.append(membership_inference.attack_rates(found, *ids).assign(**arm.columns()))
        if len(planted):
            exposed.append(canaries.exposure(scores, planted, marked).assign(**arm.columns()))
    membership = pd.concat(rated, ignore_index=True)
    exposure = pd.concat(exposed, ignore_index=True) if exposed else pd.DataFrame()
    return {
        "blind": _blind(rows),
        "membership": membership,
        "roc": _roc(attacked, strongest(membership), ids),
        "exposure": exposure,
        "doses": _doses(exposure) if len(exposure) else exposure,
    }


def _blind(rows: pd.DataFrame) -> pd.DataFrame:
    texts = [rows.loc[rows["split"] == split, "response"] for split in COMPARED]
    sizes = dict(zip(("members", "non_members"), map(len, texts), strict=True))
    if min(sizes.values()) < 2:
        found = {"warning": "Not measurable: two members and two non-members are needed.", **sizes}
    else:
        found = membership_inference.blind_baseline(*texts)
    return pd.DataFrame(
        [{**dict.fromkeys(("auc", "low", "high"), np.nan), **found, "warning": found["warning"] or ""}]
    )


def _roc(attacked: dict, attack: str, ids: list[pd.Series]) -> pd.DataFrame:
    """The ROC curve of one attack on every model it was possible on."""
    curves = []
    for arm, found in attacked.items():
        if attack in found:
            groups = (found.loc[part, attack].dropna().to_numpy() for part in ids)
            curve = membership_inference.operating_points(*groups)[["fpr", "tpr"]]
            curves.append(curve.assign(attack=attack, **arm.columns()))
    return pd.concat(curves, ignore_index=True)


def _doses(exposure: pd.DataFrame) -> pd.DataFrame:
    """`canaries.dose_response` of every size and method, seeds together."""
    return exposure.groupby(GROUP, sort=False).apply(canaries.dose_response).reset_index(GROUP)


def strongest(membership: pd.DataFrame) -> str:
    """The attack with the highest AUC on the teacher."""
    rows = membership[(membership["measure"] == "AUC") & (membership["role"] == "teacher")]
    return rows.loc[rows["rate"].fillna(0).idxmax(), "attack"]


# ---------------------------------------------------------------- membership


def say_blind(blind: pd.DataFrame) -> str:
    """Whether words alone tell members from non-members."""
    row = blind.iloc[0]
    if np.isnan(row["auc"]):
        return row["warning"]
    return (
        f"Word counts alone reach an AUC of {between(row['auc'], row['low'], row['high'])} on {row['members']} members and {row['non_members']} non-members. "
        + (row["warning"] or "The interval includes chance, 0.5: we cannot tell the two groups apart by their words.")
    )


def show_membership(membership: pd.DataFrame) -> pd.DataFrame:
    """AUC, one row per attack: the teacher's with its 95 % interval, and of each size the fine-tuned model's and the range of the
    distilled ones (seeds together)."""
    rows = membership[membership["measure"] == "AUC"]
    shown = {"teacher": rows[rows["role"] == "teacher"].set_index("attack").apply(auc_text, axis=1)}
    for size, part in rows[rows["role"].isin(["baseline", "student"])].groupby("size", sort=False):
        tuned, distilled = (part[part["role"] == role].groupby("attack")["rate"] for role in ("baseline", "student"))
        shown[f"{size}, fine-tuned"] = tuned.mean().map("{:.2f}".format)
        ends = distilled.agg(["min", "max"])
        if len(ends):
            shown[f"{size}, distilled"] = ends.apply(lambda row: f"{row['min']:.2f} to {row['max']:.2f}", axis=1)
    wide = pd.DataFrame(shown).reindex([name for name in ATTACKS if name in set(rows["attack"])])
    return wide.fillna("").rename(index=ATTACKS).rename_axis("attack")


def plot_membership(membership: pd.DataFrame) -> plt.Figure:
    """AUC of every attack, one panel per size, one mark per model; bars are 95 % DeLong intervals."""
    table = membership[membership["measure"] == "AUC"]
    kinds = [attack for attack in ATTACKS if attack in set(table["attack"])]
    figure, axes = figures.panels(1, table["size"].nunique(), height=3.7, sharex=True)
    for ax, (size, rows) in zip(axes[0], table.groupby("size", sort=False), strict=True):
        models = rows.groupby("model", sort=False)
        for i, (_, part) in enumerate(models):
            y = part["attack"].map(kinds.index) + 0.8 * ((i + 0.5) / len(models) - 0.5)
            method = part["method"].iloc[0]
            style = {**figures.mark_of("member"), "markersize": 3.5, "capsize": 0, "elinewidth": 0.8}
            style |= {"color": COLORS[method], "label": LABELS[method]}
            figures.dots(ax, part["rate"], part["low"], part["high"], y, **style)
        ax.axvline(0.5, color="#999999", lw=1, ls="--")
        ax.set(title=size, xlabel="AUC", yticks=range(len(kinds)), yticklabels=[ATTACKS[kind] for kind in kinds])
    axes[0, 0].invert_yaxis()
    return figures.legend(figure, axes)


def say_membership(membership: pd.DataFrame, attack: str) -> list[str]:
    """How well one attack tells members by the teacher, and per size by the baseline and the distilled students.

    Of several seeds, the mean AUC and the mean of the ends of their intervals.
    """
    rows = membership[(membership["measure"] == "AUC") & (membership["attack"] == attack)]
    teacher = rows[rows["role"] == "teacher"].iloc[0]
    counts = f"{teacher['members']} members and {teacher['non_members']} non-members"
    lines = [f"- **teacher**: with {ATTACKS[attack]} an AUC of {auc_text(teacher)}, on {counts}."]
    for size, part in rows[rows["role"].isin(["baseline", "student"])].groupby("size", sort=False):
        mean = part.groupby("method", sort=False)[["rate", "low", "high"]].mean()
        line = f"- **{size}**: {auc_text(mean.loc['sft'])} when fine-tuned on the members."
        if len(others := mean.drop("sft").sort_values("rate")):
            each = (f"{auc_text(row)} with {LABELS[method]}" for method, row in others.iloc[[0, -1]].iterrows())
            line += f" Distilled, from {' to '.join(dict.fromkeys(each))}."
        unclear = part[(part["low"] <= 0.5) & (part["high"] >= 0.5)]
        lines.append(
            line + (f" We cannot tell {len(unclear)} of {len(part)} models from chance." if len(unclear) else "")
        )
    return lines


def plot_roc(roc: pd.DataFrame, non_members: int) -> plt.Figure:
    """ROC on log axes, one panel per size: the left end is where an attacker accuses almost nobody wrongly."""
    least = 1 / non_members
    figure, axes = figures.panels(1, roc["size"].nunique(), height=2.8)
    for ax, (size, curves) in zip(axes[0], roc.groupby("size", sort=False), strict=True):
        for (_, method), part in curves.groupby(["model", "method"], sort=False):
            x, y = part["fpr"].clip(lower=least / 2), part["tpr"].clip(lower=least / 2)  # 0 has no place on a log axis
            ax.step(x, y, where="post", color=COLORS[method], lw=1.2, label=LABELS[method])
        ax.plot([least / 2, 1], [least / 2, 1], color="#999999", lw=1, ls="--")
        ax.axvspan(least / 2, least, color="#eeeeee", lw=0)
        ax.set(title=size, xlabel="false positive rate", xscale="log", yscale="log", xlim=(least / 2, 1))
        ax.set_ylim(least / 2, 1.1)
    axes[0, 0].set_ylabel("true positive rate")
    return figures.legend(figure, axes)


def show_found(membership: pd.DataFrame, attack: str) -> pd.DataFrame:
    """Share of members found by one attack, one row per model, one column per false positive rate."""
    rows = figures.label_seeds(membership[(membership["measure"] == "TPR") & (membership["attack"] == attack)])
    at = [f"at {100 * fpr:g} % false positives" for fpr in rows["fpr"]]
    return figures.rate_table(rows.assign(at=at, model=rows["label"]), ["model"], "at")


def say_found(membership: pd.DataFrame, attack: str) -> str:
    """What one attack finds of the teacher's members at the lowest false positive rate there are non-members for."""
    rows = membership[(membership["measure"] == "TPR") & (membership["attack"] == attack)]
    rows = rows[rows["role"] == "teacher"].sort_values("fpr")
    known, others = rows[rows["rate"].notna()], rows["non_members"].iloc[0]
    if known.empty:
        return f"With {others} non-members, no false positive rate is low enough to matter and measurable."
    least, first = known.iloc[0], rows.iloc[0]
    line = (
        f"Allowed to accuse {_one_in(least)} wrongly, {ATTACKS[attack]} finds {rate_text(least)} of {least['members']} members by the "
        "teacher."
    )
    missing = f" For {_one_in(first)} we would need {1 / first['fpr']:,.0f} non-members; we have {others}."
    return line if least["fpr"] == first["fpr"] else line + missing


def _one_in(row: pd.Series) -> str:
    return f"1 in {1 / row['fpr']:,.0f}"


# ---------------------------------------------------------------- planted secrets


def show_doses(doses: pd.DataFrame, teacher_only: bool = False) -> pd.DataFrame | None:
    """Mean exposure in bits with its interval: a row per model, a column per number of copies.

    None where there are no such canaries; `teacher_only` are those that only the teacher was fine-tuned on.
    """
    rows = doses[doses["teacher_only"] == teacher_only]
    if rows.empty:
        return None
    values = rows[["exposure", "exposure_low", "exposure_high"]].to_numpy(float)
    rows = rows.assign(model=figures.names_of(rows), copies=rows["copies"].map(say_copies))
    return figures.spread_out(rows, [between(*v, ".1f") for v in values], "model", "copies")


def plot_doses(doses: pd.DataFrame) -> plt.Figure | None:
    """Mean exposure over copies, one panel per size; diamonds: canaries in the teacher's text only. None without canaries."""
    if doses.empty:
        return None
    figure, axes = figures.panels(1, doses["size"].nunique(), height=2.8)
    for ax, (size, found) in zip(axes[0], doses.groupby("size", sort=False), strict=True):
        for i, (method, part) in enumerate(found.groupby("method", sort=False)):
            for only, rows in part.groupby("teacher_only"):
                errors = np.abs(rows[["exposure_low", "exposure_high"]].to_numpy().T - rows["exposure"].to_numpy())
                x = rows["copies"] * 1.04**i  # side by side, so that intervals don't cover each other
                style = {"color": COLORS[method], **figures.mark_of("teacher_only" if only else "member")}
                line = {"ls": "" if only else "-", "markersize": 4, "elinewidth": 0.8, "lw": 1.2}
                ax.errorbar(x, rows["exposure"], yerr=errors, label=None if only else LABELS[method], **line, **style)
        for level, color, line in (("ceiling", "#444444", ":"), ("chance", "#999999", "--")):
            ax.axhline(doses[level].max(), color=color, lw=1, ls=line)
        ax.set(title=size, xlabel="copies in the training text", xscale="log")
        ticks = sorted(doses["copies"].unique())
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.minorticks_off()
    axes[0, 0].set_ylabel("exposure, bits")
    return figures.legend(figure, axes)


def say_doses(doses: pd.DataFrame) -> list[str]:
    """One line per size, on its fine-tuned models: most and least exposure at the most copies, and what chance gives."""
    rows = doses[(doses["role"] != "base") & ~doses["teacher_only"].astype(bool)]
    lines = []
    for size, part in rows[rows["copies"] == rows["copies"].max()].groupby("size", sort=False):
        least, most = (part.loc[part["exposure"].agg(end)] for end in ("idxmin", "idxmax"))
        ends = dict.fromkeys(f"{_bits(row)} with {LABELS[row['method']]}" for row in (least, most))
        line = f"- **{size}**: {say_copies(most['copies'])} give {' to '.join(ends)}."
        lines.append(f"{line} Chance is {most['chance']:.1f} bits, the ceiling {most['ceiling']:.1f}.")
    return lines or [f"- {NO_CANARIES}"]


def say_teacher_only(doses: pd.DataFrame) -> list[str]:
    """How many students show more than chance on canaries that only the teacher was fine-tuned on, and how many without one."""
    rows = doses[doses["teacher_only"].astype(bool)]
    if rows.empty:
        return [f"- {NO_CANARIES}" if doses.empty else "- No canary of this study is the teacher's alone."]
    rows, lines = rows[rows["copies"] == rows["copies"].max()], []
    for who, roles in WHO.items():
        part = rows[rows["role"].isin(roles)]
        above = part[part["exposure_low"] > part["chance"]].sort_values("exposure")
        if len(part):
            line = f"- {who} above chance ({part['chance'].iloc[0]:.1f} bits) on {part['canaries'].iloc[0]} "
            line += f"secrets that only the teacher has seen: {len(above)} of {len(part)}."
            for _, most in above.tail(1).iterrows():
                line += f" The highest: {most['size']}, {LABELS[most['method']]}, with {_bits(most)}."
            lines.append(line)
    return [*lines, "- These intervals are over the canaries of one replicate: other models may differ by more."]


def _bits(row: pd.Series) -> str:
    if np.isnan(row["exposure_low"]):
        return f"{row['exposure']:.1f} bits (one canary)"
    return between(row["exposure"], row["exposure_low"], row["exposure_high"], ".1f").replace(" (", " bits (")
