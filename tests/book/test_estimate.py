"""What a study will take is counted from its own records and measured on this machine."""

import pytest

from palimpsest import cli
from palimpsest.book import estimate
from palimpsest.study import METHODS, load_study, open_run

SMOKE = "studies/smoke.yaml"


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    run = open_run(SMOKE, tmp_path_factory.mktemp("run"))
    return run, *estimate.plan(run)


def test_every_model_of_the_study_and_its_parts_has_a_row(planned):
    run, table, peak = planned
    own = table[(table["part"] == "") & (table["stage"] != "teacher's text")]
    asked = any(METHODS[arm.method].text == "teacher" for arm in run.study.arms())
    assert asked == ("teacher's text" in set(table["stage"]))
    assert len(own) == len(run.study.everyone()) and set(table["part"]) == {"", *run.parts()}
    assert (table[["measuring_flops", "seconds"]] > 0).all().all() and peak > 1e8
    assert not list(run.path.iterdir())  # nothing is written


def test_operations_are_those_of_parameters_and_tokens(planned):
    run, table, _ = planned
    rows = table[table["part"] == ""].set_index("stage")["training_flops"]
    assert rows["small word_kd"] > rows["small sft"]  # the teacher reads the text once
    assert rows["small rkl_student"] > rows["small word_kd"]  # and every sample
    epochs = load_study(SMOKE).training("small", "sft").epochs
    assert rows["small sft"] % epochs == 0


def test_twice_the_epochs_are_twice_the_operations(planned, tmp_path):
    run, table, _ = planned
    study = run.study.model_copy(
        update={"student": run.study.student.model_copy(update={"epochs": 2 * run.study.student.epochs})}
    )
    more, _ = estimate.plan(open_run(study, tmp_path))
    before, after = (
        t[(t["part"] == "") & (t["stage"] == "small sft")]["training_flops"].item() for t in (table, more)
    )
    assert after == 2 * before


def test_the_command_says_it_in_total_and_for_a_stated_gpu(capsys):
    assert cli.main(["check", SMOKE, "--estimate", "--cores", "2", "--gpu-flops", "2e14"]) == 0
    said = capsys.readouterr().out
    assert (
        "small sft: " in said
        and "hours on 2" in said
        and "at 2e+14 operations a second" in said
        and "memory: " in said
    )


def test_too_little_memory_by_the_estimate_is_said(planned, monkeypatch):
    run, table, _ = planned
    monkeypatch.setattr(estimate, "plan", lambda run: (table, 4 * 10**9))
    for free, said in (
        (6, "6.0 GB are free here; give it 1 core(s)"),
        (3, "use a smaller model"),
        (9, None),
        (None, None),
    ):
        monkeypatch.setattr(estimate, "memory_free", lambda free=free: free and free * 10**9)
        lines = [line for line in estimate.estimate(run, cores=2) if "too little memory" in line]
        assert [said in line for line in lines] == [True] * (said is not None)
