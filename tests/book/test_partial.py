"""A study cut down to what is finished: no model is made again for it, and what it lacks is said."""

import shutil

import pytest
from trained_by_hand import finish, made_by_hand

from palimpsest.book.partial import finished_part
from palimpsest.errors import InputError
from palimpsest.study import Arm

FURTHER = ["fkl", "rkl", "sft_goldfish"]


@pytest.fixture
def run(tmp_path):
    return made_by_hand(tmp_path, replicates=3)


def unfinish(part, *names, what="model"):
    for name in names:
        shutil.rmtree(getattr(part, what)(name))


def test_a_finished_run_is_itself(run):
    assert finished_part(run) == (run, {})


def test_a_method_is_kept_in_the_replicates_that_have_it_from_the_first_on(run):
    first, second, third = run.replicates()
    unfinish(third, "small-fkl-s0", "small-rkl-s0")
    unfinish(second, "small-rkl-s0", what="scores")  # trained, but not measured
    unfinish(first, "small-sft_goldfish-s0")
    part, missing = finished_part(run)
    had = [{arm.method for arm in each.study.arms()} for each in part.replicates()]
    assert had == [{"sft", "fkl", "rkl"}, {"sft", "fkl"}, {"sft"}]
    assert missing == {
        "first replicate": ["small-sft_goldfish-s0"],
        "replicate1": ["small-rkl-s0", "small-sft_goldfish-s0"],
        "replicate2": ["small-fkl-s0", "small-rkl-s0", "small-sft_goldfish-s0"],
    }


def test_no_model_is_made_again_for_it(run):
    unfinish(run.parts()["replicate2"], "small-sft-s0")
    part, missing = finished_part(run)
    assert part.study.replicates == 2 and set(missing) == {"replicate2"} and "base-small" in missing["replicate2"]
    for whole, cut in zip(run.replicates()[:2], part.replicates(), strict=True):
        same = {stage for stage in cut.fingerprints if stage not in ("tables", "pages")}
        assert {stage: whole.fingerprints[stage] for stage in same} == {s: cut.fingerprints[s] for s in same}
        assert all(cut.finished(f"scores/{arm.name}") for arm in cut.study.everyone())
    assert part.fingerprints["tables"] != run.fingerprints["tables"]


def test_tuning_is_there_as_a_whole_or_not_at_all(tmp_path):
    run = made_by_hand(tmp_path, tuning=True)
    for arm in run.parts()["tuning"].study.everyone():
        if arm.seed is None:
            finish(run.parts()["tuning"], f"scores/{arm.name}", {})
    assert finished_part(run) == (run, {})
    unfinish(run.parts()["tuning"], "small-fkl-s0-lr0.001")
    part, missing = finished_part(run)
    assert part.study.tuning is None and part.study.replicates == 2 and set(missing) == {"tuning"}


def test_without_any_baseline_there_is_nothing(run):
    unfinish(run, "small-sft-s0")
    with pytest.raises(InputError, match=r"no size whose teacher and plain fine-tuning \(sft\) are finished"):
        finished_part(run)


def test_a_size_is_left_out_until_its_baseline_is_finished(run):
    study = run.study
    wide = study.model_copy(
        update={
            "models": study.models.model_copy(
                update={"students": {**study.models.students, "wide": study.models.students["small"]}}
            )
        }
    )
    part, missing = finished_part(type(run)(wide, run.path))
    assert list(part.study.models.students) == ["small"] and "wide-sft-s0" in missing["first replicate"]
    assert Arm("small", "fkl", 0) in part.study.arms()
