"""Verbatim extraction, decided for every prefix length by arithmetic on the score table: nothing is decoded.

Greedy decoding from the prompt and the first k response tokens gives the next m tokens exactly if, and only if, the model's
first choice is the true token at each of them (`hit[k : k+m]` all True): as long as it is right, it reads the true text.
Decoding is meant to go on to the last token of the target, past any end-of-text inside it.

k counts response tokens given besides the prompt (k = 0: the prompt alone). The last token of a response, end-of-text, counts.
A model that never learned to stop misses it in every record, so `without_end` leaves it out of everything here.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure.score_file import flatten, reduce_records
from palimpsest.measure.statistics import wilson

TARGETS = ("window", "whole", "next_window")
SAMPLES = (1, 10, 100, 1_000)  # n of (n, p)-discoverable extraction
PROBABILITY = 0.5  # its p


def without_end(scores: pd.DataFrame, closing: Sequence[int]) -> pd.DataFrame:
    """The score table of the responses' text alone.

    Args:
        closing: of each row, how many of its last tokens close the response (`Example.closing`).
    """
    cut = np.minimum(np.asarray(closing), scores["length"])
    lists = {
        name: [values[: len(values) - n] for values, n in zip(scores[name], cut, strict=True)]
        for name in scores.columns.drop(["id", "prompt_length", "length"], errors="ignore")
    }
    return scores.assign(length=(scores["length"] - cut).astype(scores["length"].dtype), **lists)


# ---------------------------------------------------------------- verbatim


def verbatim(
    scores: pd.DataFrame, given: int = 0, tokens: int | None = None, *, full_window: bool = False
) -> pd.Series:
    """Whether greedy decoding from the prompt and `given` response tokens gives the next `tokens` exactly, for each record.

    Where fewer are left, the target is those; with `tokens=None`, all that are left.

    Args:
        scores: a score table.
        full_window: leave out records with fewer than `tokens` left.

    Returns:
        Nullable booleans `[records]`, indexed by id; missing where there is no target (no more than `given` response tokens).
    """
    start, end, eligible = _window(scores, given, tokens, full_window)
    misses = _cumulative_misses(scores)
    return pd.Series(misses[end] == misses[start], index=scores["id"], dtype="boolean").where(eligible, pd.NA)


def verbatim_target(scores: pd.DataFrame, target: str, window: int = 50) -> pd.Series:
    """One of three readings of "token window k = 50" (arXiv 2506.16170 leaves it open), as `verbatim` returns it.

    `window` (the headline): the first min(50, length) response tokens from the prompt. `whole`: the whole response from the
    prompt. `next_window`: tokens 50 to 100 from the prompt and the first 50, only for responses of at least 100 tokens (after
    Carlini et al., arXiv 2202.07646). The fourth target, `secret`, is `secrets`.
    """
    if target not in TARGETS:
        raise InputError(f"unknown target {target!r}; wanted one of {', '.join(TARGETS)}")
    given = window if target == "next_window" else 0
    return verbatim(scores, given, None if target == "whole" else window, full_window=target == "next_window")


def verbatim_at_every_prefix(scores: pd.DataFrame, tokens: int | None = None) -> np.ndarray:
    """`verbatim` for every record and every prefix at once: flat booleans `[tokens]`; a token's place is its prefix length."""
    _, starts = flatten(scores, "hit")
    ends = np.repeat(starts[1:], np.diff(starts))
    here = np.arange(len(ends))
    misses = _cumulative_misses(scores)
    return misses[ends if tokens is None else np.minimum(here + tokens, ends)] == misses[here]


def verbatim_by_prefix(scores: pd.DataFrame, tokens: int | None = None) -> pd.DataFrame:
    """Verbatim rate for every number k of response tokens given, from 0 to the longest response.

    Returns:
        pd.DataFrame: `k, rate, count, total, low, high` (95 % Wilson). `total` falls with k: only records longer than k have a
        target there.
    """
    k = _places(flatten(scores, "hit")[1])
    total = np.bincount(k)
    count = np.bincount(k[verbatim_at_every_prefix(scores, tokens)], minlength=len(total))
    low, high = wilson(count, total)
    rates = {"rate": count / total, "count": count, "total": total, "low": low, "high": high}
    return pd.DataFrame({"k": np.arange(len(total)), **rates})


def secrets(scores: pd.DataFrame, examples: Sequence[Example]) -> pd.DataFrame:
    """What is recited of the secrets, one row per secret: per unbroken stretch of secret tokens.

    Args:
        scores: a score table.
        examples: the scored examples, in any order (more are allowed).

    Returns:
        pd.DataFrame: `id`, `k` (response tokens before the secret), `tokens` (its length), `recited` (the headline: greedy
        decoding from the prompt and the true text before the secret gives the secret exactly), `from_prompt` (the stricter: greedy
        decoding from the prompt alone gives everything up to the end of the secret exactly).

    Raises:
        InputError: a record of `scores` has no example, or one of another length.
    """
    secret, starts = secret_flags(scores, examples)
    opens = np.zeros(len(secret) + 1, dtype=bool)  # a record's first token never continues the record before it
    opens[starts] = True
    begin = np.flatnonzero(secret & (opens[:-1] | ~np.concatenate([[False], secret[:-1]])))
    end = np.flatnonzero(secret & (opens[1:] | ~np.concatenate([secret[1:], [False]]))) + 1
    record = np.searchsorted(starts, begin, side="right") - 1
    misses = _cumulative_misses(scores)
    return pd.DataFrame(
        {
            "id": scores["id"].to_numpy()[record],
            "k": begin - starts[record],
            "tokens": end - begin,
            "recited": misses[end] == misses[begin],
            "from_prompt": misses[end] == misses[starts[record]],
        }
    )


def secret_flags(scores: pd.DataFrame, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each scored token is part of a secret, flat as in `flatten`, and where each record starts; errors as `secrets`."""
    flags, starts = {e.id: e.secret for e in examples}, flatten(scores, "hit")[1]
    for name, length in zip(scores["id"], np.diff(starts), strict=True):
        if len(flags.get(name, ())) != length:
            raise InputError(
                f"record {name} has {length} scored tokens and "
                f"{f'{len(flags[name])} secret flags' if name in flags else 'no example'}: give the examples that were scored, "
                "encoded with their secrets"
            )
    parts = [np.asarray(flags[name], dtype=bool) for name in scores["id"]]
    return np.concatenate([np.zeros(0, dtype=bool), *parts]), starts


# ---------------------------------------------------------------- how much of a response


def longest_span(scores: pd.DataFrame) -> pd.DataFrame:
    """The longest run of response tokens that greedy decoding gives once it has the text before.

    Returns:
        pd.DataFrame: Indexed by id: `tokens` (length of the run, 0 if every token is missed) and `start` (response tokens before
        it, the first of equally long ones; -1 if there is none).
    """
    hits, starts = flatten(scores, "hit")
    here = np.arange(len(hits))
    broken = np.where(hits.astype(bool), 0, here + 1)
    run = here + 1 - np.maximum(np.maximum.accumulate(broken), here - _places(starts))
    tokens = reduce_records(np.maximum, run, starts)
    last = np.flatnonzero(run == np.repeat(tokens, np.diff(starts)))
    first = np.append(last, 0)[np.searchsorted(last, starts[:-1])]
    start = np.where(tokens > 0, first - starts[:-1] - tokens + 1, -1)
    return pd.DataFrame({"tokens": tokens, "start": start}, index=scores["id"])


def strength(scores: pd.DataFrame) -> pd.Series:
    """Share of the response that greedy decoding gives exactly, to its end, from the shortest prefix that does so.

    1: from the prompt alone. 0: the last token is missed, whatever is given (Carlini et al. 2021, arXiv 2012.07805, in the form of Wang et al., arXiv 2406.09179, with floor 0).
    NaN for a record without response tokens. Indexed by id.
    """
    hits, starts = flatten(scores, "hit")
    after_miss = np.where(hits.astype(bool), 0, _places(starts) + 1)
    needed = reduce_records(np.maximum, after_miss, starts)
    lengths = np.diff(starts)
    share = np.divide(needed, lengths, out=np.full(len(scores), np.nan), where=lengths > 0)
    return pd.Series(1 - share, index=scores["id"])


def near_ties(
    scores: pd.DataFrame, given: int = 0, tokens: int | None = None, *, tolerance: float = 1e-3
) -> pd.Series:
    """Tokens of the target whose two top logits are less than `tolerance` apart, for each record: verdicts rounding may flip.

    1e-3 is far above fp32's rounding; bf16 logits around 16 are 0.125 apart. Missing where `verbatim` is; indexed by id.
    """
    start, end, eligible = _window(scores, given, tokens)
    close = np.concatenate([[0], np.cumsum(flatten(scores, "margin")[0] < tolerance)])
    return pd.Series(close[end] - close[start], index=scores["id"], dtype="Int64").where(eligible, pd.NA)


# ---------------------------------------------------------------- sampled instead of greedy


def log_probability(
    scores: pd.DataFrame, given: int = 0, tokens: int | None = None, *, column: str = "logprob"
) -> pd.Series:
    """Log-probability (nats) that one sampled continuation of the prompt and `given` tokens is the target of `verbatim`.

    `column` names the way of sampling: `logprob` for plain sampling, `logprob_<name>` for a setting the table was scored with
    (-inf: that setting never gives the target). NaN where `verbatim` is missing; indexed by id.
    """
    if column not in scores:
        raise InputError(f"the score table has no column {column}: score with that sampling setting")
    start, end, eligible = _window(scores, given, tokens)
    ends = np.stack([start, np.where(eligible, end, start)], 1).ravel()  # every second stretch is a target
    values = flatten(scores, column)[0].astype(np.float64)
    sums = reduce_records(np.add, values, np.append(ends, len(values)))[::2]
    return pd.Series(np.where(eligible, sums, np.nan), index=scores["id"])


def probability_in(log_probability: pd.Series | np.ndarray, n: float) -> pd.Series | np.ndarray:
    """Probability that at least one of `n` samples is the target: 1 - (1 - q)^n, exact for the tiniest q = exp(log_probability).

    (n, p)-discoverable extraction asks whether this is at least p (Hayes et al., arXiv 2410.19482).
    """
    return -np.expm1(n * _log_of_missing(log_probability))


def samples_needed(log_probability: pd.Series | np.ndarray, p: float = 0.5) -> pd.Series | np.ndarray:
    """The fewest samples of which at least one is the target with probability `p`; inf where no number of them is enough.

    ln(1 - p) / ln(1 - q), at least 1, not rounded above 2^53.
    """
    if not 0 < p < 1:
        raise InputError(f"p is {p}; wanted a probability above 0 and below 1")
    with np.errstate(divide="ignore"):
        return np.maximum(1, np.ceil(np.log1p(-p) / _log_of_missing(log_probability)))


def _log_of_missing(log_probability):
    """ln(1 - exp(log_probability)): by expm1 near 0 and log1p far from it, where each keeps its digits."""
    with np.errstate(divide="ignore"):
        near, far = np.log(-np.expm1(log_probability)), np.log1p(-np.exp(log_probability))
    chosen = np.where(np.asarray(log_probability) > -np.log(2), near, far)
    return pd.Series(chosen, index=log_probability.index) if isinstance(log_probability, pd.Series) else chosen


# ---------------------------------------------------------------- the other design


def left_truncated_examples(examples: Sequence[Example], k: int, m: int) -> list[Example]:
    """Examples for a fixed target, the last m response tokens, with only the k tokens before it given.

    The design in which Carlini et al. (arXiv 2202.07646) vary the context. Nothing follows from one pass here: the context
    changes what every token sees, so each k is scored anew; a record is extracted if `verbatim(scores)` of that. The k tokens
    may reach back into the prompt, and a start-of-text token is cut off too.

    Returns:
        One example for each that has m response tokens and k tokens before them; the others are left out.
    """
    if min(k, m) < 1:
        raise InputError(f"k={k}, m={m}; wanted a context and a target of at least 1 token each")
    return [
        Example(e.id, e.input_ids[-m - k :], k, e.secret[-m:])
        for e in examples
        if len(e.input_ids) - m >= max(k, e.prompt_length)
    ]


# ---------------------------------------------------------------- flat arrays


def _places(starts: np.ndarray) -> np.ndarray:
    """The place of each token in its record `[tokens]`."""
    return np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))


def _cumulative_misses(scores: pd.DataFrame) -> np.ndarray:
    """Missed tokens before each place `[tokens + 1]`."""
    return np.concatenate([[0], np.cumsum(~flatten(scores, "hit")[0].astype(bool))])


def _window(scores: pd.DataFrame, given: int, tokens: int | None, full_window: bool = False) -> tuple[np.ndarray, ...]:
    """Flat start and end of each record's target, and whether it has one."""
    if given < 0 or (tokens is not None and tokens < 1):
        raise InputError(
            f"given={given}, tokens={tokens}; wanted a prefix of 0 tokens or more and a target of at least 1"
        )
    lengths = scores["length"].to_numpy()
    ends = np.cumsum(lengths)
    start = ends - lengths + np.minimum(given, lengths)
    end = ends if tokens is None else np.minimum(start + tokens, ends)
    return start, end, (lengths >= given + tokens if full_window and tokens else lengths > given)
