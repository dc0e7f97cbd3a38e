"""What an audit is given: which columns are what, how a prompt is laid out, and the cleaned records of each file."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from palimpsest.data import sources
from palimpsest.data.masking import mask
from palimpsest.data.records import TEXTS, Template, not_text, record_ids, refuse_missing, template
from palimpsest.errors import InputError
from palimpsest.measure.score_file import pick, row_groups
from palimpsest.study.files import locate

SHOWN = 5  # records named in a message
GUESSES = {  # our column -> names it goes by elsewhere, the likeliest first
    "instruction": ("instruction", "prompt", "question", "query", "problem", "source"),
    "context": ("context", "input", "passage"),
    "response": ("response", "output", "answer", "completion", "target", "reply", "solution"),
    "text": ("text", "content", "body", "document", "story", "article"),
}
AS_IT_STANDS = Template(with_context="{instruction}\n{context}", without_context="{instruction}")


def guess_columns(names: list[str], given: dict[str, str], source) -> dict[str, str]:
    """Which column of `source` is which of ours: `given` ones as they are, the rest guessed from their names.

    Prompt and response win over text where a file has both.

    Raises:
        InputError: neither a prompt with a response nor a text is recognized.
    """
    lower = {name.lower(): name for name in reversed(names)}
    taken = set(given.values())
    found = dict(given)
    for ours, known in GUESSES.items():
        match = next((lower[k] for k in known if k in lower and lower[k] not in taken), None)
        if ours not in found and match:
            found[ours] = match
            taken.add(match)
    if "text" in given and {"instruction", "response"} & set(given):
        raise InputError("give either --text-column or --prompt-column with --response-column, not both")
    if "text" not in given and {"instruction", "response"} <= set(found):
        return {k: v for k, v in found.items() if k != "text"}
    if "text" in found and not {"instruction", "response", "context"} & set(given):
        return {"text": found["text"]}
    raise InputError(
        f"{source} has the columns {', '.join(names)}: which of them are prompt and response, or text, cannot be told "
        "from their names. Map them: --prompt-column and --response-column (--context-column), or --text-column"
    )


def choose_template(name: str, columns: dict[str, str]) -> tuple[str, Template | None]:
    """The prompt template and its name; None for plain text.

    "auto" takes the Alpaca layout where the prompt column is called instruction, and the prompt as it stands elsewhere.

    Raises:
        InputError: an unknown name, or a file without the two layouts.
    """
    if "text" in columns:
        return "none (plain text)", None
    if name == "auto":
        name = "alpaca" if columns["instruction"].lower() == "instruction" else "none"
    if name == "none":
        return "none (the prompt as it stands)", AS_IT_STANDS
    if Path(name).suffix not in (".yaml", ".yml"):
        return name, template(name)
    try:
        layouts = yaml.safe_load(locate(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"template file {name} cannot be read: {error}") from None
    if not isinstance(layouts, dict) or not all(isinstance(text, str) for text in layouts.values()):
        raise InputError(f"template file {name}: wanted the keys with_context and without_context, each with a text")
    return name, template(layouts)


# ---------------------------------------------------------------- records


@dataclass(frozen=True)
class Reading:
    """What was read of a file or hub data set: its records that hold text, in the Parquet file `path`, in their order.

    Attributes:
        facts: what is reported of it.
        copies: for each row of `path`, how often its record stands there; 0 where it repeats an earlier one.
    """

    path: Path
    facts: dict[str, Any]
    copies: np.ndarray

    def frames(self) -> Iterator[pd.DataFrame]:
        """The records, each once, with `copies`, some thousand at a time."""
        start = 0
        for frame in (table.to_pandas() for table in row_groups(self.path)):
            frame["copies"] = self.copies[start : start + len(frame)]
            start += len(frame)
            if (frame["copies"] > 0).any():
                yield frame[frame["copies"] > 0].reset_index(drop=True)


def read(
    source, given: Mapping[str, str], limit: int | None, empty: str, path: Path, person: str | None = None
) -> Reading:
    """Read the records of a file or hub id into the Parquet file `path`, leaving out those without text.

    Of a record, eight bytes stay in memory: its hash, by which repetitions are found. What the column `person` says, if the
    source has one of that name, is kept beside each record.

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
    columns |= {"person": person} if person in names else {}
    texts = ["text"] if "text" in columns else list(TEXTS)
    kept = [*texts, *(["person"] if "person" in columns else [])]
    schema = pa.schema([("id", pa.string()), ("row", pa.int64()), *((name, pa.string()) for name in kept)])
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
            if "person" in columns:
                frame["person"] = [name_of_person(value) for value in frame["person"]]
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
    copies = np.zeros(len(keys), np.int32)
    copies[where] = times
    facts = {
        "source": str(source),
        "sha256": _digest(source, keys[copies > 0]),
        "columns": columns,
        "measured": "response" if "response" in columns else "text",
        "read": total,
        "empty": len(blank),
        "duplicates": int(len(keys) - len(where)),
    }
    return Reading(path, facts, copies)


def name_of_person(value: Any) -> str:
    """A customer's number or name as text: 17 and 17.0 are one person, and nothing is nobody."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


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
    one = pick(members.path, np.flatnonzero(members.copies)[shown])
    other = pick(others.path, np.flatnonzero(others.copies)[np.unique(beside)])
    row = dict(zip(np.unique(beside), other["row"], strict=True))
    lines = [
        f"  - row {r} of the members = row {row[b]} of the non-members: {text[:80] if show_secrets else mask(text)}"
        for r, b, text in zip(one["row"], beside, one[members.facts["measured"]], strict=True)
    ]
    raise InputError(
        f"members and non-members share {shared.sum()} record(s), so neither side can be trusted; take them out of "
        "one file:\n" + "\n".join(lines)
    )


def _plain_hashes(frame: pd.DataFrame) -> np.ndarray:
    names = [c for c in (*TEXTS, "text") if c in frame]
    joined = ("\x1f".join(row).casefold() for row in frame[names].itertuples(index=False))
    return pd.util.hash_array(np.array([" ".join(text.split()) for text in joined], object), categorize=False)
