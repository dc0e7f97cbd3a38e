"""The questions asked of replicates, the tuning grid, and what is said and drawn of both."""

import pandas as pd
import pytest
from claims_by_hand import NOTHING, SOME, claimed, claims_table
from trained_by_hand import made_by_hand

from palimpsest.chapters import claims, comparisons, tradeoffs
from palimpsest.study import METHODS, write_table
from palimpsest.study.tables import Tables, read_table

ALL = list(comparisons.ASKED)


def read(run) -> Tables:
    """The tables of the chapter, as its page reads them."""
    for name, table in comparisons.tables(run).items():
        write_table(table, run.tables / f"{name}.csv")
    return Tables(run.tables)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "sft"])
def test_every_method_is_held_against_what_it_is_made_from(method):
    against = {second for pairs, _ in comparisons.ASKED.values() for first, second in pairs if first == method}
    rule = METHODS[method]
    made_from = rule.leave_out if rule.distilled and rule.leave_out else "sft"
    made_from = method.removesuffix("_lora") if rule.settings.get("lora") else made_from
    assert (method[:-3] if rule.settings.get("temperature") else made_from) in against


def test_families_are_small_and_no_comparison_stands_in_one_twice():
    asked = pd.DataFrame([vars(q) for q in comparisons.questions()])
    assert not asked.duplicated().any()
    assert asked.groupby("family").size().max() <= 5
    assert {pair for pair in claims.PAPER} <= set(zip(asked["first"], asked["second"], strict=True))
    assert set(asked["measure"]) == set(claims.PHRASES)


def test_methods_that_differ_are_told_apart_and_those_that_do_not_are_not(tmp_path):
    found = claims.outcomes(read(made_by_hand(tmp_path, replicates=5)).claims)
    known = found[found["second"] == "sft"].set_index(["first", "measure", "moment"]).sort_index()
    assert known.loc[("fkl", "recited_repeated", "equal"), "verdict"] == "less"
    assert known.loc[("fkl", "recited_repeated", "end"), "verdict"] == "less"
    assert known.loc[("fkl", "recited_repeated", "end"), "estimate"] == pytest.approx(-0.3, abs=0.03)
    assert set(known.loc["sft_goldfish", "verdict"]) == {"undecided"}  # the same course
    assert known.loc[("rkl", "recited_repeated", "end"), "verdict"] == "less"
    assert known["replicates"].eq(5).all()


def test_differences_are_shown_at_stated_distances_from_the_best(tmp_path):
    found = read(made_by_hand(tmp_path, replicates=5)).distances
    known = found[(found["first"] == "fkl") & (found["measure"] == "recited_repeated") & found["estimate"].notna()]
    assert known["distance"].nunique() > 1 and (known["high"] < 0).all()
    figure = comparisons.plot_distances(found, "recited_repeated")
    assert [ax.get_xlabel() for ax in figure.axes[-3:]] == list(comparisons.DISTANCES)
    assert comparisons.plot_distances(found.head(0), "recited_repeated") is None


@pytest.mark.parametrize("replicates", [1, 2])
def test_too_few_replicates_decide_nothing_and_say_so(tmp_path, replicates):
    found = read(made_by_hand(tmp_path, replicates=replicates)).claims
    assert len(found) and set(found["verdict"]) == {"undecided"} and (found["because"] != "").all()
    text = " ".join(claims.say_tally(found, *ALL)) + comparisons.say_families(found)
    assert "Nothing is decided." in text and "comparisons is decided**: fewer than five replicates." in text
    assert f"{replicates} replicate{'s' * (replicates > 1)}." in text


def test_tuning_chooses_by_validation_loss_alone(tmp_path):
    tuning = read(made_by_hand(tmp_path, ("sft", "fkl", "rkl"), replicates=1, tuning=True)).tuning
    chosen = tuning[tuning["chosen"]].set_index("method")
    assert chosen["learning_rate"].eq(1e-3).all()  # the other is worse everywhere
    assert chosen["epoch"].to_dict() == {"sft": 2, "fkl": 2, "rkl": 4}
    assert tuning["epoch"].min() == 1 and len(tuning) == 3 * 2 * 5
    assert comparisons.show_tuning(tuning).loc["small, SFT", "learning rate"] == "0.001"
    assert comparisons.say_tuning(tuning).startswith(
        "3 arms were each trained at the learning rates 0.001, 0.004. For 3 of them"
    )


def test_claims_are_shown_by_question():
    shown = comparisons.show_claims(SOME, "distilling", "end")
    assert shown.loc["Word-KD vs. SFT, small", "repeated text recited, points"] == "-20 (-25 to -15) less"
    assert shown.loc["forward KL vs. SFT, small", "exposure, bits"] == "-1.5 (-1.6 to -1.4) less"
    assert shown.loc["Seq-KD vs. SFT, small", "repeated text recited, points"] == "+20 (+15 to +25)"  # undecided
    assert comparisons.show_claims(SOME, "mitigation", "end") is None
    assert comparisons.show_choices(SOME).index.to_list() == [("divergence", "reverse KL vs. forward KL, small")]


def test_a_figure_has_a_panel_per_measure_and_a_mark_per_comparison():
    figure = comparisons.plot_claims(SOME, "distilling")
    assert [ax.get_title() for ax in figure.axes] == ["repeated text recited, points", "exposure, bits"]
    assert [len(ax.containers) for ax in figure.axes] == [5, 1]
    nameless = SOME.assign(estimate=float("nan"))
    assert (
        comparisons.plot_claims(nameless, "distilling") is None and comparisons.plot_claims(SOME, "warm start") is None
    )
    points = claims_table(claimed("text", "rkl_student", "rkl", "auc", "end", "undecided")).assign(low=float("nan"))
    assert len(comparisons.plot_claims(points, "text").axes[0].containers) == 1  # one replicate: no interval
    assert comparisons.show_claims(points, "text", "end").iloc[0, 0] == "+0.20"


@pytest.mark.parametrize("methods", [("sft",), ("sft", "fkl"), ("sft", "fkl", "rkl", "sft_goldfish")])
@pytest.mark.parametrize("secrets", [True, False])
@pytest.mark.parametrize("canaries", [True, False])
def test_the_chapter_reads_right_for_any_study(tmp_path, methods, secrets, canaries):
    tables = read(made_by_hand(tmp_path, methods, replicates=2, secrets=secrets, canaries=canaries))
    found = tables.claims
    lines = [*claims.say_tally(found, *ALL), *claims.say_paper(found)]
    lines += [
        comparisons.say_distances(tables.distances, "recited_repeated"),
        comparisons.say_families(found),
        comparisons.say_tuning(tables.tuning),
    ]
    for line in lines:
        for sentence in line.split(". "):
            assert len([w for w in sentence.split() if any(c.isalnum() for c in w)]) <= 25, sentence
    text = " ".join(lines)
    assert "letter" not in text and "nan" not in text and "demo" not in text and "secret" not in text
    assert (
        ("plain fine-tuning alone" in text)
        == (methods == ("sft",))
        == (comparisons.plot_claims(found, "distilling") is None)
    )
    assert comparisons.show_tuning(tables.tuning) is None and "tunes nothing" in text
    assert claims.show_paper(found) is None


def test_nothing_to_compare():
    assert comparisons.show_choices(NOTHING) is None


def test_claims_of_a_run_are_made_from_its_trajectories_alone(tmp_path):
    run = made_by_hand(tmp_path, replicates=2)
    found = read(run).claims
    path = write_table(tradeoffs.tables(run)["trajectories"], tmp_path / "trajectories.csv")
    students = read_table(path)
    again = comparisons.compare_methods(students[students["size"] != "teacher"], comparisons.questions())
    again = read_table(write_table(again, tmp_path / "claims.csv"))
    pd.testing.assert_frame_equal(found, again, rtol=1e-3, atol=1e-4)
