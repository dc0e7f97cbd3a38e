"""What a model is good for: ROUGE of its answers to held-out prompts, and how fast it writes them."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from rouge_score.rouge_scorer import RougeScorer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.data.examples import Example, ends_of
from palimpsest.measure.generation import generate
from palimpsest.measure.models import context_length
from palimpsest.measure.near_verbatim import in_rouge_script

ROUGE = ("rouge1", "rouge2", "rougeL")
SLACK = 1.5  # a text may run half as long again as the longest reference before it is stopped


def generate_and_compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    references: Sequence[str],
) -> tuple[pd.DataFrame, dict]:
    """Decode every prompt greedily and compare with the reference.

    Returns:
        A frame with `id`, `text`, `tokens` and ROUGE-1/2/L F-measures (Lin 2004), one row per example; and the seconds and
        new tokens per second of the decoding.
    """
    limit = int(SLACK * max(len(e.response_ids) for e in examples))
    room = context_length(model)
    began = time.perf_counter()
    written = generate(
        model,
        tokenizer,
        [e.input_ids[: e.prompt_length] for e in examples],
        max_new_tokens=[max(1, min(limit, room - e.prompt_length)) for e in examples],
        ends=ends_of(examples, tokenizer.eos_token_id),
    )
    seconds = time.perf_counter() - began
    texts = tokenizer.batch_decode(written, skip_special_tokens=True)
    scores = rouge(texts, references)
    frame = pd.DataFrame(
        {"id": [e.id for e in examples], "text": texts, "tokens": [len(t) for t in written], **scores}
    )
    tokens = int(frame["tokens"].sum())
    return frame, {"decode_seconds": round(seconds, 3), "decode_tokens_per_second": round(tokens / seconds, 1)}


def rouge(texts: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """ROUGE-1, ROUGE-2 and ROUGE-L F-measures of each text against its reference, in [0, 1]; NaN where its tokenizer, which
    keeps the letters a-z and digits, drops most letters of the reference: a perfect answer would have 0."""
    scorer = RougeScorer(list(ROUGE), use_stemmer=False)
    rows = [
        scorer.score(reference, text) if in_rouge_script(reference) else None
        for text, reference in zip(texts, references, strict=True)
    ]
    return {name: [np.nan if row is None else row[name].fmeasure for row in rows] for name in ROUGE}
