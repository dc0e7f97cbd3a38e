"""From records to token batches: one encoding and one padding rule for training, scoring and generation."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

IGNORED = -100  # the label PyTorch's losses skip


@dataclass
class Example:
    """One tokenized record.

    Attributes:
        id: the record's stable id.
        input_ids: prompt tokens, then response tokens; the response ends with the end-of-text token.
        prompt_length: number of leading tokens that are given; tokens from here on are labelled.
        secret: one flag per response token, True where the token overlaps a secret's characters.
        untrained: one flag per response token, True where training leaves it out of the loss; empty: none is.
        closing: how many of the last tokens close the response and are none of its text.
    """

    id: str
    input_ids: list[int]
    prompt_length: int
    secret: list[bool] = field(default_factory=list)
    untrained: list[bool] = field(default_factory=list)
    closing: int = 0

    @property
    def response_ids(self) -> list[int]:
        """The labelled tokens, end-of-text included."""
        return self.input_ids[self.prompt_length :]


def collate(examples: list[Example], pad_id: int) -> dict[str, Any]:
    """Pad on the right and state every position.

    Masks come from lengths, not from token ids: with GPT-2's usual pad = end-of-text, an id comparison would also mask
    the real end-of-text. Positions are explicit because models with learned positions read them from the padding otherwise.

    Returns:
        `input_ids`, `attention_mask`, `position_ids`, `labels`, tensors of shape `[batch, longest]`.
    """
    import torch  # here alone: who reads records or draws a page needs none

    lengths = torch.tensor([len(e.input_ids) for e in examples])
    prompts = torch.tensor([e.prompt_length for e in examples])
    steps = torch.arange(int(lengths.max()))[None, :]
    real = steps < lengths[:, None]
    ids = torch.full(real.shape, pad_id)
    ids[real] = torch.tensor([t for e in examples for t in e.input_ids])
    labelled = real & (steps >= prompts[:, None])
    for row, example in enumerate(examples):
        if any(example.untrained):
            labelled[row, example.prompt_length : len(example.input_ids)] &= ~torch.tensor(example.untrained)
    return {
        "input_ids": ids,
        "attention_mask": real.long(),
        "position_ids": torch.where(real, steps, 0),
        "labels": torch.where(labelled, ids, IGNORED),
    }


def by_length(examples: list[Example], token_budget: int, apart: int | None = None) -> Iterator[list[int]]:
    """Yield index lists, longest first, whose padded size (rows x longest) stays within `token_budget` tokens.

    A single example longer than the budget is yielded alone. Longest first, so that a batch too big for memory shows at once.
    Examples longer than `apart` tokens share no list with others.
    """
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids), reverse=True)
    start = 0
    while start < len(order):
        rows = max(1, token_budget // max(1, len(examples[order[start]].input_ids)))
        full = order[start : start + rows]
        if apart and len(examples[full[0]].input_ids) > apart:
            full = [i for i in full if len(examples[i].input_ids) > apart]
        yield full
        start += len(full)


def ends_of(examples: Iterable[Example], end: int) -> set[int]:
    """The tokens that end a text of these records: end-of-text (`end`), and the last of what closes each response."""
    return {end, *(e.input_ids[-1] for e in examples if e.closing)}


def without_closing(examples: Iterable[Example]) -> list[Example]:
    """The examples without the tokens that close their responses: prompt and text alone."""
    out = []
    for e in examples:
        end = len(e.input_ids) - e.closing
        out.append(Example(e.id, e.input_ids[:end], e.prompt_length, e.secret[: end - e.prompt_length]))
    return out


def cut_at(example: Example, length: int) -> list[Example]:
    """The example in two where labelled tokens stand on either side of `length`, else whole.

    The first ends there; the second is the whole, with everything up to there given.
    """
    if not example.prompt_length < length < len(example.input_ids):
        return [example]
    first = replace(example, input_ids=example.input_ids[:length])
    return [first, replace(example, prompt_length=length)]


def goldfish(examples: Iterable[Example], drop_one_in: int = 4, context: int = 13) -> list[Example]:
    """The examples with one response token in `drop_one_in` left out of the loss, always the same one after the same text.

    The goldfish loss of Hans et al. (arXiv 2406.10209) with its hashed mask: whether a token is trained on is decided by a hash
    of the `context` tokens before it (fewer at the start of a text), so the same passage is masked alike wherever it recurs,
    and what was left out can't be picked up from a copy. The mask depends on no seed: all runs leave out the same tokens.
    """
    out = []
    for example in examples:
        places = range(example.prompt_length, len(example.input_ids))
        flags = [_hash(example.input_ids[max(0, i - context) : i]) < 1 / drop_one_in for i in places]
        out.append(replace(example, untrained=flags))
    return out


def _hash(tokens: list[int]) -> float:
    """Uniform in [0, 1), a function of the tokens alone."""
    digest = hashlib.blake2b(",".join(map(str, tokens)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
