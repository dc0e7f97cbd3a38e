"""Chapter 09 says what its tables hold, says what is missing, and decides nothing that they don't decide."""

import pandas as pd
import pytest
from claims_by_hand import claimed, claims_table
from trained_by_hand import SECRETS, finish, made_by_hand
from written_runs import sentences, write_run

from palimpsest.chapters import comparisons, real_model, repetition, tradeoffs
from palimpsest.measure.statistics import rate_of
from palimpsest.study import Run

MADE = {
    "title": "A model",
    "records": {"member": 40, "teacher_only": 20},
    "replicates": 2,
    "models": 9,
    "missing": {},
    "core_seconds": 5400,
    "began": "2026-01-01T10:00:00+00:00",
    "ended": None,
    "peak_memory_bytes": 4_200_000_000,
    "disk_bytes": 11_000_000_000,
    "device": "cpu",
    "commit": "abc1234",
    "start": "package:words",
    "notes": ["Its weights were turned into plain numbers."],
    "tuned": False,
}


def cut(run: Run, healed: bool = True) -> Run:
    """The run under a study whose student is cut from the teacher's base, with the facts that cutting it wrote down."""
    small = run.study.models.students["small"].model_copy(update={"path": None, "keep": 2})
    models = run.study.models.model_copy(update={"students": {"small": small}})
    new = Run(run.study.model_copy(update={"models": models}), run.path)
    for part in new.replicates():
        about = {"kept": [0, 3], "influence": [0.9, 0.1, 0.2, 0.8], "parameters": 1_000_000}
        about |= {"test_loss_whole": 2.0, "test_loss_cut": 4.0 + part.study.replicate}
        finish(part, "models/base-small", {**about, **({"test_loss_healed": 3.0} if healed else {})})
        finish(part, "models/base-teacher", {"parameters": 2_000_000})
    return new


@pytest.fixture
def texts(monkeypatch):
    monkeypatch.setattr(real_model, "load_scores", lambda part, name, file: pd.DataFrame({"rougeL": [0.2, 0.4]}))


@pytest.mark.parametrize("healed", [True, False])
def test_healing_is_told_of_the_whole_the_cut_and_the_healed_model(tmp_path, healed, texts):
    found = real_model.tables(cut(write_run(tmp_path, replicates=2), healed))["healing"]
    states = ["whole", "cut", "healed"][: 3 if healed else 2]
    assert list(found["state"]) == states * 2 and list(found["replicate"].unique()) == [0, 1]
    first = found[found["replicate"] == 0].set_index("state")
    assert list(first["layers"]) == [4, 2, 2][: len(states)] and list(first["test_loss"]) == [2, 4, 3][: len(states)]
    assert list(first["parameters"]) == [2e6, 1e6, 1e6][: len(states)]
    assert first.loc[states[-1], "rougeL"] == pytest.approx(0.3) and first.loc["whole", "records"] == 2
    assert not healed or (first.loc["cut", "records"] == 0 and first["rougeL"].isna()["cut"])
    (line,) = real_model.say_healing(found)
    assert "2 of 4 layers: cutting raises the test loss from 2.00 to 4.50" in line and "mean of 2 replicates" in line
    assert ("healed it is 3.00, so 60 % of that rise is given back" in line) == healed
    shown = real_model.show_healing(found)
    assert shown.loc[("small", "cut"), "test loss"] == "4.50 (4.00 to 5.00)" and len(shown.reset_index().columns) <= 6
    assert shown.loc[("small", "whole"), "parameters, millions"] == "2" and real_model.plot_healing(found)


def test_a_study_that_cuts_nothing_has_no_healing(tmp_path):
    found = real_model.tables(write_run(tmp_path))["healing"]
    assert found.empty and real_model.show_healing(found) is None is real_model.plot_healing(found)


def test_what_was_run_and_what_is_missing_is_said():
    other = {
        **MADE,
        "title": "Another",
        "records": {"member": 3},
        "missing": {
            "first replicate": ["a-gkd-s0"],
            "replicate1": ["a-rkl-s0"],
            "replicate2": ["base-teacher", "teacher", "a-rkl-s0"],
        },
    }
    shown = real_model.show_made(MADE, {}, other)
    assert list(shown) == ["A model", "Another"] and shown.loc["models missing", "Another"] == "5"
    assert (
        shown.loc["hours of a core", "A model"] == "1.50"
        and shown.loc["most memory of a stage", "A model"] == "4.2 GB"
    )
    assert (
        shown.loc["records, teacher-only", "Another"] == "none" and shown.loc["begun", "A model"] == "2026-01-01 10:00"
    )
    whole, told = real_model.say_made(MADE), real_model.say_made(other)
    assert "began from `package:words`. Its weights" in whole[0] and "**not tuned**" in whole[0]
    assert whole[1:] == ["- Nothing that *A model* asks for is missing."]
    assert told[1:] == [
        "- Missing in the first replicate of *Another*: `a-gkd-s0`.",
        "- Missing in `replicate1` of *Another*: `a-rkl-s0`.",
        "- Not begun, of *Another*: `replicate2`.",
    ]
    assert "not tuned" not in real_model.say_made({**MADE, "tuned": True})[0]
    assert real_model.show_made({}, {}) is None and real_model.say_made({}) == []


def test_what_is_not_published_yet_is_said_with_its_command():
    assert real_model.if_made(MADE, "words", ["a"]) == ["a"]
    (line,) = real_model.if_made({}, "words", ["a"])
    assert "not published yet" in line and "make book STUDY=studies/words.yaml" in line


@pytest.fixture(scope="module")
def hand(tmp_path_factory):
    run = made_by_hand(tmp_path_factory.mktemp("hand"), replicates=2)
    return {**tradeoffs.tables(run), **comparisons.tables(run)}


def test_an_epochs_numbers_are_means_over_replicates(hand):
    rows = real_model.by_epoch(hand["trajectories"])
    asked = hand["trajectories"]
    part = asked[(asked["label"] == "small, SFT") & (asked["epoch"] == 2)]
    row = rows[(rows["label"] == "small, SFT") & (rows["epoch"] == 2)].iloc[0]
    assert (
        row["loss"] == pytest.approx(part["validation_loss_calibrated"].mean()) and row["replicates"] == len(part) == 2
    )
    assert row["repeated"] == pytest.approx(part["recited_repeated"].mean())
    assert set(rows["label"]) == {"teacher", "small, SFT"} and real_model.plot_epochs(asked, "secrets")
    shown = real_model.show_epochs(asked)
    assert (
        shown.loc[("teacher", "2"), "recited, repeated text"].endswith(" %") and len(shown.reset_index().columns) <= 6
    )


def test_counts_are_those_of_all_replicates_together(hand):
    found = repetition.counted_doses(hand["by_dose"], "end").set_index(["label", "dose"])
    rows = hand["by_dose"]
    rows = rows[
        (rows["when"] == "end")
        & (rows["kind"] == "letter")
        & (rows["split"] == "member")
        & (rows["label"] == "small, SFT")
    ]
    for dose, part in (("once", rows[rows["copies"] == 1]), ("repeated", rows[rows["copies"] > 1])):
        wanted = rate_of(round((part["recited"] * SECRETS).sum()), len(part) * SECRETS)
        assert found.loc[("small, SFT", dose), [*wanted]].to_dict() == pytest.approx(wanted)
    assert found.loc[("small, SFT", "repeated"), "total"] == 2 * 2 * SECRETS  # two replicates, two doses
    told = " ".join(real_model.say_epochs(hand["by_dose"], hand["trajectories"], "secrets"))
    assert "**small, SFT**: its mean validation loss, calibrated, is lowest after epoch 2, at 2.0" in told
    assert "the plain one after epoch" in told and "where each training's calibrated loss is lowest" in told
    assert f"Of {4 * SECRETS} secrets in repeated text it recites" in told


def test_ends_are_shown_with_quality_and_read_without_a_verdict(hand):
    shown = real_model.show_ends(hand["by_dose"], hand["trajectories"])
    assert set(shown["replicates"]) == {2} and len(shown.reset_index().columns) <= 6
    assert shown.loc["small, reverse KL", "recited, repeated text"].startswith("0.0 %")
    (line,) = real_model.say_ends(hand["by_dose"], "secrets")
    assert "from 0.0 % (0.0 to 1.6) of 240 (reverse KL)" in line and "less" not in line
    same = hand["by_dose"][hand["by_dose"]["method"] == "rkl"]
    assert "0.0 % (0.0 to 1.6) of 240 (reverse KL)" in real_model.say_ends(same, "secrets")[0]


def test_fewer_than_five_replicates_decide_nothing_and_that_is_said(hand):
    claims = hand["claims"].assign(null_largest=0.1)
    told = real_model.say_evidence(claims)
    assert told[0] == "**Two replicates decide nothing between methods**: less or more is said of five or more."
    assert told[1].startswith(
        "At the end 2 of 2 distilled students differ from a fine-tuned one by more than a method differs from itself"
    )
    assert told[1].endswith("up to 10 points.")
    assert told[-1].startswith(
        "Of 2 distilled students, so many could be compared at equal quality: by calibrated validation loss"
    )
    apart = claims.assign(estimate=claims["estimate"].where(claims["quality"] != "validation_loss_calibrated"))
    assert real_model.say_evidence(apart)[-1].endswith(
        "So *equal quality* means here: after as many tokens read, or with as good a ROUGE-L."
    )
    unknown = claims.assign(null_largest=claims["null_largest"].where(claims["first"] == "fkl"))
    assert (
        "At the end 1 of 1 distilled students" in real_model.say_evidence(unknown)[1]
    )  # the other's null is not known
    one = hand["claims"].assign(replicates=1, null_largest=float("nan"))
    told = real_model.say_evidence(one)
    assert told[0].startswith("**One replicate decides nothing") and "is not known" in told[1]
    five = claims_table(claimed("distilling", "fkl", "sft", "recited_repeated", "end", "less"))
    told = real_model.say_evidence(five)
    assert (
        told[0].startswith("At the end 1 of 1")
        and "up to 2 points" in told[0]
        and told[1].startswith("At equal quality no")
    )


def test_every_sentence_is_short(hand, tmp_path, texts):
    healing = real_model.tables(cut(write_run(tmp_path, replicates=2)))["healing"]
    lines = [*real_model.say_made(MADE), *real_model.say_healing(healing), *real_model.say_evidence(hand["claims"])]
    lines += [
        *real_model.say_epochs(hand["by_dose"], hand["trajectories"], "secrets"),
        *real_model.say_ends(hand["by_dose"], "secrets"),
    ]
    assert [s for s in sentences(lines) if len(s.split()) > 36] == []
