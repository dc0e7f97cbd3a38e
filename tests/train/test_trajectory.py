"""Points of a trajectory: where they lie, what they count, and that a finished model scores what its last point says."""

from functools import partial

import pandas as pd
import pytest
from memorizers import texts, untrained, words

from palimpsest.measure.models import load_model
from palimpsest.measure.watched import Watched, take_point
from palimpsest.study.sections import Training
from palimpsest.train.fine_tuning import fine_tune
from palimpsest.train.trajectory import Trajectory

SPLITS = ["member", "member", "teacher_only", "teacher_only", "non_member", "non_member", "validation", "validation"]


def watched(prompts=0) -> Watched:
    """Two records of each split, without secrets."""
    examples = texts(8)
    rows = {"id": [e.id for e in examples], "split": SPLITS, "kind": "letter", "copies": [1, 4, 1, 4, 0, 0, 0, 0]}
    records = pd.DataFrame({**rows, "response": "a b", "secrets": [[]] * 8})
    return Watched(records, examples, words(), 50, prompts)


def trained(folder, method="sft", weights="fp32", **how):
    settings = Training(
        **{"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "precision": weights} | how.pop("settings", {})
    )
    watch = partial(Trajectory, watched=how.pop("watched", watched()), **how)
    return fine_tune(untrained("gpt2"), words(), texts(8), settings, folder, method=method, watch=watch)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["sft", "sft_private"])
def test_a_trajectory_ends_with_what_the_finished_model_scores(precision, weights, method, tmp_path):
    if method == "sft_private" and weights == "bf16":
        pytest.skip("DP-SGD is computed in fp32")
    trained(tmp_path, method, weights, precision=precision)
    rows = pd.read_csv(tmp_path / "trajectory.csv")
    assert list(rows["precision"]) == [precision] * 3
    last, _ = take_point(load_model(tmp_path, dtype=precision), watched())
    close = 1e-5 if precision == "fp32" else 1e-4
    for name in ("validation_loss", "member_loss", "transferred_member_loss"):
        assert rows[name].iloc[-1] == pytest.approx(last[name], rel=close)


def test_points_lie_where_they_are_asked_for_and_count_what_was_read(tmp_path):
    trained(tmp_path, settings={"batch_size": 2, "epochs": 3}, every=2, early=[0.25, 0.5, 0.6])
    rows = pd.read_csv(tmp_path / "trajectory.csv")
    assert list(rows["step"]) == [0, 1, 2, 8, 12] and list(rows["epoch"]) == [0, 0.25, 0.5, 2, 3]
    epoch = sum(len(e.input_ids) for e in texts(8))
    assert rows["tokens"].iloc[0] == 0 and list(rows["tokens"].iloc[-2:]) == [2 * epoch, 3 * epoch]
    groups = pd.read_csv(tmp_path / "groups.csv")
    assert set(zip(groups["split"], groups["copies"], strict=True)) == {
        ("member", 1),
        ("member", 4),
        ("teacher_only", 1),
        ("teacher_only", 4),
        ("non_member", 0),
    }
    assert (groups.groupby("step").size() == 5).all()


def test_tuning_sees_validation_records_alone(tmp_path):
    whole = watched()
    only = whole.records["split"] == "validation"
    seen = Watched(whole.records[only], [e for e, v in zip(whole.examples, only, strict=True) if v], words(), 50, 0)
    trained(tmp_path, watched=seen, only_validation=True)
    rows = pd.read_csv(tmp_path / "trajectory.csv")
    assert rows["validation_loss"].notna().all() and rows["member_loss"].isna().all() and rows["auc"].isna().all()
    assert not (tmp_path / "groups.csv").exists()


def test_a_resumed_run_takes_the_points_past_its_checkpoint_anew(tmp_path):
    from transformers import TrainerState

    trained(tmp_path)
    before = pd.read_csv(tmp_path / "trajectory.csv")
    again = Trajectory(tmp_path, watched(), steps_per_epoch=2)
    again.on_train_begin(None, TrainerState(global_step=2), None, model=untrained("gpt2"))
    assert pd.DataFrame(again.rows["trajectory"])["step"].tolist() == [0, 2]
    assert {row["step"] for row in again.rows["groups"]} == {0, 2}
    assert again.rows["trajectory"][1]["validation_loss"] == before["validation_loss"].iloc[1]
