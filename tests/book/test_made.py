"""What made a run is read off its stages: commits, versions, machines, times, models."""

import json
import shutil

import pytest

from palimpsest.book.made import facts_listed, how_made
from palimpsest.study import Run, open_run, run_once
from palimpsest.study.files import write_json


@pytest.fixture
def run(finished, tmp_path):
    return open_run(finished.study, shutil.copytree(finished.path, tmp_path / "run"))


def changed(run: Run, stage: str, **facts) -> None:
    path = run.path / stage / "run.json"
    write_json(path, {**json.loads(path.read_text()), **facts})


def test_models_and_seconds_are_those_of_all_replicates(run):
    made = how_made(run)
    assert made.models == 2 * 4 and made.training_seconds == pytest.approx(2 * 4 * 3.0)
    assert sum(made.commits.values()) == made.stages and len(made.pythons) == 1 and made.versions["torch"]


def test_other_commits_and_versions_are_all_named(run):
    versions = {"torch": "9.9.9", "trl": None}
    changed(run, "models/teacher", commit="abc1234-dirty", versions=versions, device="NVIDIA")
    made = how_made(run)
    assert made.commits["abc1234-dirty"] == 1
    assert "9.9.9" in made.versions["torch"] and made.devices == ["NVIDIA", "cpu"]
    assert "`abc1234-dirty` (1 stages); **files differed**" in facts_listed(run)


def test_the_run_began_only_if_every_stage_says_when(run):
    assert how_made(run).began is None
    for part in (run, *run.parts().values()):
        for number, stage in enumerate(s for s in part.fingerprints if part.finished(s)):
            changed(part, stage, began=f"2026-01-01T00:00:{number:02}+00:00", ended="2026-01-01T01:00:00+00:00")
    made = how_made(run)
    assert (made.began, made.ended) == ("2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00")
    assert "| from, to | 2026-01-01T00:00:00+00:00, 2026-01-01T01:00:00+00:00 |" in facts_listed(run)


def test_a_stage_says_when_it_began_and_ended(finished, tmp_path):
    run = open_run(finished.study, tmp_path)
    with run_once(run, "data"):
        pass
    facts = run.require("data")
    assert facts["began"] <= facts["ended"] and facts["began"].endswith("+00:00")


def test_a_run_without_a_stage_says_that_nothing_is_known(finished, tmp_path):
    run = open_run(finished.study, tmp_path)
    assert how_made(run).stages == 0 and "| commits | not known before a stage is finished |" in facts_listed(run)
