"""Pages 02 and 03: a model's facts and its trajectory, from what its own stage wrote."""

import pandas as pd
import pytest

from palimpsest.chapters import training
from palimpsest.errors import InputError
from palimpsest.study import open_run, write_table
from palimpsest.study.files import root, write_json

FACTS = {"parameters": 291456, "start": "base-teacher", "device": "cpu", "commit": "abc", "method": "sft"}
FACTS["versions"] = {"torch": "2", "transformers": "5", "trl": None}
POINTS = [  # epoch, loss and shares of members, loss and shares of non-members
    (0, 5.0, 0.0, 0.0, 5.1, 0.0, 0.0),
    (5, 2.0, 0.25, 0.1, 3.0, 0.05, 0.0),
    (10, 0.5, 0.75, 0.5, 3.5, 0.1, 0.0),
]


@pytest.fixture(params=["secret", "window"])
def run(tmp_path, request):
    """A run whose teacher is trained, on data that marks its secrets or does not."""
    run, marked = open_run(root() / "studies" / "smoke.yaml", tmp_path), request.param == "secret"
    data = {"target": request.param, "unit": "secrets" if marked else "records"}
    write_json(run.data / "run.json", {"fingerprint": run.fingerprints["data"], **data})
    write_json(run.model("teacher") / "run.json", {"fingerprint": run.fingerprints["models/teacher"], **FACTS})
    rows = []
    for epoch, *sides in POINTS:
        for split, (loss, recited, verbatim) in zip(("member", "non_member"), (sides[:3], sides[3:]), strict=True):
            row = {"epoch": epoch, "step": 10 * epoch, "split": split, "loss": loss, "precision": "float32"}
            row |= {
                "records": 40,
                "verbatim": verbatim,
                "verbatim_low": verbatim / 2,
                "verbatim_high": verbatim + 0.01,
            }
            recited = recited if marked else None
            row |= {
                "secrets": 60 if marked else 0,
                "recited": recited,
                "recited_low": recited,
                "recited_high": recited,
            }
            rows.append(row)
    write_table(pd.DataFrame(rows), run.model("teacher") / "trajectory.csv")
    return run


def test_the_share_that_leads_is_the_data_s_target(run):
    path, data = training.trajectory(run, "teacher"), run.require("data")
    share, total = {"secret": ("recited", 60), "window": ("verbatim", 40)}[data["target"]]
    assert (path["memorized"] == path[share]).all() and (path["memorized_high"] == path[f"{share}_high"]).all()
    assert (
        set(path["counted"]) == {total} and set(path["unit"]) == {data["unit"]} and set(path["model"]) == {"teacher"}
    )


def test_what_is_said_names_the_best_epoch_and_the_end(run):
    path = training.trajectory(run, "teacher")
    loss, recited = training.say_trajectory(path)
    assert "lowest after epoch 5, at 3.00 nats" in loss and loss.endswith("ends at 3.50.")
    unit = path["unit"].iloc[0]
    last = {"secrets": "75.0 % (75.0 to 75.0)", "records": "50.0 % (25.0 to 51.0)"}[unit]
    assert f"at the end, {last}" in recited and f"members' {path['counted'].iloc[0]} {unit};" in recited
    for sentence in ". ".join([loss, recited]).split(". "):
        assert sum(any(c.isalnum() for c in word) for word in sentence.split()) <= 25, sentence


def test_secrets_are_drawn_where_they_are_marked(run):
    figure = training.plot_trajectory(training.trajectory(run, "teacher"))
    labels = {line.get_label().split(",")[0] for line in figure.axes[1].get_lines()}
    assert labels == ({"verbatim", "recited"} if run.require("data")["target"] == "secret" else {"verbatim"})
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
