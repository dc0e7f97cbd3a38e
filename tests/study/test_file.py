"""A study file is validated before anything runs, and says what is wrong in the user's own words."""

import pytest
import yaml

from palimpsest.errors import InputError
from palimpsest.study import Arm, fingerprint, load_study
from palimpsest.study.files import root
from palimpsest.study.methods import METHODS
from palimpsest.study.sections import Data

STUDIES = sorted((root() / "studies").glob("*.yaml"))


def write(tmp_path, changes=(), **more):
    tree = yaml.safe_load((root() / "studies" / "smoke.yaml").read_text())
    for key, value in {**dict(changes), **more}.items():
        place, *rest = key.split("__") if isinstance(key, str) else [key]
        if rest:
            tree[place][rest[0]] = value
        else:
            tree[place] = value
    path = tmp_path / f"{tree['name']}.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_committed_studies_are_valid(path):
    study = load_study(path)
    assert study.arms() and study.name == path.stem


def test_demo_is_the_whole_comparison():
    study = load_study("studies/demo.yaml")
    assert len(study.models.students) == 2 and len(study.methods) == 8 and len(study.arms()) == 16
    more = load_study("studies/demo-replicates.yaml")
    assert more.methods_of("small") == [*more.methods, *more.methods_by_size["small"]]
    assert set(METHODS) - set(more.methods_of("small")) == {
        "sft_lora",
        "fkl_lora",
    }  # for models of a width worth adapting
    assert more.methods_of("medium") == more.methods and set(study.methods) < set(more.methods)
    for arm in study.arms():  # replicate 0 is the demo's
        assert more.training(arm.size, arm.method) == study.training(arm.size, arm.method)
    assert more.data == study.data and more.teacher == study.teacher


def test_settings_of_an_arm_go_from_general_to_special():
    study = load_study("studies/demo-replicates.yaml")
    assert study.training("small", "fkl_t4").temperature == 4 and study.training("small", "fkl").temperature == 1
    assert study.training("small", "sft_annealed_2").epochs == 2
    own = study.model_copy(update={"by_arm": {"small": {"fkl_t4": {"temperature": 3.0}}}})
    assert own.training("small", "fkl_t4").temperature == 3 and own.training("medium", "fkl_t4").temperature == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"canaries": {1: 2}}, "unseen twins"),
        ({"members": {0: 4}}, "members"),
        ({"members": {}, "halves": True}, "members"),
    ],
)
def test_data_that_cannot_be_dealt_is_refused(change, message):
    data = {"source": "x.jsonl", "members": 4, "non_members": 4, "test": 1, **change}
    with pytest.raises(ValueError, match=message):
        Data(**data)


def test_leaving_out_needs_a_first_training(tmp_path):
    demo = root() / "studies" / "demo.yaml"
    (tmp_path / "x.yaml").write_text(f"extends: {demo}\nname: x\nmethods: [sft, rkl, fkl_dropped]\n")
    with pytest.raises(InputError, match="fkl_dropped leaves out what fkl recites: add fkl to methods"):
        load_study(tmp_path / "x.yaml")


def test_paper_keeps_the_published_hyperparameters():
    study = load_study("studies/paper.yaml")
    assert study.teacher.learning_rate == 5e-5 and study.teacher.epochs == 10 and study.teacher.batch_size == 32
    assert study.training("base", "sft").learning_rate == 5e-4 and study.training("base", "sft").epochs == 20
    assert study.training("large", "word_kd").epochs == 10 and study.training("large", "word_kd").learning_rate == 1e-4
    reverse = study.training("medium", "rkl_student")
    assert (reverse.learning_rate, reverse.warmup_steps, reverse.max_steps) == (5e-6, 100, 5000)
    assert study.teacher.min_learning_rate == 1e-7 and study.teacher.weight_decay == 1e-2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datta": {}}, "unknown key 'datta' (did you mean 'data'?)"),
        ({"measure__windw": 3}, "unknown key 'measure.windw' (did you mean 'window'?)"),
        ({"methods": ["sft", "rkl_studnt"]}, "unknown method 'rkl_studnt' (did you mean 'rkl_student'?)"),
        ({"methods": ["rkl"]}, "methods must include 'sft'"),
        ({"by_method": {"word_kdd": {"epochs": 1}}}, "by_method names 'word_kdd' (did you mean 'word_kd'?)"),
        ({"by_size": {"small": {"epoch": 1}}}, "unknown key"),
        ({"student__batch_size": 0}, "student.batch_size: Input should be greater than 0 (found 0)"),
        ({"data__too_long": "snip"}, "data.too_long"),
        ({"name": "../escape"}, "name: String should match pattern"),
        ({"student__accumulation": 3}, "batch_size 16 must be a multiple of accumulation 3"),
        ({"pretrain": None}, "models from scratch need a `pretrain` section"),
        ({7: "seven"}, "Keys should be strings"),
    ],
)
def test_faults_are_named(tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        load_study(write(tmp_path, changes))
    assert message in str(error.value)


def test_all_faults_are_listed_at_once(tmp_path):
    with pytest.raises(InputError, match=r"2 fault\(s\)"):
        load_study(write(tmp_path, datta={}, measure__window=0))


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(InputError, match="no study file"):
        load_study(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(InputError, match="not readable YAML"):
        load_study(tmp_path / "broken.yaml")
    (tmp_path / "number.yaml").write_text("extends: 3")
    with pytest.raises(InputError, match="extends is 3; wanted the path"):
        load_study(tmp_path / "number.yaml")
    (tmp_path / "loop.yaml").write_text("extends: loop.yaml")
    with pytest.raises(InputError, match="extends itself"):
        load_study(tmp_path / "loop.yaml")


def test_yaml_cannot_run_code(tmp_path):
    (tmp_path / "evil.yaml").write_text("name: !!python/object/apply:os.getcwd []")
    with pytest.raises(InputError, match="not readable YAML"):
        load_study(tmp_path / "evil.yaml")


def test_name_is_the_files_name(tmp_path):
    path = write(tmp_path)
    path.rename(tmp_path / "other.yaml")
    with pytest.raises(InputError, match="name it 'other'"):
        load_study(tmp_path / "other.yaml")


def test_extends_changes_only_what_it_states(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"extends: {root()}/studies/smoke.yaml\nname: mine\nstudent: {{epochs: 3}}\n")
    mine, smoke = load_study(tmp_path / "mine.yaml"), load_study("studies/smoke.yaml")
    assert mine.student == smoke.student.model_copy(update={"epochs": 3}) and mine.data == smoke.data


def test_changes_by_size_and_method_apply_in_that_order(tmp_path):
    study = load_study(
        write(tmp_path, by_size={"small": {"epochs": 3, "batch_size": 4}}, by_method={"seq_kd": {"epochs": 5}})
    )
    assert study.training("small", "seq_kd").epochs == 5 and study.training("small", "seq_kd").batch_size == 4
    assert study.training("small", "sft").epochs == 3


def test_a_model_is_found_by_its_name_and_knows_what_it_is():
    study = load_study("studies/smoke.yaml")
    assert [a.name for a in study.everyone()][:4] == ["base-teacher", "base-small", "teacher", "small-sft-s0"]
    for arm in study.everyone():
        assert study.arm(arm.name) == arm
    roles = {study.arm(n).role for n in ("base-small", "teacher", "small-sft-s0", "small-seq_kd-s0")}
    assert roles == {"base", "teacher", "baseline", "student"} and Arm("small", "sft_dedup", 0).role == "mitigated"
    with pytest.raises(InputError, match=r"no model 'small-sft-s1' \(did you mean 'small-sft-s0'"):
        study.arm("small-sft-s1")


def test_fingerprint_sees_every_change():
    study = load_study("studies/smoke.yaml")
    assert fingerprint(study.teacher) == fingerprint(study.teacher.model_copy())
    assert fingerprint(study.teacher) != fingerprint(study.teacher.model_copy(update={"epochs": 1}))
