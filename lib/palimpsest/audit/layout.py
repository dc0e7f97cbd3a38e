"""How training tokenized the records: told, or found by scoring a sample in every way that makes a difference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from palimpsest.audit.inputs import Reading
from palimpsest.audit.settings import Settings
from palimpsest.data.chat import Chat, end_of_turn
from palimpsest.data.encoding import Layout, encode
from palimpsest.data.examples import Example
from palimpsest.data.masking import mask
from palimpsest.measure.ends import end_tokens
from palimpsest.measure.extraction import without_end
from palimpsest.measure.scoring import score

SAMPLE = 200  # most records that are tokenized in every way
FIRST = 8  # tokens of a record that are shown


def find_layout(
    model, tokenizer, members: Reading, form, context: int, settings: Settings
) -> tuple[Callable[[pd.DataFrame], list[Example]], dict[str, Any]]:
    """The records' encoding for this audit, and what the summary says of it: as `choose_layout`, `first_tokens` and `ends`."""
    ends = end_tokens(model, tokenizer, form.template if isinstance(form, Chat) else None, settings.end_token)
    some, options = sampled(members), {"token_budget": settings.batch_tokens}
    layout, said = choose_layout(model, tokenizer, some, form, settings.tokenize, ends, context, **options)
    encoded = partial(encode, tokenizer=tokenizer, form=form, layout=layout)
    said["first_tokens"] = first_tokens(encoded(some.head(1))[0], tokenizer, settings.show_secrets)
    said["ends"] = [{"id": i, "token": tokenizer.decode([i]), "from": where} for i, where in ends.items()]
    return encoded, said


def sampled(reading: Reading) -> pd.DataFrame:
    """At most `SAMPLE` records of the first piece of a reading, evenly spaced."""
    frame = next(reading.frames())
    places = np.linspace(0, len(frame) - 1, min(SAMPLE, len(frame))).astype(int)
    return frame.iloc[places].reset_index(drop=True)


def choose_layout(
    model, tokenizer, records: pd.DataFrame, form, asked: str, ends: Mapping[int, str], context: int, **options: Any
) -> tuple[Layout, dict[str, Any]]:
    """The layout of the records, and what is said of it.

    "auto" takes, of the ways in which the sample's tokens differ, the one under which the model's loss per character of the
    response is lowest: jointly or apart; of conversations also with and without the tokenizer's own beginning-of-text. The
    end that closes a response is, where the chat template doesn't write it, the one of `ends` that the model expects most.

    Args:
        records: a sample of the records.
        asked: "auto", "joint" or "apart".
        ends: end tokens; one "as given" closes every response.
        context: longer records are left out.
        options: for `score`.

    Returns:
        The layout and `{"tokenize", "asked", "sample", "differ", "loss_per_character", "end_token", "first_tokens"}`;
        `differ`: records of the sample that the ways tokenize differently, `loss_per_character` (nats) by way.
    """
    given = tuple(token for token, where in ends.items() if where.startswith("as given"))
    layout = Layout(joint=asked == "joint", end=given or None)
    said: dict[str, Any] = {"tokenize": "joint" if layout.joint else "apart", "asked": asked, "sample": len(records)}
    if "response" not in records:
        said |= {"tokenize": "whole texts", "differ": 0, "loss_per_character": {}, "end_token": None}
        return layout, said
    ways, chats = [layout], "messages" in records or isinstance(form, Chat)
    if asked == "auto":
        starts = (True, False) if chats else (True,)
        ways = [replace(layout, joint=joint, start=start) for joint, start in product((False, True), starts)]
    tried: dict[str, tuple[Layout, list[Example]]] = {}
    for way in ways:
        examples = encode(records, tokenizer, form, layout=way)
        tokens = [(e.prompt_length, e.input_ids) for e in examples]
        if tokens not in [[(e.prompt_length, e.input_ids) for e in other] for _, other in tried.values()]:
            tried[_name(way)] = way, examples
    each = list(zip(*([e.input_ids for e in examples] for _, examples in tried.values()), strict=True))
    said["differ"] = sum(any(ids != of_record[0] for ids in of_record) for of_record in each)
    losses = {}
    if len(tried) > 1:
        usable = [all(1 <= len(ids) <= context for ids in of_record) for of_record in each]
        texts = records["response"].str.len()[usable].sum()
        for name, (_, examples) in tried.items():
            kept = [e for e, fits in zip(examples, usable, strict=True) if fits and e.prompt_length]
            losses[name] = _nats(model, kept, **options) / max(1, texts) if kept else 0.0
    best = min(losses, key=losses.get) if losses else next(iter(tried))
    layout = tried[best][0]
    jinja = form.template if isinstance(form, Chat) else None
    if not given and not (chats and end_of_turn(tokenizer, jinja)):
        layout = replace(layout, end=_expected_end(model, tried[best][1], ends, context, **options))
    closed = encode(records.head(1), tokenizer, form, layout=layout)[0]
    end = closed.input_ids[len(closed.input_ids) - closed.closing :]
    said |= {"tokenize": best, "loss_per_character": losses, "end_token": tokenizer.decode(end)}
    return layout, said


def first_tokens(example: Example, tokenizer, show: bool) -> dict[str, list]:
    """The first token ids of a record and their texts; tokens of ordinary text are masked unless `show`."""
    ids = example.input_ids[:FIRST]
    known = [show or token in tokenizer.added_tokens_decoder for token in ids]
    texts = [tokenizer.decode([token]) for token in ids]
    return {
        "ids": [token if shown else None for token, shown in zip(ids, known, strict=True)],
        "texts": [text if shown else mask(text) for text, shown in zip(texts, known, strict=True)],
    }


def say_layout(said: Mapping[str, Any]) -> list[str]:
    """How the records were tokenized, what was tried, and with which ends."""
    ends = ", ".join(f"{end['token']} ({end['from']})" for end in said["ends"])
    lines = [f"a text ends with {ends}; {said['end_token'] or 'nothing'} closes each record"]
    if said["loss_per_character"]:
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in said["loss_per_character"].items())
        lines.append(
            f"tokenized {said['tokenize']}: of {said['sample']} records looked at, {said['differ']} differ by the way, and the "
            f"model knows them best so (nats per character: {losses})"
        )
    return lines


def facts_of_tokens(said: Mapping[str, Any]) -> dict[str, str]:
    """How records became tokens, for the report: the way, the ends, and how one record begins."""
    first, ends = said["first_tokens"], said["ends"]
    pairs = zip(first["ids"], first["texts"], strict=True)
    return {
        "tokenized": f"{said['tokenize']} ({said['asked']}; {said['differ']} of {said['sample']} records looked at differ by the way)",
        "end tokens": ", ".join(f"{end['token']} = {end['id']} ({end['from']})" for end in ends),
        "a response is closed by": said["end_token"] or "nothing",
        "a record begins": ", ".join(text if number is None else f"{text} = {number}" for number, text in pairs),
    }


def _name(layout: Layout) -> str:
    return ("joint" if layout.joint else "apart") + ("" if layout.start else ", without beginning-of-text")


def _nats(model, examples: Sequence[Example], **options: Any) -> float:
    """Surprise at the text of the responses, their end left out."""
    table = without_end(score(model, examples, **options), [e.closing for e in examples])
    return -float(sum(values.sum() for values in table["logprob"]))


def _expected_end(model, examples: Sequence[Example], ends: Mapping[int, str], context: int, **options: Any) -> tuple:
    """Of the end tokens, the one that the model expects most after these responses."""
    fitting = [e for e in examples if e.prompt_length and len(e.input_ids) <= context]
    mean = dict.fromkeys(ends, 0.0)
    for end in ends if len(ends) > 1 and fitting else ():
        closed = [replace(e, input_ids=[*e.input_ids[: len(e.input_ids) - e.closing], end]) for e in fitting]
        mean[end] = np.mean([values[-1] for values in score(model, closed, **options)["logprob"]])
    return (max(mean, key=mean.get),)
