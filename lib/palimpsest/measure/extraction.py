"""Verbatim extraction, decided for every prefix length by arithmetic on the score table: nothing is decoded.

Greedy decoding from the prompt and the first k response tokens gives the next m tokens exactly if, and only if, the model's
first choice is the true token at each of them (`hit[k : k+m]` all True): as long as it is right, it reads the true text.
Decoding is meant to go on to the last token of the target, past any end-of-text inside it.

k counts response tokens given besides the prompt (k = 0: the prompt alone). The last token of a response, end-of-text, counts.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure.scoring import flatten
from palimpsest.measure.statistics import wilson

READINGS = ("window", "whole", "carlini")


# ---------------------------------------------------------------- verbatim


def verbatim(table: pd.DataFrame, k: int = 0, m: int | None = None, *, full_window: bool = False) -> pd.Series:
    """Whether greedy decoding from prompt + k response tokens gives the next m exactly, for each record.

    The target is response tokens k to min(k + m, length): where fewer than m are left, those; with `m=None`, all that are left.

    Args:
        table: a score table.
        full_window: leave out records with fewer than m tokens left.

    Returns:
        Nullable booleans `[records]`, indexed by id; missing where there is no target (no more than k response tokens).
    """
    start, end, eligible = _window(table, k, m, full_window)
    misses = _cumulative_misses(table)
    return pd.Series(misses[end] == misses[start], index=_ids(table), dtype="boolean").where(eligible, pd.NA)


def reading(table: pd.DataFrame, name: str, window: int = 50) -> pd.Series:
    """One of three readings of "token window k = 50" (arXiv 2506.16170 leaves it open), as `verbatim` returns it.

    `window` (the headline): the first min(50, length) response tokens from the prompt. `whole`: the whole response from the
    prompt. `carlini`: tokens 50 to 100 from the prompt and the first 50, only for responses of at least 100 tokens (after
    Carlini et al., arXiv 2202.07646).
    """
    if name == "window":
        return verbatim(table, 0, window)
    if name == "whole":
        return verbatim(table)
    if name == "carlini":
        return verbatim(table, window, window, full_window=True)
    raise InputError(f"unknown reading {name!r}; wanted one of {', '.join(READINGS)}")


def verbatim_at_every_prefix(table: pd.DataFrame, m: int | None = None) -> np.ndarray:
    """Verbatim for every record and every k at once: flat booleans `[tokens]`, as in `flatten`; a token's place is k."""
    _, starts = flatten(table, "hit")
    ends = np.repeat(starts[1:], table["length"])
    here = np.arange(len(ends))
    misses = _cumulative_misses(table)
    return misses[ends if m is None else np.minimum(here + m, ends)] == misses[here]


def verbatim_by_prefix(table: pd.DataFrame, m: int | None = None, *, full_window: bool = False) -> pd.DataFrame:
    """Verbatim rate for every k from 0 to the longest response.

    Returns:
        `k, rate, count, total, low, high` (95 % Wilson). `total` falls with k: only records longer than k (with
        `full_window`: than k + m - 1) have a target there.
    """
    lengths = table["length"].to_numpy()
    k = np.arange(lengths.sum()) - np.repeat(flatten(table, "hit")[1][:-1], lengths)
    eligible = k + (m or 1) <= np.repeat(lengths, lengths) if full_window else np.ones(len(k), dtype=bool)
    count = np.bincount(k[eligible & verbatim_at_every_prefix(table, m)], minlength=k.max(initial=-1) + 1)
    total = np.bincount(k[eligible], minlength=len(count))
    points = pd.DataFrame({"k": np.arange(len(count)), "rate": 0.0, "count": count, "total": total})[total > 0]
    points["rate"] = points["count"] / points["total"]
    points["low"], points["high"] = wilson(points["count"], points["total"])
    return points.reset_index(drop=True)


def secrets(table: pd.DataFrame, examples: Sequence[Example]) -> pd.DataFrame:
    """What is recited of the secrets, one row per secret: per unbroken stretch of secret tokens.

    Args:
        table: a score table.
        examples: the scored examples, in any order (more are allowed).

    Returns:
        `id`, `k` (response tokens before the secret), `tokens` (its length), `recited` (the headline: greedy decoding from the
        prompt and the true text before the secret gives the secret exactly), `from_prompt` (the stricter: greedy decoding from
        the prompt alone gives everything up to the end of the secret exactly).

    Raises:
        InputError: a record of the table has no example, or one of another length.
    """
    flags = {e.id: e.secret for e in examples}
    for name, length in zip(table["id"], table["length"], strict=True):
        if len(flags.get(name, ())) != length:
            raise InputError(
                f"record {name} has {length} scored tokens and {len(flags.get(name, ()))} secret flags: give the examples that"
                " were scored, encoded with their secrets"
            )
    _, starts = flatten(table, "hit")
    secret = np.concatenate([np.asarray(flags[name], dtype=bool) for name in table["id"]] or [np.zeros(0, dtype=bool)])
    opens = np.zeros(len(secret) + 1, dtype=bool)  # a record's first token never continues the record before it
    opens[starts] = True
    begin = np.flatnonzero(secret & (opens[:-1] | ~np.concatenate([[False], secret[:-1]])))
    end = np.flatnonzero(secret & (opens[1:] | ~np.concatenate([secret[1:], [False]]))) + 1
    record = np.searchsorted(starts, begin, side="right") - 1
    misses = _cumulative_misses(table)
    return pd.DataFrame(
        {
            "id": table["id"].to_numpy()[record],
            "k": begin - starts[record],
            "tokens": end - begin,
            "recited": misses[end] == misses[begin],
            "from_prompt": misses[end] == misses[starts[record]],
        }
    )


# ---------------------------------------------------------------- how much of a response


def longest_span(table: pd.DataFrame) -> pd.DataFrame:
    """The longest run of response tokens that greedy decoding gives once it has the text before.

    Returns:
        Indexed by id: `tokens` (length of the run, 0 if every token is missed) and `start` (response tokens before it, the
        first of equally long ones; -1 if there is none).
    """
    hits, starts = flatten(table, "hit")
    here = np.arange(len(hits))
    broken = np.where(hits.astype(bool), 0, here + 1)
    opens = np.repeat(starts[:-1], table["length"])
    run = here + 1 - np.maximum(np.maximum.accumulate(broken), opens)
    tokens = _per_record(np.maximum, run, starts, empty=0)
    last = np.flatnonzero(run == np.repeat(tokens, table["length"]))
    first = np.append(last, 0)[np.searchsorted(last, starts[:-1])]
    start = np.where(tokens > 0, first - starts[:-1] - tokens + 1, -1)
    return pd.DataFrame({"tokens": tokens, "start": start}, index=_ids(table))


def strength(table: pd.DataFrame) -> pd.Series:
    """Share of the response that greedy decoding gives exactly, to its end, from the shortest prefix that does so.

    1: from the prompt alone. 0: the last token is missed, whatever is given (Carlini et al. 2021, arXiv 2012.07805, in the form of Wang et al., arXiv 2406.09179, with floor 0).
    NaN for a record without response tokens. Indexed by id.
    """
    hits, starts = flatten(table, "hit")
    k = np.arange(len(hits)) - np.repeat(starts[:-1], table["length"])
    needed = _per_record(np.maximum, np.where(hits.astype(bool), 0, k + 1), starts, empty=0)  # k after the last miss
    lengths = table["length"].to_numpy()
    return pd.Series(
        1 - np.divide(needed, lengths, out=np.full(len(table), np.nan), where=lengths > 0), index=_ids(table)
    )


def near_ties(table: pd.DataFrame, k: int = 0, m: int | None = None, *, tolerance: float = 1e-3) -> pd.Series:
    """Tokens of the target whose two top logits are less than `tolerance` apart, for each record: verdicts rounding may flip.

    1e-3 is far above fp32's rounding; bf16 logits around 16 are 0.125 apart. Missing where `verbatim` is; indexed by id.
    """
    start, end, eligible = _window(table, k, m)
    close = np.concatenate([[0], np.cumsum(flatten(table, "margin")[0] < tolerance)])
    return pd.Series(close[end] - close[start], index=_ids(table), dtype="Int64").where(eligible, pd.NA)


# ---------------------------------------------------------------- sampled instead of greedy


def log_probability(table: pd.DataFrame, k: int = 0, m: int | None = None, *, column: str = "logprob") -> pd.Series:
    """Log-probability (nats) that one sampled continuation of prompt + k tokens is the target of `verbatim`.

    `column` names the way of sampling: `logprob` for plain sampling, `logprob_<name>` for a setting the table was scored with
    (-inf: that setting never gives the target). NaN where `verbatim` is missing; indexed by id.
    """
    if column not in table:
        raise InputError(f"the score table has no column {column}: score with that sampling setting")
    start, end, eligible = _window(table, k, m)
    values = np.append(flatten(table, column)[0].astype(np.float64), 0.0)
    pairs = np.stack([start, end], 1).ravel()
    sums = np.add.reduceat(values, pairs)[::2] if len(pairs) else np.zeros(0)
    return pd.Series(np.where(eligible, sums, np.nan), index=_ids(table))


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


def left_truncated_examples(examples: Sequence[Example], target_start: int, k: int, m: int = 50) -> list[Example]:
    """Examples for a fixed target, m response tokens from `target_start` on, with only the k tokens before it given.

    The design in which Carlini et al. (arXiv 2202.07646) vary the context. Nothing follows from one pass here: the context
    changes what every token sees, so each k is scored anew; a record is extracted if `verbatim(table)` of that. The k tokens
    may reach back into the prompt, and a start-of-text token is cut off too.

    Args:
        target_start: response tokens before the target; negative: counted from the response's end, as in a slice.

    Returns:
        One example for each that has k tokens before the target and all m tokens of it; the others are left out.
    """
    if min(k, m) < 1:
        raise InputError(f"k={k}, m={m}; wanted a context and a target of at least 1 token each")
    out = []
    for e in examples:
        first = target_start if target_start >= 0 else len(e.input_ids) - e.prompt_length + target_start
        at = e.prompt_length + first
        if first >= 0 and at >= k and at + m <= len(e.input_ids):
            out.append(Example(e.id, e.input_ids[at - k : at + m], k, e.secret[first : first + m]))
    return out


# ---------------------------------------------------------------- flat arrays


def _ids(table: pd.DataFrame) -> pd.Index:
    return pd.Index(table["id"], name="id")


def _cumulative_misses(table: pd.DataFrame) -> np.ndarray:
    """Missed tokens before each place `[tokens + 1]`."""
    return np.concatenate([[0], np.cumsum(~flatten(table, "hit")[0].astype(bool))])


def _window(table: pd.DataFrame, k: int, m: int | None, full_window: bool = False) -> tuple[np.ndarray, ...]:
    """Flat start and end of each record's target, and whether it has one."""
    if k < 0 or (m is not None and m < 1):
        raise InputError(f"k={k}, m={m}; wanted a prefix of k >= 0 tokens and a target of m >= 1")
    lengths = table["length"].to_numpy()
    ends = np.cumsum(lengths)
    start = ends - lengths + np.minimum(k, lengths)
    end = ends if m is None else np.minimum(start + m, ends)
    return start, end, (lengths >= k + m if full_window and m else lengths > k)


def _per_record(function: np.ufunc, values: np.ndarray, starts: np.ndarray, empty: int) -> np.ndarray:
    """`function.reduce` over each record's stretch of `values`, `empty` where it has none."""
    out = np.full(len(starts) - 1, empty)
    full = starts[1:] > starts[:-1]
    if full.any():
        out[full] = function.reduceat(values, starts[:-1][full])
    return out
