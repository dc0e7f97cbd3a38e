"""Put an audit's score files together: a row per record, rates over records, and the sentences that lead the report."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from palimpsest import audit_scores, membership
from palimpsest.approximate import SIMILARITIES
from palimpsest.figures import percent
from palimpsest.redact import mask

SHOWN = 10  # most memorized records listed in the report
BLIND = 10_000  # most texts a side that the blind baseline reads
CONTINUATION = {"first_miss": "Int64", "continuation": "string", **dict.fromkeys(SIMILARITIES, float)}
ABOUT_REFERENCE = (
    "verbatim_",
    "extraction_strength",
    "loss",
)  # of the reference model's numbers, those kept per record


def combine(groups: Mapping[str, pd.DataFrame], work: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Read the score files in `work`, write `records.parquet` there, and return everything said over records.

    Args:
        groups: "members" (and "non_members") -> the records that were scored.
        summary: what is known so far: `settings`, `data`, `model`, `reference`.

    Returns:
        `rates`, `means`, `excess`, `curve`, `membership` (lists of rows), `blind`, `most_memorized`, `warnings`, `headline`.
    """
    settings, rates, means, curves, writer = summary["settings"], [], [], [], None
    for group, frame in groups.items():
        totals: dict[str, dict] = {"model": {}, "reference": {}}
        for table, scalars in _chunks(group, frame, work, settings, bool(summary["reference"]), totals):
            hidden = [] if settings["show_secrets"] else ["token", "continuation"]  # these are the text itself
            lists = table.drop(columns=["prompt_length", "length", *(c for c in hidden if c in table)])
            whole = scalars.merge(lists, on="id").drop(columns=[c for c in hidden if c in scalars])
            block = pa.Table.from_pandas(whole.assign(group=group), preserve_index=False)
            writer = writer or pq.ParquetWriter(work / "records.parquet", block.schema)
            writer.write_table(block.cast(writer.schema))
        for which, total in totals.items():
            curves += [{"group": group, "model": which, **row} for row in (audit_scores.curve(total) if total else ())]
    writer.close()
    every = audit_scores.numbers(work / "records.parquet")
    numbers = {group: every[every["group"] == group].reset_index(drop=True) for group in groups}
    del every
    for group, mine in numbers.items():
        lengths, window = settings["prefix_lengths"], settings["window"]
        found = audit_scores.rates(mine, lengths, window, list(settings["sampling"]))
        rates += [{"group": group, "model": "model", **row} for row in found]
        if summary["reference"]:
            found = audit_scores.verbatim_rates(_reference_numbers(mine), lengths, window)
            rates += [{"group": group, "model": "reference", **row} for row in found]
        means += [{"group": group, **row} for row in audit_scores.means(mine)]
    said: dict[str, Any] = {"rates": rates, "means": means, "excess": [], "curve": curves, "membership": []}
    said["blind"] = None
    if "non_members" in groups:
        said["excess"] = audit_scores.excess(rates)
        said["membership"] = _membership(numbers)
        said["blind"] = _blind(groups)
    said["most_memorized"] = _most_memorized(groups["members"], numbers["members"], settings["show_secrets"])
    said["warnings"] = _warnings({**summary, **said}, numbers)
    said["headline"] = headline({**summary, **said})
    return said


def _chunks(group: str, frame: pd.DataFrame, work: Path, settings: Mapping, reference: bool, totals: dict):
    """Yield the score table and the numbers of one shard after the other, and add up the curves in `totals`."""
    measured, rows = "response" if "response" in frame else "text", frame.set_index("id")
    window, lengths = settings["window"], settings["prefix_lengths"]
    theirs = audit_scores.chunks(work / f"{group}_reference.parquet") if reference else None
    lower = _losses(work / f"{group}_lowercase.parquet") if settings["lowercase"] else None
    for number, table in enumerate(audit_scores.chunks(work / f"{group}.parquet")):
        texts = list(rows.loc[table["id"], measured])
        other = next(theirs) if theirs else None
        rules = list(settings["sampling"])
        scalars = audit_scores.per_record(table, texts, lengths, window, rules, other, settings["tie"])
        audit_scores.add_curve(totals["model"], table, window)
        if other is not None:
            audit_scores.add_curve(totals["reference"], other, window)
            own = audit_scores.per_record(other, texts, lengths, window)
            kept = [c for c in own if c.startswith(ABOUT_REFERENCE)]
            scalars = pd.concat([scalars, own[kept].add_prefix("reference_")], axis=1)
        if lower is not None:
            scalars["lowercase"] = lower.loc[table["id"]].to_numpy() - scalars["loss"]
        part = work / f"{group}.continuations" / f"{number:06d}.parquet"
        if settings["approximate"]:
            scalars = scalars.merge(pd.read_parquet(part), on="id", how="left").astype(CONTINUATION)
        place = rows.loc[table["id"], ["row", "copies"]].reset_index(drop=True)
        yield table, pd.concat([place, scalars], axis=1)


def _losses(path: Path) -> pd.Series:
    tables = [(t["id"], -membership.loss(t)) for t in audit_scores.chunks(path)]
    return pd.Series(np.concatenate([v for _, v in tables]), index=np.concatenate([i for i, _ in tables]))


def _reference_numbers(numbers: pd.DataFrame) -> pd.DataFrame:
    return numbers.filter(like="reference_").rename(columns=lambda c: c.removeprefix("reference_"))


def _membership(numbers: Mapping[str, pd.DataFrame]) -> list[dict]:
    both = pd.concat(numbers.values(), ignore_index=True)
    attacks = both.assign(loss=-both["loss"])[["id", *(a for a in membership.LABELS if a in both)]]
    return membership.evaluate(attacks, *(n["id"] for n in numbers.values())).to_dict("records")


def _blind(groups: Mapping[str, pd.DataFrame]) -> dict | None:
    sides = []
    for frame in groups.values():
        some = frame.sample(min(BLIND, len(frame)), random_state=0)
        texts = [c for c in ("instruction", "context", "response", "text") if c in some]
        sides.append(some[texts].agg(" ".join, axis=1).tolist())
    if min(map(len, sides)) < 2:
        return None
    with warnings.catch_warnings():  # said in the report
        warnings.simplefilter("ignore")
        return membership.blind_baseline(*sides)


def _most_memorized(frame: pd.DataFrame, numbers: pd.DataFrame, show_secrets: bool) -> list[dict]:
    """The members of which most is recited, by extraction strength, then by the longest span; text masked unless told."""
    ranked = numbers.sort_values(["extraction_strength", "longest_span"], ascending=False, kind="stable").head(SHOWN)
    texts = frame.set_index("id").loc[ranked["id"], "response" if "response" in frame else "text"]
    shown = [t if show_secrets else mask(t) for t in texts]
    kept = ["id", "row", "length", "extraction_strength", "longest_span", "copies"]
    return ranked[kept].assign(text=shown).to_dict("records")


def _warnings(summary: Mapping[str, Any], numbers: Mapping[str, pd.DataFrame]) -> list[str]:
    out, window = [], summary["settings"]["window"]
    for group, facts in summary["data"].items():
        name = group.replace("_", "-")
        if facts["empty"]:
            out.append(f"{name}: {facts['empty']} records without text were left out.")
        if facts["duplicates"]:
            out.append(f"{name}: {facts['duplicates']} repetitions of a record were left out; each is kept once.")
        if facts["long"]:
            how = "scored in overlapping windows (half a context or more before each token)"
            how = how if facts["handled"] == "window" else "left out"
            out.append(f"{name}: {facts['long']} records longer than the context were {how}.")
        short = int((numbers[group]["length"] < window).sum())
        if short:
            out.append(
                f"{name}: {short} of {facts['records']} records are shorter than the window of {window} tokens; "
                "for these the window ends with the record."
            )
    if "non_members" not in summary["data"]:
        out.append(
            "There are no non-members, so no rate has a control: text that any model would complete counts too."
        )
    if summary["blind"] and summary["blind"]["warning"]:
        out.append(summary["blind"]["warning"])
    uniform = math.log(summary["model"]["vocabulary"])
    loss = numbers["members"]["loss"].mean()
    if loss > uniform:
        out.append(
            f"The model does worse than guessing ({loss:.2f} nats per token; a uniform guess has {uniform:.2f}): its tokenizer "
            "or the prompt template may be another than in training."
        )
    return out


def headline(summary: Mapping[str, Any]) -> list[str]:
    """The answer in a few sentences."""
    lines, settings = [], summary["settings"]
    rates = pd.DataFrame(summary["rates"])
    rates = rates[(rates["model"] == "model") & (rates["measure"] == "verbatim")]
    first = rates[(rates["k"] == min(settings["prefix_lengths"])) & rates["m"].notna()]
    for row in first.to_dict("records"):
        given = f"the prompt and {row['k']:.0f} tokens" if row["k"] else "the prompt (or first token) alone"
        lines.append(
            f"From {given} the model recites the next {settings['window']} tokens of {percent(row)} of the "
            f"{row['group'].replace('_', '-')}."
        )
    best = max((r for r in summary["membership"] if r["measure"] == "AUC"), key=lambda r: r["rate"], default=None)
    if best and not math.isnan(best["rate"]):
        lines.append(
            f"The best membership attack, {membership.LABELS[best['attack']]}, tells members from non-members with an AUC of "
            f"{best['rate']:.3f} (95 % interval {best['low']:.3f} to {best['high']:.3f})."
        )
    return lines


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
