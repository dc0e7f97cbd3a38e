"""Two methods compared over replicates: curves made by hand, every rule of the verdict, and studies simulated with a known truth."""

import importlib.util
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_1samp
from statsmodels.stats.multitest import multipletests

from palimpsest.errors import InputError
from palimpsest.measure.comparison import (
    COLUMNS,
    POINT_COLUMNS,
    QUALITIES,
    Question,
    compare_methods,
    differences_at_distances,
)

LOSS, ROUGE = "validation_loss_calibrated", "rouge_l"
EPOCHS = np.arange(9)
ASKED, AT_END = (Question("family", "claim", "rkl", "sft", "recited", at) for at in ("equal", "end"))
APART = [0.10, 0.11, 0.12, 0.10, 0.09]


def path(method, replicate, recited, **columns):
    """A model that gets better evenly, so that interpolation is exact: loss 3.0 to 1.4, ROUGE-L 0.1 to 0.5, 0 to 800 tokens."""
    even = {LOSS: 3 - 0.2 * EPOCHS, ROUGE: 0.1 + 0.05 * EPOCHS, "tokens": 100.0 * EPOCHS, "recited": recited}
    who = {"size": "small", "method": method, "replicate": replicate, "seed": np.nan, "epoch": EPOCHS}
    return pd.DataFrame({**who, **even, **columns})


def study(differences, base=0.2, **columns):
    """`rkl` differs from `sft` by one of `differences` in every replicate, everywhere; `columns` are those of `rkl`."""
    base = np.broadcast_to(base, len(differences))
    parts = [path("sft", r, b + 0.02 * EPOCHS) for r, b in enumerate(base)]
    parts += [
        path("rkl", r, b + 0.02 * EPOCHS + d, **columns)
        for r, (b, d) in enumerate(zip(base, differences, strict=True))
    ]
    return pd.concat(parts, ignore_index=True)


def because(trajectories, *questions):
    """The reasons of the first question, one per meaning of quality; nothing is decided."""
    found = compare_methods(trajectories, list(questions or [ASKED]))
    found = found[found["claim"] == "claim"]
    assert set(found["verdict"]) == {"undecided"}
    return found["because"].tolist()


# ---------------------------------------------------------------- estimate, interval, p


@pytest.mark.parametrize(("sign", "verdict"), [(1, "more"), (-1, "less")])
def test_a_difference_that_is_the_same_everywhere_is_found_under_every_meaning_of_quality(sign, verdict):
    differences = sign * np.array(APART)
    found = compare_methods(study(differences), [ASKED, AT_END])
    assert list(found.columns) == COLUMNS
    assert found["quality"].tolist() == [*QUALITIES, "none"]
    test = ttest_1samp(differences, 0)
    for row in found.itertuples():
        assert (row.replicates, row.verdict, row.because) == (5, verdict, "")
        assert row.estimate == pytest.approx(differences.mean())
        assert (row.low, row.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
        assert row.p_holm == pytest.approx(test.pvalue)  # one claim per family and meaning
        assert row.null_largest == pytest.approx(0.03)  # 0.12 and 0.09; sft does not differ from itself


def test_which_method_is_first_changes_the_sign_alone():
    trajectories = study(APART, base=np.linspace(0.2, 0.3, 5))
    ahead = compare_methods(trajectories, [ASKED])
    back = compare_methods(trajectories, [Question("family", "claim", "sft", "rkl", "recited", "equal")])
    np.testing.assert_allclose(back[["estimate", "low", "high"]], -ahead[["estimate", "high", "low"]], atol=1e-12)
    assert back[["null_largest", "p_holm"]].equals(ahead[["null_largest", "p_holm"]])


def test_holm_within_a_family_and_a_meaning_of_quality():
    rng = np.random.default_rng(0)
    trajectories = study(APART)
    names = [f"measure {i}" for i in range(6)]
    for name in names:
        trajectories[name] = rng.normal(size=len(trajectories)) + (trajectories["method"] == "rkl")
    questions = [
        Question(family, name, "rkl", "sft", name, "equal") for family, name in zip("aaaabb", names, strict=True)
    ]
    together = compare_methods(trajectories, questions).set_index(["claim", "quality"])["p_holm"]
    alone = {}
    for question in questions:
        for row in compare_methods(trajectories, [question]).itertuples():
            alone[question.claim, row.quality] = row.p_holm
    for quality in QUALITIES:
        for part in (names[:4], names[4:]):
            wanted = multipletests([alone[name, quality] for name in part], method="holm")[1]
            np.testing.assert_allclose([together[name, quality] for name in part], wanted)


def test_the_null_contrast_is_the_largest_pair_of_replicates_of_either_method():
    base = [0.2, 0.25, 0.2, 0.21, 0.27]
    found = compare_methods(study(APART, base=base), [ASKED, AT_END])
    # The pairs are linear in quality with one slope, so a pair differs by its bases and differences.
    rkl = np.add(base, APART)
    np.testing.assert_allclose(found["null_largest"], max(np.ptp(base), np.ptp(rkl)))


# ---------------------------------------------------------------- how a curve is read


def test_what_follows_the_best_quality_counts_at_the_end_only():
    later = study(APART)
    worse_again = later["method"].eq("rkl") & later["epoch"].ge(7)
    later.loc[worse_again, [LOSS, ROUGE]] = [[2.5, 0.2]] * worse_again.sum()
    changed = later.copy()
    changed.loc[worse_again, "recited"] = 0.9
    one, other = (compare_methods(t, [ASKED, AT_END]).set_index("quality")["estimate"] for t in (later, changed))
    np.testing.assert_allclose(one[[LOSS, ROUGE]], np.mean(APART))
    np.testing.assert_allclose(other[[LOSS, ROUGE]], np.mean(APART))
    assert other["none"] == pytest.approx(0.9 - (0.2 + 0.02 * 8)) and one["none"] == pytest.approx(np.mean(APART))


def test_a_point_that_does_not_improve_is_pooled_with_the_one_before():
    trajectories = study(APART)
    at = trajectories["method"].eq("rkl") & trajectories["epoch"].isin([3, 4])
    # Loss 2.4 and 2.2 seen as 2.2 and 2.4, with what belongs to them: the mean of both stays where it was.
    trajectories.loc[at, LOSS] = np.tile([2.2, 2.4], 5)
    found = compare_methods(trajectories, [ASKED]).set_index("quality")["estimate"]
    assert found[LOSS] == pytest.approx(np.mean(APART))


def test_nothing_is_read_across_a_wide_gap():
    trajectories = study(APART)
    rkl = trajectories["method"].eq("rkl")
    gone = rkl & trajectories["epoch"].isin([1, 2])  # loss 2.8 and 2.6: between 3.0 and 2.4 nothing is known
    start = rkl & trajectories["epoch"].eq(0)
    wild = trajectories[~gone].copy()
    wild.loc[start, "recited"] += 0.5
    found = compare_methods(wild, [ASKED]).set_index("quality")["estimate"]
    assert found["tokens"] > np.mean(APART) + 0.02  # no gap in tokens is too wide
    # PCHIP takes its slope at 2.4 from both sides; beyond the next point nothing is left of it.
    assert found[LOSS] == pytest.approx(np.mean(APART), abs=0.003)


def test_the_ends_of_the_range_are_what_both_reach():
    """`rkl` starts at 2.6 and `sft` ends at 1.4: from 2.6 to the worse best (1.8, of `rkl`) less the margin."""
    trajectories = study(APART)
    rkl = trajectories["method"].eq("rkl")
    trajectories = trajectories[~rkl | trajectories["epoch"].between(2, 6)].copy()
    # A step in sft's curve outside the range: it would count if the range were wider by a point on either side.
    outside = trajectories["method"].eq("sft") & ~trajectories["epoch"].between(1, 7)
    trajectories.loc[outside, "recited"] += 5.0
    found = compare_methods(trajectories, [ASKED]).set_index("quality")["estimate"]
    assert found[LOSS] == pytest.approx(np.mean(APART))


def test_seeds_are_averaged_before_anything_and_a_point_needs_all_of_them():
    trajectories = study(APART)
    up, down = trajectories.assign(seed=1.0), trajectories.assign(seed=2.0)
    up["recited"] += 0.05
    down["recited"] -= 0.05
    wanted = compare_methods(trajectories, [ASKED, AT_END])
    pd.testing.assert_frame_equal(compare_methods(pd.concat([up, down]), [ASKED, AT_END]), wanted)
    stopped = pd.concat([up, down[down["epoch"] < 8]])
    shorter = compare_methods(trajectories[trajectories["epoch"] < 8], [ASKED, AT_END])
    pd.testing.assert_frame_equal(compare_methods(stopped, [ASKED, AT_END]), shorter)


def test_another_method_in_the_table_changes_nothing():
    trajectories = study(APART)
    other = pd.concat([path("other", r, 0.5, **{LOSS: 4.013 - 0.1 * EPOCHS, ROUGE: 0.033}) for r in range(5)])
    pd.testing.assert_frame_equal(
        compare_methods(pd.concat([trajectories, other]), [ASKED]), compare_methods(trajectories, [ASKED])
    )


def test_a_question_is_asked_at_every_size_that_has_both_methods():
    one = study(APART)
    lonely = path("sft", 0, 0.1).assign(size="tiny")
    found = compare_methods(pd.concat([one, lonely, one.assign(size="large")]), [ASKED])
    assert found["size"].drop_duplicates().tolist() == ["small", "large"]
    assert found["p_holm"].tolist() == pytest.approx([2 * ttest_1samp(APART, 0).pvalue] * 6)
    for compared, columns in ((compare_methods, COLUMNS), (differences_at_distances, POINT_COLUMNS)):
        nothing = compared(lonely, [ASKED])
        assert nothing.empty and list(nothing.columns) == columns


# ---------------------------------------------------------------- why there is no verdict


def test_fewer_than_five_replicates_have_an_interval_and_no_verdict():
    assert because(study(APART[:4])) == ["fewer than five replicates"] * 3
    found = compare_methods(study(APART[:4]), [ASKED])
    assert found["low"].notna().all() and (found["low"] > 0).all() and found["null_largest"].notna().all()


def test_one_replicate_has_an_estimate_and_no_interval():
    found = compare_methods(study([0.1]), [ASKED, AT_END])
    assert found["estimate"].tolist() == pytest.approx([0.1] * 4)
    assert found[["low", "high", "null_largest", "p_holm"]].isna().all(axis=None)
    assert set(found["because"]) == {"fewer than five replicates"}


def test_only_replicates_that_both_have_are_compared():
    trajectories = study([*APART, 0.1, 0.5])
    missing = (trajectories["method"].eq("sft") & trajectories["replicate"].eq(6)) | (
        trajectories["method"].eq("rkl") & trajectories["replicate"].eq(5)
    )
    found = compare_methods(trajectories[~missing], [ASKED])
    assert found["replicates"].tolist() == [5] * 3 and found["estimate"].tolist() == pytest.approx(
        [np.mean(APART)] * 3
    )


def test_curves_that_share_no_range():
    # The best of rkl is worse than where sft starts; under ROUGE-L and tokens they meet.
    apart = study(APART, **{LOSS: 5 - 0.2 * EPOCHS})
    reasons = because(apart)
    assert reasons[0] == f"the curves share no range under {LOSS} in 5 of 5 replicates"
    assert (
        reasons[1:]
        == [f"the meanings of quality disagree: undecided under {LOSS}, more under rouge_l, more under tokens"] * 2
    )
    found = compare_methods(apart, [ASKED])
    assert np.isnan(found["estimate"][0]) and found["replicates"].tolist() == [0, 5, 5]
    one = study([*APART, 0.1])
    one.loc[one["method"].eq("rkl") & one["replicate"].eq(5), LOSS] += 2
    assert because(one)[0] == f"the curves share no range under {LOSS} in 1 of 6 replicates"


def test_one_point_is_no_range():
    """Models of one point each, of the same quality, which lies on the grid of means."""
    trajectories = study(APART)
    reasons = because(trajectories[trajectories["epoch"].eq(0) | trajectories["replicate"].gt(4)])
    assert reasons == [f"the curves share no range under {quality} in 5 of 5 replicates" for quality in QUALITIES]


def test_an_estimate_within_the_null_contrast():
    assert (
        because(study(APART, base=[0.2, 0.35, 0.2, 0.2, 0.2]))
        == ["smaller than a method's difference from itself"] * 3
    )


def test_a_family_that_is_too_large():
    differences = [0.10, 0.10, 0.19, 0.19, 0.19]
    trajectories = study(differences).assign(nothing=0.0)
    others = [Question("family", f"other {i}", "rkl", "sft", "nothing", "equal") for i in range(30)]
    assert (compare_methods(trajectories, [ASKED])["verdict"] == "more").all()
    p = ttest_1samp(differences, 0).pvalue
    assert because(trajectories, ASKED, *others) == [f"p_holm {31 * p:.2g}"] * 3 and 31 * p > 0.05


def test_meanings_of_quality_that_contradict_each_other():
    """A method that needs half the tokens and memorizes less at the same loss and ROUGE-L has more at the same tokens."""
    wanted = f"the meanings of quality disagree: less under {LOSS}, less under rouge_l, more under tokens"
    assert because(study([-0.010, -0.011, -0.012, -0.010, -0.009], tokens=50.0 * EPOCHS)) == [wanted] * 3


@pytest.mark.parametrize(
    ("level", "words"), [(0.0, "every model is at 0: a floor"), (1.0, "every model is at 1: a ceiling")]
)
def test_a_floor_and_a_ceiling(level, words):
    flat = study([0.0] * 5).assign(recited=level)
    found = compare_methods(flat, [ASKED, AT_END])
    assert set(found["because"]) == {words} and set(found["verdict"]) == {"undecided"}
    assert (found["estimate"] == 0).all() and (found["p_holm"] == 1).all()


def test_a_measure_that_was_not_measured():
    reason = "not measured for both methods in any replicate"
    trajectories = study(APART)
    trajectories.loc[trajectories["method"] == "rkl", "recited"] = np.nan
    assert because(trajectories, ASKED, AT_END) == [reason] * 4
    without_rouge = study(APART).assign(rouge_l=np.nan)
    assert because(without_rouge)[1] == reason


def test_a_spread_that_was_not_seen_is_a_step_of_the_measure():
    """Of 16 canaries one recites all, the other 15, five times: that may be chance. All and none, five times, is not."""
    table = study([0.0] * 5)
    rkl = table["method"].eq("rkl")
    other = path("other", 0, np.arange(9) / 16)  # where the step of the measure, one canary, can be seen
    for least, verdict in ((15 / 16, "undecided"), (0.0, "less")):
        table["recited"] = np.where(rkl, least, 1.0)
        found = compare_methods(pd.concat([table, other]), [ASKED, AT_END])
        half = student.ppf(0.975, 4) / 16 / np.sqrt(5)
        np.testing.assert_allclose(found["high"], least - 1 + half)
        np.testing.assert_allclose(found["low"], least - 1 - half)
        np.testing.assert_allclose(found["p_holm"], 2 * student.sf((1 - least) * 16 * np.sqrt(5), 4))
        assert set(found["verdict"]) == {verdict}
    assert (found["null_largest"] == 0).all()


def test_the_step_is_what_a_record_is_worth_and_not_how_far_shares_of_two_replicates_are_apart():
    """17 and 18 secrets: a replicate's shares differ by 1/18 at least, two replicates' by 1/17 - 1/18."""
    counts = np.arange(9)
    parts = [path(m, r, counts / (17 + r % 2)) for r in range(5) for m in ("sft", "rkl")]
    found = compare_methods(pd.concat(parts), [ASKED, AT_END])
    np.testing.assert_allclose(found["high"], student.ppf(0.975, 4) / 18 / np.sqrt(5))
    np.testing.assert_allclose(found["low"], -found["high"])


# ---------------------------------------------------------------- points at stated distances


def test_differences_at_stated_distances():
    trajectories = study(APART)
    rkl = trajectories["method"].eq("rkl")
    trajectories.loc[rkl, "recited"] += 0.1 * (trajectories.loc[rkl, LOSS] - 1.4)  # 0.1 per nat above the minimum
    fine = path("other", 0, 0.2 + 1e-3 * EPOCHS)  # a measure in steps finer than the replicates' spread
    found = differences_at_distances(pd.concat([trajectories, fine]), [ASKED, AT_END])
    assert list(found.columns) == POINT_COLUMNS
    assert found[["quality", "distance"]].values.tolist() == [
        [q, d] for q, rule in QUALITIES.items() for d in rule.distances
    ]
    loss = found[found["quality"] == LOSS]
    np.testing.assert_allclose(loss["estimate"], np.mean(APART) + 0.1 * np.array([0.1, 0.2, 0.4]))
    tokens = found[found["quality"] == "tokens"]
    np.testing.assert_allclose(tokens["estimate"], np.mean(APART) + 0.1 * 1.6 * np.array([0.25, 0.5, 0.75]))
    half = np.ptp(ttest_1samp(APART, 0).confidence_interval(0.95))
    np.testing.assert_allclose(found["high"] - found["low"], half)


def test_a_distance_that_a_replicate_does_not_reach_leaves_it_out():
    trajectories = study(APART)
    short = trajectories["method"].eq("rkl") & trajectories["replicate"].eq(0) & trajectories["epoch"].lt(7)
    found = differences_at_distances(trajectories[~short], [ASKED])
    assert found[found["quality"] == LOSS]["replicates"].tolist() == [5, 5, 4]


# ---------------------------------------------------------------- bad input


def test_bad_input_is_named():
    good = study(APART)
    with pytest.raises(InputError, match=r"have no rouge_l, tokens; wanted the columns size, .*, recited"):
        compare_methods(good.drop(columns=["rouge_l", "tokens"]), [ASKED])
    with pytest.raises(
        InputError, match=r"two rows of size small, method sft, replicate 0, epoch 3, seed nan; wanted one"
    ):
        compare_methods(pd.concat([good, good.iloc[[3]]]), [ASKED])
    with pytest.raises(InputError, match=r'asked at "stopped"; wanted "equal"'):
        compare_methods(good, [Question("family", "claim", "rkl", "sft", "recited", "stopped")])


# ---------------------------------------------------------------- simulated studies with a known truth


@pytest.fixture(scope="module")
def comparing():
    where = Path(__file__).parents[2] / "benchmarks" / "comparing.py"
    spec = importlib.util.spec_from_file_location("comparing", where)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def alike(comparing):
    """400 data sets of five replicates, 200 families of 18 claims; nothing is to be found at equal loss or ROUGE-L."""
    rng = np.random.default_rng(20)
    return comparing.trials(comparing.ALIKE, 200, rng), comparing.truths(comparing.ALIKE, rng)


@pytest.mark.slow
def test_intervals_hold_the_truth(comparing, alike):
    found = comparing.coverage(*alike)
    print(found.round(4).to_string())
    assert (found.groupby("quality")["covered"].mean() >= 0.93).all()
    equal = found[found["quality"] != "none"]
    assert len(equal) == 27 and (equal["covered"] >= 0.90).all()  # 400 intervals: three standard errors below 0.93


@pytest.mark.slow
def test_speed_is_not_taken_for_memorization(comparing, alike):
    found = comparing.coverage(*alike)
    found = found[found["quality"].isin([LOSS, ROUGE])]
    # A bias of a fourth of the spread costs a nominal 95 % interval of five replicates 1.5 points.
    assert len(found) == 18 and (found["bias"].abs() < 0.25 * found["spread"]).all()


@pytest.mark.slow
def test_false_findings_are_rare(comparing, alike):
    found = comparing.false_findings(alike[0])
    print(found)
    assert (found <= 0.06).all()


@pytest.mark.slow
def test_a_large_effect_is_found(comparing):
    """Power: what a student recites and knows is gone altogether (no recital, AUC lower by 0.25)."""
    nothing = [m for m in comparing.LESS if m.effect == 1]
    found = comparing.power(comparing.trials(nothing, 40, np.random.default_rng(21))).set_index(["measure", "quality"])
    print(found.round(3).to_string())
    assert found.loc[("auc", LOSS), "decided"] >= 0.6 and found.loc[("recited_repeated", "none"), "beyond_null"] >= 0.9
    assert (found.loc["recited_repeated"]["estimate"] < 0).all()


def test_straight_lines_across_wide_gaps_would_find_what_is_not_there(comparing):
    """Without noise, a method of twice the speed and `sft` recite the same at every loss; 200 replicates show what reading adds."""
    fast = comparing.Simulated("fast", speed=2)
    sizes = tuple(f"{i}" for i in range(20))
    exact = comparing.simulate(
        [comparing.SFT, fast], np.random.default_rng(22), sizes=sizes, replicates=10, exact=True
    )
    question = Question("family", "claim", "fast", "sft", "recited_repeated", "equal")
    ours = compare_methods(exact, [question]).set_index("quality")["estimate"][LOSS].abs().mean()
    lines = []
    for size, replicate in product(sizes, range(10)):
        models = exact[exact["size"].eq(size) & exact["replicate"].eq(replicate)]
        sides = []
        for name in ("fast", "sft"):
            model = models[models["method"] == name]
            sides.append(model.iloc[: model[LOSS].to_numpy().argmin() + 1].iloc[::-1])
        losses = np.linspace(max(s[LOSS].min() for s in sides) + 0.1, 3.0, 200)
        first, second = (np.interp(losses, s[LOSS], s["recited_repeated"]) for s in sides)
        lines.append((first - second).mean())
    assert np.mean(lines) > 0.03 > 5 * ours
