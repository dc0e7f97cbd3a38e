"""Sentences of the book, computed from its tables: nothing here is typed, so no number can outlive its run."""

import json
from pathlib import Path

import pandas as pd

from palimpsest.chapters.figures import LABELS, interval, percent
from palimpsest.measure.statistics import newcombe, over_seeds, rate_of
from palimpsest.study import Study
from palimpsest.study.runs import locate


def arms(table: pd.DataFrame, reading: str, split: str = "member") -> pd.DataFrame:
    """Students and baselines in one reading and split, a row per size and method, seeds together (`statistics.over_seeds`)."""
    rows = table[
        (table["reading"] == reading) & (table["split"] == split) & table["role"].isin(["student", "baseline"])
    ]
    return over_seeds(rows, ["size", "method"])


def reading_of(table: pd.DataFrame) -> tuple[str, str]:
    """The reading that leads the text, and what it counts: secrets, or records where the data does not mark its secrets."""
    known = (table["reading"] == "secret") & (table["total"] > 0)
    return ("secret", "secrets") if known.any() else ("window", "records")


def distilled(students: pd.DataFrame) -> str:
    """ "; distilled, from ... to ...": the least and the most among the rows of one size's students; nothing if there is none."""
    if students.empty:
        return ""
    ranked = students.sort_values("rate")
    least, most = ranked.iloc[0], ranked.iloc[-1]
    if least["rate"] == most["rate"]:
        return f"; distilled, {percent(least)} by every method"
    return (
        f"; distilled, from {percent(least)} ({LABELS[least['method']]}) to {percent(most)} ({LABELS[most['method']]})"
    )


def headline(table: pd.DataFrame) -> list[str]:
    """Baseline against the distilled students of each size, and the chance level."""
    reading, unit = reading_of(table)
    lines = []
    for size, rows in arms(table, reading).groupby("size", sort=False):
        base = rows[rows["method"] == "sft"].iloc[0]
        line = f"- **{size}**: fine-tuned on the members it recites {percent(base)} of the members' {unit}"
        lines.append(f"{line}{distilled(rows[rows['method'] != 'sft'])}.")
    chance = arms(table, reading, "non_member").sort_values("rate").iloc[-1]
    lines.append(f"- On non-members no student exceeds {percent(chance)} (the chance level).")
    return lines


def less_than_baseline(table: pd.DataFrame) -> pd.DataFrame:
    """Per size and method: the difference to `sft` of the same size with Newcombe's interval, and the verdict."""
    out = []
    for size, rows in arms(table, reading_of(table)[0]).groupby("size", sort=False):
        base = rows[rows["method"] == "sft"].iloc[0]
        for _, row in rows[rows["method"] != "sft"].iterrows():
            low, high = newcombe(row["count"], row["total"], base["count"], base["total"])
            verdict = "less" if high < 0 else "more" if low > 0 else "undecided"
            out.append(
                {
                    "size": size,
                    "method": row["method"],
                    "difference": row["rate"] - base["rate"],
                    "low": low,
                    "high": high,
                    "verdict": verdict,
                }
            )
    return pd.DataFrame(out)


def verdicts(table: pd.DataFrame) -> str:
    """One sentence: which methods memorize less than, more than, or not demonstrably other than fine-tuning."""
    found, parts = less_than_baseline(table), []
    for verdict, words in (
        ("less", "less than"),
        ("more", "more than"),
        ("undecided", "neither demonstrably less nor more than"),
    ):
        rows = found[found["verdict"] == verdict]
        if len(rows):
            names = "; ".join(f"{LABELS[m]} ({', '.join(g['size'])})" for m, g in rows.groupby("method", sort=False))
            parts.append(f"{words} plain fine-tuning of the same size with {names}")
    return "At the end of training, students recite " + ". They recite ".join(parts) + "."


def summary(table: pd.DataFrame, quality: pd.DataFrame) -> list[str]:
    """Three lines that close the memorization chapter."""
    teacher = table[(table["role"] == "teacher") & (table["split"] == "member")].set_index("reading")
    reading, unit = reading_of(table)
    best = quality[quality["role"].isin(["student", "baseline"])].sort_values("test_loss").iloc[0]
    return [
        f"- The teacher recites {percent(teacher.loc[reading])} of the members' {unit} and "
        f"{percent(teacher.loc['window'])} of the members verbatim.",
        f"- {verdicts(table)}",
        f"- Lowest test loss among the students at the end: {best['label']}, {best['test_loss']:.2f} nats per token.",
    ]


def teacher_text(run_dir: str | Path, study: Study) -> str:
    """How much of the text that the teacher wrote is the reference itself."""
    path = locate(run_dir) / "teacher_text" / "run.json"
    if not path.exists():
        return "This study has no `seq_kd`, so the teacher wrote no corpus."
    facts, how = json.loads(path.read_text()), study.teacher_text
    share = rate_of(facts["same_as_reference"], facts["records"])
    return (
        f"Decoding: {how.decode}. Of the texts the teacher wrote for the students' prompts, {percent(share)} equal the reference, "
        "token for token, end-of-text included: so large a part of the Seq-KD corpus *is* the private data."
    )


def early_stopping(best: pd.DataFrame, end: pd.DataFrame) -> list[str]:
    """What plain fine-tuning recites when stopped at its best epoch, and at the end."""
    lines = []
    for (_, early), (_, late) in zip(best.iterrows(), end.iterrows(), strict=True):
        if early["role"] == "baseline":
            lines.append(
                f"- {early['label']}, seed {early['seed']:.0f}: at its best epoch ({early['epoch']:g}) it recites "
                f"{percent(early, 'memorized', 'counted')}; after the last one, {percent(late, 'memorized', 'counted')}."
            )
    return lines


def equal_utility(equal: pd.DataFrame) -> list[str]:
    """Which models memorize less than plain fine-tuning at the same held-out loss."""
    if equal.empty:
        return ["- This study has plain fine-tuning alone."]

    def named(rows: pd.DataFrame, value: str, form: str) -> str:
        return "; ".join(f"{r['label']} ({r[value]:{form}})" for _, r in rows.iterrows()) or "none"

    shown = equal.assign(points=100 * equal["difference"])
    unclear = shown[(shown["high"] >= 0) & (shown["low"] <= 0)]
    closer, further = shown[shown["member_loss_high"] < 0], shown[shown["member_loss_low"] > 0]
    lines = [
        f"- recites less, in points: {named(shown[shown['high'] < 0], 'points', '+.1f')};",
        f"- recites more: {named(shown[shown['low'] > 0], 'points', '+.1f')};",
        f"- can't be told from it by what it recites in {len(unclear)} of {len(shown)} cases, whose differences are at most "
        f"{unclear['points'].abs().max() if len(unclear) else 0:.1f} points;",
        f"- fits the members demonstrably closer (their loss, in nats): {named(closer, 'member_loss_difference', '+.2f')};",
        f"- fits them less closely: {named(further, 'member_loss_difference', '+.2f')}. A closer fit at the same quality is knowledge of "
        "the members short of reciting them.",
    ]
    return ["At the same held-out loss, compared with plain fine-tuning, the student", "", *lines]


def tradeoff_summary(paths: pd.DataFrame, equal: pd.DataFrame) -> list[str]:
    """Three lines that close the trade-off chapter."""
    students = paths[~paths["role"].isin(["base", "teacher"])]
    best = students.loc[students["held_out_loss"].idxmin()]
    lines = [
        f"- The best held-out loss of any student is {best['held_out_loss']:.2f} nats per token ({best['label']}, epoch {best['epoch']:g}), "
        f"where it recites {percent(best, 'memorized', 'counted')} of the members' {best['unit']}."
    ]
    if len(equal):
        settled = equal[(equal["high"] < 0) | (equal["low"] > 0)]
        lines.append(
            f"- At equal held-out loss, {len(settled)} of {len(equal)} comparisons with plain fine-tuning are decided."
        )
        lines.append(
            f"- The intervals of those differences are at most {100 * (equal['high'] - equal['low']).max() / 2:.1f} points to either side."
        )
    return lines


def answer(table: pd.DataFrame, paths: pd.DataFrame, equal: pd.DataFrame) -> list[str]:
    """The book's answer in three sentences."""
    reading, unit = reading_of(table)
    sizes = arms(table, reading).groupby("size", sort=False)
    first = []
    for size, rows in sizes:
        base = rows[rows["method"] == "sft"].iloc[0]
        others = rows[rows["method"] != "sft"]
        spread = (
            f", distilled from {100 * others['rate'].min():.0f} % to {100 * others['rate'].max():.0f} % by method"
            if len(others)
            else ""
        )
        first.append(
            f"the {size} student recites {interval(base['rate'], base['low'], base['high'])} of {int(base['total'])} {unit} when fine-tuned{spread}"
        )
    less, more = (int((equal[c] * sign < 0).sum()) if len(equal) else 0 for c, sign in (("high", 1), ("low", -1)))
    return [
        f"1. At the end of training, {'; '.join(first)} (95 % intervals in brackets).",
        f"2. {verdicts(table)}",
        f"3. At equal quality, each student and plain fine-tuning stopped at the lowest held-out loss that both reach, {less} of {len(equal)} recite demonstrably less, {more} more, and {len(equal) - less - more} can't be told apart.",
    ]


def about(study: Study, run_dir: str | Path) -> list[str]:
    """What was run: data, models, methods, seeds; and, for invented data, that it is invented."""
    data = json.loads((locate(run_dir) / "data" / "run.json").read_text())
    splits = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in data["splits"].items())
    nature = "**The data is invented**; nobody's secrets are in it. " if study.synthetic else ""
    return [
        f"*{study.title}* (`studies/{study.name}.yaml`). {nature}Records: {splits}. Student sizes: "
        f"{', '.join(study.models.students)}; methods: {', '.join(LABELS[m] for m in study.methods)}; "
        f"seeds: {', '.join(map(str, study.seeds))}; {len(study.arms())} students in all."
    ]
