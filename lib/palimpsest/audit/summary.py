"""What an audit says over its records: rates, means and attacks, counted from `records.parquet`, and the leading sentences."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from palimpsest.audit import family, people, signoff
from palimpsest.audit.findings import findings, finds_more
from palimpsest.audit.personal import say_found_secrets, secret_rates
from palimpsest.audit.records import NO_END, Records, attack_scores, column, of_model, sample, write_numbers
from palimpsest.measure import extraction, membership_inference
from palimpsest.measure.extraction import PROBABILITY, SAMPLES
from palimpsest.measure.near_verbatim import NEAR, SIMILARITIES
from palimpsest.measure.score_file import pick
from palimpsest.measure.statistics import newcombe, percent, rate, rate_of

BLIND = 10_000  # most texts a side that the blind baseline reads
STRENGTHS = ("extraction_strength", f"extraction_strength{NO_END}")
MEANS = ("loss", "token_accuracy", *STRENGTHS, "longest_span", *SIMILARITIES)


def combine(groups: Mapping[str, Records], path: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Put what was scored into the `records.parquet` at `path`, and return everything said over records.

    Args:
        groups: "members" (and "non_members") -> the records that were scored.
        summary: what is known so far: `settings`, `data`, `model`, `others`.

    Returns:
        `rates`, `means`, `excess`, `curve`, `membership`, `secrets`, `findings` (lists of rows), `blind`, `warnings`, `headline`;
        for a sign-off `most_at_risk`, `persons_at_risk`, `chance`, `tested` (see `signoff`); `family` (see `family.of_family`). The
        curve leaves out the tokens that close responses.
    """
    settings, curves = summary["settings"], write_numbers(groups, path, summary)
    of_persons, persons = people.person_rates(path, groups, summary)
    said: dict[str, Any] = {
        "rates": [row for group in groups for row in rates(path, group, summary)] + of_persons,
        "means": [row for group in groups for row in means(path, group)],
        "curve": [
            {"group": group, "model": model, "k": k, **rate_of(int(row["count"]), int(row["total"]))}
            for (group, model), counts in curves.items()
            for k, row in counts[counts["total"] >= min(10, counts["total"].max())].iterrows()
        ],
        "excess": [],
        "membership": [],
        "blind": None,
        "secrets": [],
    }
    if settings["secrets"]:
        said["secrets"] = [r for group in groups for r in secret_rates(column(path, group, "secrets"), group)]
    if "non_members" in groups:
        said["excess"] = minus_non_members(said["rates"])
        said["blind"] = _blind(groups)
        for attack, scores in attack_scores(path):
            said["membership"] += membership_inference.rated(attack, *scores)
    said["most_at_risk"] = signoff.most_at_risk(path, groups["members"], summary)
    said["persons_at_risk"] = signoff.persons_at_risk(persons["members"]) if "members" in persons else []
    said["chance"] = signoff.chance_level(path, groups)
    said["tested"] = signoff.what_was_tested({**summary, **said})
    said["family"] = family.of_family(path, summary)
    short = {group: int((column(path, group, "length") < settings["window"]).sum()) for group in groups}
    said["findings"] = [row for group in groups for row in findings(path, group)]
    said["warnings"] = _warnings({**summary, **said}, short)
    said["headline"] = _headline({**summary, **said})
    return said


# ---------------------------------------------------------------- over records


def rates(path: Path, group: str, summary: Mapping[str, Any]) -> list[dict]:
    """Every rate over the records of a group: `group, model, measure`, its setting, `rate, count, total, low, high` (95 % Wilson).

    What is recited is counted twice where something closes the records: `end_token` "required" asks for that token too, "not
    required" for the text alone.
    """
    settings = summary["settings"]
    window, ends = settings["window"], {"required": "", "not required": NO_END}
    if not column(path, group, "closing").any():  # plain texts are closed by nothing
        del ends["required"]

    def read(name: str) -> pd.Series:
        return column(path, group, name).dropna()

    def measured(model: str) -> Iterator[tuple]:
        targets = [*((k, window) for k in settings["prefix_lengths"]), (0, None)]
        for (k, m), (end, mark) in product(targets, ends.items()):
            name = of_model(model, f"verbatim_{'whole' if m is None else k}{mark}")
            yield "verbatim", {"k": k, "m": m, "end_token": end}, read(name)
        if model != "model":
            return
        for end, mark in ends.items():
            without = column(path, group, "closing") if mark else 0
            long = column(path, group, "length") - without >= window
            spans = column(path, group, f"longest_span{mark}")[long]
            yield "verbatim span", {"m": window, "end_token": end}, spans >= window
        for name, (end, mark) in product(("", *settings["sampling"]), ends.items()):
            drawn = read("logprob_window" + (f"_{name}" if name else "") + mark)
            needed = extraction.samples_needed(drawn, PROBABILITY)
            for n in SAMPLES:
                setting = {"m": window, "sampling": name or "plain", "n": n, "p": PROBABILITY, "end_token": end}
                yield "discoverable", setting, needed <= n
        if settings["approximate"]:
            yield "nearly verbatim", {"end_token": "not required"}, read("edit_similarity") >= NEAR
        yield "near-tie", {"m": window}, read("near_ties") > 0
        yield "any extraction", {"m": window}, signoff.extracted(path, group, settings)
        for k, (end, mark) in product(settings["left_truncated"], ends.items()):
            yield "left-truncated", {"k": k, "m": window, "end_token": end}, read(f"left_truncated_{k}{mark}")

    return [
        {"group": group, "model": model, "measure": measure, **setting, **rate(verdicts)}
        for model in ("model", *summary["others"])
        for measure, setting, verdicts in measured(
            model
        )  # never the verdicts of all: there may be a hundred million each
    ]


def means(path: Path, group: str) -> list[dict]:
    """Means over the records of a group with a 95 % normal interval: `group, measure, mean, low, high, total`."""
    rows, known = [], pq.read_schema(path).names
    for name in (name for name in MEANS if name in known):
        values = column(path, group, name).dropna().astype(float)
        mean, reach = values.mean(), 1.96 * values.std() / np.sqrt(len(values))
        interval = {"mean": mean, "low": mean - reach, "high": mean + reach}
        rows.append({"group": group, "measure": name, **interval, "total": len(values)})
    return rows


def minus_non_members(rows: Sequence[Mapping]) -> list[dict]:
    """Members' rates minus non-members', with Newcombe's 95 % interval: what chance and common wording don't explain.

    Args:
        rows: rates with `group` and `model`; those of both groups that share every setting are paired.
    """
    sides: dict[str, dict[tuple, Mapping]] = {"members": {}, "non_members": {}}
    for row in rows:
        sides[row["group"]][tuple(signoff.setting_of(row).items())] = row
    out = []
    for setting, a in sides["members"].items():
        b = sides["non_members"].get(setting)
        if b and a["total"] and b["total"]:
            low, high = newcombe(a["count"], a["total"], b["count"], b["total"])
            out.append({**dict(setting), "excess": a["rate"] - b["rate"], "low": low, "high": high})
    return out


def _blind(groups: Mapping[str, Records]) -> dict | None:
    """`membership_inference.blind_baseline` of at most `BLIND` texts a side, and `drawn`: words that say so where there are more."""
    sides = []
    for records in groups.values():
        some = pick(records.path, sample(records.facts["records"], BLIND), records.texts)
        sides.append(some.agg(" ".join, axis=1).tolist())
    if min(map(len, sides)) < 2:
        return None
    with warnings.catch_warnings():  # said in the report
        warnings.simplefilter("ignore")
        found = membership_inference.blind_baseline(*sides)
    drawn = any(records.facts["records"] > BLIND for records in groups.values())
    return {**found, "drawn": f", at most {BLIND:,} a side, drawn at random" if drawn else ""}


# ---------------------------------------------------------------- in words


def _warnings(summary: Mapping[str, Any], short: Mapping[str, int]) -> list[str]:
    out, window = [*summary["notes"], *summary["self_check"]["warnings"]], summary["settings"]["window"]
    for group, facts in summary["data"].items():
        name = group.replace("_", "-")
        if facts["empty"]:
            why = ", ".join(f"{found}: {count}" for found, count in facts["left_out"].items())
            out.append(f"{name}: {facts['empty']} records were left out ({why}).")
        out += [f"{name}: {note}." for note in facts["notes"]]
        if facts["duplicates"]:
            out.append(f"{name}: {facts['duplicates']} repetitions of a record were left out; each is kept once.")
        if facts["long"]:
            how = "scored in overlapping windows (half a context or more before each token)"
            how = how if facts["handled"] == "window" else "left out"
            out.append(f"{name}: {facts['long']} records longer than the context were {how}.")
        if short[group]:
            out.append(
                f"{name}: {short[group]} of {facts['records']} records are shorter than the window of {window} tokens; "
                "for these the window ends with the record."
            )
    if "non_members" not in summary["data"]:
        out.append(
            "There are no non-members, so no rate has a control: text that any model would complete counts too."
        )
    for group, facts in summary["data"].items():
        if unnamed := facts.get("unnamed"):
            out.append(f"{group.replace('_', '-')}: {unnamed} rows name nobody; each counts as a person of its own.")
    none = dict.fromkeys(r["group"] for r in summary["rates"] if r["measure"] == "left-truncated" and not r["total"])
    out += [f"{group.replace('_', '-')}: no record is long enough for the left-truncated design." for group in none]
    out += [row["text"] for row in summary["findings"]]
    if summary["blind"] and summary["blind"]["warning"]:
        out.append(summary["blind"]["warning"])
    uniform = math.log(summary["model"]["vocabulary"])
    loss = next(row["mean"] for row in summary["means"] if row["measure"] == "loss")  # the members' come first
    if loss > uniform and not any("worse than guessing" in line for line in out):  # the self-check saw it first
        out.append(
            f"The model does worse than guessing ({loss:.2f} nats per token; a uniform guess has {uniform:.2f}): its tokenizer "
            "or the prompt template may be another than in training."
        )
    return out


def _headline(summary: Mapping[str, Any]) -> list[str]:
    """The answer in a few sentences."""
    lines, settings = [], summary["settings"]
    for group in summary["data"]:
        rows = [row for row in signoff.rates_tested(summary, "verbatim", group) if row["m"]]
        row = finds_more(rows)
        given = f"the prompt and {row['k']} tokens" if row["k"] else "the prompt (or first token) alone"
        apart = ", not counting the end token" if any(r["rate"] < row["rate"] for r in rows) else ""
        lines.append(
            f"From {given} the model recites the next {settings['window']} tokens of {percent(row)} of the "
            f"{group.replace('_', '-')}{apart}."
        )
    lines += say_found_secrets(summary["secrets"]) if settings["secrets"] else []
    best = max((r for r in summary["membership"] if r["measure"] == "AUC"), key=lambda r: r["rate"], default=None)
    if best and not math.isnan(best["rate"]):
        lines.append(
            f"The best membership attack, {membership_inference.LABELS[best['attack']]}, tells members from non-members with an AUC of "
            f"{best['rate']:.3f} (95 % interval {best['low']:.3f} to {best['high']:.3f})."
        )
    for row in (row for row in summary["rates"] if row["measure"] == "persons" and row["model"] == "model"):
        lines.append(
            f"It recites a record or more of {percent(row)} of the persons among the {row['group'].replace('_', '-')}."
        )
    lines += signoff.say_at_risk(summary)
    return lines + (family.say_family(summary["family"]) if summary["family"] else [])


def plain(value: Any) -> Any:
    """The same as JSON knows it: plain numbers, and null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
