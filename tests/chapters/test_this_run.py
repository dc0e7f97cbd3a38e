"""Page 00, what one run shows: it follows from the tables, for any study, and judges no method by one training."""

import re

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.chapters import this_run
from palimpsest.chapters.front import NO_STUDENT
from palimpsest.chapters.memorization import arm_rates, say_rates
from palimpsest.measure.statistics import newcombe, rate_of
from palimpsest.study import Arm, load_study

TOTAL = 50


COUNTS = st.fixed_dictionaries({m: st.integers(0, TOTAL) for m in ("sft", "fkl", "rkl", "seq_kd")})


VERDICT = re.compile(r"\b(less|more|fewer|better|worse|closer)\b")


def table(counts: dict[str, int], seeds=(0,), chance=1) -> pd.DataFrame:
    """Rates of one size, the same in every seed; nothing but `chance` of the non-members; a teacher that recites all."""
    arms, rows = [Arm("teacher", "sft"), *(Arm("small", m, s) for s in seeds for m in counts)], []
    for arm in arms:
        members = TOTAL if arm.role == "teacher" else counts[arm.method]
        for target in ("secret", "window"):
            for split, count in (("member", members), ("non_member", chance)):
                rows.append({**arm.columns(), "split": split, "target": target, **rate_of(count, TOTAL)})
    return pd.DataFrame(rows)


@settings(max_examples=25)
@given(COUNTS)
def test_seeds_that_agree_narrow_nothing(counts):
    one, three = (this_run.against_baseline(table(counts, seeds), "secret") for seeds in ((0,), (0, 1, 2)))
    pd.testing.assert_frame_equal(one, three)


@settings(max_examples=25)
@given(COUNTS)
def test_differences_have_intervals_and_no_verdict(counts):
    found = this_run.against_baseline(table(counts), "secret").set_index("method")
    assert set(found.index) == set(counts) - {"sft"} and "verdict" not in found
    for method, row in found.iterrows():
        ends = newcombe(counts[method], TOTAL, counts["sft"], TOTAL)
        assert (row["low"], row["high"]) == pytest.approx(ends)
        assert row["difference"] == pytest.approx((counts[method] - counts["sft"]) / TOTAL)
    far = 2 * max(abs(counts[m] - counts["sft"]) for m in counts)
    told = this_run.say_comparison(table(counts), "secret").replace("-0.0", "+0.0")
    assert f"+{far:.1f} (" in told or f"-{far:.1f} (" in told  # two may differ as much, one either way


@settings(max_examples=25)
@given(COUNTS)
def test_the_least_and_the_most_of_the_distilled_are_named(counts):
    rates = table(counts)
    shares = [100 * counts[m] / TOTAL for m in counts if m != "sft"]
    (line,) = [line for line in say_rates(rates, "secret", "secrets") if "small" in line]
    assert ("by every method" in line) == (min(shares) == max(shares))
    for share in (min(shares), max(shares)):
        assert f"{share:.1f} % (" in line.split("Distilled, ")[1]
    answer = this_run.say_run(rates, "secret", "secrets")
    ends = f"{min(shares):.0f} % to {max(shares):.0f} % by method"
    assert f"distilled, {ends if min(shares) < max(shares) else f'{min(shares):.0f} % by every method'}" in answer[0]


def test_the_answer_gives_the_baseline_and_the_largest_difference():
    answer = this_run.say_run(table({"sft": 30, "fkl": 3, "rkl": 29}), "window", "records")
    assert "60.0 % (46.2 to 72.4) of the members' 50 records" in answer[0]
    assert "*forward KL*" in answer[1] and "-54.0 (" in answer[1]


def test_a_study_with_fine_tuning_alone():
    rates = table({"sft": 30})
    assert this_run.against_baseline(rates, "secret").empty
    answer = this_run.say_run(rates, "secret", "secrets")
    assert len(answer) == 2 and "distilled" not in answer[0] and answer[1].endswith(NO_STUDENT)


def test_rates_together_have_a_row_per_size_and_method():
    rates = table({"sft": 30, "fkl": 3}, seeds=(0, 1))
    rates.loc[rates["model"] == "small-fkl-s1", "count"] = 7
    found = arm_rates(rates, "secret").set_index("method")
    assert found.index.is_unique and found.loc["fkl", "rate"] == 5 / TOTAL


@pytest.mark.parametrize("name", ["smoke", "dolly", "demo-replicates"])
def test_only_invented_data_is_called_so(name):
    study = load_study(f"studies/{name}.yaml")
    told = " ".join(this_run.say_study(study, {"member": 3, "non_member": 2}))
    assert ("invented" in told) == study.synthetic and study.title in told and "3 member, 2 non-member" in told
    assert f"{len(study.arms())} students in each replicate" in told and f"Replicates: {study.replicates}." in told
    assert ("DP-SGD (small alone)" in told) == (name == "demo-replicates")


@settings(max_examples=25)
@given(COUNTS)
def test_sentences_are_short_and_judge_nobody(counts):
    for line in this_run.say_run(table(counts), "secret", "secrets"):
        assert not VERDICT.search(line)
        for sentence in line.split(". "):
            assert sum(any(c.isalnum() for c in word) for word in sentence.split()) <= 25, sentence


def test_repeated_members_are_told_of_first_and_apart():
    """A rate of what stands once, near zero, must not speak for what is repeated."""
    rates = table({"sft": 0, "fkl": 0})
    often = [
        {**row, "split": "repeated", **rate_of(40 if row["method"] == "sft" else 10, TOTAL)}
        for row in rates[rates["split"] == "member"].to_dict("records")
    ]
    answer = this_run.say_run(pd.concat([rates, pd.DataFrame(often)]), "secret", "secrets")
    assert "80.0 %" in answer[0] and "repeated in the training text" in answer[0]
    assert "0.0 %" in answer[1] and "stand there once" in answer[1] and "-60.0 (" in answer[2]
