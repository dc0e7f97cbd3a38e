"""The stages of a study on models small enough for a test: every method trains, finished work is kept, faults are named."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tiny import changed, tiny, write

from palimpsest.book import bases, stages
from palimpsest.data.records import training_rows
from palimpsest.data.splits import load_records
from palimpsest.errors import InputError
from palimpsest.measure import finished
from palimpsest.measure.read_back import load_scores
from palimpsest.study import METHODS, Arm, Run, open_run
from palimpsest.study.files import root


def trajectory(run, name):
    return pd.read_csv(run.model(name) / "trajectory.csv")


def times(run, *patterns):
    return {p: p.stat().st_mtime_ns for pattern in patterns for p in run.path.rglob(pattern) if p.name != ".lock"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tiny(tmp_path_factory.mktemp("tiny"))
    stages.train_teacher(run)
    for arm in sorted(run.study.arms(), key=lambda a: METHODS[a.method].leave_out is not None):
        stages.train_student(run, arm)
    return run


def test_every_method_trains_and_is_measured(run):
    names = [arm.name for arm in run.measured()]
    assert names == ["base-teacher", "base-small", "teacher", *(f"small-{m}-s0" for m in METHODS)]
    records = load_records(run)
    measured = set(records.loc[records["split"].isin(finished.MEASURED), "id"])
    for name in names:
        assert set(load_scores(run, name)["id"]) == measured
        assert len(load_scores(run, name, "test")) == 4
    for arm in run.study.arms():
        facts, path = run.facts(arm), trajectory(run, arm.name)
        assert (facts["size"], facts["method"], facts["role"]) == (arm.size, arm.method, arm.role)
        epochs = int(run.study.training("small", arm.method).epochs)
        assert facts["epochs"] == epochs and facts["steps"] == epochs * facts["batches_per_epoch"]
        assert list(path["epoch"]) == list(range(epochs + 1)) and path["validation_loss_calibrated"].notna().all()
        before, after = path["member_loss"].iloc[[0, -1]]
        if METHODS[arm.method].text == "references" and not METHODS[arm.method].private:  # noise drowns so few records
            assert after < before


def test_mitigations_read_what_they_say(run):
    read = training_rows(load_records(run), "student")
    assert read["id"].duplicated().any(), "the tiny study needs a canary with copies"
    facts = {m: run.facts(Arm("small", m, 0)) for m in METHODS}
    assert facts["sft"]["examples_per_epoch"] == len(read)
    once = read["id"].nunique()
    assert facts["sft_dedup"]["examples_per_epoch"] == facts["sft_private"]["examples_per_epoch"] == once
    whole, part = (facts[m]["labelled_tokens_per_epoch"] for m in ("sft", "sft_goldfish"))
    assert 0.65 < part / whole < 0.85  # one token in four
    assert facts["sft_private"]["privacy"]["epsilon"] == pytest.approx(8, abs=0.05)
    for method in ("sft_dropped", "fkl_dropped"):
        # models this small recite nothing, so nothing is left out, and the reason is written down
        assert facts[method]["left_out"] == 0 and "not measurable" in facts[method]["left_out_note"]


def test_records_left_out_are_not_read(run, monkeypatch, tmp_path):
    read = training_rows(load_records(run), "student")
    told = set(read["id"].head(7))
    settings, arm = run.study.training("small", "sft_dropped"), Arm("small", "sft_dropped", 0)
    facts = stages._train_on_members(run, "left-out", arm, "base-small", settings, without=told)
    assert facts["examples_per_epoch"] == len(read) - read["id"].isin(told).sum() < len(read)


def test_finished_stages_are_not_run_again(run):
    before = times(run, "*")
    stages.train_teacher(run)
    stages.train_student(run, run.study.arms()[-1])
    assert times(run, "*") == before


def test_other_measuring_measures_again_and_trains_nothing(run):
    other, arm = changed(run, measure={"approximate": 3}), Arm("small", "fkl", 0)
    before, seen = times(run, "*.safetensors"), times(run, f"scores/{arm.name}/run.json")
    stages.train_teacher(other)
    stages.train_student(other, arm)
    assert times(run, "*.safetensors") == before
    assert times(run, f"scores/{arm.name}/run.json") != seen
    stages.train_teacher(run)  # as the other tests expect it
    stages.train_student(run, arm)


def test_students_never_read_the_other_half(run):
    written = pd.read_parquet(run.teacher_text / "records.parquet")
    other_half = set(load_records(run).query("split == 'teacher_only'")["id"])
    assert other_half and not other_half & set(written["id"]) and (written["split"] == "member").all()
    facts = run.require("teacher_text")
    assert facts["records"] == len(written) and facts["same_as_reference"] == int(written["same"].sum())


def test_a_changed_teacher_is_noticed(run):
    with pytest.raises(InputError, match="teacher was made from other settings, data or code than there are now"):
        stages.train_student(changed(run, teacher={"epochs": 3}), Arm("small", "rkl", 0))


def test_order_and_names_are_checked(run, tmp_path):
    with pytest.raises(InputError, match="small-dpo-s0 is not an arm of tiny"):
        stages.train_student(run, Arm("small", "dpo", 0))
    with pytest.raises(
        InputError, match=r"teacher is not finished \(no run.json\): run the stage that makes it first"
    ):
        finished.measure_model(Run(run.study, tmp_path), "teacher")


def test_warm_start_begins_from_the_students_own_sft(tmp_path):
    run = tiny(tmp_path, "sft, rkl_student", "by_method: {rkl_student: {warm_start_epochs: 1}}\n")
    stages.train_teacher(run)
    stages.train_student(run, Arm("small", "rkl_student", 0))
    assert run.facts(Arm("small", "rkl_student", 0))["start"] == "warm-small-e1-s0"
    start = trajectory(run, "small-rkl_student-s0").query("epoch == 0")
    warm = trajectory(run, "warm-small-e1-s0").query("epoch == 1")
    assert start["member_loss"].item() == pytest.approx(warm["member_loss"].item(), abs=1e-5)


def test_curves_are_logged_where_a_study_asks_for_them(tmp_path):
    run = tiny(tmp_path, "sft", "train: {log_to: [tensorboard]}\n")
    stages.train_teacher(run)
    for name in ("base-teacher", "teacher"):
        assert list((run.model(name) / "tensorboard").glob("events*")), name


# ---------------------------------------------------------------- what is stale


def test_a_student_measured_in_bf16_is_kept_in_bf16_and_what_others_begin_from_in_fp32(tmp_path):
    run = changed(tiny(tmp_path, "sft, rkl_student_warm"), measure={"precision": "bf16"})
    stages.train_teacher(run)
    for arm in run.study.arms():
        stages.train_student(run, arm)
    kept = {p.parent.name: {w.dtype for w in load_file(p).values()} for p in run.path.glob("models/*/*.safetensors")}
    narrow = {arm.name for arm in run.study.arms()}
    assert len(kept) == 6 and all(t == {torch.bfloat16 if m in narrow else torch.float32} for m, t in kept.items())
    last = pd.read_csv(run.model("small-sft-s0") / "trajectory.csv").iloc[-1]
    scores = load_scores(run, "small-sft-s0").set_index("id")
    letters = load_records(run).query("split == 'member' and kind == 'letter'")["id"]
    assert -np.concatenate(list(scores.loc[letters, "logprob"])).mean() == pytest.approx(
        last["member_loss"], abs=0.01
    )  # other batches


def test_checkpoints_of_other_settings_are_not_resumed(tmp_path):
    """After a divergence or a kill, the settings are changed: nothing of the former attempt may be gone on with."""
    run = tiny(tmp_path, "sft", "by_size: {small: {learning_rate: 1.0e+30, max_grad_norm: 1.0e+30, epochs: 4}}\n")
    with pytest.raises(InputError, match="[Ll]ower the learning rate"):
        bases.train_base(run, "teacher")
        stages.train_student(run, Arm("small", "sft", 0))
    left = run.model("small-sft-s0") / "checkpoints" / "checkpoint-1"
    left.mkdir(parents=True)
    (left / "trainer_state.json").write_text("{}")  # whole, as far as one can see: resuming it would fail
    mended = tiny(tmp_path, "sft", "by_size: {small: {epochs: 2}}\n")
    stages.train_student(mended, Arm("small", "sft", 0))
    assert mended.facts(Arm("small", "sft", 0))["epochs"] == 2
    path = trajectory(mended, "small-sft-s0")
    assert list(path["epoch"]) == [0, 1, 2] and path["validation_loss"].notna().all()


def test_a_checkpoint_of_another_epsilon_gives_no_guarantee(tmp_path):
    strict, loose = (
        tiny(tmp_path, "sft, sft_private", f"by_method: {{sft_private: {{epochs: {n}, privacy: {{epsilon: {e}}}}}}}\n")
        for n, e in ((2, 1.0), (2, 8.0))
    )
    arm = Arm("small", "sft_private", 0)
    stages.train_student(strict, arm)
    kept = strict.model(arm.name) / "checkpoints"
    kept.mkdir(exist_ok=True)
    torch.save(
        {"state": {"global_step": 10**6}}, kept / "private.pt"
    )  # what a killed run of the other epsilon would leave
    stages.train_student(loose, arm)
    facts = loose.facts(arm)
    assert facts["privacy"]["epsilon"] == pytest.approx(8, abs=0.05) and facts["steps"] < 10**6


def test_an_edited_data_file_is_noticed_everywhere(tmp_path):
    run = tiny(tmp_path, "sft")
    source = tmp_path / "mine.jsonl"
    source.write_bytes((root() / run.study.data.source).read_bytes())
    before, same = (changed(run, data={"source": str(source)}) for _ in range(2))
    assert before.fingerprints == same.fingerprints
    source.write_text(source.read_text().replace("the", "teh"))
    after = changed(run, data={"source": str(source)})
    assert {s for s in after.fingerprints if after.fingerprints[s] == before.fingerprints[s]} == set()


def test_the_first_seed_makes_the_teacher_stale_for_runner_and_stage_alike(tmp_path):
    run = tiny(tmp_path, "sft, fkl")
    stages.train_teacher(run)
    other = Run(run.study.model_copy(update={"seeds": [1]}), run.path)
    assert other.fingerprints["models/teacher"] != run.fingerprints["models/teacher"]
    assert other.finished("models/teacher") is None
    stages.train_teacher(other)
    stages.train_student(other, Arm("small", "fkl", 1))
    assert other.facts(Arm("small", "fkl", 1))["steps"] > 0


def test_somebody_elses_folder_is_not_emptied(tmp_path):
    run = tiny(tmp_path, "sft")
    run.data.mkdir(parents=True)
    (run.data / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds thesis.txt, which no stage of a run has written"):
        bases.prepare_data(run)
    assert (run.data / "thesis.txt").exists()


SCRIPT = "import sys; from palimpsest.study import Arm, open_run; from palimpsest.book import bases, stages; stages.train_student(open_run(sys.argv[1], sys.argv[2]), Arm('small', sys.argv[3], 0))"


@pytest.fixture(scope="module")
def before_students(tmp_path_factory):
    """A study file, and the run folder of it in which nothing is missing but students."""
    folder = tmp_path_factory.mktemp("before")
    path = write(folder, "sft, gkd, sft_private", "by_size: {small: {epochs: 8}}\n")
    run = open_run(path, folder / "run")
    bases.train_base(run, "small")
    stages.train_teacher(run)
    return path, run.path


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "gkd", "sft_private"])
def test_killed_in_the_middle_of_an_arm_it_ends_with_the_same_weights(tmp_path, before_students, method):
    path, folder = before_students
    whole, cut = (open_run(path, shutil.copytree(folder, tmp_path / name)) for name in ("whole", "cut"))
    stages.train_student(whole, Arm("small", method, 0))
    command = [sys.executable, "-c", SCRIPT, str(path), str(cut.path), method]
    checkpoints = cut.model(f"small-{method}-s0") / "checkpoints"
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while victim.poll() is None and not list(checkpoints.glob("*/trainer_state.json")):
        if (checkpoints / "private.pt").exists():
            break
        time.sleep(0.02)
    assert victim.poll() is None, "the arm ended before it could be killed"
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not (checkpoints.parent / "run.json").exists()
    stages.train_student(cut, Arm("small", method, 0))
    first, second = (load_file(r.model(f"small-{method}-s0") / "model.safetensors") for r in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    pd.testing.assert_frame_equal(*(trajectory(r, f"small-{method}-s0") for r in (whole, cut)))


def test_parts_are_carried_out_each_in_a_folder_of_its_own(tmp_path):
    more = "replicates: 2\ntuning: {learning_rates: [1.0e-3, 2.0e-3]}\n"
    more += "shadows: {models: 6, size: small, methods: [sft], members: 6, non_members: 12}\n"
    run = tiny(tmp_path, "sft, fkl", more)
    for part in ("replicate1", "tuning", "shadow0"):
        for what in ("teacher", "small"):
            stages.carry_out(run, part, what)
    bases.prepare_data(run.parts()["shadow5"])
    there = {p.parent.relative_to(run.path).as_posix() for p in run.path.glob("*/models/*/run.json")}
    before = {f"{part}/models/{m}" for part in run.parts() for m in ("base-teacher", "base-small", "teacher")}
    tried = {f"tuning/models/small-{m}-s0-lr{r}" for m in ("sft", "fkl") for r in ("0.001", "0.002")}
    shadows = {"shadow0/models/small-sft-s0"}
    assert there - before == {f"replicate1/models/small-{m}-s0" for m in ("sft", "fkl")} | tried | shadows
    one, two = (load_records(run.parts()[name]) for name in ("replicate1", "tuning"))
    assert not set(one.query("split != 'public'")["id"]) & set(two.query("split != 'public'")["id"])
    pools = [set(load_records(run.parts()[f"shadow{i}"]).query("split != 'public'")["id"]) for i in (0, 5)]
    assert pools[0] == pools[1]  # one pool, dealt differently
    quality = pd.read_csv(run.path / "tuning/models/small-fkl-s0-lr0.001/trajectory.csv")
    assert quality["validation_loss"].notna().all() and quality["auc"].isna().all()
    assert not (run.path / "tuning/scores/small-fkl-s0").exists()
