"""The records of an audit, on disk: cleaned once, tokenized once, and from then on read a few thousand at a time."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from palimpsest.audit.inputs import guess_columns
from palimpsest.data import sources
from palimpsest.data.examples import Example
from palimpsest.data.masking import mask
from palimpsest.data.records import TEXTS, encode, not_text, record_ids, refuse_missing
from palimpsest.errors import InputError
from palimpsest.study.runs import locate

SHOWN = 5  # records named in a message
FACTS = b"palimpsest"  # key in the Parquet schema


@dataclass(frozen=True)
class Reading:
    """What was read of a file or hub data set: its records that hold text, in the Parquet file `path`, in their order.

    Attributes:
        facts: what is reported of it.
        first: for each row of `path`, whether it is the first of its record; the others repeat one.
        copies: for each row, how often its record stands there; 0 for repetitions.
    """

    path: Path
    facts: dict[str, Any]
    first: np.ndarray
    copies: np.ndarray

    @property
    def measured(self) -> str:
        """The column that is measured."""
        return self.facts["measured"]

    def frames(self) -> Iterator[pd.DataFrame]:
        """The records, each once, with `copies`, some thousand at a time."""
        start = 0
        for frame in _groups(self.path):
            here = slice(start, start + len(frame))
            yield frame.assign(copies=self.copies[here])[self.first[here]].reset_index(drop=True)
            start += len(frame)


def read(source, given: Mapping[str, str], limit: int | None, empty: str, path: Path) -> Reading:
    """Read the records of a file or hub id into the Parquet file `path`, leaving out those without text.

    Of a record, eight bytes stay in memory: its hash, by which repetitions are found.

    Returns:
        The reading, with the facts `source`, `sha256`, `columns`, `measured`, `read`, `empty`, `duplicates`.

    Raises:
        InputError: whatever `sources.chunks` and `guess_columns` refuse; entries that are no text; records without text
            where `empty` is "refuse".
    """
    names = sources.column_names(source, limit)
    if not names:
        raise InputError(f"{source} holds no records")
    columns = guess_columns(names, dict(given), source)
    if missing := [theirs for theirs in columns.values() if theirs not in names]:
        raise InputError(f"{source} has no column {missing[0]!r}; it has {', '.join(names)}")
    wanted = [c for c in columns if c != "context"]
    texts = ["text"] if "text" in columns else list(TEXTS)
    schema = pa.schema([("id", pa.string()), ("row", pa.int64()), *((name, pa.string()) for name in texts)])
    bad: dict[str, list[int]] = {name: [] for name in wanted}
    blank: list[int] = []
    hashes, total = [np.zeros(0, np.uint64)], 0
    with pq.ParquetWriter(path, schema) as writer:
        for frame in sources.chunks(source, limit):
            total += len(frame)
            # Only the columns asked for: another one of the file may bear one of our names.
            frame = frame.set_axis(map(str, frame.columns), axis=1).reindex(columns=list(columns.values()))
            frame = frame.set_axis(list(columns), axis=1).astype(object)
            frame = frame.where(frame.notna(), "") if empty == "skip" else frame
            if "text" not in columns:
                given_ = frame["context"] if "context" in columns else [""] * len(frame)
                frame["context"] = [v if isinstance(v, str) else "" for v in given_]
            for name in wanted:
                bad[name] += list(frame.index[not_text(frame[name])])
            if any(bad.values()):
                continue
            without = (frame[wanted].apply(lambda column: column.str.strip()) == "").any(axis=1)
            blank += list(frame.index[without] + 1)
            frame = frame[~without]
            if len(frame):
                frame = frame.assign(id=record_ids(frame), row=frame.index + 1)
                hashes.append(np.array([int(i, 16) for i in frame["id"]], np.uint64))
                writer.write_table(pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False))
    for name in wanted:
        refuse_missing(bad[name], name, source)
    if blank and empty == "refuse":
        raise InputError(
            f"{source}: {len(blank)} of {total} records have an empty {' or '.join(wanted)} (record "
            f"{', '.join(map(str, blank[:SHOWN]))}{', ...' if len(blank) > SHOWN else ''}): mend them, or leave them out "
            "with --empty skip"
        )
    if len(blank) == total:
        raise InputError(f"{source}: every one of the {total} records is empty; nothing to measure")
    keys = np.concatenate(hashes)
    _, where, times = np.unique(keys, return_index=True, return_counts=True)
    first, copies = np.zeros(len(keys), bool), np.zeros(len(keys), np.int32)
    first[where], copies[where] = True, times
    facts = {
        "source": str(source),
        "sha256": _digest(source, keys[first]),
        "columns": columns,
        "measured": "response" if "response" in columns else "text",
        "read": total,
        "empty": len(blank),
        "duplicates": int(len(keys) - len(where)),
    }
    return Reading(path, facts, first, copies)


def _digest(source, keys: np.ndarray) -> str:
    """SHA-256 of the file, or of the records' hashes where the source is no file."""
    path = locate(source)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(keys.tobytes()).hexdigest()


def refuse_overlap(members: Reading, others: Reading, show_secrets: bool) -> None:
    """Refuse records that stand in both files, also when they differ in case or white space only.

    Raises:
        InputError: how many, and the first few with their rows and (masked) text.
    """
    mine, theirs = (np.concatenate([_plain_hashes(f) for f in side.frames()]) for side in (members, others))
    shared = np.isin(mine, theirs)
    if not shared.any():
        return
    shown = np.flatnonzero(shared)[:SHOWN]
    beside = [int(np.flatnonzero(theirs == mine[i])[0]) for i in shown]
    one = pick(members.path, np.flatnonzero(members.first)[shown])
    other = pick(others.path, np.flatnonzero(others.first)[np.unique(beside)])
    row = dict(zip(np.unique(beside), other["row"], strict=True))
    lines = [
        f"  - row {r} of the members = row {row[b]} of the non-members: {text[:80] if show_secrets else mask(text)}"
        for r, b, text in zip(one["row"], beside, one[members.measured], strict=True)
    ]
    raise InputError(
        f"members and non-members share {shared.sum()} record(s), so neither side can be trusted; take them out of "
        "one file:\n" + "\n".join(lines)
    )


def _plain_hashes(frame: pd.DataFrame) -> np.ndarray:
    names = [c for c in (*TEXTS, "text") if c in frame]
    joined = ("\x1f".join(row).casefold() for row in frame[names].itertuples(index=False))
    return pd.util.hash_array(np.array([" ".join(text.split()) for text in joined], object), categorize=False)


@dataclass(frozen=True)
class Records:
    """The records that are measured, in the Parquet file `path`: `id`, `row`, `copies`, texts, `input_ids`, `prompt_length`."""

    path: Path

    @property
    def facts(self) -> dict[str, Any]:
        """`long`, `longest`, `handled`, `records` (see `tokenize`)."""
        return json.loads(pq.ParquetFile(self.path).metadata.metadata[FACTS])

    def frames(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """These columns, some thousand records at a time."""
        return _groups(self.path, list(columns))

    def texts(self) -> list[str]:
        """The columns of text, prompt first."""
        return [name for name in pq.read_schema(self.path).names if name in (*TEXTS, "text")]

    def examples(self) -> Iterator[Example]:
        """The tokenized records."""
        for frame in self.frames(["id", "input_ids", "prompt_length"]):
            for name, ids, prompt in zip(*(frame[c] for c in frame), strict=True):
                yield Example(name, ids.tolist(), prompt, [False] * (len(ids) - prompt))


def tokenize(reading: Reading, tokenizer, form, context: int, long: str, path: Path) -> Records:
    """Write the records of a reading with their tokens to `path`, unless they are there; settle those longer than the context.

    Returns:
        The records, with the facts `long` (how many exceed the context), `longest` (tokens), `handled` and `records`.

    Raises:
        InputError: long records where `long` is "refuse"; a record of which no token can be measured.
    """
    if path.exists():
        return Records(path)
    source, unfinished, writer = reading.facts["source"], path.with_suffix(".unfinished"), None
    total = kept = over = longest = 0
    short, worst = [], ""
    for frame in reading.frames():
        examples = encode(frame, tokenizer, form)
        lengths = np.array([len(e.input_ids) for e in examples])
        prompts = np.array([e.prompt_length for e in examples], np.int32)
        short += [e.id for e, n, p in zip(examples, lengths, prompts, strict=True) if p == 0 or n <= p]
        total, over = total + len(frame), over + int((lengths > context).sum())
        if lengths.max(initial=0) > longest:
            longest, worst = int(lengths.max()), frame["id"].iloc[lengths.argmax()]
        if long == "skip":
            stay = lengths <= context
            frame, prompts, lengths = frame[stay], prompts[stay], lengths[stay]
            examples = [e for e, s in zip(examples, stay, strict=True) if s]
        table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
        ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        ids = np.array([t for e in examples for t in e.input_ids], np.int32)
        table = table.append_column("input_ids", pa.ListArray.from_arrays(pa.array(ends), pa.array(ids)))
        table = table.append_column("prompt_length", pa.array(prompts))
        writer = writer or pq.ParquetWriter(unfinished, table.schema)
        if len(table):
            writer.write_table(table.cast(writer.schema))
        kept += len(frame)
    if short:
        raise InputError(
            f"{source}: {len(short)} record(s) leave no token to measure after the first (record {short[0]}): "
            "a text needs two tokens at least, and a response needs a prompt before it"
        )
    if over and long == "refuse":
        raise InputError(
            f"{source}: {over} of {total} records are longer than the model's context of {context} tokens (the longest, "
            f"record {worst}, has {longest}): measure them in windows with --long window, or leave them out with --long skip"
        )
    if not kept:
        raise InputError(
            f"{source}: every record is longer than the model's context of {context} tokens; use --long window"
        )
    writer.add_key_value_metadata(
        {FACTS: json.dumps({"long": over, "longest": longest, "handled": long, "records": kept})}
    )
    writer.close()
    unfinished.replace(path)
    return Records(path)


class Rows:
    """Tables put end to end, of which any number of rows is taken at a time."""

    def __init__(self, frames: Iterable[pd.DataFrame]):
        self._frames, self._rest = iter(frames), pd.DataFrame()

    def take(self, count: int) -> pd.DataFrame:
        """The next `count` rows, indexed from 0."""
        parts = [self._rest] if len(self._rest) else []
        while sum(map(len, parts)) < count:
            parts.append(next(self._frames))
        rows = pd.concat(parts, ignore_index=True) if len(parts) > 1 else parts[0] if parts else self._rest
        self._rest = rows.iloc[count:]
        return rows.iloc[:count].reset_index(drop=True)


def pick(path: Path, places: np.ndarray, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows at `places` (rising, from 0) of a Parquet file; no other row group is read."""
    file, start, parts = pq.ParquetFile(path), 0, []
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        here = places[(places >= start) & (places < end)] - start
        if len(here) or not (parts or group + 1 < file.num_row_groups):
            parts.append(file.read_row_group(group, columns=columns).take(here).to_pandas())
        start = end
    return pd.concat(parts, ignore_index=True)


def sample(total: int, most: int) -> np.ndarray:
    """At most `most` of `total` places, rising, drawn at random once and for all (seed 0)."""
    return np.sort(np.random.default_rng(0).choice(total, min(most, total), replace=False))


def _groups(path: Path, columns: list[str] | None = None) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=columns).to_pandas()
