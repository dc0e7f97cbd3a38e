"""Memorization against quality and cost: tables of trajectories written by hand, and what is said of them."""

import pandas as pd
import pytest
from trained_by_hand import RECORDS, made_by_hand

from palimpsest.chapters import comparisons, tradeoffs
from palimpsest.study import METHODS, Run, write_table
from palimpsest.study.tables import Tables


def read(run: Run) -> Tables:
    """The tables of chapters 07 and 08, as a page reads them."""
    for chapter in (tradeoffs, comparisons):
        for name, table in chapter.tables(run).items():
            write_table(table, run.tables / f"{name}.csv")
    return Tables(run.tables)


def said(tables: Tables) -> list[str]:
    """Every sentence of the chapter."""
    return [
        *tradeoffs.say_stopped(tables.stopped, tables.trajectories),
        *tradeoffs.say_equal_quality(tables.equal_quality),
        *tradeoffs.say_tradeoffs(tables.trajectories, tables.equal_quality),
    ]


def test_a_trajectory_has_both_splits_beside_each_other(tmp_path):
    path = read(made_by_hand(tmp_path)).trajectories.set_index(["model", "epoch"])
    row = path.loc[("small-sft-s1", 3.0)]
    assert (row["memorized"], row["held_out_loss"], row["member_loss"]) == pytest.approx((0.7, 2.5, 2.0))
    assert row["non_member_memorized"] == 0 and row["unit"] == "secrets" and row["role"] == "baseline"
    assert set(path["role"]) == {"teacher", "baseline", "student", "mitigated"} and len(path) == 4 * 9


def test_stopped_is_the_epoch_of_lowest_held_out_loss(tmp_path):
    tables = read(made_by_hand(tmp_path))
    assert tables.stopped.set_index("model")["epoch"].to_dict()["small-sft-s0"] == 2
    shown = tradeoffs.show_stopped(tables.stopped, tables.trajectories)
    assert shown.index.is_unique and shown.loc["small, SFT, seed 1", ("at the end", "recited")].startswith("70.0 %")
    (line,) = tradeoffs.say_stopped(tables.stopped, tables.trajectories)
    assert "40.0 %" in line and "65.0 %" in line  # the mean of both seeds


def test_equal_quality_has_a_row_per_other_method_and_is_an_effect_of_chapter_08(tmp_path):
    tables = read(made_by_hand(tmp_path))
    equal, effects = tables.equal_quality, tables.effects
    assert list(equal["method"]) == ["fkl", "rkl", "sft_goldfish"]
    assert list(equal["role"]) == ["student", "student", "mitigated"]
    same = effects[(effects["second"] == "sft") & (effects["when"] == "equal")].set_index("first")
    columns = ["difference", "low", "high", "member_loss_difference", "member_loss_low", "member_loss_high"]
    assert (equal.set_index("method")[columns] == same[columns]).all(axis=None)
    assert tradeoffs.show_equal_quality(equal).loc["small, forward KL", "fine-tuned, same loss"] == "30.0 %"


@pytest.mark.parametrize("loss", ["", "member_loss"])
def test_a_comparison_is_decided_by_its_interval(loss):
    names = ("difference", "low", "high")
    rows = [(-0.5, -0.6, -0.4), (0.1, -0.1, 0.3), (-0.7, -0.8, 0.1), (0.2, 0.1, 0.3)]
    frame = pd.DataFrame(rows, columns=[f"{loss}_{n}".strip("_") for n in names])
    line = tradeoffs.say_decided(frame, pd.Series(["a", "b", "c", "d"]), loss)
    assert "in 1 of 4 comparisons" in line and " in 1; for 2 we cannot tell." in line
    assert line.endswith("Furthest: a (-0.50 nats)." if loss else "Furthest: a (-50.0 points).")
    open_ = tradeoffs.say_decided(frame.iloc[1:3], pd.Series(["b", "c"]), loss)
    assert "in 0 of 2" in open_ and "Furthest" not in open_


def test_flops_count_what_each_method_computes():
    facts = {"steps": 1, "tokens_per_epoch": 10, "epochs": 3, "parameters": 7, "teacher_parameters": 20}
    plain = 6 * 7 * 30
    assert tradeoffs.training_flops(facts, "sft") == plain
    assert tradeoffs.training_flops(facts, "fkl") == plain + 2 * 20 * 10  # the teacher reads the references once
    assert tradeoffs.training_flops(facts, "rkl_student") == plain + 30 * 2 * (7 + 20)
    assert tradeoffs.training_flops(facts, "gkd") == plain + 15 * 2 * (7 + 20) + 2 * 20 * 10
    assert tradeoffs.training_flops({**facts, "teacher_parameters": 0}, "none") == plain  # a base from scratch
    assert tradeoffs.training_flops({"parameters": 7}, "none") == 0  # a base that was only loaded


def test_costs_have_a_row_per_model(tmp_path):
    tables = read(made_by_hand(tmp_path))
    assert list(tables.costs["model"][:3]) == ["base-teacher", "base-small", "teacher"] and len(tables.costs) == 11
    shown = tradeoffs.show_costs(tables.costs)
    assert shown.index.is_unique and shown.loc["small, SFT, seed 0", "training, s"] == 1.5
    drawn = tradeoffs.plot_costs(tables.costs, tables.trajectories).axes[0].collections
    assert len(drawn) == 4  # students alone


@pytest.mark.parametrize("methods", [("sft",), ("sft", "fkl")])
@pytest.mark.parametrize("secrets", [True, False])
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_chapter_reads_right_for_any_study(tmp_path, methods, secrets, seeds):
    tables = read(made_by_hand(tmp_path, methods, seeds, secrets))
    lines, unit = said(tables), "secrets" if secrets else "records"
    assert [s for line in lines for s in line.strip("- ").split(". ") if len(s.split()) > 25] == []
    text = " ".join(lines)
    assert (tradeoffs.NO_STUDENT in lines) == (methods == ("sft",)) and "letter" not in text and "nan" not in text
    assert f"{RECORDS if not secrets else 60} {unit}" in text and ("secrets" in text) == secrets
    figure = tradeoffs.plot_trajectories(tables.trajectories)
    assert figure.axes[0].get_ylabel() == f"members' {unit} recited"
    assert (tradeoffs.show_equal_quality(tables.equal_quality) is None) == (methods == ("sft",))
    assert {METHODS[m].label for m in methods} == {t.get_text() for t in figure.legends[0].get_texts()}
