"""What is left of a run is said by what its finished models took."""

from tiny import tiny

from palimpsest.book.progress import STARTING, say_progress
from palimpsest.study.files import write_json


def finish(run, models, seconds):
    for model in models:
        for stage in (f"models/{model}", f"scores/{model}"):
            (run.path / stage).mkdir(parents=True)
            write_json(run.path / stage / "run.json", {"fingerprint": run.fingerprints[stage], "seconds": seconds / 2})


def test_other_replicates_take_as_long_as_the_first(tmp_path):
    run = tiny(tmp_path, "sft, fkl", "replicates: 2\n")
    assert say_progress(run, 2) == "progress: none of 10 models is done yet"
    finish(run, ["base-teacher", "base-small", "teacher"], 600)
    assert say_progress(run, 2).endswith(
        "3 of 10 models are done; the time left is known once there is one of each kind"
    )  # no student so far
    finish(run, ["small-sft-s0"], 3600)
    finish(run, ["small-fkl-s0"], 7200)
    hours = (3 * 600 + 3600 + 7200 + 5 * STARTING) / 3600
    assert say_progress(run, 1) == f"progress: 5 of 10 models are done; {hours:.1f} hours left"
    assert say_progress(run, 2) == f"progress: 5 of 10 models are done; {hours / 2:.1f} hours left"


def test_what_is_nearly_done_takes_one_minute_not_one_minutes(tmp_path):
    run = tiny(tmp_path, "sft, fkl", "replicates: 2\n")
    finish(run, ["base-teacher", "base-small", "teacher", "small-sft-s0", "small-fkl-s0"], 0)
    assert say_progress(run, 1).endswith("; 1 minute left") and 30 < 5 * STARTING < 90
    finish(run.parts()["replicate1"], ["base-teacher", "base-small", "teacher", "small-sft-s0"], 0)
    assert (
        say_progress(run, 1).endswith("; 1 minute left") and STARTING < 30
    )  # never none, as long as something is left


def test_a_model_of_other_settings_is_to_be_made_again(tmp_path):
    run = tiny(tmp_path, "sft")
    finish(run, ["base-teacher", "base-small", "teacher", "small-sft-s0"], 60)
    assert say_progress(run, 2) == "progress: 4 of 4 models are done"
    write_json(run.path / "scores" / "small-sft-s0" / "run.json", {"fingerprint": "other", "seconds": 1})
    assert "3 of 4" in say_progress(run, 2)
