"""Chapter 04, single records: token by token, by how much is given, and who recites which.

What a page shows here can be played with: `book/_static/book.js` finds these pieces by their classes. Without it, and in JupyterLab,
the same pieces stand there still and say the same. Text of the data is masked here, in the tables, where the study doesn't show it.
"""

import math
from html import escape as attribute

import numpy as np
import pandas as pd
from IPython.display import HTML

from palimpsest.chapters.figures import COLORS, LABELS
from palimpsest.data.markup import records_as_html
from palimpsest.data.masking import BLOCK, escape, mask
from palimpsest.data.splits import load_records
from palimpsest.measure import extraction
from palimpsest.measure.lineage import sorted_into_sets
from palimpsest.measure.read_back import examples_of, load_scores, tokenizer_of
from palimpsest.measure.statistics import say_copies, say_samples
from palimpsest.study import Run

# Split, copies: a record of each.
SHOWN = (("member", 16), ("member", 4), ("member", 1), ("teacher_only", 16), ("non_member", 0))
FIRST = 60  # characters of a record's prompt that name it
HIDDEN = BLOCK * 3  # a masked token: its length would be a clue
READERS = {"teacher_only": "the teacher alone", "member": "all"}
ORIGINS = {  # in words -> whether of members, or of the teacher's own half; which of `measure.lineage.SETS`
    "teacher, fine-tuned student and a distilled one: easy for all": (True, ["easy"]),
    "teacher and a distilled student alone: inherited": (True, ["inherited"]),
    "teacher and fine-tuned student, no distilled one: shed": (True, ["shed"]),
    "the teacher alone": (True, ["teacher_only"]),
    "students without the teacher": (True, ["student_only", "baseline_only", "small_only"]),
    "the teacher's own half, by a student that never read it": (
        False,
        ["inherited", "easy", "shed", "student_only", "baseline_only", "small_only"],
    ),
}
SETS = {"teacher_only": "the teacher's own half", "member": "members", "non_member": "non-members"}


def tables(run: Run) -> dict[str, pd.DataFrame]:
    """`strips`: a few records, token by token, under every model of the first seed; `at_risk`: every record the models were fine-tuned on,
    and who recites it."""
    records = load_records(run)
    records = records[(records["kind"] == "letter") & records["split"].isin(SETS)]
    tokenizer, show = tokenizer_of(run), run.study.show_secrets
    examples = {e.id: e for e in examples_of(run.study, records, tokenizer)}
    arms = [arm for arm in run.measured() if arm.seed in (None, run.study.seeds[0])]
    scores = {arm: load_scores(run, arm.name).set_index("id") for arm in arms}
    groups = (records[(records["split"] == split) & (records["copies"] == copies)] for split, copies in SHOWN)
    chosen = pd.concat([group.head(1) for group in groups])
    strips = [
        _strip(arm.columns(), row, scores[arm].loc[row.id], examples[row.id], tokenizer if show else None)
        for row in chosen.itertuples()
        for arm in arms
    ]
    trained = records[records["split"] != "non_member"].reset_index(drop=True)
    return {"strips": pd.concat(strips, ignore_index=True), "at_risk": _at_risk(run, trained, examples, scores, show)}


def _strip(who: dict, row, scored: pd.Series, example, tokenizer) -> pd.DataFrame:
    strip = {
        "token": [tokenizer.decode([token]) if tokenizer else HIDDEN for token in example.response_ids],
        "probability": np.exp(np.asarray(scored["logprob"], dtype=float)),
        "guess": scored["rank"],
        "margin": np.asarray(scored["margin"], dtype=float),
        "hit": scored["hit"],
        "secret": list(example.secret),
    }
    about = {**who, "id": row.id, "split": row.split, "copies": row.copies}
    return pd.DataFrame(strip).rename_axis("place").reset_index().assign(**about)


def _at_risk(run: Run, records: pd.DataFrame, examples: dict, scores: dict, show: bool) -> pd.DataFrame:
    unit, ids = run.require("data")["unit"], records["id"]
    recited, needed = {}, []
    for arm, table in scores.items():
        asked = table.loc[ids].reset_index()
        if unit == "secrets":
            found = extraction.secrets(asked, [examples[i] for i in ids]).groupby("id")["recited"].sum()
        else:
            found = extraction.verbatim_target(asked, "window", run.study.measure.window).astype(float)
        recited[arm] = found.reindex(ids).fillna(0).to_numpy(int)
        if arm.role not in ("base", "teacher"):
            needed.append(extraction.samples_needed(extraction.log_probability(asked, 0, run.study.measure.window)))
    by_role = {role: [recited[a] for a in scores if a.role == role] for role in ("teacher", "baseline", "student")}
    texts = [text[:FIRST] if show else mask(text) for text in records["instruction"]]
    most = {role: np.max(by_role[role], axis=0, initial=0) for role in ("teacher", "baseline")}
    table = records[["id", "split", "copies"]].assign(
        text=texts, asked=records["secrets"].map(len) if unit == "secrets" else 1, **most
    )
    table["students"] = sum(found > 0 for found in by_role["student"])
    table["samples"] = np.min(needed, axis=0) if needed else np.nan
    order = ["students", "baseline", "teacher", "samples"]
    return table.sort_values(order, ascending=[False, False, False, True], kind="stable")


# ---------------------------------------------------------------- shown


def show_strips(strips: pd.DataFrame) -> HTML:
    """Records token by token, a strip per model: the deeper its colour, the surer the model was of the token; underlined: a secret;
    outlined: the first token that greedy decoding gets wrong. Script lets a reader choose record and model; without it, one record
    is shown under the teacher, a baseline and a distilled student."""
    parts, records = [], list(dict.fromkeys(strips["id"]))
    models = strips.drop_duplicates("model")
    first = models.drop_duplicates("role").set_index("role")["model"]
    still = [first[role] for role in ("teacher", "baseline", "student") if role in first]
    for (record, model), part in strips.groupby(["id", "model"], sort=False):
        shown = record == records[0] and model in still
        parts.append(_strip_html(part, records.index(record), shown))
    named = (_record_name(row) for row in strips.drop_duplicates("id").itertuples())
    names = "".join(f'<option value="{i}">{attribute(name)}</option>' for i, name in enumerate(named))
    choices = "".join(
        f'<option value="{attribute(row["model"])}">{attribute(_name(row))}</option>' for _, row in models.iterrows()
    )
    control = f'<p class="play" hidden><label>record <select data-of="record">{names}</select></label> <label>model <select data-of="model"><option value="">three models</option>{choices}</select></label></p>'
    return HTML(f'<div class="strips" data-still="{attribute(" ".join(still))}">{control}{"".join(parts)}</div>')


def _name(row: pd.Series) -> str:
    if row["size"] == "teacher":
        return "teacher before" if row["method"] == "none" else "teacher"
    return f"{row['size']} {LABELS[row['method']]}"


def _record_name(row) -> str:
    return SETS[row.split] + (f", {say_copies(row.copies)}" if row.copies else "")


def _strip_html(part: pd.DataFrame, number: int, shown: bool) -> str:
    """One model's strip of one record."""
    who, missed = part.iloc[0], False
    spans = []
    for row in part.itertuples():
        kinds = ["secret"] * bool(row.secret) + ["miss"] * (not row.hit and not missed)
        missed = missed or not row.hit
        said = f"{row.probability:.0%}, guess {row.guess + 1}, margin {row.margin:.1f}"
        name = f' class="{" ".join(kinds)}"' if kinds else ""
        spans.append(f'<span{name} style="--p:{row.probability:.2f}" title="{said}">{escape(row.token)}</span>')
    right = int(part["hit"].cumprod().sum())
    label = f"{_name(who)}: the first {right} of {len(part)} tokens recited from the prompt"
    hidden = "" if shown else " hidden"
    return (
        f'<figure class="strip" data-record="{number}" data-model="{attribute(who["model"])}"{hidden}><figcaption>{attribute(label)}</figcaption>'
        f'<p class="heat" tabindex="0">{"".join(spans)}</p></figure>'
    )


def show_by_prefix(by_prefix: pd.DataFrame, at: int = 10) -> HTML:
    """How much of the members each model recites when k tokens of the response are given: bars that a slider moves; without script, those
    at one k."""
    members = by_prefix[by_prefix["split"] == "member"]
    members = members[members["total"] >= 0.5 * members["total"].max()]
    steps = sorted(members["k"].unique())
    at = min(steps, key=lambda k: abs(k - at))
    rows = []
    for _, part in members.groupby("model", sort=False):
        who, values = part.iloc[0], part.set_index("k")["rate"].reindex(steps)
        now = values[at]
        color = COLORS[who["method"]]
        rows.append(
            f'<div class="bar" data-values="{",".join("" if pd.isna(v) else f"{v:.6g}" for v in values)}"><span>{attribute(_name(who))}</span>'
            f'<i><b style="width:{now:.1%};background:var(--c-m-{who["method"]},{color})"></b></i><output>{math.floor(100 * now + 0.5)}%</output></div>'
        )
    control = f'<label class="play" hidden>tokens given: <input type="range" min="0" max="{len(steps) - 1}" value="{steps.index(at)}" aria-label="tokens of the response that are given"></label>'
    given = f'<p>Given the prompt and <strong class="given">{at:g}</strong> tokens of the response:</p>'
    return HTML(
        f'<div class="prefix-bars" data-steps="{",".join(f"{k:g}" for k in steps)}">{control}{given}{"".join(rows)}</div>'
    )


def show_at_risk(at_risk: pd.DataFrame, unit: str) -> HTML:
    """The records that were trained on, the most at risk first; with script they can be searched and sorted."""
    heads = {"teacher": f"teacher, {unit}", "baseline": f"fine-tuned, {unit}", "students": "students"}
    readers = [f"{READERS[row.split]}, {say_copies(row.copies)}" for row in at_risk.itertuples()]
    counts = at_risk[[*heads]].rename(columns=heads)
    shown = counts.astype(str).assign(samples=at_risk["samples"].map(say_samples))
    shown.insert(0, "record", at_risk["text"])
    shown.insert(1, "read by", readers)
    values = {"read by": at_risk["copies"], **counts, "samples": at_risk["samples"]}
    return HTML(records_as_html(shown, values, len(at_risk)))


def show_sets(at_risk: pd.DataFrame) -> HTML:
    """Where a memory came from, at a glance: records by who recites them, each set opened by a click."""
    counts = at_risk.rename(columns={"students": "student"})[["teacher", "student", "baseline"]]
    sets = sorted_into_sets(counts > 0)
    parts = []
    for name, (of_members, wanted) in ORIGINS.items():
        found = at_risk[((at_risk["split"] == "member") == of_members) & sets.isin(wanted)]
        items = "".join(
            f"<li>{escape(text)} ({say_copies(copies)})</li>"
            for text, copies in zip(found["text"], found["copies"], strict=True)
        )
        parts.append(f'<details class="set"><summary><b>{len(found)}</b> {name}</summary><ul>{items}</ul></details>')
    return HTML(f'<div class="sets">{"".join(parts)}</div>')
