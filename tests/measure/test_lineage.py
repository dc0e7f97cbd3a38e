"""Records sorted by who recites them, compared pairwise, predicted beforehand."""

import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from palimpsest.errors import InputError
from palimpsest.measure import lineage, prediction
from palimpsest.study import Arm

ARMS = [Arm("small", "sft", 0), Arm("small", "fkl", 0), Arm("small", "sft", 1), Arm("small", "fkl", 1)]


def memorized(rows):
    """A matrix from (teacher, student, baseline) triples; seed 1 is the same but for the baseline, which recites nothing."""
    t, s, b = np.array(rows, dtype=bool).T
    columns = {"teacher": t, "small-fkl-s0": s, "small-sft-s0": b, "small-fkl-s1": s, "small-sft-s1": np.zeros_like(b)}
    return pd.DataFrame(columns, index=[f"r{i}" for i in range(len(rows))])


EIGHT = [(t, s, b) for t in (1, 0) for s in (1, 0) for b in (1, 0)]


def test_every_combination_has_its_own_set():
    found = lineage.origins(memorized(EIGHT), ARMS[:2])
    assert sorted(found["set"]) == sorted(lineage.SETS)
    by_set = found.set_index("set")[["teacher", "student", "baseline"]].to_dict("index")
    assert by_set["inherited"] == {"teacher": True, "student": True, "baseline": False}
    assert by_set["shed"] == {"teacher": True, "student": False, "baseline": True}


def test_counts_add_up_and_every_set_has_a_row():
    counts = lineage.count_sets(lineage.origins(memorized([(1, 1, 0)] * 3 + [(0, 0, 0)] * 7), ARMS))
    assert counts.groupby("seed")["count"].sum().tolist() == [10, 10]
    assert counts.groupby("seed").size().tolist() == [8, 8]
    row = counts[(counts["seed"] == 0) & (counts["set"] == "inherited")].iloc[0]
    assert (row["count"], row["total"], row["rate"]) == (3, 10, 0.3) and row["low"] < 0.3 < row["high"]


def test_each_seed_has_its_own_baseline():
    counts = lineage.count_sets(lineage.origins(memorized([(1, 1, 1)] * 4), ARMS)).set_index(["seed", "set"])
    assert counts.loc[(0, "easy"), "count"] == 4 and counts.loc[(1, "inherited"), "count"] == 4


def test_across_seeds_is_wider_when_seeds_differ():
    same = lineage.origins(memorized([(1, 1, 0)] * 30 + [(0, 0, 0)] * 30), ARMS)
    differ = lineage.origins(memorized([(1, 1, 1)] * 30 + [(0, 0, 0)] * 30), ARMS)
    one = lineage.across_seeds(same).set_index("set").loc["inherited"]
    other = lineage.across_seeds(differ).set_index("set").loc["inherited"]
    assert one["rate"] == 0.5 and one["seeds"] == 2 and one["low"] < 0.5 < one["high"]
    assert other["rate"] == 0.25 and other["high"] - other["low"] > one["high"] - one["low"]


def test_an_empty_set_has_an_interval_all_the_same():
    found = lineage.across_seeds(lineage.origins(memorized([(0, 0, 0)] * 40), ARMS)).set_index("set")
    assert found.loc["inherited", "low"] == 0 and 0.05 < found.loc["inherited", "high"] < 0.12
    assert found.loc["none", "high"] == 1 and 0.88 < found.loc["none", "low"] < 0.95


def test_an_arm_without_its_baseline_is_named():
    with pytest.raises(InputError, match="small-fkl-s0 cannot be compared: no verdicts of small-sft-s0"):
        lineage.origins(memorized(EIGHT).drop(columns="small-sft-s0"), ARMS)


def test_only_distilled_students_are_sorted():
    assert lineage.origins(memorized(EIGHT), [Arm("small", "sft", 0), Arm("small", "sft_dedup", 0)]).empty
    assert set(lineage.origins(memorized(EIGHT), ARMS)["method"]) == {"fkl"}


def test_paired_comparison():
    rows = [(1, 0, 1)] * 8 + [(1, 1, 0)] * 1 + [(1, 1, 1)] * 20 + [(0, 0, 0)] * 31
    found = lineage.compare(lineage.origins(memorized(rows), ARMS[:2])).iloc[0]
    assert found["difference"] == pytest.approx((21 - 28) / 60) and found["high"] < 0
    assert found["p_lowest"] == pytest.approx(0.0390625)  # binomial, 1 or fewer of 9, two-sided
    assert found["ratio"] == pytest.approx(21 / 28) and found["ratio_low"] < 0.75 < found["ratio_high"] < 1
    teacher = lineage.compare(lineage.origins(memorized(rows), ARMS[:2]), "teacher").iloc[0]
    assert teacher["other"] == pytest.approx(29 / 60)


def test_a_student_like_its_baseline_differs_in_nothing():
    found = lineage.compare(lineage.origins(memorized([(1, 1, 1)] * 5 + [(0, 0, 0)] * 5), ARMS[:2])).iloc[0]
    assert (found["difference"], found["low"], found["high"], found["p_lowest"], found["ratio"]) == (0, 0, 0, 1, 1)


def test_ratio_over_nothing_is_not_a_number():
    found = lineage.ratio(np.ones((1, 4)), np.zeros((1, 4)))
    assert all(np.isnan(v) for v in found.values())
    nothing = lineage.ratio(np.zeros((1, 40)), np.ones((1, 40)))
    assert nothing["ratio"] == nothing["ratio_low"] == 0 and 0.05 < nothing["ratio_high"] < 0.12


def known(canaries, twins, form="code"):
    gain = np.concatenate([canaries, twins])
    kind = ["canary"] * len(canaries) + ["twin"] * len(twins)
    return pd.DataFrame({"kind": kind, "form": form, "gain": gain, "recited": gain > 8})


def test_transferred_is_the_exact_rank_test():
    rng = np.random.default_rng(1)
    canaries, twins = rng.normal(1, 1, 6), rng.normal(0, 1, 40)
    found = lineage.transferred(known(canaries, twins))
    wanted = mannwhitneyu(canaries, twins, alternative="greater", method="exact")
    assert found["p"] == pytest.approx(wanted.pvalue) and (found["canaries"], found["twins"]) == (6, 40)
    assert found["auc"] == pytest.approx(wanted.statistic / 240) and found["low"] < found["auc"] < found["high"]


def test_of_many_records_the_rank_test_s_normal_approximation_is_as_good():
    rng = np.random.default_rng(2)
    canaries, twins = rng.normal(0.3, 1, lineage.EXACT + 10), rng.normal(0, 1, 80)
    found = lineage.transferred(known(canaries, twins))
    assert found["p"] == pytest.approx(
        mannwhitneyu(canaries, twins, alternative="greater", method="exact").pvalue, rel=0.03
    )


def test_transferred_extremes():
    knows = lineage.transferred(known([9.0, 8.0, 7.0], range(6)))
    blank = lineage.transferred(known([-1.0, -2.0, -3.0], range(6)))
    assert knows["auc"] == 1 and blank["auc"] == 0
    assert knows["p"] < 0.02 and blank["p"] > 0.9
    assert knows["recited"] == 1 and knows["low"] < 0.5  # three canaries prove little


def test_forms_of_different_height_are_compared_within_themselves():
    low, high = known([0.1, 0.2], [0.0, -0.1, 0.05], form="code"), known([50.1], [50.0, 49.9, 50.05], form="name")
    assert lineage.transferred(pd.concat([low, high]))["auc"] == 1


def test_few_canaries_from_chance_rarely_look_known():
    """The interval must not lie above one half much more often than in one of forty draws, as DeLong's own would."""
    rng = np.random.default_rng(0)
    low = [lineage.transferred(known(rng.normal(size=6), rng.normal(size=60)))["low"] for _ in range(300)]
    assert np.mean(np.array(low) > 0.5) < 0.045


# ---------------------------------------------------------------- prediction


def table(logprobs, ids):
    return pd.DataFrame({"id": ids, "logprob": [np.array(x, dtype=np.float32) for x in logprobs]})


def test_features_are_what_they_say():
    records = pd.DataFrame({"id": ["a", "b"], "response": ["x" * 50, "yz"]})
    teacher, baseline = table([[-1.0, -2.0], [-0.5]], ["a", "b"]), table([[-0.5], [-3.0, -3.0]], ["b", "a"])
    found = prediction.features(records, teacher, baseline)
    assert found["zlib_bytes"].tolist() == [len(zlib.compress(b"x" * 50)), len(zlib.compress(b"yz"))]
    assert found["teacher_loss"].tolist() == [1.5, 0.5] and found["baseline_loss"].tolist() == [3.0, 0.5]
    assert found.loc["b", "divergence"] == pytest.approx(0, abs=1e-9) and found.loc["a", "divergence"] > 0


@given(hnp.arrays(float, (2, 5), elements=st.floats(-8, 8)))
def test_two_way_divergence_never_exceeds_the_whole_one(logits):
    p, q = (x - np.logaddexp.reduce(x) for x in logits)
    whole = (np.exp(p) * (p - q)).sum()
    two_way = prediction.two_way_divergence(p, q)
    assert (two_way >= -1e-9).all() and (two_way <= whole + 1e-6).all()


def test_two_way_divergence_of_certain_tokens_is_finite():
    assert np.isfinite(prediction.two_way_divergence(np.array([0.0, 0.0, -80.0]), np.array([0.0, -50.0, 0.0]))).all()


def inputs(n=300, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        rng.normal(size=(n, 4)),
        columns=["zlib_bytes", "teacher_loss", "baseline_loss", "divergence"],
        index=[f"r{i}" for i in range(n)],
    )


def test_a_plain_dependence_is_found_and_its_feature_named():
    x = inputs()
    y = x["teacher_loss"] < -0.5
    found = prediction.predict(x, y)
    assert (
        found.auc["rate"] > 0.98
        and found.weights.abs().idxmax() == "teacher_loss"
        and found.weights["teacher_loss"] < 0
    )
    assert found.auc["rate"] == pytest.approx(roc_auc_score(found.table["memorized"], found.table["probability"]))


def test_noise_is_not_predicted():
    x = inputs()
    y = pd.Series(np.random.default_rng(5).random(len(x)) < 0.3, x.index)
    found = prediction.predict(x, y)
    assert found.auc["low"] < 0.5 < found.auc["high"]


def test_a_record_is_judged_by_folds_without_it():
    """With as many features as records a fit is perfect on its own data; out of fold it must be near chance."""
    rng = np.random.default_rng(3)
    x = pd.DataFrame(rng.normal(size=(60, 60)), index=[f"r{i}" for i in range(60)])
    y = pd.Series(rng.random(60) < 0.5, x.index)
    assert prediction.predict(x, y).auc["rate"] < 0.75


def test_too_few_memorized_records_are_said_to_be_too_few():
    x = inputs(50)
    found = prediction.predict(x, pd.Series([True] * 3 + [False] * 47, x.index))
    assert np.isnan(found.auc["rate"]) and found.note.startswith("not measurable: 3 of 50 records")


def judged(probability):
    memorized = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 1], dtype=bool)
    return pd.DataFrame({"id": list("abcdefghij"), "probability": probability, "memorized": memorized})


def test_what_is_avoided_are_the_memorized_among_the_removed():
    table = judged(np.linspace(0.95, 0.05, 10))
    found, curve = prediction.avoided(table), prediction.savings(table).set_index("share_left_out")["share_avoided"]
    assert [found[name] for name in ("removed", "removed_share", "count", "total")] == [5, 0.5, 3, 4]
    assert curve.tolist() == [0.25, 0.5, 0.5, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 1] and curve.index[1] == 0.2


def test_where_nothing_is_predicted_nothing_is_avoided():
    found = prediction.avoided(judged(np.nan))
    assert found.pop("total") == 4 and all(np.isnan(value) for value in found.values())
    assert prediction.savings(judged(np.nan)).empty


def test_a_long_curve_is_thinned_and_ends_with_everything():
    many = pd.DataFrame({"id": range(5000), "probability": np.linspace(1, 0, 5000), "memorized": True})
    curve = prediction.savings(many)
    assert len(curve) == prediction.POINTS and curve.iloc[-1].tolist() == [1, 1]
