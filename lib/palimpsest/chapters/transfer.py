"""Chapter 05, what a student knows that it was never given: records that its teacher alone was fine-tuned on.

`tables` reads the score tables of all replicates; the rest takes the frames it made. A number of a size and method is the mean over
replicates (seeds within each together) with Student's t over them; of a single replicate its interval is over records.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import t

from palimpsest.chapters import figures
from palimpsest.chapters.figures import COLORS
from palimpsest.data.splits import load_records
from palimpsest.measure import canaries, lineage, membership_inference
from palimpsest.measure.read_back import examples_of, load_scores, tokenizer_of, under_other_names
from palimpsest.measure.statistics import auc, interval
from palimpsest.study import Run

WHO = {"Distilled students": ["student"], "Models without a teacher": ["baseline", "mitigated"]}
KINDS = {"canary": "canaries", "record": "records"}
NONE = "This study has no canaries that only the teacher was fine-tuned on."
GROUP = ["size", "method", "role"]


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """`transferred` and `other_names` of every fine-tuned model of every replicate, as `study.tables` declares them; without rows
    where there is no half that the teacher alone read, or no canary."""
    parts = [_of_replicate(part) for part in run.replicates()]
    return {name: pd.concat([part[name] for part in parts], ignore_index=True) for name in parts[0]}


def _of_replicate(run: Run) -> dict[str, pd.DataFrame]:
    records, tokenizer, data = load_records(run), tokenizer_of(run), run.require("data")
    letters = records[(records["kind"] == "letter") & records["split"].isin(["teacher_only", "non_member"])]
    letters = (letters if (letters["split"] == "teacher_only").any() else letters.head(0)).assign(form="")
    planted = _with_twins(records)
    turned = _with_twins(under_other_names(planted))
    asked = {"record": letters, "own": planted, "another": turned}
    examples = {name: examples_of(run.study, rows, tokenizer) if len(rows) else [] for name, rows in asked.items()}
    before, found = {}, {"transferred": [pd.DataFrame()], "other_names": [pd.DataFrame()]}
    for arm in run.measured():  # every base stands before the models made from it
        scores, known = load_scores(run, arm.name), {}
        if len(letters):
            part = scores.set_index("id").loc[letters["id"]].reset_index()
            recited = lineage.recites(part, examples["record"], data["target"], run.study.measure.window)
            known["record"] = pd.DataFrame({"id": part["id"], "logprob": membership_inference.loss(part)})
            known["record"]["recited"] = part["id"].map(recited).eq(True)
        for given, table in (("own", "records"), ("another", "other_names")) if len(planted) else ():
            part = scores if table == "records" else load_scores(run, arm.name, table)
            part = part[part["id"].isin(asked[given]["id"])].reset_index(drop=True)
            known[given] = canaries.secret_logprob(part, examples[given]).drop(columns="tokens")
            bits = canaries.exposure(part, asked[given], examples[given]).set_index("id")["exposure"]
            known[given]["exposure"] = known[given]["id"].map(bits)
        if arm.role == "base":
            before[arm.size] = known
            continue
        who = {**arm.columns(), "replicate": run.study.replicate}
        gained = {name: _gained(part, before[arm.size][name], asked[name]) for name, part in known.items()}
        found["transferred"].append(_transferred(gained).assign(**who))
        found["other_names"].append(_other_names(gained).assign(**who))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}


def _with_twins(records: pd.DataFrame) -> pd.DataFrame:
    """Canaries and twins of the forms (kinds of secret) that both have."""
    planted = records[records["kind"].isin(["canary", "twin"])]
    form = pd.Series([" ".join(s["kind"] for s in spans) for spans in planted["secrets"]], index=planted.index)
    both = set(form[planted["kind"] == "canary"]) & set(form[planted["kind"] == "twin"])
    return planted.assign(form=form)[form.isin(both)].reset_index(drop=True)


def _gained(known: pd.DataFrame, before: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """What fine-tuning added: what a record's wording is worth to any model of this kind drops out."""
    gain = known["logprob"] - known["id"].map(before.set_index("id")["logprob"])
    return known.assign(gain=gain).merge(rows[["id", "split", "kind", "copies", "form"]], on="id")


def _transferred(gained: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """`lineage.transferred`: of canaries against twins, and of the half's other records against non-members."""
    rows = []
    for kind, part in (("canary", gained.get("own")), ("record", gained.get("record"))):
        if part is not None and (part["split"] == "teacher_only").any():
            part = part[part["split"].isin(["teacher_only", "twin", "non_member"])]
            side = part["split"].eq("teacher_only").map({True: "canary", False: "twin"})
            found = pd.DataFrame([lineage.transferred(part.assign(kind=side))])
            rows.append(found.assign(kind=kind).rename(columns={"canaries": "records", "twins": "controls"}))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _other_names(gained: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """A row per split, copies and kind of prompt: exposure with Student's t over the canaries, AUC of the gains, share recited."""
    rows = []
    for given in [name for name in ("own", "another") if name in gained]:
        part = gained[given]
        twins = part[part["kind"] == "twin"]
        gain = part["gain"] - part["form"].map(twins.groupby("form")["gain"].median())  # makes forms comparable
        for (split, copies), group in part[part["kind"] == "canary"].groupby(["split", "copies"]):
            count, bits = len(group), group["exposure"]
            reach = t.ppf(0.975, count - 1) * bits.sem() if count > 1 else np.nan
            row = {"split": split, "copies": copies, "given": given, "canaries": count, "twins": len(twins)}
            row |= {"exposure": bits.mean(), "exposure_low": bits.mean() - reach, "exposure_high": bits.mean() + reach}
            area = auc(gain[group.index], gain[twins.index])["rate"] if min(count, len(twins)) > 1 else np.nan
            rows.append({**row, "auc": area, "recited": group["recited"].mean()})
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- over replicates


def over_replicates(rows: pd.DataFrame, by: list[str], value: str, low: str, high: str) -> pd.DataFrame:
    """Means of `value` over the replicates of each group `by`, seeds within a replicate together.

    Returns:
        pd.DataFrame: `by`, `value`, `low`, `high` (95 %: Student's t over replicates; of one replicate, or where all agree to the
        last digit, as at a ceiling, the interval that `rows` have, over records) and `replicates`.
    """
    each = rows.groupby([*by, "replicate"], sort=False)[[value, low, high]].mean().reset_index()
    found = each.groupby(by, sort=False).agg(
        **{name: (name, "mean") for name in (value, low, high)},
        error=(value, "sem"),
        replicates=("replicate", "nunique"),
    )
    several = (found["replicates"] > 1) & (found["error"] > 0)
    reach = t.ppf(0.975, found["replicates"].where(several, 2) - 1) * found["error"]
    found[low] = (found[value] - reach).where(several, found[low])
    found[high] = (found[value] + reach).where(several, found[high])
    return found.drop(columns="error").reset_index()


def say_intervals(replicates: int) -> str:
    """What the intervals of this section are over."""
    if replicates > 1:
        return f"Intervals are over {replicates} replicates, each with records and models of its own."
    return "There is one replicate, so intervals are over its records; models trained anew may differ by more."


# ---------------------------------------------------------------- gained on what only the teacher has read


def gains(transferred: pd.DataFrame, kind: str) -> pd.DataFrame:
    """`auc`, `low`, `high` of a kind ("canary" or "record") per size, method and role (`over_replicates`), and `label`, `records`,
    `controls`, how many records are `recited` (mean), `p_lowest` and `p_highest`."""
    rows = transferred[transferred["kind"] == kind]
    by = [*GROUP, "label"]
    more = rows.groupby(by, sort=False).agg(
        records=("records", "max"), controls=("controls", "max"), recited=("recited", "mean"), p_lowest=("p", "min"), p_highest=("p", "max"),
    )  # fmt: skip
    found = over_replicates(rows, by, "auc", "low", "high").merge(more.reset_index(), on=by)
    return found.assign(low=found["low"].clip(lower=0), high=found["high"].clip(upper=1))


def show_transferred(transferred: pd.DataFrame) -> pd.DataFrame | None:
    """One row per kind of record, size and method; None if no record is the teacher's alone."""
    if transferred.empty:
        return None
    rows = pd.concat([gains(transferred, kind).assign(of=name) for kind, name in KINDS.items()], ignore_index=True)
    shown = {"of": rows["of"] + " that the teacher alone read", "model": rows["label"]}
    shown["recited"] = [
        f"{n:g} of {total}" for n, total in zip(rows["recited"].round(1), rows["records"], strict=True)
    ]
    shown["gained more than on an unseen one"] = [interval(*v) for v in rows[["auc", "low", "high"]].to_numpy(float)]
    shown["p"] = [figures.least_to_most(pair, ".2g") for _, pair in rows[["p_lowest", "p_highest"]].iterrows()]
    return pd.DataFrame(shown).set_index(["of", "model"])


def plot_transferred(transferred: pd.DataFrame) -> plt.Figure | None:
    """Share of pairs in which more was gained on the record of the teacher's half than on an unseen one, per size and method, with
    95 % intervals; a panel for canaries, one for the half's other records. None as above."""
    kinds = [kind for kind in KINDS if (transferred["kind"] == kind).any()]
    if not kinds:
        return None
    figure, axes = figures.panels(1, len(kinds), height=0.3 + 0.3 * transferred["label"].nunique())
    for ax, kind in zip(axes[0], kinds, strict=True):
        rows = gains(transferred, kind).iloc[::-1]
        for y, row in enumerate(rows.itertuples()):
            style = {"color": COLORS[row.method], **figures.mark_of("teacher_only")}
            figures.dots(ax, row.auc, row.low, row.high, y, **style)
        ax.set(xlim=(-0.02, 1.02), title=KINDS[kind])
        figures.name_rows(ax, list(rows["label"]))
        ax.set_xlabel("more than on an unseen one")
        ax.axvline(0.5, color="#777777", lw=1, ls=":")
        figures.in_percent(ax.xaxis)
    return figure


def say_transferred(transferred: pd.DataFrame, kind: str = "canary") -> list[str]:
    """What the teacher gained on the records of its own half, of how many students the interval lies above chance, and of how many without a teacher."""
    if (transferred["kind"] != kind).all():
        return [f"- {NONE}" if kind == "canary" else "- In this study the students read all that the teacher read."]
    rows = gains(transferred, kind)
    teacher = rows[rows["role"] == "teacher"].iloc[0]
    if np.isnan(teacher["auc"]):
        few = f"{teacher['records']} {KINDS[kind]} and {teacher['controls']} unseen ones"
        return [f"- Not measurable: {few} are too few to compare; two of each are needed."]
    pairs = interval(teacher["auc"], teacher["low"], teacher["high"])
    mean = f", in the mean of {teacher['replicates']} replicates" if teacher["replicates"] > 1 else ""
    lines = [
        f"- The teacher gained more on its {teacher['records']} own {KINDS[kind]} than on unseen ones in {pairs} of pairs. "
        f"It recites {teacher['recited']:.0f}{mean}."
    ]
    for who, roles in WHO.items():
        part = rows[rows["role"].isin(roles)]
        if len(part):
            above = part[part["low"] > 0.5].sort_values("auc")
            line = f"- {who} whose interval for such {KINDS[kind]} lies above one half: {len(above)} of {len(part)}"
            line += f" (most: {above['label'].iloc[-1]}, {100 * above['auc'].iloc[-1]:.0f} %)" if len(above) else ""
            single = (above["replicates"] == 1).sum()
            # Intervals over records are narrower than those over trainings.
            if single and part["replicates"].max() > 1:
                line += f"; {single} of these were trained once"
            lines.append(f"{line}. Of all {len(part)}, {int((part['recited'] > 0).sum()) or 'none'} recited any.")
    return lines
