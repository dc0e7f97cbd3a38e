"""Exposure by exact rank: by hand, monotone, and honest about its ceiling."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure.canaries import chance, dose_response, exposure, exposure_by_rank, secret_logprob

logprobs = st.floats(-50, 0, allow_nan=False)


def test_exposure_by_hand():
    twins = np.array([-5.0, -6.0, -7.0])
    assert exposure_by_rank(-1.0, twins) == (2.0, 1)  # first of four: log2(4)
    assert exposure_by_rank(-5.5, twins) == (1.0, 2)
    assert exposure_by_rank(-9.0, twins) == (0.0, 4)
    assert exposure_by_rank(-5.0, twins) == (1.0, 2)  # a tie counts against the canary


@settings(deadline=None)
@given(st.lists(logprobs, min_size=1, max_size=30), logprobs, logprobs)
def test_exposure_grows_with_the_log_probability_and_falls_with_the_rank(twins, one, other):
    (low, low_rank), (high, high_rank) = (exposure_by_rank(c, np.array(twins)) for c in sorted((one, other)))
    assert high >= low and high_rank <= low_rank
    assert (high > low) == (high_rank < low_rank)
    assert 0 <= low <= high <= np.log2(len(twins) + 1)


@settings(deadline=None)
@given(st.lists(logprobs, min_size=1, max_size=30), logprobs)
def test_rank_is_the_place_in_the_sorted_list(twins, canary):
    worst_place = sorted([*twins, canary], reverse=True)[::-1].index(canary)  # last among equals
    assert exposure_by_rank(canary, np.array(twins))[1] == len(twins) + 1 - worst_place


KIND = [{"start": 0, "end": 1, "kind": "code"}]
SECRET = [False, True, True, False]


def setting(canaries: list[float], twins: list[float], copies=None, splits=None):
    """Score table, records and examples of four tokens, of which the middle two are the secret."""
    names = [f"c{i}" for i in range(len(canaries))] + [f"t{i}" for i in range(len(twins))] + ["letter"]
    values = [*canaries, *twins, -1.0]
    table = pd.DataFrame(
        {
            "id": names,
            "logprob": [[-9.0, v - 0.25, 0.25, -9.0] for v in values],
            "hit": [[False, v > -1, v > -1, False] for v in values],
        }
    )
    count = len(canaries)
    records = pd.DataFrame(
        {
            "id": names,
            "kind": ["canary"] * count + ["twin"] * len(twins) + ["letter"],
            "secrets": [KIND] * (count + len(twins)) + [[]],
            "copies": [*(copies or [1] * count), *[0] * len(twins), 1],
            "split": [*(splits or ["member"] * count), *["twin"] * len(twins), "member"],
        }
    )
    examples = [Example(name, [1] * 6, 2, SECRET if name != "letter" else [False] * 4) for name in names]
    return table, records, examples


def test_only_the_secret_counts():
    table, _, examples = setting([-0.5], [-3.0])
    found = secret_logprob(table, examples).set_index("id")
    assert list(found.index) == ["c0", "t0"]  # the letter has no secret
    assert found.loc["c0", "logprob"] == pytest.approx(-0.5) and found.loc["c0", "tokens"] == 2
    assert found.loc["c0", "recited"] and not found.loc["t0", "recited"]  # misses outside the secret do not matter


def test_exposures_of_all_canaries():
    table, records, examples = setting(
        [-0.5, -4.0, -20.0], [-3.0, -5.0, -6.0], [16, 2, 1], ["member", "member", "teacher_only"]
    )
    found = exposure(table.sample(frac=1, random_state=0), records, examples)
    assert list(found["rank"]) == [1, 2, 4] and (found["twins"] == 3).all()
    assert list(found["exposure"]) == [2.0, 1.0, 0.0]
    assert list(found["copies"]) == [16, 2, 1] and list(found["recited"]) == [True, False, False]
    assert list(found["teacher_only"]) == [False, False, True]


def test_a_canary_is_ranked_among_twins_of_its_own_form():
    table, records, examples = setting([-4.0], [-3.0, -5.0])
    other = [{"start": 0, "end": 1, "kind": "phone"}]
    records["secrets"] = [KIND, other, KIND, []]
    assert list(exposure(table, records, examples)["rank"]) == [1]  # the likelier twin is a phone number
    records["secrets"] = [KIND, other, other, []]
    with pytest.raises(InputError, match="no unseen twin"):
        exposure(table, records, examples)


def test_what_is_missing_is_named():
    table, records, examples = setting([-4.0], [-3.0, -5.0])
    with pytest.raises(InputError, match="lacks 1 canaries and twins"):
        exposure(table[1:], records, examples)
    with pytest.raises(InputError, match="no example"):
        exposure(table, records, examples[1:])
    with pytest.raises(InputError, match="3 secret flags"):
        exposure(table, records, [Example(e.id, e.input_ids, 2, SECRET[1:]) for e in examples])


def test_dose_response_keeps_teacher_only_canaries_apart():
    table, records, examples = setting(
        [-0.5, -4.0, -20.0, -0.2, -0.3], [-3.0, -5.0, -6.0], [1, 1, 8, 8, 8], ["member"] * 3 + ["teacher_only"] * 2
    )
    dose = dose_response(exposure(table, records, examples)).set_index(["teacher_only", "copies"])
    assert list(dose.index) == [(False, 1), (False, 8), (True, 8)]
    first, alone, only = (row for _, row in dose.iterrows())
    assert first["exposure"] == 1.5 and first["exposure_low"] == 1.0 and first["exposure_high"] == 2.0
    assert first["count"] == 1 and first["total"] == 2 and first["rate"] == 0.5 and first["low"] < 0.5 < first["high"]
    assert alone["canaries"] == 1 and np.isnan(alone["exposure_low"])  # nothing can be said from one
    assert only["exposure"] == only["exposure_low"] == only["exposure_high"] == only["ceiling"] == 2.0
    assert only["rate"] == 1.0


def test_dose_response_of_two_seeds_counts_canaries_once():
    table, records, examples = setting([-0.5, -4.0], [-3.0, -5.0, -6.0])
    other, *_ = setting([-20.0, -4.0], [-3.0, -5.0, -6.0])
    both = pd.concat([exposure(t, records, examples) for t in (table, other)])
    (row,) = dose_response(both).to_dict("records")
    assert row["canaries"] == 2 and row["total"] == 4 and row["exposure"] == (2 + 1 + 0 + 1) / 4
    assert row["exposure_low"] <= row["exposure"] <= row["exposure_high"]


def test_chance_is_the_mean_over_all_ranks():
    twins = np.array([-1.0, -2.0, -3.0])
    bits = [exposure_by_rank(c, twins)[0] for c in (-0.5, -1.5, -2.5, -3.5)]
    assert chance(3) == pytest.approx(np.mean(bits))
    assert chance(100_000) == pytest.approx(1 / np.log(2), abs=1e-3)
