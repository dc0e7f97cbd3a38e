"""Chapter 09 says what its tables hold, says what is missing, and decides nothing that they don't decide."""

import pytest
from trained_by_hand import finish
from written_runs import write_run

from palimpsest.chapters import real_model
from palimpsest.study import Run


def cut(run: Run, healed: bool = True) -> Run:
    """The run under a study whose student is cut from the teacher's base, with the facts that cutting it wrote down."""
    small = run.study.models.students["small"].model_copy(update={"path": None, "keep": 2})
    models = run.study.models.model_copy(update={"students": {"small": small}})
    study = run.study.model_copy(update={"models": models})
    new = Run(study, run.path)
    for part in new.replicates():
        about = {"kept": [0, 3], "influence": [0.9, 0.1, 0.2, 0.8], "parameters": 1000}
        about |= {"test_loss_whole": 2.0, "test_loss_cut": 4.0, **({"test_loss_healed": 3.0} if healed else {})}
        finish(part, "models/base-small", about)
        finish(part, "models/base-teacher", {"parameters": 2000})
        for name in ("base-small", "base-teacher"):
            finish(part, f"scores/{name}", {})
    return new


@pytest.mark.parametrize("healed", [True, False])
def test_healing_is_told_of_the_whole_the_cut_and_the_healed_model(tmp_path, healed, monkeypatch):
    run = cut(write_run(tmp_path, replicates=2), healed)
    import pandas as pd

    monkeypatch.setattr(
        real_model,
        "load_scores",
        lambda part, name, file: pd.DataFrame({"rougeL": [0.2, 0.4]}) if file == "test" else None,
    )
    found = real_model.tables(run)["healing"]
    states = ["whole", "cut", "healed"] if healed else ["whole", "cut"]
    assert list(found["state"]) == states * 2 and list(found["replicate"].unique()) == [0, 1]
    first = found[found["replicate"] == 0].set_index("state")
    assert (
        list(first["layers"]) == [4, 2, 2][: len(states)]
        and list(first["test_loss"]) == [2.0, 4.0, 3.0][: len(states)]
    )
    assert list(first["parameters"]) == [2000, 1000, 1000][: len(states)]
    assert first.loc[states[-1], "rougeL"] == pytest.approx(0.3) and first.loc["whole", "records"] == 2
    assert not healed or (first.loc["cut", "records"] == 0 and first["rougeL"].isna()["cut"])


def test_a_study_that_cuts_nothing_has_no_healing(tmp_path):
    assert real_model.tables(write_run(tmp_path))["healing"].empty
