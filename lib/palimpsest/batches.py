"""From records to token batches: one encoding and one padding rule for training, scoring and generation."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

IGNORED = -100  # the label PyTorch's losses skip


@dataclass
class Example:
    """One tokenized record.

    Attributes:
        id: the record's stable id.
        input_ids: prompt tokens, then response tokens; the response ends with the end-of-text token.
        prompt_length: number of leading tokens that are given; tokens from here on are labelled.
        secret: one flag per response token, True where the token overlaps a secret's characters.
    """

    id: str
    input_ids: list[int]
    prompt_length: int
    secret: list[bool] = field(default_factory=list)

    @property
    def response_ids(self) -> list[int]:
        """The labelled tokens, end-of-text included."""
        return self.input_ids[self.prompt_length :]


def collate(examples: list[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad on the right and state every position.

    Masks come from lengths, not from token ids: with GPT-2's usual pad = end-of-text, an id comparison would also mask
    the real end-of-text. Positions are explicit because models with learned positions read them from the padding otherwise.

    Returns:
        `input_ids`, `attention_mask`, `position_ids`, `labels` of shape `[batch, longest]`; `lengths` and
        `prompt_lengths` of shape `[batch]`.
    """
    lengths = torch.tensor([len(e.input_ids) for e in examples])
    prompts = torch.tensor([e.prompt_length for e in examples])
    steps = torch.arange(int(lengths.max()))[None, :]
    real = steps < lengths[:, None]
    ids = torch.full(real.shape, pad_id)
    ids[real] = torch.tensor([t for e in examples for t in e.input_ids])
    return {
        "input_ids": ids,
        "attention_mask": real.long(),
        "position_ids": torch.where(real, steps, 0),
        "labels": torch.where(real & (steps >= prompts[:, None]), ids, IGNORED),
        "lengths": lengths,
        "prompt_lengths": prompts,
    }


@dataclass
class Collator:
    """`collate` for a trainer, whose data set rows are dictionaries with the fields of `Example`."""

    pad_id: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return collate([Example(r["id"], r["input_ids"], r["prompt_length"]) for r in rows], self.pad_id)


def by_length(examples: list[Example], token_budget: int) -> Iterator[list[int]]:
    """Yield index lists, longest first, whose padded size (rows x longest) stays within `token_budget` tokens.

    A single example longer than the budget is yielded alone. Longest first, so that a batch too big for memory shows at once.
    """
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].input_ids), reverse=True)
    start = 0
    while start < len(order):
        rows = max(1, token_budget // max(1, len(examples[order[start]].input_ids)))
        yield order[start : start + rows]
        start += rows
