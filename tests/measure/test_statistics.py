"""Intervals and tests against other libraries, brute force, and how often they cover the truth."""

from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from palimpsest.measure.statistics import (
    auc,
    bootstrap,
    bootstrap_means,
    clopper_pearson,
    compare_verdicts,
    holm,
    over_seeds,
    rate,
    rate_of,
    say_samples,
    wilson,
)


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_equal_scipy(pair):
    count, total = pair
    for found, method in ((wilson(count, total), "wilson"), (clopper_pearson(count, total), "exact")):
        wanted = binomtest(count, total).proportion_ci(method=method)
        low, high = found if isinstance(found, tuple) else (found["low"], found["high"])
        assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)
        assert (low == 0) == (count == 0) and (high == 1) == (count == total)  # exactly, no 1e-19


@given(st.lists(st.integers(0, 50).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=8))
def test_wilson_of_arrays_is_wilson_of_each(pairs):
    count, total = np.array(pairs, dtype=int).reshape(-1, 2).T
    for i, (low, high) in enumerate(zip(*wilson(count, total), strict=True)):
        np.testing.assert_equal((low, high), tuple(map(float, wilson(count[i], total[i]))))
        assert np.isnan(low) if total[i] == 0 else low <= count[i] / total[i] <= high


def test_over_seeds_is_the_mean_seed():
    table = pd.DataFrame({"method": ["a", "b", "a", "b"], "count": [3, 0, 6, 0], "total": [10, 10, 10, 0]})
    found = over_seeds(table, ["method"])
    assert found.to_dict("records")[0] == {"method": "a", "count": 4.5, "total": 10, **_named(0.45, *wilson(4.5, 10))}
    assert found["rate"].to_list() == [0.45, 0]


def _named(rate, low, high):
    return {"rate": rate, "low": low, "high": high}


def test_rate_counts_what_is_there():
    verdicts = pd.Series([True, False, True, pd.NA], dtype="boolean")
    found = rate(verdicts)
    assert (found["count"], found["total"], found["rate"]) == (2, 3, 2 / 3)
    assert found == rate_of(2, 3) == rate([True, False, True]) == rate(np.array([1, 0, 1], dtype=bool))
    empty = rate(pd.Series([pd.NA], dtype="boolean"))
    assert empty["total"] == 0 and np.isnan([empty["rate"], empty["low"], empty["high"]]).all()


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_mcnemars_test_is_a_fair_coin_over_the_records_that_differ(pairs):
    a, b = (np.array([p[i] for p in pairs], dtype=bool) for i in (0, 1))
    found = compare_verdicts(a, b)
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    assert (found["only_one"], found["only_other"]) == (only_a, only_b)
    assert found["p"] == pytest.approx(binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1)


def test_verdicts_are_of_the_same_records():
    with pytest.raises(ValueError, match="2 and 1 verdicts"):
        compare_verdicts([True, False], [True])


@pytest.mark.parametrize(
    ("both", "only_one", "only_other", "neither", "low", "high"),
    [  # Newcombe's own tables: Statistics in Medicine 17, 2635 (1998), table III, method 10
        (36, 12, 2, 0, 0.0569, 0.3404),
        (0, 0, 0, 30, -0.1135, 0.1135),
    ],
)
def test_paired_interval_by_published_numbers(both, only_one, only_other, neither, low, high):
    one = [True] * (both + only_one) + [False] * (only_other + neither)
    other = [True] * both + [False] * only_one + [True] * only_other + [False] * neither
    found = compare_verdicts(one, other)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("one", "other", "agree"), [(0.02, 0.02, 0.0), (0.1, 0.02, 0.9), (0.5, 0.4, 0.5), (0.99, 0.9, 0.3)]
)
def test_paired_interval_covers_the_difference(one, other, agree):
    """Of 60 records; `agree`: the share of the possible overlap between the two models."""
    rng, inside = np.random.default_rng(0), 0
    both = one * other + agree * (min(one, other) - one * other)
    for cells in rng.multinomial(60, [both, one - both, other - both, 1 - one - other + both], size=400):
        a, b = (np.repeat(pattern, cells) for pattern in ([True, True, False, False], [True, False, True, False]))
        found = compare_verdicts(a, b)
        inside += found["low"] <= one - other <= found["high"]
    assert inside / 400 >= 0.925  # 95 % less two standard errors of 400 draws


def test_of_no_record_there_is_nothing_to_compare():
    found = compare_verdicts([], [])
    assert found["total"] == 0 and np.isnan(found["difference"]) and found["p"] == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_known_correction(p):
    with mock.patch("gc.collect"):  # which statsmodels calls every time, for a third of a second
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_bootstrap_with_one_seed_has_the_usual_width():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found, error = bootstrap(values), values.std(ddof=1) / 20
    assert found["mean"] == pytest.approx(values.mean())
    assert (found["high"] - found["low"]) / (2 * 1.96 * error) == pytest.approx(1, abs=0.08)
    assert bootstrap(values) == found


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    alike = rng.normal(0, 1, (4, 300))
    apart = alike + np.array([[-2.0], [-1.0], [1.0], [2.0]])
    width = {name: np.ptp(list(bootstrap(v).values())[1:]) for name, v in {"alike": alike, "apart": apart}.items()}
    assert width["apart"] > 5 * width["alike"]


def test_all_seeds_of_a_resample_share_its_records():
    values = np.random.default_rng(0).normal(size=50)
    one, three = bootstrap_means(values), bootstrap_means(np.stack([values] * 3))
    assert three.std() == pytest.approx(one.std(), rel=0.1)  # independent draws would shrink it by the root of 3


def test_pairing_takes_out_what_the_records_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 5, 200)
    one, other = shared + 0.5 + rng.normal(0, 0.1, 200), shared + rng.normal(0, 0.1, 200)
    found = bootstrap(one - other)
    assert 0.4 < found["low"] < 0.5 < found["high"] < 0.6
    assert np.quantile(bootstrap_means(one) - bootstrap_means(other), 0.025) == pytest.approx(found["low"])


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=12), st.lists(st.integers(-3, 3), min_size=2, max_size=12))
def test_auc_and_its_error_equal_the_definition(positives, negatives):
    found = auc(positives, negatives)
    assert found["rate"] == pytest.approx(
        roc_auc_score([1] * len(positives) + [0] * len(negatives), positives + negatives)
    )
    wins = np.array([[(x > y) + 0.5 * (x == y) for y in negatives] for x in positives])
    error = wins.mean(1).var(ddof=1) / len(positives) + wins.mean(0).var(ddof=1) / len(negatives)
    assert found["error"] == pytest.approx(np.sqrt(error))
    assert 0 <= found["low"] <= found["rate"] <= found["high"] <= 1


def test_auc_interval_covers_the_truth_about_95_times_in_100():
    from scipy.stats import norm

    rng, truth = np.random.default_rng(0), norm.cdf(1 / np.sqrt(2))
    covered = []
    for _ in range(500):
        found = auc(rng.normal(1, 1, 40), rng.normal(0, 1, 60))
        covered.append(found["low"] <= truth <= found["high"])
    assert 0.92 < np.mean(covered) < 0.98


def test_auc_of_perfect_separation_still_has_an_interval():
    found = auc(np.arange(10, 40), np.arange(0, 10))
    assert found["rate"] == found["high"] == 1 and 0.6 < found["low"] < 0.8
    assert auc(np.arange(0, 10), np.arange(10, 40))["low"] == 0
    with pytest.raises(ValueError, match="at least two"):
        auc([1.0], [0.0, 1.0])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "1"),
        (123456.0, "123,456"),
        (3.2e6, "3.2 million"),
        (2e18, "more than a billion"),
        (None, "never"),
        (np.inf, "never"),
    ],
)
def test_samples_in_words(number, said):
    assert say_samples(number) == said
