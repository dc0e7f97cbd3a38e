"""Large files in parts: each scored by a process of its own, on one machine or many, and put together as if one had done it all.

A part is every n-th piece of the records, whole pieces as a single audit would score them, so that every batch is the same, and
with it every number to its last digit (on the same kind of device, with the same `--batch-tokens` where memory differs). Each
process reads the whole input, which finds repetitions and overlaps as one audit would, and tokenizes and scores its part alone.
"""

import json
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from palimpsest.audit import results
from palimpsest.audit.records import FACTS, NUMBERS, Records
from palimpsest.audit.summary import plain
from palimpsest.errors import InputError
from palimpsest.study.files import write_json

FOLDER, SUMMARY = "shard", "shard/shard.json"  # below --out; the summary comes last
ABOUT = (
    "model.*",
    "others.*",
    "tokenizer",
    "data.*.sha256",
    "data.*.columns.*",
    "settings.*",
)  # what shards of one audit share


def is_there(out: Path, fingerprint: str, shard: tuple[int, int]) -> bool:
    """Whether `out` holds this very shard, complete; said if so."""
    there = results.summary_in(out, SUMMARY)
    if there is None or (there["fingerprint"], there["shard"]) != (fingerprint, list(shard)):
        return False
    print(f"{out} already holds shard {shard[0]} of {shard[1]}, complete", file=sys.stderr)
    return True


def write_shard(summary: Mapping[str, Any], shard: tuple[int, int], work: Path, out: Path) -> dict[str, Any]:
    """Move a scored part to `out`, for `merge`.

    Raises:
        InputError: the part holds no record, because there are fewer pieces than parts.
    """
    found = {group: Records(work / f"{group}.records") for group in summary["data"]}
    if not any(records.facts["records"] for records in found.values()):
        raise InputError(
            f"--shard {shard[0]}/{shard[1]}: this part is empty, since a part takes whole pieces of some thousand records; wanted "
            "fewer parts"
        )
    said = plain({**summary, "shard": list(shard)})
    write_json(work / "shard.json", said)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
    work.replace(out / FOLDER)
    return said


def merge(folders: Sequence[str | Path], out: str | Path) -> dict[str, Any]:
    """Put the shards of one audit together in `out`: the results of the audit as if it had been made at once.

    Needs no model. The shards stay as they are; on the same disk their scores take no room twice (hard links).

    Args:
        folders: the `--out` folders of every `--shard I/N`, in any order.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: a folder without a finished shard, a shard of another audit (what differs is named), a missing shard, one
            that is there twice.
    """
    began, out = time.perf_counter(), Path(out).expanduser()
    parts = _checked([Path(folder).expanduser() for folder in folders])
    results.refuse_foreign_folder(out)
    summary = results.summary_in(parts[0], SUMMARY)
    del summary["shard"]
    if done := results.finished_audit(out, summary["fingerprint"]):
        return done
    work = out / "partial" / summary["fingerprint"]
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with results.writing_audit(out, work):
        groups = {group: _joined(group, parts, work) for group in summary["data"]}
        for group, records in groups.items():
            if not records.facts["records"]:
                raise InputError(f"{group}: every record is longer than the model's context; use --long window")
            summary["data"][group] |= records.facts
        return results.finish(groups, summary, work, out, began)


def _checked(folders: Sequence[Path]) -> list[Path]:
    """The folders in the order of their shards."""
    said = {folder: results.summary_in(folder, SUMMARY) for folder in folders}
    if none := [folder for folder, one in said.items() if one is None]:
        raise InputError(
            f"{none[0]} holds no finished shard (no {SUMMARY}): run `palimpsest audit --shard I/N --out {none[0]}` to its end"
        )
    (home, first), *others = said.items()
    for folder, one in others:
        if one["fingerprint"] != first["fingerprint"] or one["shard"][1] != first["shard"][1]:
            what = differing(first, one, ABOUT) or [f"shards of {first['shard'][1]} and {one['shard'][1]}"]
            raise InputError(f"{folder} is a shard of another audit than {home}; they differ in {'; '.join(what)}")
    number, places = first["shard"][1], {}
    for folder, one in said.items():
        if (place := one["shard"][0]) in places:
            raise InputError(f"{folder} and {places[place]} are both shard {place} of {number}; wanted each once")
        places[place] = folder
    if missing := [place for place in range(1, number + 1) if place not in places]:
        names = ", ".join(f"{place}/{number}" for place in missing[:10])
        raise InputError(
            f"shard {names} is missing: run `palimpsest audit --shard {missing[0]}/{number}`, then merge all {number}"
        )
    return [places[place] for place in sorted(places)]


def differing(one: Mapping[str, Any], other: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """What two audits' summaries say differently, as "settings.window: 50 and 25".

    Args:
        wanted: patterns of the names that are compared, such as `data.*.sha256`.
    """

    def leaves(value: Any, name: str) -> dict[str, Any]:
        if isinstance(value, Mapping):
            return {k: v for key, part in value.items() for k, v in leaves(part, f"{name}.{key}").items()}
        return {name[1:]: value}

    a, b = (leaves(side, "") for side in (one, other))
    keys = [key for key in {**a, **b} if any(fnmatch(key, pattern) for pattern in wanted)]
    return [f"{key}: {a.get(key)} and {b.get(key)}" for key in keys if a.get(key) != b.get(key)]


def _joined(group: str, parts: Sequence[Path], work: Path) -> Records:
    """The pieces of all parts in the order of a single audit, with what was made of them."""
    own = [Records(folder / FOLDER / f"{group}.records") for folder in parts]
    places = sorted((number, part, piece) for part, one in enumerate(own) for piece, number in enumerate(one.numbers))
    joined = Records(work / f"{group}.records")
    joined.path.with_suffix("").mkdir()
    files, outcomes = [pq.ParquetFile(one.path) for one in own], [_made(one) for one in own]
    with pq.ParquetWriter(joined.path, files[0].schema_arrow.remove_metadata()) as writer:
        for piece, (_, part, there) in enumerate(places):
            writer.write_table(files[part].read_row_group(there))
            for made in outcomes[part][there]:
                _link(made, joined.path.with_suffix("") / f"{piece:06d}.{made.name.partition('.')[2]}")
        facts = [one.facts for one in own]
        summed = {name: sum(fact[name] for fact in facts) for name in ("long", "records")}
        largest = {name: max(fact[name] for fact in facts) for name in ("longest", "highest_id")}
        whole = {**facts[0], **summed, **largest}
        writer.add_key_value_metadata({FACTS: json.dumps(whole), NUMBERS: json.dumps([place[0] for place in places])})
    if (persons := own[0].path.with_suffix(".people")).exists():
        _link(persons, joined.path.with_suffix(".people"))
    return joined


def _made(records: Records) -> dict[int, list[Path]]:
    """What was made of each piece: of a hundred million records, a folder of so many files that it is listed once."""
    found = defaultdict(list)
    for path in records.path.with_suffix("").iterdir():
        found[int(path.name.partition(".")[0])].append(path)
    return found


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
