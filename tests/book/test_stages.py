"""The stages of a study on models small enough for a test: every method trains, finished work is kept, faults are named."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.book import stages
from palimpsest.data.records import read_records, training_text
from palimpsest.errors import InputError
from palimpsest.measure import finished, models, results
from palimpsest.study import Arm, load_study
from palimpsest.study.methods import METHODS
from palimpsest.study.runs import root

TINY = """
extends: {smoke}
name: tiny
methods: [{methods}]
data: {{public: 40, members: 16, non_members: 16, test: 4}}
models:
  teacher: {{scratch: {{layers: 1, width: 32, heads: 2, context: 192}}}}
  students:
    small: {{scratch: {{layers: 1, width: 16, heads: 2, context: 192}}}}
pretrain: {{epochs: 1}}
teacher: {{epochs: 2}}
student: {{epochs: 2, rollout_steps: 2, max_new_tokens: 8}}
teacher_text: {{max_new_tokens: 8}}
measure: {{trajectory_every: 1}}
"""


def tiny(folder, methods=None, more=""):
    path, methods = folder / "tiny.yaml", methods or ", ".join(METHODS)
    path.write_text(TINY.format(smoke=root() / "studies" / "smoke.yaml", methods=methods) + more)
    return path


@pytest.fixture(scope="module")
def study_and_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    study, run = load_study(tiny(folder)), folder / "run"
    stages.train_teacher(study, run)
    for arm in study.arms():
        stages.train_student(study, arm, run)
    return study, run


def test_every_method_trains_and_is_measured(study_and_run):
    study, run = study_and_run
    names = results.model_names(study, run)
    assert names == ["base-teacher", "base-small", "teacher", *(f"small-{m}-s0" for m in METHODS)]
    records = results.load_records(run)
    measured = set(records.loc[records["split"].isin(finished.MEASURED), "id"])
    for name in names:
        assert set(results.scores(run, name)["id"]) == measured
        assert len(results.test_texts(run, name)) == 4
    for arm in study.arms():
        facts, path = results.run_facts(run, arm.name), results.trajectory(run, arm.name)
        assert facts["epochs"] == 2 and facts["steps"] == 2 * facts["batches_per_epoch"]
        assert list(path["epoch"].unique()) == [0, 1, 2] and path["loss"].notna().all()
        before, after = (path[(path["split"] == "member") & (path["epoch"] == e)]["loss"].item() for e in (0, 2))
        if (
            METHODS[arm.method].text == "references" and arm.method != "sft_private"
        ):  # whose noise drowns so few records
            assert after < before


def test_mitigations_read_what_they_say(study_and_run):
    study, run = study_and_run
    records = results.load_records(run)
    read = training_text(records, "student")
    assert read["id"].duplicated().any(), "the tiny study needs a canary with copies"
    facts = {m: results.run_facts(run, f"small-{m}-s0") for m in METHODS}
    assert facts["sft"]["examples_per_epoch"] == len(read)
    assert (
        facts["sft_dedup"]["examples_per_epoch"] == facts["sft_private"]["examples_per_epoch"] == read["id"].nunique()
    )
    whole, part = (facts[m]["labelled_tokens_per_epoch"] for m in ("sft", "sft_goldfish"))
    assert 0.65 < part / whole < 0.85  # one token in four
    assert facts["sft_private"]["privacy"]["epsilon"] == pytest.approx(8, abs=0.05)
    for method in ("sft_dropped", "fkl_dropped"):
        # models this small recite nothing, so nothing is left out, and the reason is written down
        assert facts[method]["left_out"] == 0 and "not measurable" in facts[method]["left_out_note"]


def test_records_left_out_are_not_read(study_and_run, tmp_path):
    study, run = study_and_run
    read = training_text(results.load_records(run), "student")
    told = set(read["id"].head(7))
    settings = study.training("small", "sft_dropped")
    facts = stages._train_on_members(
        study, run, "left-out", "student", "base-small", "sft_dropped", settings, 0, without=told
    )
    assert facts["examples_per_epoch"] == len(read) - read["id"].isin(told).sum() < len(read)


def test_finished_stages_are_not_run_again(study_and_run):
    study, run = study_and_run
    files = [p for p in run.rglob("*") if p.is_file() and p.name != ".lock"]
    before = {p: p.stat().st_mtime_ns for p in files}
    stages.train_teacher(study, run)
    stages.train_student(study, study.arms()[-1], run)
    assert {p: p.stat().st_mtime_ns for p in files} == before


def test_other_measuring_measures_again_and_trains_nothing(study_and_run):
    study, run = study_and_run
    changed = study.model_copy(update={"measure": study.measure.model_copy(update={"approximate": 3})})
    arm = Arm("small", "fkl", 0)
    before = {p: p.stat().st_mtime_ns for p in (run / "models").rglob("*.safetensors")}
    seen = (run / "scores" / arm.name / "run.json").stat().st_mtime_ns
    stages.train_teacher(changed, run)
    stages.train_student(changed, arm, run)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert (run / "scores" / arm.name / "run.json").stat().st_mtime_ns > seen
    stages.train_teacher(study, run)  # as the other tests expect it
    stages.train_student(study, arm, run)


def test_students_never_read_teacher_only_canaries(study_and_run):
    _, run = study_and_run
    written = stages.pd.read_parquet(run / "teacher_text" / "records.parquet")
    assert not written["teacher_only"].any() and (written["split"] == "member").all()
    facts = json.loads((run / "teacher_text" / "run.json").read_text())
    assert facts["records"] == len(written) and facts["same_as_reference"] == int(written["same"].sum())


def test_a_changed_teacher_is_noticed(study_and_run, tmp_path):
    study, run = study_and_run
    changed = study.model_copy(update={"teacher": study.teacher.model_copy(update={"epochs": 3})})
    with pytest.raises(InputError, match="was made from other data or settings than the study has now"):
        stages.train_student(changed, Arm("small", "rkl", 0), run)


def test_order_and_names_are_checked(study_and_run, tmp_path):
    study, run = study_and_run
    with pytest.raises(InputError, match="small-dpo-s0 is not an arm of tiny"):
        stages.train_student(study, Arm("small", "dpo", 0), run)
    with pytest.raises(InputError, match="is not finished .*: run the stage that trains teacher first"):
        finished.measure(study, "teacher", tmp_path)


def test_warm_start_begins_from_the_students_own_sft(tmp_path):
    study = load_study(tiny(tmp_path, "sft, rkl_student", "by_method: {rkl_student: {warm_start_epochs: 1}}\n"))
    stages.train_teacher(study, tmp_path / "run")
    stages.train_student(study, Arm("small", "rkl_student", 0), tmp_path / "run")
    assert results.run_facts(tmp_path / "run", "small-rkl_student-s0")["start"] == "warm-small-e1-s0"
    start = results.trajectory(tmp_path / "run", "small-rkl_student-s0").query("epoch == 0 and split == 'member'")
    warm = results.trajectory(tmp_path / "run", "warm-small-e1-s0").query("epoch == 1 and split == 'member'")
    assert start["loss"].item() == pytest.approx(warm["loss"].item(), abs=1e-5)


def llama(folder, tokenizer, layers=4, width=32):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=192,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


OWN = """
extends: {smoke}
name: own
tokenizer: {{vocabulary: null}}
pretrain: null
methods: [sft, fkl]
data: {{source: {data}, public: 0, members: 8, non_members: 8, test: 3, canaries: false}}
models:
  teacher: {{path: {teacher}}}
  students: {{{students}}}
teacher: {{epochs: 1}}
student: {{epochs: 1, {more}}}
"""


@pytest.fixture
def own(tmp_path):
    """A study of the user's own models and file, in place of hub ids."""
    records = read_records(root() / "data" / "helpdesk" / "records.jsonl").head(40)
    records[["instruction", "context", "response"]].to_csv(tmp_path / "mine.csv", index=False)
    tokenizer = models.train_tokenizer(records["response"], 300)
    llama(tmp_path / "teacher", tokenizer)

    def write(students, more="batch_size: 4"):
        path = tmp_path / "own.yaml"
        smoke = root() / "studies" / "smoke.yaml"
        path.write_text(
            OWN.format(
                smoke=smoke, data=tmp_path / "mine.csv", teacher=tmp_path / "teacher", students=students, more=more
            )
        )
        return load_study(path)

    return write


def test_own_models_and_a_student_of_every_other_layer(own, tmp_path):
    study = own("half: {keep_every: 2}")
    stages.train_teacher(study, tmp_path / "run")
    stages.train_student(study, Arm("half", "fkl", 0), tmp_path / "run")
    teacher, half = (
        load_file(tmp_path / "run" / "models" / n / "model.safetensors") for n in ("base-teacher", "base-half")
    )
    assert torch.equal(half["model.layers.1.mlp.up_proj.weight"], teacher["model.layers.2.mlp.up_proj.weight"])
    assert results.run_facts(tmp_path / "run", "half-fkl-s0")["steps"] == 2


def test_lora_trains_and_is_merged_and_missing_layers_are_named(own, tmp_path):
    study = own("half: {keep_every: 2}", "batch_size: 4, lora: {rank: 2, targets: [q_proj]}")
    stages.train_teacher(study, tmp_path / "run")
    stages.train_student(study, Arm("half", "fkl", 0), tmp_path / "run")
    weights = load_file(tmp_path / "run" / "models" / "half-fkl-s0" / "model.safetensors")
    assert not any("lora" in name for name in weights)
    study = own("half: {keep_every: 2}", "batch_size: 4, lora: {targets: [c_attn]}")
    with pytest.raises(InputError, match=r"LoRA targets \['c_attn'\] do not fit: .*This model has .*q_proj"):
        stages.train_student(study, Arm("half", "fkl", 0), tmp_path / "run")


def test_other_tokenizers_are_refused(own, tmp_path):
    other = models.train_tokenizer(["completely other text, 123"] * 9, 280)
    llama(tmp_path / "student", other, layers=2)
    study = own(f"other: {{path: {tmp_path / 'student'}}}")
    with pytest.raises(
        InputError, match=r"teacher and student 'other' have different tokenizers \(300 and 2\d\d entries"
    ):
        stages.train_base(study, "other", tmp_path / "run")


def test_hub_ids_without_network(own, tmp_path):
    study = own("far: {path: nobody/nothing-of-this-name}")
    with pytest.raises(InputError, match="cannot load 'nobody/nothing-of-this-name'.*give a local folder"):
        stages.train_base(study, "far", tmp_path / "run")


def test_diverged_training_stops_with_its_cause(tmp_path):
    study = load_study(tiny(tmp_path, "sft", "by_size: {small: {learning_rate: 1.0e+30, max_grad_norm: 1.0e+30}}\n"))
    with pytest.raises(InputError, match=r"[Ll]oss is (nan|inf).*[Ll]ower the learning rate"):
        stages.train_base(study, "teacher", tmp_path / "run")
        stages.train_student(study, Arm("small", "sft", 0), tmp_path / "run")
    assert not (tmp_path / "run" / "models" / "small-sft-s0" / "run.json").exists()


SCRIPT = "import sys; from palimpsest import study; from palimpsest.book import stages; stages.train_student(study.load_study(sys.argv[1]), study.Arm('small', sys.argv[3], 0), sys.argv[2])"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "gkd", "sft_private"])
def test_killed_in_the_middle_of_an_arm_it_ends_with_the_same_weights(tmp_path, method):
    path = tiny(tmp_path, "sft, gkd, sft_private", "by_size: {small: {epochs: 12}}\n")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    study = load_study(path)
    for run in (whole, cut):
        stages.train_teacher(study, run)
    stages.train_student(study, Arm("small", method, 0), whole)
    command = [sys.executable, "-c", SCRIPT, str(path), str(cut), method]
    checkpoints = cut / "models" / f"small-{method}-s0" / "checkpoints"
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while victim.poll() is None and len(list(checkpoints.glob("*/trainer_state.json"))) < 2:
        if (checkpoints / "private.pt").exists():
            break
        time.sleep(0.02)
    assert victim.poll() is None, "the arm ended before it could be killed"
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not (checkpoints.parent / "run.json").exists()
    stages.train_student(study, Arm("small", method, 0), cut)
    first, second = (load_file(r / "models" / f"small-{method}-s0" / "model.safetensors") for r in (whole, cut))
    assert all(torch.equal(first[name], second[name]) for name in first)
    paths = [results.trajectory(r, f"small-{method}-s0") for r in (whole, cut)]
    stages.pd.testing.assert_frame_equal(*paths)
