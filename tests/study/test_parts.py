"""What a study carries out beside its first replicate."""

from palimpsest.study import load_study, open_run
from palimpsest.study.parts import is_tuning, parts_of, rates_tried


def test_replicates_tuning_and_shadows_are_studies_of_their_own():
    study = load_study("studies/demo-replicates.yaml")
    parts = parts_of(study)
    assert list(parts)[:6] == [*(f"replicate{i}" for i in range(1, 5)), "tuning", "shadow0"]
    assert len(parts) == 4 + 1 + 16 and not any(parts_of(part) for part in parts.values())
    seeds = [study.seed(), *(part.seed() for part in parts.values())]
    assert len(set(seeds[:6])) == 6  # five replicates, and the tuning on a sixth
    assert parts["replicate1"].data == study.data and parts["replicate1"].arms() == study.arms()


def test_sizes_and_further_methods_may_be_had_by_the_first_replicates_alone():
    few = {"replicates_by_size": {"medium": 1}, "replicates_by_method": {"fkl_t2": 2, "sft_dedup": 1}}
    study = load_study("studies/demo-replicates.yaml").model_copy(update={"replicates": 3, "tuning": None, **few})
    arms = [{arm.name for arm in part.arms()} for part in (study, *list(parts_of(study).values())[:2])]
    assert arms[0] - arms[1] == {"small-sft_dedup-s0", *(name for name in arms[0] if name.startswith("medium"))}
    assert arms[1] - arms[2] == {"small-fkl_t2-s0"} and arms[2] < arms[1] < arms[0]
    parts = parts_of(study)
    assert list(parts["replicate1"].models.students) == ["small"] and list(study.models.students) == [
        "medium",
        "small",
    ]


def test_shadows_share_one_pool_of_letters():
    shadows = [p for name, p in parts_of(load_study("studies/demo-replicates.yaml")).items() if "shadow" in name]
    assert len({shadow.replicate for shadow in shadows}) == 16
    assert [a.name for a in shadows[0].arms()] == ["small-sft-s0", "small-fkl-s0", "small-rkl_student-s0"]
    assert all(s.data.limit == 800 and s.data.halves and not s.data.canaries for s in shadows)


def test_the_grid_is_tried_in_the_tuning_alone():
    study = load_study("studies/demo-replicates.yaml")
    parts, arms = parts_of(study), {a.name: a for a in study.arms()}
    assert is_tuning(parts["tuning"]) and not is_tuning(study) and not is_tuning(parts["replicate1"])
    assert rates_tried(parts["tuning"], arms["small-sft-s0"]) == study.tuning.learning_rates != []
    assert rates_tried(parts["tuning"], arms["small-sft_dropped-s0"]) == []
    assert rates_tried(parts["tuning"], arms["small-sft_dedup-s0"]) == []  # left out: it takes over sft's
    assert rates_tried(study, arms["small-sft-s0"]) == rates_tried(parts["replicate1"], arms["small-sft-s0"]) == []


def test_replicates_of_a_run_are_itself_and_the_others_without_tuning_and_shadows(tmp_path):
    run = open_run("studies/demo-replicates.yaml", tmp_path)
    assert [part.path for part in run.replicates()] == [tmp_path, *(tmp_path / f"replicate{i}" for i in range(1, 5))]
    assert [part.study.replicate for part in run.replicates()] == [0, 1, 2, 3, 4]
    assert run.replicates()[1].replicates() == [run.replicates()[1]]
