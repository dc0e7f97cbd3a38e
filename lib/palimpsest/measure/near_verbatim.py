"""How near is the greedy continuation to the true response, when it isn't verbatim?

Nearness needs text, so it needs decoding, but not from the prompt: up to the first token a model misses, what it writes *is* the
response. Decoding starts there and stops at the response's length; a recited record costs nothing.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from rapidfuzz.distance import LCSseq, Levenshtein

from palimpsest.data.examples import Example, ends_of
from palimpsest.errors import InputError

NEAR = 0.9  # edit similarity from which a continuation counts as nearly verbatim


def continuations(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    scores: pd.DataFrame,
    *,
    token_budget: int | None = None,
    ends: Collection[int] | None = None,
) -> list[list[int]]:
    """The greedy continuation of every prompt, as long as the response at most: what decoding from the prompt gives.

    Args:
        examples: the scored examples.
        scores: this model's score table of them (`id`, `hit`), from the same weights and precision.
        ends: tokens that end a text; None: those that close the examples, and the tokenizer's end-of-text.

    Returns:
        One list of token ids per example, cut after the first end token (kept).

    Raises:
        InputError: an example is missing from `scores` or has another length there.
    """
    from palimpsest.measure.generation import (  # here alone: who reads what came of it needs no model
        generate,
        until_end,
    )

    hits = dict(zip(scores["id"], scores["hit"], strict=True))
    texts, rows, prefixes, limits = [], [], [], []
    ends = ends_of(examples, tokenizer.eos_token_id) if ends is None else ends
    for i, example in enumerate(examples):
        response, hit = example.response_ids, hits.get(example.id)
        if hit is None or len(hit) != len(response):
            raise InputError(
                f"example {example.id} has {len(response)} response tokens and "
                f"{'no row' if hit is None else f'{len(hit)}'} in the score table: score these examples with this model first"
            )
        known = first_miss(hit)
        text = until_end(response[:known], ends)
        texts.append(text)
        if known < len(response) and len(text) == known and not set(text) & set(ends):
            rows.append(i)
            prefixes.append(example.input_ids[: example.prompt_length + known])
            limits.append(len(response) - known)
    written = generate(model, tokenizer, prefixes, limits, token_budget=token_budget, ends=ends)
    for i, tokens in zip(rows, written, strict=True):
        texts[i] = texts[i] + tokens
    return texts


def near_misses(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    scores: pd.DataFrame,
    *,
    token_budget: int | None = None,
    ends: Collection[int] | None = None,
) -> pd.DataFrame:
    """Approximate memorization of every example under greedy decoding.

    Arguments and errors as in `continuations`.

    Returns:
        pd.DataFrame: One row per example: `id`, `first_miss` (response tokens before the first wrong one), `continuation` (text,
        special tokens left out), and `similarity`'s columns against the response's own tokens decoded the same way.
    """
    columns = ["id", "first_miss", "continuation", *SIMILARITIES]
    if not examples:  # a tokenizer takes no empty batch
        return pd.DataFrame({name: [] for name in columns})
    texts = continuations(model, tokenizer, examples, scores, token_budget=token_budget, ends=ends)
    written = tokenizer.batch_decode(texts, skip_special_tokens=True)
    wanted = tokenizer.batch_decode([e.response_ids for e in examples], skip_special_tokens=True)
    hits = dict(zip(scores["id"], scores["hit"], strict=True))
    rows = [
        {"id": e.id, "first_miss": first_miss(hits[e.id]), "continuation": text, **similarity(text, reference)}
        for e, text, reference in zip(examples, written, wanted, strict=True)
    ]
    return pd.DataFrame(rows, columns=columns)


SIMILARITIES = ("rouge_l", "edit_similarity", "longest_common")


def similarity(text: str, reference: str) -> dict[str, float]:
    """How alike two texts are.

    Returns:
        dict[str, float]: `rouge_l`: F-measure of the longest common subsequence of words, 0 to 1 (Lin 2004; the library's
        tokenizer keeps the letters a-z and digits, in lower case, so NaN where more than half of the reference's letters are
        others). `edit_similarity`: 1 - Levenshtein distance / length of the longer text, in characters, 0 to 1. `longest_common`:
        the longest run of characters found in both, in characters.
    """
    readable = in_rouge_script(reference)
    if text == reference:
        return {"rouge_l": 1.0 if readable else np.nan, "edit_similarity": 1.0, "longest_common": len(text)}
    return {
        "rouge_l": _rouge_l(_words()(text), _words()(reference)) if readable else np.nan,
        "edit_similarity": Levenshtein.normalized_similarity(text, reference),
        "longest_common": _longest_common(text, reference),
    }


def in_rouge_script(reference: str) -> bool:
    """Whether ROUGE's tokenizer, which knows a-z and digits only, keeps half or more of a text's letters."""
    letters = [c for c in reference.lower() if c.isalpha()]
    return 2 * sum(c.isascii() for c in letters) >= len(letters)


@cache
def _words() -> Callable[[str], list[str]]:
    """The words of a text, as `rouge_score` has them; it brings a toolkit along that takes most of a second to import."""
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=False).tokenize


def _rouge_l(words: list[str], reference: list[str]) -> float:
    """As `rouge_score` has it, with a subsequence found in compiled code: hundreds of words are compared with hundreds."""
    common = LCSseq.similarity(words, reference)
    return 2 * common / (len(words) + len(reference)) if common else 0.0


def _longest_common(text: str, reference: str) -> int:
    """Length of the longest run of characters in both: where a run of n is common, so is one of n - 1, so n is bisected.

    Faster than `difflib`, which compares every pair of equal characters; runs are kept as hashes, so long ones need no
    memory.
    """

    def not_common(n: int) -> bool:
        runs = {hash(text[i : i + n]) for i in range(len(text) - n + 1)}
        windows = (reference[i : i + n] for i in range(len(reference) - n + 1))
        return not any(hash(w) in runs and w in text for w in windows)

    return bisect_left(range(1, min(len(text), len(reference)) + 1), True, key=not_common)


def first_miss(hit: Sequence[bool]) -> int:
    """How many tokens come before the first one that greedy decoding gets wrong; all of them if none is."""
    hit = np.asarray(hit, dtype=bool)
    return len(hit) if hit.all() else int(hit.argmin())
