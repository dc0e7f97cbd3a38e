"""Memorization that "recited greedily from the prompt: yes or no" leaves out: what sampling brings up, what is nearly
verbatim, and what is left of it with less context. One row per size, method, split and setting, seeds together."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from palimpsest.audit.scores import NEAR, PROBABILITY, SAMPLES
from palimpsest.chapters.figures import COLORS, LABELS, interval, legend, percent
from palimpsest.chapters.report import distilled
from palimpsest.measure import extraction, results
from palimpsest.measure.finished import COMPARED, letters
from palimpsest.measure.statistics import bootstrap, over_seeds, rate, wilson
from palimpsest.study import Study
from palimpsest.study.runs import locate

PLAIN = "plain sampling"
GROUP = ["size", "method", "role"]
NAMES = {"member": "members", "non_member": "non-members"}
OFF_APPROXIMATE = "This study decodes no letters from their prompts (`measure.approximate` is 0)."
OFF_TRUNCATED = "This study does not cut the context (`measure.left_truncated` is empty)."


def _scored(study: Study, run_dir: str | Path) -> Iterator[tuple[dict, str, pd.DataFrame]]:
    """`results.describe`, split and score table of the letters, for every model and split."""
    ids = letters(results.load_records(run_dir)).groupby("split", sort=False)["id"]
    for name in results.model_names(study, run_dir):
        table = results.scores(run_dir, name).set_index("id")
        for split, part in ids:
            yield results.describe(name), split, table.loc[part].reset_index()


def precision(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """Beside the verdicts: members whose window holds a near-tie (`extraction.near_ties`), and the data type of the logits.

    Returns:
        Columns `near-ties` ("3 of 240", the mean over seeds) and `data type`, indexed by label.
    """
    rows = []
    for who, split, scored in _scored(study, run_dir):
        if split == "member":
            kind = results.run_facts(run_dir, who["model"])["measured"]["precision"].removeprefix("torch.")
            tied = rate(extraction.near_ties(scored, 0, study.measure.window) > 0)
            rows.append({**who, "data type": kind, **tied})
    tied = over_seeds(pd.DataFrame(rows), ["label", "data type"])
    texts = [f"{count:.3g} of {total:.0f}" for count, total in tied[["count", "total"]].to_numpy()]
    return tied.assign(**{"near-ties": texts}).set_index("label")[["near-ties", "data type"]]


# ---------------------------------------------------------------- sampling


def discoverable(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """(n, p)-discoverable extraction of the reading "window": is it among n samples with probability `PROBABILITY` or more?

    Returns:
        `size, method, role, split, sampling, n, rate, count, total, low, high`: plain sampling and every rule in
        `measure.sampling`, n as in `SAMPLES`; and greedy decoding for comparison (`sampling` "greedy", n 0).
    """
    columns = {PLAIN: "logprob"}
    for name, rule in study.measure.sampling.items():
        said = ", ".join(f"{key} {value:g}" for key, value in rule.model_dump(exclude_defaults=True).items())
        columns[f"{name} ({said})"] = f"logprob_{name}"
    rows = []
    for who, split, scored in _scored(study, run_dir):
        greedy = rate(extraction.reading(scored, "window", study.measure.window))
        rows.append({**who, "split": split, "sampling": "greedy", "n": 0, **greedy})
        for name, column in columns.items():
            logprob = extraction.log_probability(scored, 0, study.measure.window, column=column)
            needed = extraction.samples_needed(logprob, PROBABILITY)
            for n in SAMPLES:
                found = rate((needed <= n).where(logprob.notna()))
                rows.append({**who, "split": split, "sampling": name, "n": n, **found})
    return over_seeds(pd.DataFrame(rows), [*GROUP, "split", "sampling", "n"])


def discoverable_told(found: pd.DataFrame) -> list[str]:
    """One line per size on 1,000 plain samples of members, one on the other rules, one on non-members."""
    most = max(SAMPLES)
    members = found[found["split"] == "member"]
    many = members[(members["sampling"] == PLAIN) & (members["n"] == most)]
    lines = []
    for size, part in many.groupby("size", sort=False):
        tuned = part[part["role"].isin(["teacher", "baseline"])].iloc[0]
        same = members[(members["size"] == size) & (members["method"] == tuned["method"])].set_index(["sampling", "n"])
        line = f"- **{size}**, fine-tuned: greedy decoding gives {_short(same.loc[('greedy', 0)])} of the members, one plain "
        line += f"sample {_short(same.loc[(PLAIN, 1)])}, {most:,} samples {percent(tuned)}"
        lines.append(line + distilled(part[part["role"] == "student"]) + ".")
    for name, part in members[~members["sampling"].isin([PLAIN, "greedy"])].groupby("sampling", sort=False):
        top = part[(part["n"] == most) & ~part["role"].isin(["base", "teacher"])]
        top = top.loc[top["rate"].idxmax()]
        plain = many[(many["size"] == top["size"]) & (many["method"] == top["method"])].iloc[0]
        lines.append(
            f"- Under {name}, {most:,} samples give at most {percent(top)} by a student ({top['size']}, "
            f"{LABELS[top['method']]}; plain: {_short(plain)})."
        )
    chance = found[(found["split"] == "non_member") & (found["n"] == most)]
    chance = chance.loc[chance["rate"].idxmax()]
    return [*lines, f"- Of non-members, no model and no rule gives more than {percent(chance)} in {most:,} samples."]


def discoverable_figure(found: pd.DataFrame) -> plt.Figure:
    """Share discoverable over n, a row of panels per way of sampling, a column per size; grey: the same on non-members."""
    rules = [r for r in found["sampling"].unique() if r != "greedy"]
    sizes = list(found["size"].unique())
    figure, axes = _panels(len(rules), sizes)
    for row, rule in zip(axes, rules, strict=True):
        for ax, size in zip(row, sizes, strict=True):
            part = found[(found["sampling"] == rule) & (found["size"] == size)]
            for i, (method, lines) in enumerate(part.groupby("method", sort=False)):
                _line(ax, lines, lines["n"] * 1.07**i, method)
            ax.set_xscale("log")
            ax.set_title(size if rule == rules[0] else "")
        row[0].set_ylabel(rule)
    return _finished(figure, axes, "samples, n")


# ---------------------------------------------------------------- nearly verbatim


def nearness(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """How near greedy text from the prompt comes to the response, over the letters the measuring stage decoded.

    Returns:
        `size, method, role, split`; `rouge_l` and `edit_similarity` (means) with `_low` and `_high` (95 % bootstrap over seeds
        and letters); `rate, count, total, low, high` of letters that are nearly verbatim (edit similarity `NEAR` or more), and
        `near_only`, how many of those are not verbatim. No rows where the study has it off.
    """
    parts = []
    for name in results.model_names(study, run_dir) if study.measure.approximate else ():
        texts = pd.read_parquet(locate(run_dir) / "scores" / name / "approximate.parquet")
        parts.append(texts.assign(**results.describe(name)))
    columns = [*GROUP, "split", "count", "total", "rate", "low", "high", "near_only", "rouge_l", "edit_similarity"]
    if not parts:
        return pd.DataFrame(columns=columns)
    rows = []
    for key, part in pd.concat(parts).groupby([*GROUP, "split"], sort=False):
        row = dict(zip([*GROUP, "split"], key, strict=True))
        near, seeds = part["edit_similarity"] >= NEAR, part["model"].nunique()
        row |= {"count": near.sum() / seeds, "total": len(part) / seeds}
        row["near_only"] = (near & (part["edit_similarity"] < 1)).sum() / seeds
        for what in ("rouge_l", "edit_similarity"):
            mean = bootstrap(part.pivot(index="model", columns="id", values=what).to_numpy())
            row |= {what: mean["mean"], f"{what}_low": mean["low"], f"{what}_high": mean["high"]}
        rows.append(row)
    table = pd.DataFrame(rows)
    low, high = wilson(table["count"], table["total"])
    return table.assign(rate=table["count"] / table["total"], low=low, high=high)


def nearness_table(near: pd.DataFrame) -> pd.DataFrame:
    """The rows of `nearness` as text: a row per size and method, a column per measure and split."""
    shown = {"size": near["size"], "method": near["method"].map(LABELS), "split": near["split"].map(NAMES)}
    for what, title in (("rouge_l", "ROUGE-L"), ("edit_similarity", "edit similarity")):
        limits = near.reindex(columns=[what, f"{what}_low", f"{what}_high"]).to_numpy(float)
        shown[title] = [f"{v:.2f} ({a:.2f} to {b:.2f})" for v, a, b in limits]
    shown["nearly verbatim"] = [interval(*v) for v in near[["rate", "low", "high"]].to_numpy(float)]
    wide = pd.DataFrame(shown).set_index(["size", "method", "split"]).unstack("split", sort=False)
    return wide.sort_index(axis=1, level=1, sort_remaining=False, kind="stable") if len(wide) else wide


def nearness_told(near: pd.DataFrame) -> list[str]:
    """One line per size, and one on non-members."""
    if near.empty:
        return [OFF_APPROXIMATE]
    lines, members = [], near[near["split"] == "member"]
    for size, part in members.groupby("size", sort=False):
        tuned = part[part["role"].isin(["teacher", "baseline"])].iloc[0]
        lines.append(
            f"- **{size}**, fine-tuned: {percent(tuned)} of the members come out verbatim or nearly so ({tuned['near_only']:.3g} "
            f"of {tuned['total']:.0f} only nearly){distilled(part[part['role'] == 'student'])}."
        )
    other = near[near["split"] == "non_member"].sort_values("edit_similarity").iloc[-1]
    chance = near[near["split"] == "non_member"].sort_values("rate").iloc[-1]
    return [
        *lines,
        f"- Non-members: at most {percent(chance)} come out so; their mean edit similarity is at most "
        f"{other['edit_similarity']:.2f}, the floor that shared wording gives.",
    ]


# ---------------------------------------------------------------- less context


def truncated(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """Two designs for "how much context": the same target with less before it, and a target that moves on as the prefix grows.

    Returns:
        `size, method, role, split, design, k, rate, count, total, low, high`. Design "left-truncated": the last
        `measure.left_target` response tokens from only the k tokens before them (k infinite: everything before them), on
        letters long enough for every k. Design "right-growing": as many tokens, after the prompt and k response tokens, on
        letters with that many left. No rows where the study has it off.
    """
    prefixes, target, rows = sorted(set(study.measure.left_truncated)), study.measure.left_target, []
    for who, split, scored in _scored(study, run_dir) if prefixes else ():
        cut = pd.read_parquet(locate(run_dir) / "scores" / who["model"] / "left_truncated.parquet")
        cut = cut[cut["split"] == split]
        whole = scored[scored["id"].isin(cut["id"])]
        verdicts = {("left-truncated", k): cut.loc[cut["k"] == k, "verbatim"] for k in prefixes}
        verdicts["left-truncated", np.inf] = [bool(np.all(hit[-target:])) for hit in whole["hit"]]
        for k in prefixes:
            verdicts["right-growing", k] = extraction.verbatim(scored, k, target, full_window=True)
        for (design, k), found in verdicts.items():
            rows.append({**who, "split": split, "design": design, "k": float(k), **rate(found)})
    by = [*GROUP, "split", "design", "k"]
    return over_seeds(pd.DataFrame(rows, columns=[*by, "count", "total"]), by)


def truncated_told(cut: pd.DataFrame, target: int) -> list[str]:
    """One line per size on the models fine-tuned on the members: both designs at the k that tells most, both splits."""
    tuned = cut[cut["role"].isin(["teacher", "baseline"])].set_index(["size", "split", "design", "k"]).sort_index()
    lines = []
    for size in cut["size"].unique():
        members, others = tuned.loc[size, "member"], tuned.loc[size, "non_member"]
        *ks, _ = members.loc["left-truncated"].index
        few, many = ks[0], ks[-1]
        whole, part, ahead = ("left-truncated", np.inf), ("left-truncated", many), ("right-growing", few)
        lines.append(
            f"- **{size}**, fine-tuned: with all the text before them the last {target} tokens follow for "
            f"{percent(members.loc[whole])} of the members and {percent(others.loc[whole])} of the non-members; with only the "
            f"{many:.0f} tokens before them, for {_short(members.loc[part])} and {_short(others.loc[part])}. With prompt and "
            f"first {few:.0f} tokens, the next {target} follow for {percent(members.loc[ahead])} and {percent(others.loc[ahead])}."
        )
    return lines or [OFF_TRUNCATED]


def truncated_figure(cut: pd.DataFrame) -> plt.Figure:
    """Share given over the tokens of context, a row of panels per design, a column per size; grey: the same on non-members."""
    sizes = list(cut["size"].unique()) or [OFF_TRUNCATED]
    designs = list(cut["design"].unique()) or [""]
    figure, axes = _panels(len(designs), sizes)
    places = {k: i for i, k in enumerate(sorted(cut["k"].unique()))}
    for row, design in zip(axes, designs, strict=True):
        for ax, size in zip(row, sizes, strict=True):
            part = cut[(cut["design"] == design) & (cut["size"] == size)]
            for i, (method, lines) in enumerate(part.groupby("method", sort=False)):
                _line(ax, lines, lines["k"].map(places) + 0.03 * i, method)
            ax.set_xticks(list(places.values()), [f"{k:.0f}" if np.isfinite(k) else "all" for k in places])
            ax.set_title(size if design == designs[0] else "")
        row[0].set_ylabel(design)
    return _finished(figure, axes, "tokens given, k")


# ---------------------------------------------------------------- words and panels shared


def _short(row: pd.Series) -> str:
    return interval(*row[["rate", "low", "high"]])


def _panels(rows: int, sizes: list[str]) -> tuple[plt.Figure, np.ndarray]:
    shape = {"figsize": (1.8 + 2.7 * len(sizes), 0.6 + 2.1 * rows), "squeeze": False}
    return plt.subplots(rows, len(sizes), sharex=True, sharey=True, **shape)


def _line(ax: plt.Axes, lines: pd.DataFrame, x: pd.Series, method: str) -> None:
    """Members in the method's colour with intervals, non-members in grey."""
    members, others = (lines.assign(x=x)[lines["split"] == split].sort_values("x") for split in COMPARED)
    errors = np.abs(members[["low", "high"]].to_numpy().T - members["rate"].to_numpy())
    style = {"fmt": "o-", "markersize": 3, "lw": 1.2, "elinewidth": 0.7, "color": COLORS[method]}
    ax.errorbar(members["x"], members["rate"], yerr=errors, label=LABELS[method], **style)
    grey = {"fmt": "--", "lw": 0.8, "color": "#999999", "zorder": 1}
    ax.errorbar(others["x"], others["rate"], label="any of them, non-members", **grey)


def _finished(figure: plt.Figure, axes: np.ndarray, x: str) -> plt.Figure:
    for ax in axes.flat:
        ax.yaxis.set_major_formatter(plt.matplotlib.ticker.PercentFormatter(1.0))
        ax.set_ylim(-0.03, 1.03)
    for ax in axes[-1]:
        ax.set_xlabel(x)
    return legend(figure, axes)
