"""Records: read from any source, checked and named; and the templates that make prompts of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from palimpsest.data.chat import Chat
from palimpsest.data.sources import chunks
from palimpsest.errors import InputError

TEXTS = ("instruction", "context", "response")
SPLITS = ("public", "private", "member", "teacher_only", "non_member", "validation", "test", "twin")


def _whole(value) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_span(span, length: int) -> bool:
    ends = [span.get("start"), span.get("end")] if isinstance(span, dict) and "kind" in span else [None]
    return all(map(_whole, ends)) and 0 <= ends[0] < ends[1] <= length


ANNOTATIONS = {  # name -> what is wanted in it, and whether a value is that (`text`: the record's response)
    "split": (f"one of {', '.join(SPLITS)}", lambda v, text: v in SPLITS),
    "kind": ("letter, canary or twin", lambda v, text: v in ("letter", "canary", "twin")),
    "secrets": (
        "a list of {start, end, kind}, characters of the response",
        lambda v, text: isinstance(v, list | np.ndarray) and all(_is_span(s, len(text)) for s in v),
    ),
    "copies": (
        "a whole number, times the record stands in the training text",
        lambda v, text: _whole(v) and v >= 0,
    ),
}


@dataclass(frozen=True)
class Template:
    """How a prompt is written; the response follows it directly."""

    with_context: str
    without_context: str

    def prompt(self, instruction: str, context: str) -> str:
        form = self.with_context if context else self.without_context
        return form.replace("{context}", context).replace("{instruction}", instruction)


_ALPACA_HEAD = (
    "Below is an instruction that describes a task{}. Write a response that appropriately completes the request.\n\n"
)
TEMPLATES = {
    # the wording of the Alpaca prompt, as MiniLLM's protocol uses it
    "alpaca": Template(
        _ALPACA_HEAD.format(", paired with an input that provides further context")
        + "### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n",
        _ALPACA_HEAD.format("") + "### Instruction:\n{instruction}\n\n### Response:\n",
    ),
    "plain": Template("{instruction}\n{context}\n> ", "{instruction}\n> "),
}


def template(given: str | dict[str, str]) -> Template | Chat:
    """The named template ("chat": the tokenizer's own chat template), or one written out with `with_context` and `without_context`."""
    if given == "chat":
        return Chat()
    if isinstance(given, str):
        if given not in TEMPLATES:
            raise InputError(f"unknown template {given!r}; known: {', '.join(TEMPLATES)}, chat, or write one out")
        return TEMPLATES[given]
    try:
        return Template(**given)
    except TypeError:
        raise InputError(f"a template needs with_context and without_context; found {', '.join(given)}") from None


def read_records(
    source: str | Path,
    *,
    columns: dict[str, str] | None = None,
    annotations: Sequence[str] = (),
    limit: int | None = None,
    revision: str | None = None,
) -> pd.DataFrame:
    """Read JSONL, JSON, CSV, Parquet or a hub data set into records.

    Args:
        source: a file, or a hub id such as `databricks/databricks-dolly-15k` (its `train` split).
        columns: our name -> the source's name, for `instruction`, `context`, `response`, `text`. A mapped name wins over a
            column of the source that is called the same, and mapping `text` alone makes the records plain texts.
        annotations: which of the `ANNOTATIONS` the source uses with our meaning. Any other column so called is the source's
            own business and left out.
        limit: keep the first so many rows.
        revision: of a hub id: branch, tag or commit.

    Returns:
        One row per record with `id` and either `instruction`, `context`, `response` or `text`; further columns are kept.

    Raises:
        InputError: missing file, broken JSON (line named), not UTF-8, no usable columns, a missing text or an annotation of
            another meaning (row named).
    """
    frames, wanted = list(chunks(source, limit, revision=revision)), dict(columns or {})
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    for ours, theirs in wanted.items():
        if theirs not in frame:
            raise InputError(
                f"{source} has no column {theirs!r} (asked for as {ours}); it has {', '.join(map(str, frame.columns))}"
            )
    if frame.empty:
        raise InputError(f"{source} holds no records")
    ousted = {*wanted, *(TEXTS if set(wanted) == {"text"} else ())} - set(wanted.values())
    frame = frame.drop(columns=[c for c in frame if c in ousted])
    frame = frame.rename(columns={theirs: ours for ours, theirs in wanted.items()})
    if "response" in frame or "text" not in frame:
        for name in ("instruction", "response"):
            if name not in frame:
                raise InputError(
                    f"{source} has no column {name!r}; it has {', '.join(map(str, frame.columns))}. Wanted instruction "
                    "and response (context if any), or text: map the file's names with columns"
                )
        given = frame["context"] if "context" in frame else [None] * len(frame)
        frame = frame.assign(context=[v if isinstance(v, str) else "" for v in given])
    for name in ("instruction", "response") if "response" in frame else ("text",):
        refuse_missing(frame.index[not_text(frame[name])], name, source)
    for name in [n for n in ANNOTATIONS if n in frame and n in {*annotations, *wanted}]:
        _check_annotation(frame, name, source)
    frame = frame.drop(columns=[n for n in ANNOTATIONS if n in frame and n not in {*annotations, *wanted}])
    return frame.assign(id=record_ids(frame))


def _check_annotation(frame: pd.DataFrame, name: str, source) -> None:
    wanted, holds = ANNOTATIONS[name]
    texts = frame["response"] if "response" in frame else frame["text"]
    for number, (value, text) in enumerate(zip(frame[name], texts, strict=True), 1):
        if not holds(value, text):
            raise InputError(
                f"{source}: record {number} has {name} {value!r}; wanted {wanted}. If the column means something else, leave "
                f"{name} out of the study's data.annotations"
            )


def not_text(column: pd.Series) -> pd.Series:
    """Which entries are no text: missing, a number, a list; booleans."""
    return ~column.map(lambda v: isinstance(v, str)).astype(bool)


def refuse_missing(rows: Sequence[int], name: str, source) -> None:
    """Raise `InputError` if there are `rows` (counted from 0) without a text in the column `name`."""
    if len(rows):
        raise InputError(f"{source}: record {rows[0] + 1} has no {name} ({len(rows)} such record(s))")


def record_ids(frame: pd.DataFrame) -> list[str]:
    """A stable id per record: the first 16 hex digits of SHA-256 over its text."""
    names = list(TEXTS) if "response" in frame else ["text"]
    joined = ("\x1f".join(row) for row in frame[names].itertuples(index=False))
    return [sha256(text.encode()).hexdigest()[:16] for text in joined]


def training_rows(records: pd.DataFrame, role: str) -> pd.DataFrame:
    """The rows a model is fine-tuned on, repeated as `copies` says.

    `role` is "teacher" (both halves: splits `member` and `teacher_only`) or "student" (`member` alone).
    """
    members = records[records["split"].isin(["member", "teacher_only"] if role == "teacher" else ["member"])]
    return members.loc[members.index.repeat(members["copies"])].reset_index(drop=True)
