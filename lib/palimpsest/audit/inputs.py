"""What an audit is given: which columns are what, how a prompt is laid out, and the cleaned records of each file."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from palimpsest.audit.settings import Settings
from palimpsest.data.chat import Chat
from palimpsest.data.masking import mask
from palimpsest.data.reading import TEXTS, first_of, read_frames
from palimpsest.data.recognizers import apart, find_secrets
from palimpsest.data.records import TEMPLATES, Template, marked_spans, record_ids, template
from palimpsest.errors import InputError
from palimpsest.measure.score_file import pick, row_groups
from palimpsest.study.files import file_digest, locate

SHOWN, MARKED = 5, "marked"  # records named in a message; what we call a source's column `secrets`
SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32()), ("kind", pa.string())]))
AS_IT_STANDS = Template(with_context="{instruction}\n{context}", without_context="{instruction}")


def choose_template(name: str, columns: dict[str, str]) -> tuple[str, Template | Chat | None]:
    """The prompt template and its name; None for plain text.

    "auto" takes the chat template for conversations, the Alpaca layout where the prompt column is called instruction, and the
    prompt as it stands elsewhere. A file that is no YAML is a chat template, as Jinja text.

    Raises:
        InputError: an unknown name, or a file that can't be read; another layout than a chat template for conversations.
    """
    if "text" in columns:
        return "none (plain text)", None
    path = locate(name)
    if path.is_file() and path.suffix not in (".yaml", ".yml"):
        return name, Chat(_text_of(path, name))
    if "messages" in columns:
        if name not in ("auto", "chat"):
            raise InputError(
                f"the records are conversations (column {columns['messages']}), which the template {name!r} cannot lay out: "
                "leave --template out, so that the model's own chat template does, or name a file with one, as Jinja text"
            )
        return "chat", Chat()
    if name == "auto":
        name = "alpaca" if columns["instruction"].lower() == "instruction" else "none"
    if name == "none":
        return "none (the prompt as it stands)", AS_IT_STANDS
    if path.suffix not in (".yaml", ".yml"):
        return name, template(name)
    try:
        layouts = yaml.safe_load(_text_of(path, name))
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"template file {name} cannot be read: {error}") from None
    if not isinstance(layouts, dict) or not all(isinstance(text, str) for pair in layouts.items() for text in pair):
        raise InputError(f"template file {name}: wanted the keys with_context and without_context, each with a text")
    return name, template(layouts)


def _text_of(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"template file {name} cannot be read: {error}") from None


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


def read(source, settings: Settings, path: Path) -> Reading:
    """Read the records of a source into the Parquet file `path`, leaving out those without text.

    Of a record, eight bytes stay in memory: its hash, by which repetitions are found. What the column `person` says, if the
    source has one of that name, is kept beside each record.

    Args:
        settings: `columns`, `limit`, `empty`, `turns`, `secrets` and `template` (system prompts and histories in columns of their own
            belong to the records unless it says that these are laid out otherwise than by a chat template).

    Returns:
        The reading, with the facts `source`, `sha256` (of the records' hashes where the source is no file), `columns`, `notes`,
        `measured`, `read`, `empty`, `left_out`, `duplicates`.

    Raises:
        InputError: as `reading.read_frames`; recognizers of secrets that are not installed.
    """
    seen, frames = read_frames(
        source,
        settings.columns,
        empty=settings.empty,
        last_only=settings.turns == "last",
        told_apart=settings.template not in ("none", *TEMPLATES) and not settings.template.endswith((".yaml", ".yml")),
        limit=settings.limit,
        keep={**({"person": settings.group_by} if settings.group_by else {}), MARKED: "secrets"},
    )
    if MARKED in seen.kept and not settings.marked:
        seen.notes.append("its column secrets is not read; --secrets marked counts what it marks")
        del seen.kept[MARKED]  # so the frames come without it
    kept = [*seen.texts, *(name for name in seen.kept if name != MARKED)]
    schema = pa.schema([("id", pa.string()), ("row", pa.int64()), *((name, pa.string()) for name in kept)])
    if settings.secrets:
        schema = schema.append(pa.field("secrets", SPANS))
    hashes, absent = [np.zeros(0, np.uint64)], []
    with pq.ParquetWriter(path, schema) as writer:
        for frame in frames:
            frame = frame.assign(id=record_ids(frame))
            if "person" in kept:
                frame["person"] = [name_of_person(value) for value in frame["person"]]
            if settings.secrets:
                frame["secrets"] = _secrets(frame, seen.texts[-1], settings, absent)
            hashes.append(np.array([int(i, 16) for i in frame["id"]], np.uint64))
            writer.write_table(pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False))
    if absent:
        seen.notes.append(
            f"{len(absent)} marked secrets do not stand in the text that is measured and are not counted (rows {first_of(absent)})"
        )
    keys, file = np.concatenate(hashes), locate(source)
    _, where, times = np.unique(keys, return_index=True, return_counts=True)
    copies = np.zeros(len(keys), np.int32)
    copies[where] = times
    facts = {
        "source": str(source),
        "sha256": file_digest(file) if file.is_file() else hashlib.sha256(keys[copies > 0].tobytes()).hexdigest(),
        "columns": {**seen.columns, **seen.kept},
        "notes": seen.notes,
        "measured": seen.texts[-1],
        "read": seen.total,
        "empty": seen.skipped,
        "left_out": {found: len(places) for found, places in seen.left_out.items()},
        "duplicates": int(len(keys) - len(where)),
    }
    if "messages" in seen.columns:
        facts["turns"] = settings.turns
    return Reading(path, facts, copies)


def _secrets(frame: pd.DataFrame, measured: str, settings: Settings, absent: list[int]) -> list[list[dict[str, Any]]]:
    """The secrets of each record, those that its owner marked before those found by their form; rows with marks that do not stand there
    are added to `absent`."""
    texts = list(frame[measured])
    found = find_secrets(texts, settings.regions) if "auto" in settings.secrets else [[] for _ in texts]
    if MARKED not in frame:
        return found
    # In any turn of a conversation, whose turns are records with the same marks.
    stands: dict[tuple[int, str], bool] = {}
    for i, (value, text) in enumerate(zip(frame[MARKED], texts, strict=True)):
        marks, row = marked_spans(value, text), int(frame["row"].iloc[i])
        if marks is None:
            raise InputError(
                f"row {row}: the column secrets holds {mask(str(value)[:60])!r}; wanted a text, a list of texts, or a list of {{start, end, kind}}, "
                "characters of the text that is measured"
            )
        stands |= {(row, mark): there or stands.get((row, mark), False) for mark, there in marks[1].items()}
        own = sorted(marks[0], key=lambda span: (span["start"], -span["end"]))  # of two that begin alike, the longer
        found[i] = apart([*own, *found[i]])
    absent += [row for (row, _), there in stands.items() if not there]
    return found


def name_of_person(value: Any) -> str:
    """A customer's number or name as text: 17 and 17.0 are one person, and nothing is nobody."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


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
    one, there = pick(members.path, np.flatnonzero(members.copies)[shown]), np.flatnonzero(others.copies)
    beside = [pick(others.path, there[theirs == mine[i]][:1], ["row"])["row"].item() for i in shown]
    lines = [
        f"  - row {row} of the members = row {other} of the non-members: {text[:80] if show_secrets else mask(text)}"
        for row, other, text in zip(one["row"], beside, one[members.facts["measured"]], strict=True)
    ]
    raise InputError(
        f"members and non-members share {shared.sum()} record(s), so neither side can be trusted; take them out of "
        "one file:\n" + "\n".join(lines)
    )


def _plain_hashes(frame: pd.DataFrame) -> np.ndarray:
    names = [c for c in (*TEXTS, "messages", "text") if c in frame]
    joined = ("\x1f".join(row).casefold() for row in frame[names].itertuples(index=False))
    return pd.util.hash_array(np.array([" ".join(text.split()) for text in joined], object), categorize=False)
