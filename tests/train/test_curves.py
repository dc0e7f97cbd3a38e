"""Curves for TensorBoard are really written, hold what was logged and measured, and change nothing else."""

import sys
from functools import partial

import pandas as pd
import pytest
import torch
from memorizers import texts, untrained, words
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from palimpsest.errors import InputError
from palimpsest.measure.watched import Watched
from palimpsest.study.sections import Train, Training, check_logging
from palimpsest.train.fine_tuning import fine_tune
from palimpsest.train.trajectory import Trajectory

MAY_DIFFER = {"train_seconds", "peak_memory_bytes"}


def watched() -> Watched:
    """A member, a non-member and a validation record, twice."""
    examples = texts(6)
    rows = {"id": [e.id for e in examples], "split": ["member", "non_member", "validation"] * 2, "kind": "letter"}
    records = pd.DataFrame({**rows, "copies": [1, 0, 0] * 2, "response": "a b", "secrets": [[]] * 6})
    return Watched(records, examples, words(), 50, 0)


def trained(folder, method="sft", **more):
    settings = Training(epochs=2, batch_size=4, learning_rate=1e-3, precision="fp32")
    watch = partial(Trajectory, watched=watched())
    return fine_tune(untrained("gpt2"), words(), texts(8), settings, folder, method=method, watch=watch, **more)


def test_curves_are_written_and_change_no_result(tmp_path):
    plain = trained(tmp_path / "plain")
    facts = trained(tmp_path / "logged", log_to=["tensorboard"])
    assert {k: v for k, v in facts.items() if k not in MAY_DIFFER} == {
        k: v for k, v in plain.items() if k not in MAY_DIFFER
    }
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "logged"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    paths = [tmp_path / name / "trajectory.csv" for name in ("plain", "logged")]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not (tmp_path / "plain" / "tensorboard").exists()
    found = EventAccumulator(str(tmp_path / "logged" / "tensorboard")).Reload()
    path = pd.read_csv(paths[1])
    points = found.Scalars("trajectory/validation_loss")
    assert [p.step for p in points] == list(path["step"])
    assert [p.value for p in points] == pytest.approx(list(path["validation_loss"]), rel=1e-5)
    assert [p.step for p in found.Scalars("train/loss")] == [2, 4]


def test_dp_sgd_writes_none(tmp_path):
    trained(tmp_path, "sft_private", log_to=["tensorboard"])
    assert not (tmp_path / "tensorboard").exists()


def test_a_missing_package_is_refused_with_the_command(monkeypatch):
    check_logging(Train(log_to=["tensorboard"]))
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as where it is not installed
    check_logging(Train())
    with pytest.raises(InputError, match=r"not installed, so nothing was started.* pip install 'palimpsest\[log\]'"):
        check_logging(Train(log_to=["tensorboard"]))
