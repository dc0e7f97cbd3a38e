"""A batch in the form the losses need: rows of like length together, and where their labels are."""

from typing import Any

import torch

from palimpsest.data.examples import Example, by_length, collate
from palimpsest.measure.forward import labelled

# Padded tokens a batch's rows are grouped into, longest first, so that short rows are padded less: enough for the matrix
# products to run at full rate. A fifth less time for a ragged batch, for tiny models and GPT-2 alike.
PART = 768 if not torch.cuda.is_available() else 2**14


def completion_batch(
    examples: list[Example], pad_id: int, source: str = "references", part: int = PART
) -> dict[str, Any]:
    """A batch in the form the loss needs, made on the CPU so that no step waits for a device.

    Returns:
        `parts`, each with right-padded `input_ids` `[rows, longest of them]` and `at` (see `labelled`); `targets`, the labels
        in the same order, part by part; `tokens`, their number; `examples` in that order, longest first; `source`, whose
        text it is ("references" or "student").
    """
    groups = [[examples[i] for i in rows] for rows in by_length(examples, part)]
    batches = [collate(group, pad_id) for group in groups]
    places = [labelled(b["labels"]) for b in batches]
    targets = torch.cat([target for _, target in places])
    return {
        "parts": [{"input_ids": b["input_ids"], "at": at} for b, (at, _) in zip(batches, places, strict=True)],
        "targets": targets,
        "tokens": len(targets),
        "examples": [e for group in groups for e in group],
        "source": source,
    }
