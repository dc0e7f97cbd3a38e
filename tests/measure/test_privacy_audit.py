"""The bound on epsilon against mechanisms whose epsilon is known."""

import numpy as np
import pytest
from scipy.stats import binom

from palimpsest.errors import InputError
from palimpsest.measure.privacy_audit import GUESSED_SHARES, epsilon_lower_bound, one_run_audit, pooled_audit


def randomized_response(epsilon, canaries, rng, exact=True):
    """Scores and coins: each coin is told truly with probability e^epsilon / (1 + e^epsilon), which is epsilon-private.

    Told by a score that says nothing beyond it; not `exact`: told noisily only for one canary in ten, sure of itself there.
    """
    included = rng.random(canaries) < 0.5
    told = np.where(rng.random(canaries) < np.exp(epsilon) / (1 + np.exp(epsilon)), included, ~included)
    told = np.where(told, 1.0, -1.0)
    if exact:
        return told + 0.5 * rng.random(canaries), included
    return np.where(rng.random(canaries) < 0.1, 10 * told, 0) + rng.random(canaries), included


@pytest.mark.parametrize("guesses", [10, 100, 1000])
def test_perfect_guesses_give_the_bound_by_hand(guesses):
    q = 0.05 ** (1 / guesses)  # all right has probability q^guesses
    assert epsilon_lower_bound(guesses, guesses, 2000, delta=0.0) == pytest.approx(np.log(q / (1 - q)))
    q = 0.01 ** (1 / guesses)
    assert epsilon_lower_bound(guesses, guesses, 2000, 0.0, confidence=0.99) == pytest.approx(np.log(q / (1 - q)))


@pytest.mark.parametrize(
    ("correct", "guesses", "canaries", "delta"), [(9, 10, 30, 1e-3), (70, 100, 400, 1e-4), (30, 30, 30, 1e-2)]
)
def test_at_the_bound_the_theorem_leaves_one_in_twenty(correct, guesses, canaries, delta):
    epsilon = epsilon_lower_bound(correct, guesses, canaries, delta)
    q = np.exp(epsilon) / (1 + np.exp(epsilon))
    chance = lambda v: sum(binom.pmf(k, guesses, q) for k in range(v, guesses + 1))  # noqa: E731
    alpha = max((chance(correct - i) - chance(correct)) / i for i in range(1, correct + 1))
    assert epsilon > 0 and chance(correct) + 2 * canaries * delta * alpha == pytest.approx(0.05)


def test_more_correct_is_more_epsilon_and_more_delta_or_confidence_is_less():
    by_correct = [epsilon_lower_bound(correct, 100, 400, 1e-4) for correct in range(101)]
    assert by_correct[0] == by_correct[55] == 0 and np.all(np.diff(by_correct) >= 0)
    assert np.all(np.diff(by_correct[60:]) > 0)
    by_delta = [epsilon_lower_bound(90, 100, 400, delta) for delta in (0, 1e-5, 1e-4, 1e-3)]
    assert np.all(np.diff(by_delta) < 0)
    assert epsilon_lower_bound(90, 100, 400, 1e-4, confidence=0.99) < by_correct[90]
    assert epsilon_lower_bound(90, 100, 800, 1e-4) < by_correct[90]  # more canaries that delta may give away


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
@pytest.mark.parametrize("canaries", [100, 1000])
def test_the_bound_exceeds_the_true_epsilon_in_one_of_twenty_at_most(epsilon, canaries):
    """Exactly, over the distribution of the count; and not so rarely that any smaller bound would do."""
    q = np.exp(epsilon) / (1 + np.exp(epsilon))
    bounds = np.array([epsilon_lower_bound(v, canaries, canaries, 0.0) for v in range(canaries + 1)])
    too_high = binom.pmf(np.arange(canaries + 1), canaries, q)[bounds > epsilon].sum()
    assert too_high <= 0.05
    assert too_high > 0.01 or q**canaries > 0.05  # where even all correct is no evidence against epsilon


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_choosing_among_the_declared_shares_is_paid_for(epsilon, exact):
    rng = np.random.default_rng(0)
    drawn = [randomized_response(epsilon, 200, rng, exact) for _ in range(800)]
    too_high = np.mean([one_run_audit(*d, delta=0.0)["epsilon"] > epsilon for d in drawn])
    assert too_high <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 800)
    # without paying, the same choice is wrong too often: what the correction is for
    if exact and epsilon == 1:
        unpaid = [max(one_run_audit(*d, 0.0, shares=[s])["epsilon"] for s in GUESSED_SHARES) > epsilon for d in drawn]
        assert np.mean(unpaid) > 0.06


@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_with_many_canaries_the_bound_comes_near(epsilon):
    rng = np.random.default_rng(1)
    found = [one_run_audit(*randomized_response(epsilon, 20_000, rng), delta=0.0)["epsilon"] for _ in range(5)]
    assert epsilon - 0.25 < np.mean(found) < epsilon
    few = [one_run_audit(*randomized_response(epsilon, 100, rng), delta=0.0)["epsilon"] for _ in range(5)]
    assert np.mean(few) < np.mean(found)


def test_few_sure_guesses_show_a_leak_of_some_records():
    rng = np.random.default_rng(2)
    scores, included = randomized_response(8.0, 1000, rng, exact=False)
    found = one_run_audit(scores, included, delta=1e-5)
    assert found["share"] == 0.1 and found["guesses"] == 100 and found["epsilon"] > 1.5
    assert one_run_audit(scores, included, delta=1e-5, shares=[1.0])["epsilon"] < 0.5
    alone = one_run_audit(scores, included, delta=1e-5, shares=[0.1])
    assert alone["epsilon"] == epsilon_lower_bound(alone["correct"], 100, 1000, 1e-5) > found["epsilon"]


def test_guesses_are_counted_by_hand_and_the_order_tells_nothing():
    scores = np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    included = np.array([1, 1, 1, 0, 0, 1, 0, 1, 0, 0], dtype=bool)
    for share, correct, guesses in [(0.2, 2, 2), (0.5, 5, 5), (1.0, 6, 10)]:
        found = one_run_audit(scores, included, 0.0, shares=[share])
        assert (found["correct"], found["guesses"], found["canaries"]) == (correct, guesses, 10)
    members_first = np.argsort(~included)
    assert one_run_audit(scores[members_first], included[members_first], 0.0) == one_run_audit(scores, included, 0.0)
    tied = np.array([1.0, 1, 1, 0, 0, 0, 0, 0, 0, -1])  # of three alike, two guesses allowed: all three abstain
    assert one_run_audit(tied, included, 0.0, shares=[0.4])["correct"] == 1
    assert one_run_audit(np.zeros(10), np.sort(included)[::-1], 0.0)["epsilon"] == 0


def test_independent_runs_together_say_more_and_not_too_much():
    rng = np.random.default_rng(3)
    pooled, single = [], []
    for _ in range(600):
        runs = [randomized_response(1.0, 100, rng) for _ in range(6)]
        pooled.append(pooled_audit(runs, 0.0, shares=[1.0])["epsilon"])
        single.append(one_run_audit(*runs[0], 0.0, shares=[1.0])["epsilon"])
    assert np.mean(pooled) > np.mean(single) + 0.15
    assert np.mean(np.array(pooled) > 1) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)
    runs = [randomized_response(1.0, n, rng) for n in (100, 60)]
    found, parts = pooled_audit(runs, 1e-4, shares=[0.5]), [one_run_audit(*r, 1e-4, shares=[0.5]) for r in runs]
    assert (found["runs"], found["canaries"], found["guesses"]) == (2, 160, 80)
    assert found["correct"] == sum(p["correct"] for p in parts)


def test_runs_scored_by_one_anothers_coins_must_not_be_pooled():
    """Why the docstring forbids it: nothing is learned here, each run is scored by the coins of the next."""
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(300):
        coins = rng.random((2, 8)) < 0.5
        runs = [(coins[1 - i] + 0.1 * rng.random(8), coins[i]) for i in range(2)]
        wrong += pooled_audit(runs, 0.0, shares=[1.0])["epsilon"] > 0
    assert wrong / 300 > 0.08


def test_refusals_say_what_is_wanted():
    for arguments, said in [
        ((5, 0, 10, 1e-5), "found 0 guesses: a bound needs at least one"),
        ((5, 11, 10, 1e-5), "found 11 guesses for 10 canaries"),
        ((6, 5, 10, 1e-5), "found 6 correct of 5 guesses"),
        ((-1, 5, 10, 1e-5), "found -1 correct of 5 guesses"),
        ((5, 5, 10, -0.1), r"found a delta of -0\.1: wanted 0 or more and below 1 /"),
        ((5, 5, 10, 1.0), r"found a delta of 1\.0: wanted 0 or more and below 1 /"),
        ((5, 5, 10, 0.05), r"found a delta of 0\.05 for 10 canaries.*wanted a delta below 0\.05"),
        ((5, 5, 10, 1e-5, 95), "found a confidence of 95"),
    ]:
        with pytest.raises(InputError, match=said):
            epsilon_lower_bound(*arguments)
    scores, included = randomized_response(1.0, 100, np.random.default_rng(5))
    for changed, said in [
        ((scores[1:], included), r"found scores of shape \(99,\) and bool coins of shape \(100,\)"),
        ((scores, included.astype(float)), "float64 coins.*True or False"),
        ((np.where(included, np.nan, scores), included), "found no score for"),
        ((scores, np.arange(100) < 15), "found 15 of 100 canaries included: a fair coin"),
    ]:
        with pytest.raises(InputError, match=said):
            one_run_audit(*changed, delta=1e-5)
    for runs, shares in [([], [1.0]), ([(scores, included)], []), ([(scores, included)], [0.0, 1.0])]:
        with pytest.raises(InputError, match="wanted at least one run and shares above 0"):
            pooled_audit(runs, 1e-5, shares)
    with pytest.raises(InputError, match="found 0 guesses"):
        one_run_audit(scores, included, 1e-5, shares=[0.001])
