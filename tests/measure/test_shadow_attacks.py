"""Attacks by shadow models on simulated ones, where the best possible attack is known."""

import numpy as np
import pytest
from scipy.stats import beta, norm
from sklearn.metrics import roc_auc_score

from palimpsest.errors import InputError
from palimpsest.measure.membership_inference import tpr_at_fpr
from palimpsest.measure.shadow_attacks import (
    FEWEST_MODELS,
    FEWEST_POPULATION,
    confidence_logit,
    lira,
    rmia,
    shadow_rates,
)


def simulated(models=16, records=400, gain=1.0, difficulty=1.0, seed=0, population=0):
    """Signals around a mean of each record's own, `gain` higher where trained on it, with noise of 1; and who was."""
    rng = np.random.default_rng(seed)
    inside = rng.random((models, records)) < 0.5
    signal = difficulty * rng.normal(size=records) + gain * inside + rng.normal(size=(models, records))
    if not population:
        return signal, inside
    return signal, inside, difficulty * rng.normal(size=population) + rng.normal(size=(models, population))


def row(rates, measure, fpr=None):
    return rates[(rates["measure"] == measure) & (rates["fpr"].isna() if fpr is None else rates["fpr"] == fpr)].iloc[0]


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_lira_with_many_shadows_is_the_best_possible_attack(gain):
    """Records are alike here, which LiRA is not told, so the signal itself is the best possible score."""
    signal, inside = simulated(models=200, records=1000, gain=gain, difficulty=0.0)
    found, best = shadow_rates(lira(signal, inside), inside), shadow_rates(signal, inside)
    assert row(found, "AUC")["rate"] == pytest.approx(norm.cdf(gain / np.sqrt(2)), abs=0.004)
    assert row(found, "AUC")["rate"] == pytest.approx(row(best, "AUC")["rate"], abs=0.004)
    # of n non-members k = floor(n / 100) may be called members: the share of others above the next one is Beta(k + 1, n - k)
    counts, models = np.unique((~inside).sum(1), return_counts=True)
    told = [beta(n // 100 + 1, n - n // 100).expect(lambda u: norm.sf(norm.isf(u) - gain)) for n in counts]
    expected = np.average(told, weights=models)
    assert row(best, "TPR", 0.01)["rate"] == pytest.approx(expected, abs=0.015)
    assert row(found, "TPR", 0.01)["rate"] == pytest.approx(expected, abs=0.015)


def test_lira_is_its_definition():
    signal, inside = simulated(models=7, records=30)
    scores = lira(signal, inside)
    others = np.arange(7) != 3
    logs = []
    for side in (inside, ~inside):
        enough = [x for x in range(30) if inside[others, x].sum() >= 2 and (~inside[others, x]).sum() >= 2]
        seen = [signal[others & side[:, x], x] for x in enough]
        spread = np.sqrt(sum(len(s) * s.var() for s in seen) / sum(len(s) - 1 for s in seen))
        logs.append(norm(np.array([s.mean() for s in seen]), spread).logpdf(signal[3, enough]))
    assert scores[3, enough] == pytest.approx(logs[0] - logs[1])
    assert set(np.flatnonzero(np.isnan(scores[3]))) == set(range(30)) - set(enough)


def test_rmia_is_its_definition():
    signal, inside, population = simulated(models=7, records=30, population=FEWEST_POPULATION)
    scores = rmia(signal, inside, population)
    others = np.arange(7) != 3
    for x in np.flatnonzero(~np.isnan(scores[3])):
        p_in, p_out = (np.exp(signal[others & side[:, x], x]).mean() for side in (inside, ~inside))
        ratio = np.exp(signal[3, x]) / ((p_in + p_out) / 2)
        beaten = [ratio / (np.exp(z[3]) / np.exp(z[others]).mean()) >= 1 for z in population.T]
        assert scores[3, x] == np.mean(beaten)


def test_both_beat_plain_loss_where_records_differ_in_difficulty():
    signal, inside, population = simulated(gain=1.5, difficulty=4.0, population=300)
    plain = roc_auc_score(inside.ravel(), signal.ravel())
    best = norm.cdf(1.5 / np.sqrt(2))
    assert plain < 0.65
    for scores in (lira(signal, inside), rmia(signal, inside, population)):
        assert best - 0.05 < row(shadow_rates(scores, inside), "AUC")["rate"] < best + 0.02
        # scores of several targets are on one scale: one threshold for all of them does as well
        there = ~np.isnan(scores)
        assert roc_auc_score(inside[there], scores[there]) > best - 0.06


def test_nothing_learned_is_chance():
    signal, inside, population = simulated(gain=0.0, population=300)
    for scores in (lira(signal, inside), rmia(signal, inside, population)):
        found = row(shadow_rates(scores, inside), "AUC")
        assert found["low"] < 0.5 < found["high"]


def test_the_targets_own_membership_is_never_read():
    signal, inside, population = simulated(models=9, records=200, population=FEWEST_POPULATION)
    for attack in (lira, lambda s, i: rmia(s, i, population)):
        scores = attack(signal, inside)
        for target in (0, 8):
            other = inside.copy()
            other[target] = np.random.default_rng(1).permutation(inside[target])
            assert (other[target] != inside[target]).any()
            changed = attack(signal, other)
            np.testing.assert_array_equal(changed[target], scores[target])
            assert not np.array_equal(changed[4], scores[4], equal_nan=True)  # as a shadow it counts


def test_order_of_models_and_records_is_of_no_account():
    signal, inside, population = simulated(records=120, population=FEWEST_POPULATION)
    rng = np.random.default_rng(2)
    models, records = rng.permutation(16), rng.permutation(120)
    mixed = [array[models][:, records] for array in (signal, inside)]
    np.testing.assert_allclose(lira(*mixed), lira(signal, inside)[models][:, records])
    z = population[models][:, rng.permutation(FEWEST_POPULATION)]
    np.testing.assert_allclose(rmia(*mixed, z), rmia(signal, inside, population)[models][:, records])
    rates = shadow_rates(lira(signal, inside), inside)
    other = shadow_rates(lira(*mixed), mixed[1])
    np.testing.assert_allclose(*(r.select_dtypes("number").to_numpy(dtype=float) for r in (rates, other)))


def test_what_is_constant_per_record_cancels():
    signal, inside, population = simulated(records=120, population=FEWEST_POPULATION)
    rng = np.random.default_rng(3)
    shift, shift_z = 900 * rng.normal(size=120), 900 * rng.normal(size=FEWEST_POPULATION)  # far out of exp's range
    np.testing.assert_allclose(lira(signal + shift, inside), lira(signal, inside), atol=1e-8)
    moved = rmia(signal + shift, inside, population + shift_z)
    np.testing.assert_allclose(moved, rmia(signal, inside, population), atol=1e-8)


def test_records_seen_by_all_or_none_and_pairs_that_do_not_count_are_left_out():
    signal, inside, population = simulated(records=120, population=FEWEST_POPULATION)
    inside[:, 0], inside[:, 1], signal[:, 2], signal[5, 3] = True, False, np.nan, np.nan
    for scores in (lira(signal, inside), rmia(signal, inside, population)):
        assert np.isnan(scores[:, :3]).all() and np.isnan(scores[5, 3]) and np.isfinite(scores[:, 4:]).all()
        assert np.isfinite(np.delete(scores[:, 3], 5)).all()
        assert set(shadow_rates(scores, inside)["left_out"]) == {3}
    other = inside.copy()
    other[5, 3] = ~inside[5, 3]  # and is no shadow either
    np.testing.assert_array_equal(lira(signal, other), lira(signal, inside))


def test_rates_are_means_over_targets_and_only_of_what_can_be_measured():
    signal, inside = simulated(records=1500, gain=2.0)
    inside[:3] = np.random.default_rng(4).random((3, 1500)) < 0.95  # three targets with too few non-members
    scores = lira(signal, inside)
    rates = shadow_rates(scores, inside)
    by_hand = [
        tpr_at_fpr(s[i & ~np.isnan(s)], s[~i & ~np.isnan(s)], 0.01) for s, i in zip(scores, inside, strict=True)
    ]
    assert by_hand[:3] == [None] * 3
    found = row(rates, "TPR", 0.01)
    assert found["rate"] == pytest.approx(np.mean([r["rate"] for r in by_hand[3:]]))
    assert (found["count"], found["total"]) == tuple(sum(r[c] for r in by_hand[3:]) for c in ("count", "total"))
    assert (found["models"], found["note"]) == (13, "13 models, 16 wanted")
    assert found["low"] < found["rate"] < found["high"]
    rare = row(rates, "TPR", 0.001)
    assert np.isnan([rare["rate"], rare["low"], rare["high"]]).all() and rare["models"] == 0
    assert rare["note"].startswith("not measurable") and rare["note"].endswith("1000 needed")
    assert row(rates, "AUC")["note"] == "" and np.isnan(row(rates, "AUC")["count"])
    assert len(rates) == 4


def test_a_perfect_attack_is_not_certain():
    signal, inside = simulated(records=300, gain=100.0)
    found = row(shadow_rates(lira(signal, inside), inside), "TPR", 0.01)
    assert found["rate"] == 1 and found["count"] == found["total"] and found["low"] < 0.99 and found["high"] == 1


@pytest.mark.parametrize(("gain", "fpr"), [(1.0, None), (1.5, 0.01)])
def test_intervals_cover_the_mean_of_other_models_and_records(gain, fpr):
    """16 models, 300 records, everything drawn anew 60 times; Student's t alone would cover about nine in ten."""
    drawn = [simulated(records=300, gain=gain, seed=seed) for seed in range(60)]
    rows = [row(shadow_rates(lira(*d), d[1]), "AUC" if fpr is None else "TPR", fpr) for d in drawn]
    truth = np.mean([r["rate"] for r in rows])
    assert np.mean([r["low"] <= truth <= r["high"] for r in rows]) >= 0.93
    assert np.mean([r["high"] - r["low"] for r in rows]) < 0.15


def test_confidence_logit():
    p = np.array([1e-4, 0.3, 0.5, 0.999])
    np.testing.assert_allclose(confidence_logit(np.log(p)), np.log(p / (1 - p)))
    assert np.isfinite(confidence_logit([0.0])).all() and np.isnan(confidence_logit([np.nan])).all()
    with pytest.raises(InputError, match=r"found a mean log-probability of 0\.3: wanted 0 or less"):
        confidence_logit([-1.0, 0.3])


def test_refusals_say_what_is_wanted():
    signal, inside, population = simulated(models=8, records=50, population=FEWEST_POPULATION)
    for attack in (lira, lambda s, i: rmia(s, i, population[: len(s)]), shadow_rates):
        with pytest.raises(InputError, match=r"\(8, 50\).*\(8, 49\)"):
            attack(signal, inside[:, 1:])
        with pytest.raises(InputError, match="True and False"):
            attack(signal, inside.astype(int))
    for attack in (lira, lambda s, i: rmia(s, i, population[: len(s)])):
        with pytest.raises(InputError, match=f"found 4 models: wanted at least {FEWEST_MODELS}.* 16 for figures"):
            attack(signal[:4], inside[:4])
        with pytest.raises(InputError, match="found no record that at least 2 shadows have seen"):
            attack(signal, np.full(inside.shape, True))
        with pytest.raises(InputError, match="infinite"):
            attack(np.where(inside, np.inf, signal), inside)
    with pytest.raises(InputError, match="same signal in every shadow"):
        lira(inside.astype(float), inside)
    with pytest.raises(InputError, match=r"population of shape \(8, 99\).*100 or more"):
        rmia(signal, inside, population[:, :99])
    with pytest.raises(InputError, match="missing or infinite"):
        rmia(signal, inside, np.where(population > 0, np.nan, population))
