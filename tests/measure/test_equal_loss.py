"""Reading two methods at the end and at equal held-out loss, on trajectories written by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trained_by_hand import RECORDS, SECRETS, made_by_hand

from palimpsest.errors import InputError
from palimpsest.measure.equal_loss import Curves, weights
from palimpsest.measure.statistics import newcombe


@pytest.fixture
def curves(tmp_path):
    return Curves(made_by_hand(tmp_path))


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=12, unique=True), st.floats(0, 1))
def test_weights_interpolate_at_the_first_crossing(losses, share):
    losses = np.array(losses)
    target = losses.min() + share * (losses.max() - losses.min())
    found = weights(losses, target)
    assert found.sum() == pytest.approx(1) and (found >= 0).all() and np.count_nonzero(found) <= 2
    first = np.flatnonzero(losses <= target)[0]
    assert not found[first + 1 :].any() and not found[: max(0, first - 1)].any()
    if first:
        assert found @ losses == pytest.approx(target)


def test_weights_at_the_end_and_stopped():
    losses = np.array([3.0, 1.0, 2.0])
    assert list(weights(losses, "end")) == [0, 0, 1]
    assert list(weights(losses, "stopped")) == [0, 1, 0]
    with pytest.raises(InputError, match=r"lowest held-out loss is 1\.0000; wanted one that reaches 0\.5000"):
        weights(losses, 0.5)


def test_an_effect_at_the_end_is_the_difference_of_means(curves):
    found = curves.effect("small", ("fkl",), ("sft",), "end")
    assert found["difference"] == pytest.approx(0.3 - 0.65) and found["total"] == SECRETS and found["seeds"] == 2
    assert found["low"] < found["difference"] < found["high"] < 0
    assert (found["seed_least"], found["seed_most"]) == pytest.approx((-0.4, -0.3))
    assert found["held_out_loss_difference"] == pytest.approx(0.1)


def test_equal_loss_is_the_lowest_that_both_reach(curves):
    found = curves.effect("small", ("fkl",), ("sft",), "equal")
    assert found["held_out_loss"] == pytest.approx(2.5) and found["held_out_loss_difference"] == pytest.approx(0)
    # fkl at its best epoch: 0.2; sft half way between its second and third: 0.3
    assert found["first_rate"] == pytest.approx(0.2) and found["second_rate"] == pytest.approx(0.3)
    assert found["member_loss_difference"] == pytest.approx(0)


def test_where_nothing_is_recited_the_interval_is_newcombes(curves):
    found = curves.effect("small", ("rkl",), ("sft_goldfish",), "equal")
    assert found["difference"] == 0
    assert (found["low"], found["high"]) == pytest.approx(newcombe(0, SECRETS, 0, SECRETS))


def test_secrets_of_one_record_are_resampled_together(curves, tmp_path):
    alone = curves.effect("small", ("fkl",), ("sft",), "end")
    other = Curves(curves.run)
    for seed in other.seeds:  # all secrets now belong to three records
        for method in ("sft", "fkl"):
            other.of("small", method, seed)["unit_of"] = np.arange(SECRETS) % 3
    together = other.effect("small", ("fkl",), ("sft",), "end")
    assert together["difference"] == pytest.approx(alone["difference"])
    assert (together["low"], together["high"]) != (alone["low"], alone["high"])


def test_where_no_secrets_are_marked_records_are_counted(tmp_path):
    found = Curves(made_by_hand(tmp_path, secrets=False)).effect("small", ("fkl",), ("sft",), "end")
    assert (found["unit"], found["total"]) == ("records", RECORDS)
    assert found["difference"] == pytest.approx(0.3 - 0.65)


def test_a_method_missing_in_one_seed_is_not_compared(curves):
    assert curves.has("small", "sft", "fkl") and not curves.has("small", "sft", "gkd")
    (curves.run.scores("small-fkl-s1") / "run.json").unlink()
    assert not Curves(curves.run).has("small", "fkl")
