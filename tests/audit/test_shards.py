"""Shards: together the same as one audit, to the last digit; a missing, foreign or empty one is refused by name."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from audits import audited, in_pieces, people, whole, write

from palimpsest import cli
from palimpsest.audit import shards
from palimpsest.audit.command import WORKFLOW
from palimpsest.audit.results import RESULTS
from palimpsest.errors import InputError

OWN = ("seconds", "peak_memory_bytes")  # of each process


@pytest.fixture(scope="module")
def parts(place, tmp_path_factory):
    """One audit in pieces of four records, and the same in three shards; rows repeat across them."""
    folder = tmp_path_factory.mktemp("shards")
    rows = [{**row, "who": i % 7} for i, row in enumerate(people(24, 1))]
    rows += [{**row, "who": 99} for row in (rows[0], rows[13])]
    file = write(folder / "members.jsonl", rows)
    options = {
        "non_members": place / "others.jsonl",
        "reference": place / "base",
        "teacher": place / "tuned",
        "window": 6,
    }
    options |= {"left_truncated": [2], "group_by": "who", "sampling": [{"top_k": 5}]}
    with pytest.MonkeyPatch.context() as patch:
        in_pieces(patch, 4)
        audited(place / "tuned", file, folder / "whole", **options)
        for i in (1, 2, 3):
            audited(place / "tuned", file, folder / f"part{i}", shard=(i, 3), **options)
    return folder, file, options


def test_three_shards_are_one_audit_to_the_last_digit(parts, tmp_path):
    folder, _, _ = parts
    folders = [folder / f"part{i}" for i in (3, 1, 2)]
    assert all(whole(one) == [] for one in folders)
    summary = shards.merge(folders, tmp_path / "out")
    assert whole(tmp_path / "out") == list(RESULTS) and not (tmp_path / "out" / "partial").exists()
    one, other = (json.loads((out / "summary.json").read_text()) for out in (folder / "whole", tmp_path / "out"))
    assert {k: v for k, v in one.items() if k not in OWN} == {k: v for k, v in other.items() if k not in OWN}
    assert summary == other and one["data"]["members"]["duplicates"] == 2
    both = [pd.read_parquet(out / "records.parquet") for out in (folder / "whole", tmp_path / "out")]
    pd.testing.assert_frame_equal(*both, check_exact=True)
    assert shards.merge(folders, tmp_path / "out") == other  # and it isn't made again


def test_a_missing_a_foreign_and_a_doubled_shard(place, parts, tmp_path):
    folder, file, options = parts
    one, two, three = (folder / f"part{i}" for i in (1, 2, 3))
    with pytest.raises(InputError, match="shard 2/3 is missing: run `palimpsest audit --shard 2/3`"):
        shards.merge([one, three], tmp_path / "out")
    with pytest.raises(InputError, match="part2 are both shard 2 of 3"):
        (tmp_path / "part2").symlink_to(two)
        shards.merge([one, two, tmp_path / "part2"], tmp_path / "out")
    with pytest.raises(InputError, match="holds no finished shard"):
        shards.merge([one, tmp_path], tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        in_pieces(patch, 4)
        audited(place / "tuned", file, tmp_path / "other", shard=(2, 3), **{**options, "window": 5})
    with pytest.raises(
        InputError, match=r"other is a shard of another audit .*they differ in settings.window: 6 and 5"
    ):
        shards.merge([one, tmp_path / "other", three], tmp_path / "out")
    assert whole(tmp_path / "out") == []


def test_a_finished_shard_is_not_scored_again_and_an_empty_one_is_refused(place, parts, capsys, monkeypatch):
    folder, file, options = parts
    in_pieces(monkeypatch, 4)
    audited(place / "tuned", file, folder / "part1", shard=(1, 3), **options)
    assert "already holds shard 1 of 3, complete" in capsys.readouterr().err
    with pytest.raises(InputError, match="--shard 9/9: this part is empty"):
        audited(place / "tuned", file, folder / "part9", shard=(9, 9), **options)


def test_merge_on_the_command_line(parts, tmp_path, capsys):
    folder, _, _ = parts
    command = ["merge", *(str(folder / f"part{i}") for i in (1, 2, 3)), "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--fail-above", "0.01", "--fail-on", "persons"]) == 3
    assert "FAILED: persons" in capsys.readouterr().err
    assert cli.main([*command[:2], "--out", str(tmp_path / "no")]) == 2
    with pytest.raises(SystemExit) as stop:
        cli.main(["merge", "--workflow"])
    assert stop.value.code == 0 and Path(capsys.readouterr().out.strip()) == WORKFLOW


@pytest.mark.slow
def test_the_workflow_goes_on_after_a_kill_and_its_shards_are_one_audit(place, tmp_path):
    data = write(tmp_path / "m.jsonl", people(8_100, 1))  # five pieces, so that two shards have two
    whole_, out = audited(place / "tuned", data, tmp_path / "whole", approximate=False), tmp_path / "out"
    options = f"--model {place / 'tuned'} --data {data} --no-approximate"
    command = [sys.executable, "-m", "snakemake", "-s", str(WORKFLOW), "--cores", "2", "--config", "shards=3"]
    command += [f"out={out}", f"options={options}"]
    quiet = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(command, **quiet) as running:
        while not (scored := list(out.glob("shards/*/partial/*/members/*.parquet"))) and running.poll() is None:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
    times = [piece.stat().st_mtime_ns for piece in scored]
    assert times and not (out / "summary.json").exists() and len(list(out.glob("shards/*/shard/shard.json"))) < 3
    for more in (["--unlock"], ["--rerun-incomplete"]):
        again = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
    kept = [out / "shards" / piece.parts[-5] / "shard" / "members" / piece.name for piece in scored]
    assert [piece.stat().st_mtime_ns for piece in kept] == times  # not scored again
    merged = json.loads((out / "summary.json").read_text())
    assert {k: v for k, v in merged.items() if k not in OWN} == {
        k: v for k, v in json.loads(json.dumps(whole_)).items() if k not in OWN
    }
    both = [pd.read_parquet(folder / "records.parquet") for folder in (tmp_path / "whole", out)]
    pd.testing.assert_frame_equal(*both, check_exact=True)
