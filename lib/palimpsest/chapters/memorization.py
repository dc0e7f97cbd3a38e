"""Chapter 04, how much is memorized: recited by whom, from how much context, in how many samples, and how nearly.

`tables` reads every score table once; the rest takes the frames it made. A `target` is what is to be recited: "window" (the first
`measure.window` response tokens from the prompt, the headline), "whole" (all of them), "next_window" (as many again, from the
prompt and the first window; after Carlini et al., arXiv 2202.07646) or "secret" (from the text before it). Which one leads a
run, and the `unit` it counts, is in `run.require("data")`.
"""

from collections.abc import Iterator, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.chapters import figures
from palimpsest.chapters.figures import LABELS, rate_text
from palimpsest.data.examples import Example
from palimpsest.data.splits import COMPARED, load_records
from palimpsest.measure import extraction
from palimpsest.measure.near_verbatim import NEAR
from palimpsest.measure.read_back import examples_of, load_scores, tokenizer_of
from palimpsest.measure.statistics import bootstrap, newcombe, over_seeds, rate, rate_of
from palimpsest.study import Arm, Run
from palimpsest.study.sections import Measure

# arXiv 2506.16170, Table 1: rates of GPT-2 on Dolly by method and size, no intervals published
PAPER = pd.DataFrame(
    {
        "sft": [0.654, 0.523, 0.433, 0.330],
        "word_kd": [np.nan, 0.472, 0.140, 0.100],
        "seq_kd": [np.nan, 0.315, 0.134, 0.129],
        "rkl_student": [np.nan, 0.090, 0.075, 0.060],
    },
    index=["1.5B (teacher)", "760M", "340M", "120M"],
).T
PLAIN = "plain sampling"
GROUP = ["size", "method", "role", "split"]


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """This chapter's tables, as `study.tables` declares them; `near_misses` and `context` have no rows where they are off."""
    names = ("rates", "by_prefix", "context", "discoverable", "near_misses", "near_ties", "quality")
    found, measure = {name: [] for name in names}, run.study.measure
    for arm, parts in _scored(run, run.measured()):
        found["rates"] += _rates(arm, parts, measure.window)
        near, cut, texts = (load_scores(run, arm.name, file) for file in ("near_misses", "left_truncated", "test"))
        for split in COMPARED:
            who, scored = {**arm.columns(), "split": split}, parts[split][0]
            found["by_prefix"].append(extraction.verbatim_by_prefix(scored, measure.window).assign(**who))
            found["context"] += _context(who, scored, cut[cut["split"] == split], measure)
            found["discoverable"] += _discoverable(who, scored, measure)
            found["near_misses"].append(near[near["split"] == split].assign(**who))
        tied = rate(extraction.near_ties(parts["member"][0], 0, measure.window) > 0)
        found["near_ties"].append({**arm.columns(), "dtype": run.require(f"scores/{arm.name}")["precision"], **tied})
        found["quality"].append({**arm.columns(), **_quality(parts["test"][0], texts)})
    rates, context = pd.DataFrame(found["rates"]), pd.DataFrame(found["context"])
    return {
        "rates": rates,
        "excess": _excess(rates),
        "by_prefix": pd.concat(found["by_prefix"], ignore_index=True),
        "context": over_seeds(context, [*GROUP, "design", "k"]) if len(context) else context,
        "discoverable": over_seeds(pd.DataFrame(found["discoverable"]), [*GROUP, "sampling", "n"]),
        "near_misses": nearly_verbatim(pd.concat(found["near_misses"], ignore_index=True)),
        "near_ties": over_seeds(pd.DataFrame(found["near_ties"]), ["label", "dtype"]),
        "quality": pd.DataFrame(found["quality"]),
    }


def rates_of(run: Run, arms: Sequence[Arm]) -> pd.DataFrame:
    """The rows of the table `rates` of these models: split x target; `total` counts eligible records, or secrets."""
    found = [_rates(arm, parts, run.study.measure.window) for arm, parts in _scored(run, arms)]
    return pd.DataFrame([row for rows in found for row in rows])


def _scored(run: Run, arms: Sequence[Arm]) -> Iterator[tuple[Arm, dict[str, tuple[pd.DataFrame, list[Example]]]]]:
    """Of every model: the score table and the examples of members, non-members and test records, canaries left out; members also
    apart, by whether they stand once or more often in the training text."""
    records, tokenizer = load_records(run), tokenizer_of(run)
    records = records[records["kind"] == "letter"]
    rows = {s: records[records["split"] == s] for s in (*COMPARED, "test")}
    often = rows["member"]["copies"] > 1
    rows |= {"once": rows["member"][~often], "repeated": rows["member"][often]}
    examples = {split: examples_of(run.study, part, tokenizer) for split, part in rows.items()}
    for arm in arms:
        scores = load_scores(run, arm.name).set_index("id")
        yield arm, {split: (scores.loc[rows[split]["id"]].reset_index(), examples[split]) for split in rows}


def _rates(arm: Arm, parts: dict, window: int) -> list[dict]:
    """Unrepeated members (as "member"), repeated ones if there are any, and non-members: never one kind in the name of both."""
    rows = []
    for split, part in (("member", "once"), ("repeated", "repeated"), ("non_member", "non_member")):
        scored, examples = parts[part]
        verdicts = {target: extraction.verbatim_target(scored, target, window) for target in extraction.TARGETS}
        verdicts["secret"] = extraction.secrets(scored, examples)["recited"]
        who = {**arm.columns(), "split": split}
        rows += [
            {**who, "target": t, **rate(found)} for t, found in verdicts.items() if len(scored) or split == "member"
        ]
    return rows


def _excess(rates: pd.DataFrame) -> pd.DataFrame:
    """Member minus non-member rate, of unrepeated and of repeated members, seeds together, with Newcombe's 95 % interval for two
    independent shares."""
    by, out = ["label", "target"], []
    for key, rows in over_seeds(rates, [*by, "split"]).groupby(by, sort=False):
        rates_by = rows.set_index("split")
        other = rates_by.loc["non_member"]
        for split, one in rates_by.drop(index="non_member").iterrows():
            low, high = newcombe(one["count"], one["total"], other["count"], other["total"])
            out.append((*key, split, one["rate"] - other["rate"], low, high))
    return pd.DataFrame(out, columns=[*by, "split", "rate", "low", "high"])


def _context(who: dict, scored: pd.DataFrame, cut: pd.DataFrame, measure: Measure) -> list[dict]:
    """Two designs of "how much context": less before the same target, and a target that moves on as the prefix grows.

    "left-truncated": the last `measure.left_target` response tokens from only the k tokens before them (k infinite: from all),
    on records long enough for every k. "right-growing": as many tokens, after the prompt and k response tokens.
    """
    prefixes, target = sorted(set(measure.left_truncated)), measure.left_target
    verdicts = {("left-truncated", k): cut.loc[cut["k"] == k, "verbatim"] for k in prefixes}
    whole = scored.loc[scored["id"].isin(cut["id"]), "hit"]
    verdicts |= {("left-truncated", np.inf): [bool(np.all(hit[-target:])) for hit in whole]} if prefixes else {}
    for k in prefixes:
        verdicts["right-growing", k] = extraction.verbatim(scored, k, target, full_window=True)
    return [{**who, "design": design, "k": float(k), **rate(found)} for (design, k), found in verdicts.items()]


def _discoverable(who: dict, scored: pd.DataFrame, measure: Measure) -> list[dict]:
    """(n, p)-discoverable extraction: is the window among n samples with probability `extraction.PROBABILITY` or more?

    By plain sampling and every rule in `measure.sampling`; and by decoding once, greedily (n 0)."""
    columns = {PLAIN: "logprob"}
    for name, rule in measure.sampling.items():
        said = ", ".join(f"{key} {value:g}" for key, value in rule.model_dump(exclude_defaults=True).items())
        columns[f"{name} ({said})"] = f"logprob_{name}"
    rows = [{**who, "sampling": "greedy", "n": 0, **rate(extraction.verbatim(scored, 0, measure.window))}]
    for name, column in columns.items():
        logprob = extraction.log_probability(scored, 0, measure.window, column=column)
        needed = extraction.samples_needed(logprob, extraction.PROBABILITY)
        for n in extraction.SAMPLES:
            rows.append({**who, "sampling": name, "n": n, **rate((needed <= n).where(logprob.notna()))})
    return rows


def _quality(scored: pd.DataFrame, texts: pd.DataFrame) -> dict[str, float]:
    """Loss on the test records and ROUGE of the text written for their prompts, with 95 % normal intervals over records."""
    loss = -sum(row.sum() for row in scored["logprob"]) / scored["length"].sum()
    rouge = {k: texts[k].mean() for k in ("rouge1", "rouge2", "rougeL")}
    return {"test_loss": loss, "records": len(texts), **rouge, **{f"{k}_error": 1.96 * texts[k].sem() for k in rouge}}


def nearly_verbatim(texts: pd.DataFrame) -> pd.DataFrame:
    """How near greedy text comes to the response: means (bootstrap over seeds and records), and the share of `NEAR` or more."""
    rows = []
    for key, part in texts.groupby(GROUP, sort=False):
        near, seeds = part["edit_similarity"] >= NEAR, part["model"].nunique()
        row = dict(zip(GROUP, key, strict=True)) | rate_of(near.sum() / seeds, len(part) / seeds)
        row["near_only"] = (near & (part["edit_similarity"] < 1)).sum() / seeds
        for what in ("rouge_l", "edit_similarity"):
            # ROUGE is empty for records in a script that it can't read.
            read = part.pivot(index="model", columns="id", values=what).dropna(axis=1).to_numpy()
            mean = bootstrap(read) if read.size else dict.fromkeys(("mean", "low", "high"), float("nan"))
            row |= {what: mean["mean"], f"{what}_low": mean["low"], f"{what}_high": mean["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def arm_rates(rates: pd.DataFrame, target: str, split: str = "member") -> pd.DataFrame:
    """The rates of students and baselines for one target and split, a row per size and method, seeds together."""
    asked = (rates["target"] == target) & (rates["split"] == split) & rates["role"].isin(["student", "baseline"])
    return over_seeds(rates[asked], ["size", "method"])


def show_rates(rates: pd.DataFrame, target: str) -> pd.DataFrame:
    """One target: a row per model, seeds together, a column per split."""
    shown = over_seeds(rates[rates["target"] == target], ["label", "split"])
    repeats = (shown["split"] == "repeated").any()
    heads = {"member": "members, unrepeated" if repeats else "members", "repeated": "members, repeated"}
    shown = shown.assign(split=shown["split"].map({**heads, "non_member": "non-members"}))
    return figures.rate_table(shown.rename(columns={"label": "model"}), ["model"], "split")


def show_targets(rates: pd.DataFrame) -> pd.DataFrame:
    """The members, the repeated ones if there are any: a row per model, seeds together, a column per target for which any record is
    eligible."""
    split = "repeated" if (rates["split"] == "repeated").any() else "member"
    together = over_seeds(rates[rates["split"] == split], ["label", "target"]).rename(columns={"label": "model"})
    together["target"] = together["target"].str.replace("_", " ")
    return figures.rate_table(together[together["total"] > 0], ["model"], "target")


def say_near_ties(near_ties: pd.DataFrame) -> str:
    """How firm the verdicts are: the model with most members whose window holds a near-tie, and the data type of the logits."""
    most, types = near_ties.loc[near_ties["count"].idxmax()], " and ".join(near_ties["dtype"].unique())
    if not most["count"]:
        return f"No verdict hangs by a rounding error: no window holds a near-tie. Logits are in {types}."
    return (
        f"Rounding might change at most {most['count']:.3g} of {most['total']:.0f} verdicts of a model ({most['label']}): so many windows "
        f"hold a near-tie. Logits are in {types}."
    )


def show_excess(excess: pd.DataFrame) -> pd.DataFrame:
    """Members beyond non-members: a row per model, a column for the window and, where they are marked, for secrets; repeated members
    apart."""
    shown = excess[excess["target"].isin(["window", "secret"])].dropna().rename(columns={"label": "model"})
    often = shown["split"] == "repeated"
    shown["target"] += np.where(often, ", repeated", ", unrepeated" if often.any() else "")
    return figures.rate_table(shown, ["model"], "target")


def plot_rates(rates: pd.DataFrame, target: str, paper: pd.DataFrame | None = None) -> plt.Figure | None:
    """Size x method with 95 % intervals, the paper's Table 1 beside it if given (`figures.by_method`); None of nothing counted."""
    counted = rates[(rates["target"] == target) & (rates["total"] > 0)]
    return figures.by_method(counted, paper) if len(counted) else None


def say_rates(rates: pd.DataFrame, target: str, unit: str) -> list[str]:
    """The teacher, then each size's baseline against its distilled students, and the chance level."""
    of = rates[(rates["role"] == "teacher") & (rates["target"] == target)]
    teacher, *more = (row for split in ("member", "repeated") for _, row in of[of["split"] == split].iterrows())
    once = f"{unit} that stand once in the training text" if more else unit
    lines = [f"- The teacher recites {rate_text(teacher)} of the members' {teacher['total']:.0f} {once}."]
    lines[0] += "".join(
        f" Of the {row['total']:.0f} {unit} that stand there more often: {rate_text(row)}." for row in more
    )
    for size, rows in arm_rates(rates, target, "repeated").groupby("size", sort=False):
        base, distilled = rows[rows["method"] == "sft"].iloc[0], rows.loc[rows["method"] != "sft", "rate"]
        spread = f"; distilled, {figures.percents(distilled)}" if len(distilled) else ""
        lines.append(f"- Of repeated {unit} the {size} student, fine-tuned, recites {rate_text(base)}{spread}.")
    for size, rows in arm_rates(rates, target).groupby("size", sort=False):
        base, distilled = rows[rows["method"] == "sft"].iloc[0], rows[rows["method"] != "sft"]
        kind = f" of {unit} that stand once" if more else ""
        lines.append(f"- The {size} student, fine-tuned, recites {rate_text(base)}{kind}.")
        if len(distilled):
            least, most = (distilled.loc[distilled["rate"].agg(end)] for end in ("idxmin", "idxmax"))
            ends = " to ".join(f"{rate_text(row)} ({LABELS[row['method']]})" for row in (least, most))
            told = f"from {ends}" if least["rate"] < most["rate"] else f"{rate_text(least)} by every method"
            lines[-1] += f" Distilled, it recites {told}."
    most = arm_rates(rates, target, "non_member").sort_values("rate").iloc[-1]
    chance = (
        f"- Chance: of the non-members' {most['total']:.0f} {unit} no student recites more than {rate_text(most)}."
    )
    return [*lines, chance]


def show_near_misses(near_misses: pd.DataFrame) -> pd.DataFrame:
    """A row per model: what is verbatim or nearly so and the mean edit similarity, of members and non-members."""
    parts, heads = [], {"member": "members", "non_member": "non-members"}
    for split, rows in near_misses.groupby("split", sort=False):
        limits = rows[["edit_similarity", "edit_similarity_low", "edit_similarity_high"]].to_numpy(float)
        shown = {f"nearly: {heads[split]}": [rate_text(row) for _, row in rows.iterrows()]}
        shown[f"similarity: {heads[split]}"] = [figures.between(*v) for v in limits]
        parts.append(pd.DataFrame(shown, index=pd.Index(figures.names_of(rows), name="model")))
    return pd.concat(parts, axis=1)


def say_near_misses(near_misses: pd.DataFrame) -> list[str]:
    """The largest share of members by a student, and what shared wording alone gives, on non-members."""
    members, others = (near_misses[near_misses["split"] == split] for split in COMPARED)
    students = members[~members["role"].isin(["base", "teacher"])]
    top, chance = (rows.loc[rows["rate"].idxmax()] for rows in (students, others))
    who = (
        f" ({top['size']}, {LABELS[top['method']]}), {top['near_only']:.3g} of them only nearly" if top["rate"] else ""
    )
    return [
        f"- Verbatim or nearly so, students recite at most {rate_text(top)} of {top['total']:.0f} members{who}.",
        f"- Of non-members, no model recites more than {rate_text(chance)}. Shared wording alone gives a mean edit similarity of up to "
        f"{others['edit_similarity'].max():.2f}.",
    ]


def show_quality(quality: pd.DataFrame) -> pd.DataFrame:
    """A row per model: test loss, and ROUGE with half the width of its interval."""
    shown = {"test loss": quality["test_loss"].map("{:.2f}".format)}
    for name, title in (("rouge1", "ROUGE-1"), ("rougeL", "ROUGE-L")):
        pairs = quality[[name, f"{name}_error"]].to_numpy(float)
        shown[title] = ["not applicable" if np.isnan(m) else figures.between(m, m - e, m + e, ".3f") for m, e in pairs]
    return pd.DataFrame({"model": figures.label_seeds(quality)["label"], **shown}).set_index("model")


def say_quality(quality: pd.DataFrame) -> str:
    """The best student at the end of training."""
    best = quality[quality["role"].isin(["student", "baseline"])].sort_values("test_loss").iloc[0]
    said = f"The lowest test loss of a student at the end is that of {best['label']}: {best['test_loss']:.2f} nats per token."
    if quality["rougeL"].isna().all():
        said += " ROUGE does not apply: its tokenizer knows the letters a to z only, and these records are written in others."
    return said
