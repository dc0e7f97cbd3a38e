"""From records to tokens: prompt and response tokenized as training did it, each start and end written once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from palimpsest.data.chat import Chat, render
from palimpsest.data.examples import Example
from palimpsest.data.records import Template
from palimpsest.errors import InputError


@dataclass(frozen=True)
class Layout:
    """How training turned a record's text into tokens, as far as the text doesn't say.

    Attributes:
        joint: prompt and response were tokenized as one string, not each by itself.
        start: the tokenizer put before it what it puts before any text (beginning-of-text, where it has one).
        end: token ids that close a response; None: what the chat template closes the turn with, else end-of-text.
    """

    joint: bool = False
    start: bool = True
    end: tuple[int, ...] | None = None


def encode(
    records: pd.DataFrame,
    tokenizer,
    form: Template | Chat | None = None,
    context_length: int | None = None,
    layout: Layout = Layout(),  # noqa: B008 - frozen
) -> list[Example]:
    """Tokenize records.

    With `layout.joint`, the token that reaches over the boundary between prompt and response belongs to the response: then no
    character of the response is given. (Where it would leave nothing to give, that record is tokenized apart.) A
    beginning-of-text that the prompt's text begins with already is not put there a second time, nor is an end that the
    response's text ends with. A plain `text` record is scored whole: its first token (the tokenizer's own beginning-of-text where
    it adds one) is given, everything after it is labelled, and nothing is appended.

    Args:
        records: `id` and `messages` (list of turns, or the same as JSON), `response`; or `instruction`, `context`, `response`
            (needs `form`; a `Chat` makes one user's turn of them); or `text`. `secrets` spans of the response if known.
        context_length: the model's limit in tokens.

    Raises:
        InputError: a record is longer than `context_length` (how many, the longest, what to do); as `chat.render`.
    """
    if not len(records):
        return []  # a tokenizer refuses no texts at all
    marked, none = "secrets" in records, [()] * len(records)  # offsets cost more than the tokens
    if "response" not in records:
        found = tokenizer(list(records["text"]), return_offsets_mapping=marked)
        places, spans = found.get("offset_mapping", none), records.get("secrets", none)
        rows = zip(records["id"], found["input_ids"], places, spans, strict=True)
        examples = [_text(*row, tokenizer) for row in rows]
    else:
        texts = _texts(records, tokenizer, form)
        parts = (
            _joint(texts, tokenizer, layout.start) if layout.joint else _apart(texts, tokenizer, layout.start, marked)
        )
        spans = _spans(records, texts) if marked else none
        examples = [
            _example(name, part, own, tokenizer, layout.end)
            for name, part, own in zip(records["id"], parts, spans, strict=True)
        ]
    if context_length:
        long = [e for e in examples if len(e.input_ids) > context_length]
        if long:
            worst = max(long, key=lambda e: len(e.input_ids))
            raise InputError(
                f"{len(long)} of {len(examples)} records are longer than the model's context of {context_length} tokens "
                f"(record {worst.id}: {len(worst.input_ids)}): drop or cut them (too_long), or take a longer-context model"
            )
    return examples


def _text(name: str, ids: list[int], places, secrets, tokenizer) -> Example:
    """A plain text: its first token is given."""
    kept = _once(ids, tokenizer)
    where = places[len(ids) - len(kept) + 1 :] if places else [(0, 0)] * (len(kept) - 1)
    flags = [any(a < s["end"] and z > s["start"] for s in secrets) for a, z in where]
    return Example(name, kept, 1, flags, closing=len(kept) - len(_without_end(kept, tokenizer)))


def as_turns(records: pd.DataFrame) -> list[list[dict]]:
    """The turns before each response: of conversations their own, of instructions one user's turn."""
    if "messages" in records:
        return [json.loads(m) if isinstance(m, str) else list(m) for m in records["messages"]]
    asked = [f"{i}\n\n{c}" if c else i for i, c in zip(records["instruction"], records["context"], strict=True)]
    return [[{"role": "user", "content": text}] for text in asked]


def _texts(records: pd.DataFrame, tokenizer, form) -> list[tuple[str, str, str]]:
    """Prompt, response and closing of every record, as texts."""
    if "messages" in records or isinstance(form, Chat):
        jinja = form.template if isinstance(form, Chat) else None
        return [render(tokenizer, t, r, jinja) for t, r in zip(as_turns(records), records["response"], strict=True)]
    prompts = [form.prompt(i, c) for i, c in zip(records["instruction"], records["context"], strict=True)]
    return [(prompt, response, "") for prompt, response in zip(prompts, records["response"], strict=True)]


def _spans(records: pd.DataFrame, texts: Sequence[tuple[str, str, str]]) -> list[list[tuple[int, int]]]:
    """The secrets of each record, in characters of its response as it is written (a template may have stripped it)."""
    out = []
    for own, raw, (_, written, _) in zip(records["secrets"], records["response"], texts, strict=True):
        cut = max(0, raw.find(written))
        out.append([(s["start"] - cut, s["end"] - cut) for s in own])
    return out


# One record's tokens: prompt, response, closing, and the characters of the response that each token of it covers.
_Parts = tuple[list[int], list[int], list[int], Sequence[tuple[int, int]]]


def _apart(texts: Sequence[tuple[str, str, str]], tokenizer, start: bool, marked: bool) -> list[_Parts]:
    prompts, responses, closings = (list(part) for part in zip(*texts, strict=True))
    heads = tokenizer(prompts, add_special_tokens=start)["input_ids"]
    bodies = tokenizer(responses, add_special_tokens=False, return_offsets_mapping=marked)
    known = {text: tokenizer(text, add_special_tokens=False)["input_ids"] if text else [] for text in set(closings)}
    offsets = bodies["offset_mapping"] if marked else [[(0, 0)] * len(b) for b in bodies["input_ids"]]
    rows = zip(heads, bodies["input_ids"], closings, offsets, strict=True)
    return [(_without_end(head, tokenizer), body, known[closing], where) for head, body, closing, where in rows]


def _joint(texts: Sequence[tuple[str, str, str]], tokenizer, start: bool) -> list[_Parts]:
    whole = tokenizer([p + r + c for p, r, c in texts], add_special_tokens=start, return_offsets_mapping=True)
    out = []
    for number, (prompt, response, _) in enumerate(texts):
        ids, places = _without_end(whole["input_ids"][number], tokenizer), whole["offset_mapping"][number]
        own, after = len(prompt), len(prompt) + len(response)
        first = next((i for i in range(len(ids)) if places[i][1] > own), len(ids))
        last = next((i for i in range(first, len(ids)) if places[i][0] >= after), len(ids))
        where = [(a - own, z - own) for a, z in places[first:last]]
        out.append((ids[:first], ids[first:last], ids[last:], where))
    lost = [number for number, part in enumerate(out) if not part[0]]
    if lost:  # one token for the prompt's end and all before it
        for number, part in zip(lost, _apart([texts[i] for i in lost], tokenizer, start, True), strict=True):
            out[number] = part
    return out


def _example(name: str, part: _Parts, secrets, tokenizer, end: tuple[int, ...] | None) -> Example:
    head, body, closing, where = part
    close = list(end) if end is not None else _first_end(closing, tokenizer) or [tokenizer.eos_token_id]
    flags = [any(a < z_ and z > a_ for a_, z_ in secrets) for a, z in where]
    written = len(close) if body[-len(close) :] == close else 0  # the text ends with it already
    head = _once(head, tokenizer)
    ids = head + body + close[: len(close) - written]
    flags += [False] * (len(ids) - len(head) - len(flags))
    return Example(name, ids, len(head), flags, closing=len(close))


def _first_end(closing: list[int], tokenizer) -> list[int]:
    """The tokens of a closing up to the first that is none of ordinary text: there a model stops. White space closes nothing."""
    added = tokenizer.added_tokens_decoder
    for i, token in enumerate(closing):
        if token in added:
            return closing[: i + 1]
    return closing if tokenizer.decode(closing).strip() else []


def _without_end(ids: list[int], tokenizer) -> list[int]:
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids  # some tokenizers close every text


def _once(ids: list[int], tokenizer) -> list[int]:
    """Beginning-of-text once, where the text begins with it and the tokenizer adds one."""
    begin = tokenizer.bos_token_id
    return ids[1:] if begin is not None and ids[:2] == [begin, begin] else ids
