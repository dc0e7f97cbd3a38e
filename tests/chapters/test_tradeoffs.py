"""Memorization against quality and cost: tables of trajectories written by hand, and what is said of them."""

import shutil

import pandas as pd
import pytest
from trained_by_hand import COURSES, TOKENS, made_by_hand

from palimpsest.chapters import repetition, tradeoffs
from palimpsest.errors import InputError
from palimpsest.study import METHODS, Run, write_table
from palimpsest.study.tables import Tables


def read(run: Run) -> Tables:
    """The tables of the chapter, as its page reads them."""
    for name, table in tradeoffs.tables(run).items():
        write_table(table, run.tables / f"{name}.csv")
    return Tables(run.tables)


def said(tables: Tables, unit: str) -> list[str]:
    """Every sentence of the chapter."""
    return [
        *repetition.say_baseline_doses(tables.by_dose, unit),
        *tradeoffs.say_tradeoffs(tables.trajectories, unit),
    ]


def test_trajectories_hold_every_model_of_every_replicate(tmp_path):
    path = read(made_by_hand(tmp_path, replicates=3)).trajectories
    assert path.groupby("replicate")["model"].nunique().to_dict() == {0: 5, 1: 5, 2: 5}
    assert set(path["role"]) == {"teacher", "baseline", "student", "mitigated"} and len(path) == 3 * 5 * 7
    end = path[(path["method"] == "sft") & (path["size"] == "small") & (path["epoch"] == 4)]
    assert end["recited_repeated"].to_list() == pytest.approx([0.6] * 3, abs=0.03)
    assert end["recited_repeated"].nunique() == 3


def test_a_warm_started_student_has_read_its_start_too(tmp_path):
    path = read(made_by_hand(tmp_path, ("sft", "rkl_student_warm"))).trajectories
    tokens = path[(path["replicate"] == 0) & (path["size"] == "small")].groupby("method")["tokens"]
    assert tokens.min().to_dict() == {"sft": 0, "rkl_student_warm": 4 * TOKENS}
    assert tokens.max().to_dict() == {"sft": 4 * TOKENS, "rkl_student_warm": 8 * TOKENS}


def test_an_unfinished_replicate_is_not_left_out_silently(tmp_path):
    run = made_by_hand(tmp_path)
    shutil.rmtree(run.parts()["replicate1"].model("small-fkl-s0"))
    with pytest.raises(InputError, match="replicate1/models/small-fkl-s0 is not finished"):
        tradeoffs.tables(run)


def test_stopped_is_the_point_of_lowest_validation_loss(tmp_path):
    run = made_by_hand(tmp_path)
    path = run.model("small-fkl-s0") / "trajectory.csv"
    course = pd.read_csv(path)
    # nothing could be calibrated, and the plain loss is lowest elsewhere
    course.assign(validation_loss_calibrated=float("nan"), validation_loss=[3, 3, 1, 3, 3, 3, 3]).to_csv(
        path, index=False
    )
    tables = read(run)
    epochs = tables.stopped.set_index(["replicate", "method", "size"])["epoch"]
    assert epochs[0, "sft", "small"] == 2 and epochs[0, "fkl", "small"] == 1 and epochs[1, "rkl", "small"] == 4
    shown = tradeoffs.show_stopped(tables.stopped, tables.trajectories, "secrets")
    assert shown.index.is_unique and shown.loc["small, SFT", ("at the end", "repeated secrets recited")] in (
        "60 %",
        "61 %",
    )


def test_a_figure_has_a_panel_per_measure_and_a_line_per_method(tmp_path):
    path = read(made_by_hand(tmp_path)).trajectories
    for quality in tradeoffs.QUALITIES:
        figure = tradeoffs.plot_tradeoff(path, "secrets", quality)
        assert [ax.get_ylabel() for ax in figure.axes] == [
            "repeated secrets recited", "AUC of the loss attack", "exposure, bits", "transferred exposure, bits",
        ]  # fmt: skip
        assert {t.get_text() for t in figure.legends[0].get_texts()} == {
            METHODS[m].label for m in ("sft", "fkl", "rkl", "sft_goldfish")
        }
    x, y = figure.axes[0].lines[0].get_data()
    assert list(x[-2:]) == [3 * TOKENS, 4 * TOKENS] and y[-1] == pytest.approx(0.6, abs=0.02)  # means over replicates
    assert tradeoffs.plot_tradeoff(path, "secrets", further=True) is None
    assert tradeoffs.plot_tradeoff(path.assign(rouge_l=float("nan")), "secrets", "rouge_l") is None


def test_methods_of_one_size_have_a_figure_of_their_own(tmp_path):
    path = read(made_by_hand(tmp_path)).trajectories
    other = path[path["method"].isin(["sft", "fkl", "rkl"])].replace({"size": {"small": "medium"}})
    both = pd.concat([path, other])
    everywhere, further = (tradeoffs.plot_tradeoff(both, "secrets", further=f) for f in (False, True))
    assert {t.get_text() for t in everywhere.legends[0].get_texts()} == {
        METHODS[m].label for m in ("sft", "fkl", "rkl")
    }
    assert {t.get_text() for t in further.legends[0].get_texts()} == {
        METHODS[m].label for m in ("sft", "sft_goldfish")
    }
    assert [ax.get_title() for ax in further.axes if ax.get_title()] == ["student: small"]


def test_flops_count_what_each_method_computes():
    facts = {"steps": 1, "tokens_per_epoch": 10, "epochs": 3, "parameters": 7, "teacher_parameters": 20}
    plain = 6 * 7 * 30
    assert tradeoffs.training_flops(facts, "sft") == plain
    assert tradeoffs.training_flops(facts, "fkl") == plain + 2 * 20 * 10  # the teacher reads the references once
    assert tradeoffs.training_flops(facts, "rkl_student") == plain + 30 * 2 * (7 + 20)
    assert tradeoffs.training_flops(facts, "gkd") == plain + 15 * 2 * (7 + 20) + 2 * 20 * 10
    assert tradeoffs.training_flops({**facts, "teacher_parameters": 0}, "none") == plain  # a base from scratch
    assert tradeoffs.training_flops({"parameters": 7}, "none") == 0  # a base that was only loaded


def test_costs_have_a_row_per_model_of_the_first_replicate(tmp_path):
    tables = read(made_by_hand(tmp_path, seeds=(0, 1)))
    assert list(tables.costs["model"][:3]) == ["base-teacher", "base-small", "teacher"] and len(tables.costs) == 11
    shown = tradeoffs.show_costs(tables.costs)
    assert shown.index.is_unique and shown.loc["small, SFT, seed 0", "training, s"] == "2"


@pytest.mark.parametrize("methods", [("sft",), ("sft", "fkl")])
@pytest.mark.parametrize("secrets", [True, False])
@pytest.mark.parametrize("canaries", [True, False])
@pytest.mark.parametrize("replicates", [1, 2])
def test_the_chapter_reads_right_for_any_study(tmp_path, methods, secrets, canaries, replicates):
    tables = read(made_by_hand(tmp_path, methods, replicates=replicates, secrets=secrets, canaries=canaries))
    unit = "secrets" if secrets else "records"
    lines = said(tables, unit)
    assert [s for line in lines for s in line.strip("- ").split(". ") if len(s.split()) > 25] == []
    text = " ".join(lines)
    assert "letter" not in text and "nan" not in text and ("secrets" in text) == secrets
    assert f"{len(methods) * replicates} students in {replicates} replicate{'s' * (replicates > 1)}." in text
    assert not {"less", "more", "better"} & set(text.split())
    figure = tradeoffs.plot_tradeoff(tables.trajectories, unit)
    assert len(figure.axes) == (4 if canaries else 3) and figure.axes[0].get_ylabel() == f"repeated {unit} recited"
    assert {METHODS[m].label for m in methods} == {t.get_text() for t in figure.legends[0].get_texts()}
    assert (
        set(methods) <= set(COURSES)
        and repetition.plot_by_dose(tables.by_dose, unit).axes[0].get_ylabel() == f"{unit} recited"
    )
