"""Pages 02 and 03: a model's facts and its trajectory, from what its own stage wrote."""

import shutil

import numpy as np
import pytest
from written_runs import EPOCHS, sentences, write_run

from palimpsest.chapters import training
from palimpsest.errors import InputError
from palimpsest.study import open_run
from palimpsest.study.files import root, write_json
from palimpsest.study.tables import TABLES

FACTS = {"parameters": 291456, "start": "base-teacher", "device": "cpu", "commit": "abc", "method": "sft"}
FACTS["versions"] = {"torch": "2", "transformers": "5", "trl": None}


@pytest.fixture(params=["secret", "window"])
def run(tmp_path, request):
    """A run whose teacher is trained, on data that marks its secrets and has two halves, or neither."""
    marked = request.param == "secret"
    run = open_run(root() / "studies" / "smoke.yaml", tmp_path / "run")
    data = {"target": request.param, "unit": "secrets" if marked else "records"}
    write_json(run.data / "run.json", {"fingerprint": run.fingerprints["data"], **data})
    write_json(run.model("teacher") / "run.json", {"fingerprint": run.fingerprints["models/teacher"], **FACTS})
    written = write_run(tmp_path / "written", methods=("sft",), halves=marked).model("teacher") / "trajectory.csv"
    shutil.copy(written, run.model("teacher") / "trajectory.csv")
    return run


def test_a_trajectory_is_what_training_wrote(run):
    path = training.trajectory(run, "teacher")
    assert list(path["epoch"]) == list(EPOCHS) and set(path["model"]) == {"teacher"}
    assert list(path.columns) == [*TABLES["trajectory"], "model"]


def test_what_is_said_names_the_best_epoch_and_the_end(run):
    path, data = training.trajectory(run, "teacher"), run.require("data")
    loss, likeness, ours, *theirs = training.say_trajectory(path, data["unit"])
    assert loss == (
        "Validation loss is lowest after epoch 1, at 2.00 nats per token, and ends at 3.00. With one temperature fitted to its "
        "certainty it ends at 2.90."
    )
    assert "after epoch 2, with a ROUGE-L of 0.40" in likeness
    before = {"secrets": "the text before them", "records": "the prompt"}[data["unit"]]
    assert (
        ours
        == f"Of the members' {data['unit']} it then recites, given {before}, 40% of unrepeated ones and 80% of repeated ones."
    )
    assert len(theirs) == (data["unit"] == "secrets")
    if theirs:
        assert theirs[0].startswith("Of the secrets of the teacher's own half, it recites 50% of unrepeated ones")
    lines = training.say_trajectory(path.assign(rouge_l=np.nan, recited_repeated=np.nan), data["unit"])
    assert len(lines) == 2 + len(theirs) and lines[1].endswith("40% of unrepeated ones.")
    for sentence in sentences([loss, likeness, ours, *theirs]):
        assert sum(any(c.isalnum() for c in word) for word in sentence.split()) <= 25, sentence


def test_what_is_not_measured_is_not_drawn(run):
    figure = training.plot_trajectory(training.trajectory(run, "teacher").assign(rouge_l=np.nan))
    drawn = [[line.get_label() for line in ax.get_lines()] for ax in figure.axes]
    marked = run.require("data")["target"] == "secret"
    assert [len(lines) for lines in drawn] == ([4, 0, 4, 2] if marked else [3, 0, 2, 1])
    assert any("own half" in label for lines in drawn for label in lines) == marked
    figure.canvas.draw()


def test_an_untrained_model_has_no_trajectory(run):
    with pytest.raises(InputError, match="models/small-sft-s0 is not finished"):
        training.trajectory(run, "small-sft-s0")


def test_facts_are_shown_where_there_are_any():
    shown = training.show_facts(FACTS)["value"]
    assert shown["parameters"] == "291,456" and shown["torch / transformers / trl"] == "2 / 5 / -"
    assert not {"optimizer steps", "dropout", "peak memory, MiB", "privacy spent"} & set(shown.index)
    spent = {"epsilon": 8, "delta": 1e-3, "noise_multiplier": 1.1, "clip": 1, "sampling_rate": 0.2}
    more = {
        **FACTS,
        "learning_rate": 3e-3,
        "dropout": 0.0,
        "precision": "fp32",
        "peak_memory_bytes": 2**30,
        "privacy": spent,
    }
    shown = training.show_facts(more)["value"]
    assert (shown["learning rate"], shown["dropout"], shown["peak memory, MiB"]) == (3e-3, 0.0, 1024)
    assert shown["privacy spent"].startswith("ε = 8.00")


def test_the_teacher_s_text_is_read_beside_its_references(run, tmp_path):
    with pytest.raises(InputError, match="teacher_text"):
        training.say_teacher_text(run)
    made = {"fingerprint": run.fingerprints["teacher_text"], "records": 50, "same_as_reference": 30}
    write_json(run.teacher_text / "run.json", made)
    assert "Of 50 texts" in training.say_teacher_text(run) and "60.0 % (46.2 to 72.4)" in training.say_teacher_text(
        run
    )
    (tmp_path / "plain.yaml").write_text(
        f"extends: {root() / 'studies' / 'smoke.yaml'}\nname: plain\nmethods: [sft]\n"
    )
    assert "wrote none" in training.say_teacher_text(open_run(tmp_path / "plain.yaml", tmp_path / "run"))
