"""Chapter 09, a real language model: what was run, what healing gives back, and memorization by epoch and by method.

Everything takes the tables of one of two studies, a real model on invented letters and on natural text, as the project publishes
them, and what made them (`made`, empty where nothing is published yet; the tables have no rows then). What the real model is held
against is in `real_beside`; what is the same in every chapter is drawn by that chapter's functions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.claims import amount, outcomes
from palimpsest.chapters.comparisons import DISTILLED
from palimpsest.chapters.figures import COLORS, methods_at, rate_text
from palimpsest.chapters.repetition import DOSES, counted_doses
from palimpsest.chapters.tradeoffs import last_points, loss_of
from palimpsest.measure.comparison import ENOUGH_REPLICATES
from palimpsest.measure.read_back import load_scores
from palimpsest.study import Arm, Run

STATES = ("whole", "cut", "healed")
NOT_YET = (
    "These numbers are not published yet. The study's own command makes them: `make book STUDY=studies/{name}.yaml`."
)
MEANINGS = {"validation_loss_calibrated": "calibrated validation loss", "rouge_l": "ROUGE-L", "tokens": "tokens read"}
WORDS = ("none", "One", "Two", "Three", "Four")


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """`healing`: of every replicate and size that is cut from the teacher's base: test loss and ROUGE-L of the whole model, cut, and
    healed; ROUGE-L is measured of models that others begin from, so not of one before its healing. No rows where none is cut."""
    rows = []
    for part in run.replicates():
        for size in (size for size, start in part.study.models.students.items() if start.keep):
            facts, whole = (part.require(f"models/{Arm(name, 'none').name}") for name in (size, "teacher"))
            layers = {"whole": len(facts["influence"])}
            last = "healed" if "test_loss_healed" in facts else "cut"
            for state in (state for state in STATES if f"test_loss_{state}" in facts):
                rows.append({"size": size, "replicate": part.study.replicate, "state": state})
                rows[-1] |= {"layers": layers.get(state, len(facts["kept"])), "test_loss": facts[f"test_loss_{state}"]}
                rows[-1]["parameters"] = (whole if state == "whole" else facts)["parameters"]
                scored = {"whole": "base-teacher", last: f"base-{size}"}.get(state)
                texts = load_scores(part, scored, "test")["rougeL"] if scored else pd.Series(dtype=float)
                rows[-1] |= {"records": len(texts), "rougeL": texts.mean(), "rougeL_error": 1.96 * texts.sem()}
    return {"healing": pd.DataFrame(rows)}


# ---------------------------------------------------------------- what was run


def if_made(made: Mapping[str, Any], name: str, lines: Sequence[str]) -> list[str]:
    """The lines, or that the study `name` is not published yet."""
    return list(lines) if made else [NOT_YET.format(name=name)]


def show_made(*made: Mapping[str, Any]) -> pd.DataFrame | None:
    """What was run, and what it took: a column per study that is there; None of none."""
    there = {one["title"]: _facts(one) for one in made if one}
    return pd.DataFrame(there).fillna("none").rename_axis("what") if there else None


def _facts(made: Mapping[str, Any]) -> dict[str, str]:
    records, missing = made["records"], sum(map(len, made["missing"].values()))
    gigabytes = {name: f"{made[f'{name}_bytes'] / 1e9:.1f} GB" for name in ("peak_memory", "disk")}
    return {
        **{f"records, {split.replace('_', '-')}": f"{count:,}" for split, count in records.items()},
        "replicates": str(made["replicates"]),
        "models made": str(made["models"]),
        "models missing": str(missing),
        "hours of a core": f"{made['core_seconds'] / 3600:.2f}",
        "begun": (made["began"] or "")[:16].replace("T", " "),
        "ended": (made["ended"] or "")[:16].replace("T", " "),
        "most memory of a stage": gigabytes["peak_memory"],
        "run folder": gigabytes["disk"],
        "device": made["device"],
        "commit": made["commit"],
    }


def say_made(made: Mapping[str, Any]) -> list[str]:
    """Where the weights came from, what the methods' settings are, and which models are missing."""
    if not made:
        return []
    lines = [f"- *{made['title']}*: the teacher began from `{made['start']}`. {' '.join(made['notes'])}"]
    lines[0] += "" if made["tuned"] else " Learning rates are those of the study file, **not tuned**."
    begun = {part: names for part, names in made["missing"].items() if "base-teacher" not in names}
    for part, names in begun.items():
        where = f"the {part}" if part == "first replicate" else f"`{part}`"
        lines.append(f"- Missing in {where} of *{made['title']}*: {', '.join(f'`{name}`' for name in names)}.")
    if others := [f"`{part}`" for part in made["missing"] if part not in begun]:
        lines.append(f"- Not begun, of *{made['title']}*: {', '.join(others)}.")
    return lines if made["missing"] else [*lines, f"- Nothing that *{made['title']}* asks for is missing."]


# ---------------------------------------------------------------- cut and healed


def show_healing(healing: pd.DataFrame) -> pd.DataFrame | None:
    """Whole, cut and healed: a row per size and state; losses are means over replicates; None where no model was cut."""
    if healing.empty:
        return None
    rows = []
    for (size, state), part in healing.groupby(["size", "state"], sort=False):
        loss, first = part["test_loss"], part.iloc[0]
        row = {"student": size, "model": state, "layers": f"{first['layers']:.0f}"}
        row["parameters, millions"] = f"{first['parameters'] / 1e6:.3g}"
        row["test loss"] = _mean(loss)
        spread = (first["rougeL"] - first["rougeL_error"], first["rougeL"] + first["rougeL_error"])
        known = pd.notna(first["rougeL"])
        rows.append({**row, "ROUGE-L": figures.between(first["rougeL"], *spread) if known else "not measured"})
    return pd.DataFrame(rows).set_index(["student", "model"])


def _mean(values: pd.Series) -> str:
    """A mean with the least and the most of a replicate, where there are several."""
    mean = values.mean()
    return figures.between(mean, values.min(), values.max()) if len(values) > 1 else f"{mean:.2f}"


def plot_healing(healing: pd.DataFrame) -> plt.Figure | None:
    """The test loss of the whole model, cut, and healed: a panel per size, a point per replicate; None as above."""
    if healing.empty:
        return None
    sizes = list(healing["size"].unique())
    figure, axes = figures.panels(1, len(sizes))
    for ax, size in zip(axes[0], sizes, strict=True):
        for _, part in healing[healing["size"] == size].groupby("replicate"):
            ax.plot(part["state"].map(STATES.index), part["test_loss"], "o-", color="#444444", ms=5, lw=1, alpha=0.8)
        ax.set_xticks(range(len(STATES)), STATES)
        ax.set(title=f"student: {size}", xlim=(-0.3, 2.3), ylim=(0, 1.08 * healing["test_loss"].max()))
    axes[0, 0].set_ylabel("test loss, nats per token")
    return figure


def say_healing(healing: pd.DataFrame) -> list[str]:
    """Per size: what the cut costs in test loss, and what share of that healing gives back."""
    lines = []
    for size, part in healing.groupby("size", sort=False):
        loss, layers = (part.groupby("state")[column].mean() for column in ("test_loss", "layers"))
        line = f"- **{size}**, {layers['cut']:.0f} of {layers['whole']:.0f} layers: cutting raises the test loss from "
        line += f"{loss['whole']:.2f} to {loss['cut']:.2f} nats per token"
        if "healed" in loss:
            back = (loss["cut"] - loss["healed"]) / (loss["cut"] - loss["whole"])
            line += f"; healed it is {loss['healed']:.2f}, so {100 * back:.0f} % of that rise is given back"
        replicates = part["replicate"].nunique()
        lines.append(f"{line} (mean of {replicates} replicates)." if replicates > 1 else f"{line} (one replicate).")
    return lines


# ---------------------------------------------------------------- by epoch


def by_epoch(trajectories: pd.DataFrame) -> pd.DataFrame:
    """Teacher and `sft`, means over replicates at each point: `label`, `size`, `epoch`, `loss` (validation, calibrated; `plain` as it
    is), `once` and `repeated` (shares recited), `auc`, `replicates`."""
    rows = trajectories[trajectories["method"] == "sft"]
    rows = rows.assign(loss=loss_of(rows), plain=rows["validation_loss"], once=rows["recited_unrepeated"])
    each = rows.assign(repeated=rows["recited_repeated"]).groupby(["label", "size", "epoch"], sort=False)
    found = each[["loss", "plain", "once", "repeated", "auc"]].mean().assign(replicates=each["replicate"].nunique())
    return found.reset_index()


def show_epochs(trajectories: pd.DataFrame) -> pd.DataFrame | None:
    """`by_epoch` for reading; None where nothing was trained."""
    rows = by_epoch(trajectories)
    if rows.empty:
        return None
    shown = {"model": rows["label"], "epoch": rows["epoch"].map("{:.2g}".format)}
    both = zip(rows["loss"], rows["plain"], strict=True)
    shown["validation loss, calibrated (plain)"] = [f"{loss:.2f} ({plain:.2f})" for loss, plain in both]
    for name, title in DOSES.items():
        shown[f"recited, {title}"] = [f"{100 * share:.1f} %" if pd.notna(share) else "" for share in rows[name]]
    return pd.DataFrame({**shown, "AUC": rows["auc"].map("{:.2f}".format)}).set_index(["model", "epoch"])


def plot_epochs(trajectories: pd.DataFrame, unit: str) -> plt.Figure | None:
    """What teacher and `sft` recite after each epoch (circles: text that stands once, squares: repeated), and beside it their
    calibrated validation loss: a row per model, one line per replicate. None as above."""
    rows = trajectories[trajectories["method"] == "sft"]
    if rows.empty:
        return None
    labels = list(rows["label"].unique())
    figure, axes = figures.panels(len(labels), 2, height=2.1, sharey="col")
    for (recited, losses), label in zip(axes, labels, strict=True):
        for _, path in rows[rows["label"] == label].groupby(["replicate", "model"]):
            style = {"color": COLORS["sft"], "lw": 1, "ms": 4, "alpha": 0.8}
            recited.plot(path["epoch"], path["recited_unrepeated"], "o-", mfc="white", label="once", **style)
            recited.plot(path["epoch"], path["recited_repeated"], "s-", label="repeated", **style)
            losses.plot(path["epoch"], loss_of(path), "-", **style)
        recited.set(title=label, xlabel="epochs", ylabel=f"{unit} recited", ylim=(-0.03, 1.03))
        losses.set(title=label, xlabel="epochs", ylabel="validation loss, calibrated")
        figures.in_percent(recited.yaxis)
    return figures.legend(figure, axes)


def say_epochs(by_dose: pd.DataFrame, trajectories: pd.DataFrame, unit: str) -> list[str]:
    """What teacher and `sft` recite where the calibrated validation loss of each training is lowest, and at the end, with counts."""
    rows, lines = by_epoch(trajectories), []
    found = {when: counted_doses(by_dose, when).set_index(["label", "dose"]) for when in ("best", "end")}
    for label, path in rows.groupby("label", sort=False):
        best = path.loc[path["loss"].idxmin()]
        plain = path.loc[path["plain"].idxmin()]
        line = f"- **{label}**: its mean validation loss, calibrated, is lowest after epoch {best['epoch']:g}, at {best['loss']:.2f}"
        lines.append(f"{line}; the plain one after epoch {plain['epoch']:g}, at {plain['plain']:.2f}.")
        for dose, title in DOSES.items():
            if (label, dose) in found["end"].index and (label, dose) in found["best"].index:
                first, last = (found[when].loc[(label, dose)] for when in ("best", "end"))
                told = f"Of {last['total']:.0f} {unit} in {title} it recites {rate_text(first)} where each training's "
                lines.append(f"  {told}calibrated loss is lowest, and {rate_text(last)} at the end.")
    return lines


# ---------------------------------------------------------------- by method


def show_ends(by_dose: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame | None:
    """What every model recites at the end of training, replicates together, beside its validation loss there; None of none."""
    found = counted_doses(by_dose, "end")
    if found.empty:
        return None
    last = last_points(trajectories)
    loss = last.assign(loss=loss_of(last)).groupby("label", sort=False)["loss"]
    texts, heads = [rate_text(row) for _, row in found.iterrows()], "recited, " + found["dose"].map(DOSES)
    shown = figures.spread_out(found.assign(dose=heads), texts, "label", "dose", "not asked").rename_axis(columns=None)
    shown.insert(0, "replicates", found.groupby("label")["replicates"].max())
    shown.insert(1, "validation loss, calibrated", loss.agg(_mean))
    return shown.rename_axis("model")


def say_evidence(claims: pd.DataFrame) -> list[str]:
    """How many replicates there are, that fewer than five decide nothing; and of distilled students that were compared with a fine-tuned
    one, in repeated text recited, how many differ by more than a method differs from itself, where that is known; at equal quality, by
    which meaning of it they were compared."""
    if claims.empty:
        return ["No two methods are compared."]
    most = int(claims["replicates"].max())
    lines = []
    if most < ENOUGH_REPLICATES:
        count = f"{WORDS[most]} replicate{'s' * (most > 1)} decide{'s' * (most == 1)}"
        lines.append(f"**{count} nothing between methods**: less or more is said of five or more.")
    asked = claims["first"].isin(DISTILLED) & (claims["second"] == "sft") & (claims["measure"] == "recited_repeated")
    claims = claims[asked]
    found = outcomes(claims)
    for moment, when in (("end", "At the end"), ("equal", "At equal quality")):
        part = found[(found["moment"] == moment) & found["estimate"].notna()]
        nulls = part["null_largest"].dropna()
        if part.empty:
            lines.append(f"{when} no difference can be read.")
        elif nulls.empty:
            lines.append(
                f"{when} there is one replicate of each, so how far a method differs from itself is not known."
            )
        else:
            apart = (part["estimate"].abs() > part["null_largest"]).sum()
            own = amount("recited_repeated", nulls.max()).lstrip("+")
            lines.append(
                f"{when} {apart} of {len(nulls)} distilled students differ from a fine-tuned one by more than a method differs from itself "
                f"in another replicate, which is up to {own}."
            )
    if len(claims):
        met = claims.groupby("quality")["estimate"].count()
        count = len(claims[["first", "size"]].drop_duplicates())
        told = ", ".join(f"{name} {met.get(quality, 0)}" for quality, name in MEANINGS.items())
        lines.append(f"Of {count} distilled students, so many could be compared at equal quality: by {told}.")
        if met.get("tokens", 0) and not met.get("validation_loss_calibrated", 0):
            lines[-1] += " So *equal quality* means here: after as many tokens read, or with as good a ROUGE-L."
    return lines


def say_ends(by_dose: pd.DataFrame, unit: str) -> list[str]:
    """From least to most of the repeated text, per size, with counts; where they lie is no verdict on a method."""
    found, lines = counted_doses(by_dose, "end"), []
    found = found[(found["size"] != "teacher") & (found["dose"] == "repeated")]
    for size, part in found.groupby("size", sort=False):
        ends = [part.loc[part["rate"].agg(end)] for end in ("idxmin", "idxmax")]
        each = [f"{rate_text(end)} of {end['total']:.0f} ({methods_at(part, end)})" for end in ends]
        told = "from " * (each[0] != each[1]) + " to ".join(dict.fromkeys(each))
        lines.append(f"- **{size}**: of repeated {unit}, at the end, {told}.")
    return lines
