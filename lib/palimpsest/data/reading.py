"""One reader for audits and studies: the usable records of any source, some thousand at a time, and what was left out, and why."""

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from palimpsest.data import sources
from palimpsest.data.columns import guess_columns, passed_over
from palimpsest.data.conversations import UnreadableTurn, earlier_turns, read_turns, responses
from palimpsest.errors import InputError, type_of

TEXTS = ("instruction", "context", "response")
NAMED = 5  # records named in a message
HALF = "half of a surrogate pair, which is no character,"


@dataclass
class Seen:
    """What a reading has met.

    Attributes:
        columns: our column -> the source's; of a conversation in two columns, `messages` is the prompt's.
        notes: in words, which column was taken where another may be meant too.
        total: records so far, those left out among them.
        left_out: what could not be used and may be left out, in words -> the places.
        wrong: what can't be used at all, in words -> the places.
        kept: further columns that were asked for -> the source's, of those it has.
    """

    columns: dict[str, str]
    notes: list[str]
    total: int = 0
    left_out: dict[str, list] = field(default_factory=lambda: defaultdict(list))
    wrong: dict[str, list] = field(default_factory=lambda: defaultdict(list))
    kept: dict[str, str] = field(default_factory=dict)

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of text that its records have."""
        return texts_of(self.columns)

    @property
    def skipped(self) -> int:
        return sum(map(len, self.left_out.values()))

    def settle(self, source, empty: str) -> None:
        """Refuse what was met, once everything is read.

        Raises:
            InputError: entries that are no text; records without text where `empty` is "refuse"; no record left.
        """
        for found, places in self.wrong.items():
            raise InputError(
                f"{source}: {self._told(found, places)}: wanted text, as training had it: correct the file, or map another column"
            )
        if self.left_out and empty == "refuse":
            told = "; ".join(self._told(found, places) for found, places in self.left_out.items())
            raise InputError(
                f"{source}: {told}: correct them, or leave them out with --empty skip (in a study, data.empty_responses: drop)"
            )
        if not self.total:
            raise InputError(f"{source} holds no records")
        if self.skipped == self.total:
            raise InputError(f"{source}: not one of the {self.total} records can be used: {', '.join(self.left_out)}")

    def _told(self, found: str, places: Sequence[str]) -> str:
        return f"{found} in {len(places)} of {self.total} records (record {first_of(places)})"


def texts_of(columns: Collection[str]) -> tuple[str, ...]:
    """The columns of text that records with these columns have."""
    return next(texts for texts in (TEXTS, ("messages", "response"), ("text",)) if texts[0] in columns)


def first_of(places: Sequence) -> str:
    """The first few places, as a message names them."""
    return f"{', '.join(map(str, places[:NAMED]))}{', ...' if len(places) > NAMED else ''}"


def read_frames(
    source: str | Path,
    given: Mapping[str, str],
    *,
    empty: str = "refuse",
    last_only: bool = False,
    told_apart: bool = True,
    limit: int | None = None,
    revision: str | None = None,
    keep: Mapping[str, str] | None = None,
) -> tuple[Seen, Iterator[pd.DataFrame]]:
    """Read the records of a source.

    Args:
        source: as in `sources.chunks`.
        given: our column -> the source's, as in `guess_columns`.
        empty: "refuse" or "skip": records without text, and conversations with turns that are none.
        last_only: of a conversation, only the last response is a record; else each is one.
        told_apart: a system prompt or a history in columns of their own makes conversations of prompts and responses;
            else these columns mean nothing.
        keep: further columns of the records -> the source's, where it has them.

    Returns:
        What was met, complete when the frames are read to the end; the frames, with `row` (place in the source, from 1) and either
        `instruction`, `context`, `response`, or `messages` (the turns before, as JSON) and `response`, or `text`.

    Raises:
        InputError: whatever `sources.chunks` and `guess_columns` refuse; and, when the frames are read to the end, as `Seen.settle`.
    """
    names = sources.column_names(source, limit, revision)
    if not names:
        raise InputError(f"{source} holds no records")
    columns = guess_columns(names, dict(given), source)
    keep = {ours: theirs for ours, theirs in (keep or {}).items() if theirs in names}
    if not told_apart:
        columns = {ours: theirs for ours, theirs in columns.items() if ours not in ("system", "history")}
    seen = Seen(columns, passed_over(names, columns), kept=keep)
    frames = sources.chunks(source, limit, revision=revision)
    first = next(frames)
    shown = [value for ours in ("instruction", "response") for value in first.get(columns.get(ours), [])[:NAMED]]
    if "instruction" in columns and ({"system", "history"} & set(columns) or any(map(_is_turns, shown))):
        seen.columns = columns = {"messages": columns.pop("instruction"), **columns}
        if "context" in columns and _is_turns(next(iter(first[columns["messages"]]))):
            seen.notes.append(f"{columns.pop('context')} is not used: the prompts are turns")
    make = _conversations if "messages" in seen.columns else _texts

    def read() -> Iterator[pd.DataFrame]:
        for frame in chain([first], frames):
            used = [*seen.columns.values(), *keep.values()]
            part = make(frame.reindex(columns=list(dict.fromkeys(used))), seen, last_only)
            for ours, theirs in keep.items():
                part[ours] = frame[theirs].loc[part["row"] - 1].array if theirs in frame else None
            if len(part) and not seen.wrong:
                yield part.reset_index(drop=True)
        seen.settle(source, empty)

    return seen, read()


def _texts(frame: pd.DataFrame, seen: Seen, last_only: bool) -> pd.DataFrame:
    seen.total += len(frame)
    out, good = {"row": frame.index + 1}, np.ones(len(frame), bool)
    for ours in seen.texts:
        theirs = seen.columns.get(ours)
        values = list(frame[theirs]) if theirs else [""] * len(frame)
        for i, value in enumerate(values):
            if isinstance(value, str) and (value.isascii() or _encodes(value)):
                continue
            values[i] = ""
            if not _is_missing(value):
                found = HALF if isinstance(value, str) else type_of(value)
                seen.wrong[f"{found} as {_name(ours, theirs)}"].append(frame.index[i] + 1)
            elif ours != "context" and good[i]:
                good[i] = False
                seen.left_out[f"no {_name(ours, theirs)} ({type_of(value)})"].append(frame.index[i] + 1)
        out[ours] = values
    for i in np.flatnonzero(good):
        # A prompt may stand in the context alone.
        ours = next((n for n in seen.texts if n != "context" and not out[n][i].strip()), None)
        if ours and not (ours == "instruction" and out["context"][i].strip()):
            good[i] = False
            seen.left_out[f"an empty {_name(ours, seen.columns[ours])}"].append(frame.index[i] + 1)
    return pd.DataFrame(out)[good]


def _conversations(frame: pd.DataFrame, seen: Seen, last_only: bool) -> pd.DataFrame:
    made = []
    for row, values in zip(frame.index + 1, frame.to_dict("records"), strict=True):
        try:
            found = _responses({ours: values[theirs] for ours, theirs in seen.columns.items()}, seen, last_only)
        except UnreadableTurn as error:
            seen.total += 1
            (seen.left_out if error.usual else seen.wrong)[str(error)].append(row)
            continue
        for turn, before, response in found:
            seen.total += 1
            place = f"{row} turn {turn + 1}"
            if not response.strip():
                seen.left_out["an empty assistant turn"].append(place)
            elif all(t["role"] == "system" for t in before):
                seen.left_out["an assistant turn with no user's before it"].append(place)
            elif not all(_encodes(text) for text in (response, *(t["content"] for t in before))):
                seen.wrong[HALF].append(place)
            else:
                made.append((row, json.dumps(before, ensure_ascii=False), response))
    return pd.DataFrame(made, columns=["row", "messages", "response"])


def _responses(values: Mapping[str, Any], seen: Seen, last_only: bool) -> list[tuple]:
    """The responses of one row of a source, as `conversations.responses` gives them."""
    for ours in ("messages", "response"):
        if ours in values and _is_missing(values[ours]):
            raise UnreadableTurn(f"no {_name(ours, seen.columns[ours])} ({type_of(values[ours])})")
    first = 0
    if "response" in values:
        asked, answered = read_turns(values["messages"], "user"), read_turns(values["response"], "assistant")
        if answered and answered[0]["role"] != "assistant":
            raise UnreadableTurn(f"a response that begins with a turn of the {answered[0]['role']}", usual=False)
        context = values.get("context")
        if isinstance(values["messages"], str):
            if not (isinstance(context, str) or _is_missing(context)):
                raise UnreadableTurn(f"{type_of(context)} as {_name('context', seen.columns['context'])}", usual=False)
            asked[0]["content"] += f"\n\n{context}" if isinstance(context, str) and context else ""
        else:  # training on such files is on the response alone
            first = len(asked)
        turns = asked + answered
    else:
        turns = read_turns(values["messages"], "")
    system = None if turns and turns[0]["role"] == "system" else values.get("system")
    earlier = earlier_turns(system, values.get("history"))
    if found := list(responses(earlier + turns, first and first + len(earlier), last_only)):
        return found
    raise UnreadableTurn("no assistant turn to be measured")


def _is_turns(value: Any) -> bool:
    if isinstance(value, str):
        return re.match(r'\s*\[\s*\{\s*"(role|from|content|value)"', value) is not None
    return isinstance(value, list | np.ndarray) and len(value) > 0 and all(isinstance(turn, dict) for turn in value)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name(ours: str, theirs: str) -> str:
    return theirs if theirs.lower() == ours else f"{theirs} ({ours})"
