"""Records: read from any source, checked and named; and the templates that make prompts of them."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palimpsest.data.chat import Chat
from palimpsest.data.columns import GUESSES
from palimpsest.data.reading import read_frames, texts_of
from palimpsest.errors import InputError

SPLITS = ("public", "private", "member", "teacher_only", "non_member", "validation", "test", "twin")


def _whole(value) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_span(span, length: int) -> bool:
    ends = [span.get("start"), span.get("end")] if isinstance(span, dict) and "kind" in span else [None]
    return all(map(_whole, ends)) and 0 <= ends[0] < ends[1] <= length


def marked_spans(value: Any, text: str) -> tuple[list[dict[str, Any]], dict[str, bool]] | None:
    """What a record's owner marked in its text as secret.

    Args:
        value: one string or a list of strings, each found wherever it stands; a list of {start, end, kind}, characters of the text;
            either as JSON; or nothing.

    Returns:
        `[{start, end, kind}]`, and of each string whether it stands in the text; None if the value is none of these.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return [], {}
    marks = [value] if isinstance(value, str) else value
    if not isinstance(marks, list | tuple | np.ndarray):
        return None
    spans, there = [], {}
    for mark in marks:
        if isinstance(mark, str):
            places = [found.start() for found in re.finditer(re.escape(mark), text)] if mark else []
            there[mark] = bool(places)
            spans += [{"start": at, "end": at + len(mark), "kind": "marked secret"} for at in places]
        elif _is_span(mark, len(text)):
            spans.append({name: mark[name] for name in ("start", "end", "kind")})
        else:
            return None
    return spans, there


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
        found = ", ".join(map(str, given))
        raise InputError(f"a template needs with_context and without_context; found {found}") from None


def read_records(
    source: str | Path,
    *,
    columns: dict[str, str] | None = None,
    annotations: Sequence[str] = (),
    empty: str = "refuse",
    chat: bool = False,
    limit: int | None = None,
    revision: str | None = None,
) -> pd.DataFrame:
    """Read any source into records; of a conversation, the last response is the record.

    Args:
        source: as in `sources.chunks`: files, shards, a saved data set, a hub id such as `databricks/databricks-dolly-15k`.
        columns: our name -> the source's name; what is not mapped is guessed from the names, as in `guess_columns`.
        annotations: which of the `ANNOTATIONS` the source uses with our meaning. Any other column so called is the source's
            own business and left out.
        empty: "refuse", or "skip" records without text.
        chat: a system prompt or a history in columns of their own belong to the record.
        limit: read the first so many rows.
        revision: of a hub id: branch, tag or commit.

    Returns:
        One row per record with `id`, `row` (its place in the source) and either `instruction`, `context`, `response`, or
        `messages` (JSON) and `response`, or `text`; beside them the annotations. `attrs["empty"]` counts what was left out,
        `attrs["notes"]` says which column was taken where another may be meant too.

    Raises:
        InputError: as `reading.read_frames`; an annotation of another meaning (row named).
    """
    texts = {ours: theirs for ours, theirs in (columns or {}).items() if ours not in ANNOTATIONS}
    if unknown := [ours for ours in texts if ours not in GUESSES]:
        raise InputError(
            f"columns maps {unknown[0]!r}, which is no column of ours; wanted {', '.join((*GUESSES, *ANNOTATIONS))}"
        )
    marks = {name: (columns or {}).get(name, name) for name in ANNOTATIONS if name in {*annotations, *(columns or {})}}
    seen, frames = read_frames(
        source, texts, empty=empty, last_only=True, told_apart=chat, limit=limit, revision=revision, keep=marks
    )
    frame = pd.concat(list(frames), ignore_index=True)
    for name in marks:
        if name in frame:
            _check_annotation(frame, name, source)
        elif name in (columns or {}):
            raise InputError(f"{source} has no column {marks[name]!r} (asked for as {name})")
    frame = frame.assign(id=record_ids(frame))
    frame.attrs |= {"empty": seen.skipped, "notes": seen.notes}
    return frame


def _check_annotation(frame: pd.DataFrame, name: str, source) -> None:
    wanted, holds = ANNOTATIONS[name]
    texts = frame["response"] if "response" in frame else frame["text"]
    for number, value, text in zip(frame["row"], frame[name], texts, strict=True):
        if not holds(value, text):
            raise InputError(
                f"{source}: record {number} has {name} {value!r}; wanted {wanted}. If the column means something else, leave "
                f"{name} out of the study's data.annotations"
            )


def prompt_texts(records: pd.DataFrame) -> pd.Series:
    """What comes before each response as plain text: instruction and context, or the turns, with a line break between."""
    if "messages" in records:
        return records["messages"].map(lambda turns: "\n".join(turn["content"] for turn in json.loads(turns)))
    return records["instruction"] + "\n" + records["context"]


def record_ids(frame: pd.DataFrame) -> list[str]:
    """A stable id per record: the first 16 hex digits of SHA-256 over its text."""
    joined = ("\x1f".join(row) for row in frame[list(texts_of(frame))].itertuples(index=False))
    return [sha256(text.encode()).hexdigest()[:16] for text in joined]


def training_rows(records: pd.DataFrame, role: str) -> pd.DataFrame:
    """The rows a model is fine-tuned on, repeated as `copies` says.

    `role` is "teacher" (both halves: splits `member` and `teacher_only`) or "student" (`member` alone).
    """
    members = records[records["split"].isin(["member", "teacher_only"] if role == "teacher" else ["member"])]
    return members.loc[members.index.repeat(members["copies"])].reset_index(drop=True)
