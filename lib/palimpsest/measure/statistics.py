"""Intervals and paired tests. Seeds are the outer level of every bootstrap, records the inner one."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata, t
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

RESAMPLES = 2000  # of a bootstrap


def rate(verdicts: Sequence[bool]) -> dict[str, float]:
    """`rate_of` of one verdict per record; missing ones are left out."""
    values = pd.Series(verdicts).dropna()
    return rate_of(int(values.sum()), len(values))


def rate_of(count: int, total: int) -> dict[str, float]:
    """A share with its 95 % Wilson interval: `rate`, `count`, `total`, `low`, `high`; of nothing, rate and interval are NaN."""
    return _share(count, total, *wilson(count, total))


def clopper_pearson(count: int, total: int) -> dict[str, float]:
    """As `rate_of` with the exact (Clopper-Pearson) 95 % interval, which never covers too little: for rates near 0 and 1."""
    return _share(count, total, *(proportion_confint(count, total, method="beta") if total else (np.nan, np.nan)))


def _share(count: int, total: int, low: float, high: float) -> dict[str, float]:
    rate = count / total if total else np.nan
    return {"rate": rate, "count": count, "total": total, "low": float(low), "high": float(high)}


def wilson(count: int | np.ndarray, total: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the 95 % Wilson score interval, for one share or for arrays of them; NaN of nothing.

    Of no record the lower bound is 0, of every record the upper is 1: exactly, not to rounding.
    """
    count, total = np.asarray(count, dtype=float), np.asarray(total, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = proportion_confint(count, total, method="wilson")
    low, high = np.where(count > 0, low, 0.0), np.where(count < total, high, 1.0)
    return np.where(total > 0, low, np.nan), np.where(total > 0, high, np.nan)


def over_seeds(rates: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Shares with the seeds of each group `by` together: `by`, and `rate`, `count`, `total`, `low`, `high` of the mean seed.

    The interval is Wilson's for one seed's number of records: several seeds look at the same records, so they narrow nothing
    that is said about other records.
    """
    mean = rates.groupby(list(by), sort=False, dropna=False)[["count", "total"]].mean().reset_index()
    low, high = wilson(mean["count"], mean["total"])
    return mean.assign(rate=mean["count"] / mean["total"], low=low, high=high)


def newcombe(count: int, total: int, other_count: int, other_total: int) -> tuple[float, float]:
    """Newcombe's 95 % interval of the first share minus the second, of independent samples; (NaN, NaN) if one is of nothing."""
    if not (total and other_total):
        return np.nan, np.nan
    found = confint_proportions_2indep(count, total, other_count, other_total, method="newcomb", compare="diff")
    return tuple(map(float, found))


def compare_verdicts(one: Sequence[bool], other: Sequence[bool]) -> dict[str, float]:
    """Two models' verdicts on the same records: the one comparison of two models, exact however small the counts.

    Returns:
        dict[str, float]: `one`, `other` (rates), `difference` (one minus other) with `low`, `high` (95 %: Newcombe's for pairs,
        method 10 of Statistics in Medicine 17, 1998, which needs no large counts), `p` (exact McNemar test, two-sided; 1 if they
        never differ), `only_one` and `only_other` (records on which just that model says True), `total`; of no record the rates
        are NaN.

    Raises:
        ValueError: different numbers of records.
    """
    a, b = np.asarray(one, dtype=bool), np.asarray(other, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(
            f"{len(a)} and {len(b)} verdicts; wanted one of each model for the same records, in the same order"
        )
    n, both, x, y = len(a), int((a & b).sum()), int(a.sum()), int(b.sum())
    one_not, other_not, neither = x - both, y - both, n - x - y + both
    test = mcnemar([[both, one_not], [other_not, neither]], exact=True)
    found = {"p": float(test.pvalue), "only_one": one_not, "only_other": other_not}
    if not n:
        return {**dict.fromkeys(("one", "other", "difference", "low", "high"), np.nan), **found, "total": 0}
    agreement = both * neither - one_not * other_not
    agreement = max(agreement - n / 2, 0) if agreement > 0 else agreement
    spread = np.sqrt(float(x) * (n - x) * y * (n - y))
    phi, p, q = (agreement / spread if spread else 0.0), x / n, y / n
    (p_low, q_low), (p_high, q_high) = wilson(np.array([x, y]), n)

    def reach(first: float, second: float) -> float:
        return float(np.sqrt(max(first**2 - 2 * phi * first * second + second**2, 0.0)))

    low, high = p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)
    return {"one": p, "other": q, "difference": p - q, "low": low, "high": high, **found, "total": n}


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values of a family of questions, corrected so that the chance of any false answer stays below the level (Holm 1979)."""
    # Not by statsmodels: its `multipletests` collects all garbage at every call, half a second each in a study.
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    out = np.empty(len(p))
    out[order] = np.minimum(np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))), 1.0)
    return out


def bootstrap_means(values: np.ndarray) -> np.ndarray:
    """Means `[RESAMPLES]` of `values` `[seeds, records]` over seeds drawn with replacement and, within each draw, records.

    All seeds of a resample share its draw of records, as they were scored on the same ones. The same shape gives the same draws,
    so differences between two calls are paired. With one seed, records alone are resampled.
    """
    values = np.atleast_2d(np.asarray(values, dtype=float))
    seeds, times = _draws(*values.shape)
    # Summed in this order, the published tables come out to the last digit.
    sums = np.take_along_axis(np.asarray(times, dtype=float, order="F") @ values.T, seeds, 1)
    return sums.mean(1) / values.shape[1]


@lru_cache(maxsize=8)  # hundreds of rates of a study are over the same number of records
def _draws(seeds: int, records: int) -> tuple[np.ndarray, np.ndarray]:
    """Seeds drawn `[RESAMPLES, seeds]`, and how often each record is `[RESAMPLES, records]`."""
    rng = np.random.default_rng(0)
    drawn, times = np.empty((RESAMPLES, seeds), int), np.empty((RESAMPLES, records), np.int16)
    for i in range(RESAMPLES):
        drawn[i] = rng.integers(seeds, size=seeds)
        times[i] = np.bincount(rng.integers(records, size=records), minlength=records)
    return drawn, times


def bootstrap(values: np.ndarray) -> dict[str, float]:
    """Mean of `values` `[seeds, records]` or `[records]` with the 95 % percentile interval of `bootstrap_means`."""
    low, high = np.quantile(bootstrap_means(values), [0.025, 0.975])
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}


def auc(positives: Sequence[float], negatives: Sequence[float], few: bool = False) -> dict[str, float]:
    """Area under the ROC curve with DeLong's 95 % interval (midranks: Sun & Xu, IEEE Signal Processing Letters 21, 2014).

    The interval is made on the logit scale, so that it stays between 0 and 1, with Student's t where `few` of a kind make the
    normal distribution too narrow; with all positives above all negatives, or the reverse, there is no variance to go by and
    the bound on that side's count is used: the exact interval of no error in as many pairs as the smaller group has members.

    Returns:
        `rate` (the AUC, ties counted half), `low`, `high`, `error` (its standard error).

    Raises:
        ValueError: fewer than two of either.
    """
    x, y = np.asarray(positives, dtype=float), np.asarray(negatives, dtype=float)
    m, n = len(x), len(y)
    if min(m, n) < 2:
        raise ValueError(f"{m} positives and {n} negatives; an interval needs at least two of each")
    ranks = rankdata(np.concatenate([x, y]))
    above = (ranks[:m] - rankdata(x)) / n  # share of negatives below each positive
    below = 1 - (ranks[m:] - rankdata(y)) / m  # share of positives above each negative
    area = above.mean()
    error = float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))
    if 0 < area < 1:
        reach = (t.ppf(0.975, min(m, n) - 1) if few else norm.ppf(0.975)) * error / (area * (1 - area))
        odds = np.log(area / (1 - area)) + np.array([-reach, reach])
        low, high = 1 / (1 + np.exp(-odds))
    else:
        low, high = proportion_confint(round(area * min(m, n)), min(m, n), method="beta")
    return {"rate": float(area), "low": float(low), "high": float(high), "error": error}


# ---------------------------------------------------------------- shares as text


def interval(rate: float, low: float, high: float) -> str:
    """ "27.6 % (23.1 to 32.6)", or "not measurable" where there is nothing to count."""
    return "not measurable" if pd.isna(rate) else f"{100 * rate:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def say_copies(count: int) -> str:
    """A number of copies in words."""
    return f"{count} cop{'y' if count == 1 else 'ies'}"


def say_samples(number: float | None) -> str:
    """A number of samples in words; beyond a billion only that, and what no number of samples gives is "never"."""
    if number is None or not np.isfinite(number):
        return "never"
    if number < 1e6:
        return f"{int(number):,}"
    return f"{number / 1e6:.3g} million" if number < 1e9 else "more than a billion"


def percent(row) -> str:
    """A rate with its count and interval, as running text: "27.6 % (n = 337; 95 % interval 23.1 to 32.6)"."""
    if pd.isna(row["rate"]):
        return "not measurable (n = 0)"
    rate, low, high = (100 * row[name] for name in ("rate", "low", "high"))
    return f"{rate:.1f} % (n = {int(row['total'])}; 95 % interval {low:.1f} to {high:.1f})"
