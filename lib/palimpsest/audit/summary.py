"""Put an audit's score files together: a row per record, rates over records, and the sentences that lead the report."""

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from palimpsest.audit import scores
from palimpsest.audit.records import Records, Rows, pick, sample
from palimpsest.audit.totals import Totals
from palimpsest.chapters.figures import percent
from palimpsest.data.masking import mask
from palimpsest.measure import extraction, membership_inference
from palimpsest.measure.near_verbatim import SIMILARITIES

BLIND = 10_000  # most texts a side that the blind baseline reads
CONTINUATION = {"first_miss": "Int64", "continuation": "string", **dict.fromkeys(SIMILARITIES, float)}
ABOUT_REFERENCE = ("verbatim_", "extraction_strength", "loss")  # of the reference's numbers, those kept per record


def combine(groups: Mapping[str, Records], work: Path, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Read the score files in `work`, write `records.parquet` there, and return everything said over records.

    Args:
        groups: "members" (and "non_members") -> the records that were scored.
        summary: what is known so far: `settings`, `data`, `model`, `reference`.

    Returns:
        `rates`, `means`, `excess`, `curve`, `membership` (lists of rows), `blind`, `most_memorized`, `warnings`, `headline`.
    """
    settings, totals = summary["settings"], {group: Totals(summary["settings"]) for group in groups}
    path, writer = work / "records.parquet", None
    unfinished = path.with_suffix(".unfinished")
    hidden = set() if settings["show_secrets"] else {"token", "continuation"}  # these are the text itself
    for group, records in groups.items():
        measured = summary["data"][group]["measured"]
        for table, numbers, other, texts in _shards(group, records, measured, work, summary):
            shown = list(texts) if settings["show_secrets"] else [mask(text) for text in texts]
            totals[group].add(numbers, table, other, shown)
            lists = table.drop(columns=["prompt_length", "length", *hidden & set(table)])
            whole = numbers.drop(columns=list(hidden & set(numbers))).merge(lists, on="id")
            block = pa.Table.from_pandas(whole.assign(group=group), preserve_index=False)
            writer = writer or pq.ParquetWriter(unfinished, block.schema)
            writer.write_table(block.cast(writer.schema))
    writer.close()
    unfinished.replace(path)
    said: dict[str, Any] = {"excess": [], "membership": [], "blind": None}
    for name in ("rates", "means", "curves"):
        found = [{"group": group, **row} for group, total in totals.items() for row in getattr(total, name)()]
        said[name.replace("curves", "curve")] = found
    if "non_members" in groups:
        said["excess"] = scores.excess(said["rates"])
        said["blind"] = _blind(groups)
        for attack in (a for a in membership_inference.LABELS if a in scores.columns(path)):
            said["membership"] += membership_inference.rated(attack, *scores.scores(path, attack))
    said["most_memorized"] = totals["members"].most_memorized()
    said["warnings"] = _warnings({**summary, **said}, totals)
    said["headline"] = headline({**summary, **said})
    return said


def _shards(group: str, records: Records, measured: str, work: Path, summary: Mapping[str, Any]) -> Iterator[tuple]:
    """Of one shard after the other: the score table, the numbers per record, the reference's score table, the texts.

    All files hold the records in one order, but not in the same shards where some records were scored in windows.
    """
    settings = summary["settings"]
    window, lengths, rules = settings["window"], settings["prefix_lengths"], list(settings["sampling"])
    places = Rows(records.frames(["id", "row", "copies", measured]))
    reference = Rows(scores.chunks(work / f"{group}_reference.parquet")) if summary["reference"] else None
    lower = Rows(_losses(work / f"{group}_lowercase.parquet")) if settings["lowercase"] else None
    left = {k: Rows(_recited(work / f"{group}_left{k}.parquet")) for k in settings["left_truncated"]}
    for number, table in enumerate(scores.chunks(work / f"{group}.parquet")):
        place = places.take(len(table))
        texts = place.pop(measured)
        other = reference.take(len(table)) if reference else None
        numbers = scores.per_record(table, list(texts), lengths, window, rules, other, settings["tie"])
        if other is not None:
            own = scores.per_record(other, list(texts), lengths, window)
            kept = [c for c in own if c.startswith(ABOUT_REFERENCE)]
            numbers = pd.concat([numbers, own[kept].add_prefix("reference_")], axis=1)
        if lower:
            numbers["lowercase"] = lower.take(len(table))["loss"] - numbers["loss"]
        if settings["approximate"]:
            part = pd.read_parquet(work / f"{group}.continuations" / f"{number:06d}.parquet")
            numbers = numbers.merge(part, on="id", how="left").astype(CONTINUATION)
        if left:
            before = table["prompt_length"] + table["length"] - window
            long = (table["length"] >= window) & (before >= max(settings["left_truncated"]))
        for k, verdicts in left.items():
            numbers[f"left_truncated_{k}"] = pd.Series(pd.NA, index=numbers.index, dtype="boolean")
            numbers.loc[long, f"left_truncated_{k}"] = verdicts.take(int(long.sum()))["recited"].to_numpy()
        yield table, pd.concat([place.drop(columns="id"), numbers], axis=1), other, texts


def _losses(path: Path) -> Iterator[pd.DataFrame]:
    return (pd.DataFrame({"loss": -membership_inference.loss(table)}) for table in scores.chunks(path))


def _recited(path: Path) -> Iterator[pd.DataFrame]:
    return (pd.DataFrame({"recited": extraction.verbatim(table).to_numpy(bool)}) for table in scores.chunks(path))


def _blind(groups: Mapping[str, Records]) -> dict | None:
    """`membership_inference.blind_baseline` of at most `BLIND` texts a side, and `drawn`: words that say so where there are more."""
    sides = []
    for records in groups.values():
        some = pick(records.path, sample(records.facts["records"], BLIND), records.texts())
        sides.append(some.agg(" ".join, axis=1).tolist())
    if min(map(len, sides)) < 2:
        return None
    with warnings.catch_warnings():  # said in the report
        warnings.simplefilter("ignore")
        found = membership_inference.blind_baseline(*sides)
    drawn = any(records.facts["records"] > BLIND for records in groups.values())
    return {**found, "drawn": f", at most {BLIND:,} a side, drawn at random" if drawn else ""}


def _warnings(summary: Mapping[str, Any], totals: Mapping[str, Totals]) -> list[str]:
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
        if totals[group].short:
            out.append(
                f"{name}: {totals[group].short} of {facts['records']} records are shorter than the window of {window} tokens; "
                "for these the window ends with the record."
            )
    if "non_members" not in summary["data"]:
        out.append(
            "There are no non-members, so no rate has a control: text that any model would complete counts too."
        )
    for k in summary["settings"]["left_truncated"]:
        none = [r for r in summary["rates"] if r["measure"] == "left-truncated" and r["k"] == k and not r["total"]]
        out += [
            f"{r['group'].replace('_', '-')}: no record is long enough for the left-truncated design."
            for r in none[:1]
        ]
    if summary["blind"] and summary["blind"]["warning"]:
        out.append(summary["blind"]["warning"])
    uniform = math.log(summary["model"]["vocabulary"])
    loss = totals["members"].mean("loss")
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
            f"The best membership attack, {membership_inference.LABELS[best['attack']]}, tells members from non-members with an AUC of "
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
