"""What whoever signs for a model needs: the records and persons most at risk, what was tested, and what can't be excluded."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palimpsest.audit.records import NO_END, Records, best_log_probability, column, of_model
from palimpsest.audit.settings import GATES
from palimpsest.data.markup import MOST
from palimpsest.data.masking import mask
from palimpsest.errors import InputError
from palimpsest.measure.extraction import PROBABILITY, SAMPLES, samples_needed
from palimpsest.measure.near_verbatim import NEAR
from palimpsest.measure.score_file import pick
from palimpsest.measure.statistics import clopper_pearson, say_samples

SHOWN = 10  # persons listed as most at risk
LENGTH = 200  # characters of a record's text that are listed, where text is shown
CHANCES = {
    "reference": "the reference",
    "baseline": "the baseline",
}  # models whose samples are a record's chance level


# ---------------------------------------------------------------- most at risk


def recited_from_prompt(path: Path, group: str, settings: Mapping[str, Any], model: str = "model") -> pd.Series:
    """Whether a model recites each record of a group from the prompt alone, whatever closes it; missing where that can't be decided."""
    return column(path, group, of_model(model, f"verbatim_{min(settings['prefix_lengths'])}{NO_END}")).astype(
        "boolean"
    )


def extracted(path: Path, group: str, settings: Mapping[str, Any]) -> pd.Series:
    """Whether any of the tests extracts a record: greedily from the prompt, nearly so, or in 1,000 samples with p = 0.5."""
    verdicts = recited_from_prompt(path, group, settings).fillna(False).astype(bool)
    verdicts |= samples_needed(best_log_probability(path, group), PROBABILITY) <= max(SAMPLES)
    return verdicts | (column(path, group, "edit_similarity") >= NEAR) if settings["approximate"] else verdicts


def most_at_risk(path: Path, members: Records, summary: Mapping[str, Any]) -> list[dict]:
    """The members that sampling gives most easily, first the likeliest.

    Returns:
        `id`, `row`, `copies`, `length` (tokens), `recited` (greedily, from the prompt alone), `extraction_strength`,
        `longest_span`, `samples_needed` (of which at least one is expected to give it, p = 0.5, under the decoding rule that
        gives it most easily), `<role>_samples_needed` of the other models, and `text`, masked unless text is shown. At most `MOST`.
    """
    settings, measured = summary["settings"], summary["data"]["members"]["measured"]
    likely = best_log_probability(path, "members")
    places = (-likely.fillna(-np.inf)).to_numpy().argsort(kind="stable")[:MOST]
    there = np.sort(places)  # members come first in the file, so a member's place is its place there
    texts = pick(members.path, there, [measured])[measured]
    found = {f"verbatim_{min(settings['prefix_lengths'])}{NO_END}": "recited"}
    found |= {f"{name}{NO_END}": name for name in ("extraction_strength", "longest_span")}
    listed = pick(path, there, ["id", "row", "copies", "length", *found]).rename(columns=found)
    for model in ("model", *summary["others"]):
        likely = best_log_probability(path, "members", model).iloc[there]
        listed[of_model(model, "samples_needed")] = samples_needed(likely, PROBABILITY).to_numpy()
    listed["text"] = texts.str[:LENGTH] if settings["show_secrets"] else texts.map(mask)
    return listed.set_axis(there).loc[places].to_dict("records")


def persons_at_risk(table: pd.DataFrame) -> list[dict]:
    """The first of the persons in a table `by_person`: `person`, `records`, `recited`, `row` (worst), `samples_needed`."""
    first = table.head(SHOWN)
    first = first.assign(samples_needed=samples_needed(first["log_probability"], PROBABILITY)).reset_index()
    return first[["person", "records", "recited", "row", "samples_needed"]].to_dict("records")


def chance_level(path: Path, groups: Mapping[str, Records]) -> dict[str, float] | None:
    """What sampling gives of the non-members: `fewest` and `median` samples needed, `total`; None without non-members."""
    if "non_members" not in groups:
        return None
    needed = samples_needed(best_log_probability(path, "non_members").dropna(), PROBABILITY)
    return {"fewest": needed.min(), "median": needed.median(), "total": len(needed)}


# ---------------------------------------------------------------- what can't be excluded


def what_was_tested(summary: Mapping[str, Any]) -> list[dict]:
    """Per kind of test what was looked at, what was found, and what can't be excluded.

    Returns:
        `kind` ("direct extraction", "probabilistic extraction", "any extraction", "persons", "membership"), `what` (in words),
        `count` of `total`, `rate`, `upper` (the exact 95 % interval's), `chance` (the rate among non-members, or None),
        `least`: the smallest true rate of which at least one record would have been found with 95 % probability.
    """
    settings, rows = summary["settings"], []
    k, m = min(settings["prefix_lengths"]), settings["window"]
    given = f"the prompt and {k} tokens" if k else "the prompt (or first token) alone"
    words = {
        "verbatim": ("direct extraction", f"greedy decoding from {given} gives the next {m} tokens"),
        "verbatim span": (
            "direct extraction",
            f"greedy decoding gives {m} tokens somewhere, from the true text before them",
        ),
        "nearly verbatim": ("direct extraction", f"greedy text with an edit similarity of {NEAR} or more"),
        "discoverable": ("probabilistic extraction", f"in {max(SAMPLES):,} samples, with p = {PROBABILITY}"),
        "any extraction": ("any extraction", "any of greedy, nearly verbatim, or in samples"),
        "persons": ("persons", "at least one record recited by greedy decoding"),
    }
    for measure, (kind, what) in words.items():
        found = [row for row in rates_tested(summary, measure) if row["total"]]
        if not found:
            continue
        row = max(found, key=lambda row: row["rate"])
        others = rates_tested(summary, measure, "non_members")
        chance = next((other["rate"] for other in others if setting_of(other) == setting_of(row)), None)
        sampling = f", {row['sampling']} sampling" if measure == "discoverable" else ""
        bounds = {"upper": _upper(row), "least": 1 - 0.05 ** (1 / row["total"])}
        found = {name: row[name] for name in ("count", "total", "rate")} | bounds
        rows.append({"kind": kind, "what": what + sampling, **found, "chance": chance})
    caught = [row for row in summary["membership"] if row.get("fpr") == 0.01 and not row["note"]]
    if caught:
        best = max(caught, key=lambda row: row["high"])
        what = f"members found by {best['attack']} while 1 % of the non-members are accused"
        row = {
            "count": None,
            "total": summary["data"]["members"]["records"],
            "rate": best["rate"],
            "upper": best["high"],
        }
        rows.append({"kind": "membership", "what": what, **row, "chance": 0.01, "least": None})
    return rows


def rates_tested(summary: Mapping[str, Any], measure: str, group: str = "members") -> list[Mapping[str, Any]]:
    """The audited model's rates of a measure; of verbatim ones from the least that is given, of samples after the most."""
    wanted = {"k": min(summary["settings"]["prefix_lengths"]), "n": max(SAMPLES)}
    rows = (r for r in summary["rates"] if (r["measure"], r["group"], r["model"]) == (measure, group, "model"))
    return [row for row in rows if all(row.get(name, value) == value for name, value in wanted.items())]


def setting_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a rate is of, besides the group."""
    return {k: v for k, v in row.items() if k not in ("group", "rate", "count", "total", "low", "high")}


def _upper(row: Mapping[str, Any]) -> float:
    """The exact interval's, which never covers too little: a gate must not open by an approximation."""
    return clopper_pearson(row["count"], row["total"])["high"]


# ---------------------------------------------------------------- the gate of a release pipeline


def check_limit(summary: Mapping[str, Any], name: str, limit: float) -> tuple[bool, str]:
    """Whether a rate's upper bound exceeds the limit, and the sentence that says so.

    Args:
        name: a key of `GATES`. Of several rates of that name (with and without the end token, several ways of sampling) the
            highest bound counts.

    Raises:
        InputError: the audit has not measured that rate.
    """
    rows = [row for row in rates_tested(summary, GATES[name]) if row["total"]]
    if not rows:
        known = [key for key in GATES if any(row["total"] for row in rates_tested(summary, GATES[key]))]
        more = "; persons are told by --group-by" if name == "persons" else ""
        raise InputError(f"--fail-on {name}: the audit has no such rate; it has {', '.join(known)}{more}")
    row = max(rows, key=_upper)
    upper, unit = _upper(row), "persons" if name == "persons" else "members"
    said = f"{GATES[name]}: {row['count']} of {row['total']} {unit}, upper bound {100 * upper:.3g} % (exact 95 % interval)"
    if upper <= limit:
        return False, f"{said}, within the limit of {100 * limit:g} %"
    said += f", above the limit of {100 * limit:g} %"
    if not row["count"]:
        needed = math.ceil(math.log(0.025) / math.log1p(-limit))
        said += f". None was found, but fewer than {needed:,} {unit} can't show that it holds"
    return True, said


def say_at_risk(summary: Mapping[str, Any]) -> Sequence[str]:
    """One sentence on the record most at risk, one on what sampling gives of the non-members."""
    rows, other = summary["most_at_risk"], summary["chance"]
    lines = []
    if rows:
        first = rows[0]
        needed = say_samples(first["samples_needed"])
        beside = [
            f"{who}: {say_samples(first[f'{role}_samples_needed'])}"
            for role, who in CHANCES.items()
            if role in summary["others"]
        ]
        lines.append(
            f"Most at risk is the record in row {first['row']}: one expects it after {needed} sample{'s' * (needed != '1')}"
            + (f" ({'; '.join(beside)})." if beside else ".")
        )
    if other and other["total"]:
        lines.append(
            f"Chance level: of {other['total']} non-members the easiest takes {say_samples(other['fewest'])} samples, the median "
            f"one {say_samples(other['median'])}."
        )
    return lines
