"""Replicates made in different places stand together as if one run had made them, or not at all."""

import json
import shutil
from pathlib import Path

import pytest
from trained_by_hand import finish, made_by_hand

from palimpsest import chapters
from palimpsest.book import joined, published
from palimpsest.chapters import comparisons, tradeoffs
from palimpsest.study import write_table
from palimpsest.study.files import file_digest
from palimpsest.study.tables import read_table

ROOT = Path(__file__).parents[2]
JOINED = {"trajectories", "by_dose", "claims", "distances"}


@pytest.fixture(autouse=True)
def tables_of_trajectories(monkeypatch):
    """Runs by hand have no score tables, so those tables that need none; the code that joins is committed."""
    monkeypatch.setattr(chapters, "WITH_TABLES", (tradeoffs,))
    monkeypatch.setattr(joined, "commit", lambda: "abc1234")
    monkeypatch.setattr(published, "write_tables", write_tables)


def write_tables(run):
    for name, table in {**tradeoffs.tables(run), **comparisons.tables(run)}.items():
        write_table(table, run.tables / f"{name}.csv")
    for name in set(published.KEPT) - {path.stem for path in run.tables.glob("*.csv")}:
        write_table(joined.pd.DataFrame(), run.tables / f"{name}.csv")
    finish(run, "tables", {"commit": "abc1234"})


def publish(monkeypatch, run, out, *options):
    """The command line's exit code."""
    study = str(run.path.parent / "hand.yaml")
    monkeypatch.setattr("sys.argv", ["published", study, str(run.path), str(out), *options])
    return published.main()


def first_alone(monkeypatch, folder, replicates=3):
    """A run of several replicates, and where the first of them is published while the others are not begun."""
    run, out = made_by_hand(folder, replicates=replicates), folder / "out"
    for number in range(1, replicates):
        (run.path / f"replicate{number}").rename(folder / f"kept{number}")
    assert publish(monkeypatch, run, out, "--finished-only") == 0
    assert set(read_table(out / "trajectories.csv")["replicate"]) == {0}
    return run, out


def test_replicates_made_elsewhere_make_the_tables_that_one_run_would_have_made(tmp_path, monkeypatch, capsys):
    run, out = first_alone(monkeypatch, tmp_path)
    shutil.rmtree(run.path / "models")  # the first one's models are gone, or on another machine
    (tmp_path / "kept2").rename(run.path / "replicate2")
    assert publish(monkeypatch, run, out, "--join") == 0
    assert capsys.readouterr().out.endswith("joined by replicate 2\n")
    made = json.loads((out / "made.json").read_text())
    assert made["replicates"] == 2 and [*made["missing"]] == ["replicate1"]
    (run.path / "replicate2").rename(tmp_path / "done2")
    (tmp_path / "kept1").rename(run.path / "replicate1")
    assert publish(monkeypatch, run, out, "--join") == 0
    whole = tmp_path / "whole"
    whole.mkdir()
    assert publish(monkeypatch, made_by_hand(whole, replicates=3), whole / "out") == 0
    for name in JOINED:
        mine, theirs = (read_table(folder / f"{name}.csv") for folder in (out, whole / "out"))
        keys = [c for c in ("replicate", "model", "when", "step") if c in mine and c in theirs]
        mine, theirs = (t.sort_values(keys, kind="stable", ignore_index=True) if keys else t for t in (mine, theirs))
        joined.pd.testing.assert_frame_equal(mine, theirs, rtol=1e-4, atol=1e-4)
    assert read_table(out / "claims.csv")["replicates"].max() == 3
    made, wanted = (json.loads((folder / "made.json").read_text()) for folder in (out, whole / "out"))
    for name in ("replicates", "models", "missing", "commit", "fingerprints", "versions"):
        assert made[name] == wanted[name], name
    assert made["training_seconds"] == pytest.approx(wanted["training_seconds"], abs=3)  # each rounded


def test_what_is_there_is_not_added_twice(tmp_path, monkeypatch, capsys):
    run, out = first_alone(monkeypatch, tmp_path, replicates=2)
    (tmp_path / "kept1").rename(run.path / "replicate1")
    commits = iter(["abc1234", "abc1234-dirty"])  # a table that is changed makes the clone dirty
    monkeypatch.setattr(joined, "commit", lambda: next(commits))
    assert publish(monkeypatch, run, out, "--join") == 0
    assert json.loads((out / "made.json").read_text())["tables_commit"] == "abc1234"
    monkeypatch.setattr(joined, "commit", lambda: "abc1234")
    before = {path.name: file_digest(path) for path in out.iterdir()}
    assert publish(monkeypatch, run, out, "--join") == 2
    assert "no replicates to join the 2 in" in capsys.readouterr().err
    assert before == {path.name: file_digest(path) for path in out.iterdir()}


def test_an_unfinished_replicate_is_refused_and_taken_where_that_is_asked_for(tmp_path, monkeypatch, capsys):
    run, out = first_alone(monkeypatch, tmp_path, replicates=2)
    (tmp_path / "kept1").rename(run.path / "replicate1")
    shutil.rmtree(run.path / "replicate1" / "models" / "small-rkl-s0")
    assert publish(monkeypatch, run, out, "--join") == 2
    assert "unfinished replicates" in (told := capsys.readouterr().err) and "small-rkl-s0" in told
    assert publish(monkeypatch, run, out, "--join", "--finished-only") == 0
    assert json.loads((out / "made.json").read_text())["missing"] == {"replicate1": ["small-rkl-s0"]}
    counts = read_table(out / "trajectories.csv").groupby("method")["replicate"].nunique()
    assert counts.to_dict() == {"sft": 2, "fkl": 2, "rkl": 1, "sft_goldfish": 2}


def test_a_replicate_of_other_settings_or_of_changed_code_does_not_join(tmp_path, monkeypatch, capsys):
    run, out = first_alone(monkeypatch, tmp_path, replicates=2)
    (tmp_path / "kept1").rename(run.path / "replicate1")
    before = {path.name: file_digest(path) for path in out.iterdir()}
    study = tmp_path / "hand.yaml"
    kept = study.read_text()
    study.write_text(f"{kept}student: {{epochs: 3}}\n")
    assert publish(monkeypatch, run, out, "--join") == 2
    assert "made by other settings or data" in (told := capsys.readouterr().err) and "small-fkl-s0" in told
    study.write_text(kept)
    part = run.parts()["replicate1"]
    finish(part, "models/small-fkl-s0", {**part.require("models/small-fkl-s0"), "commit": "abc1234-dirty"})
    assert publish(monkeypatch, run, out, "--join") == 2 and "abc1234-dirty" in capsys.readouterr().err
    assert before == {path.name: file_digest(path) for path in out.iterdir()}


def test_nothing_joins_where_nothing_is_published(tmp_path, monkeypatch, capsys):
    run = made_by_hand(tmp_path)
    assert publish(monkeypatch, run, tmp_path / "nowhere", "--join") == 2
    assert "publish it without options" in capsys.readouterr().err


def test_published_methods_are_compared_anew_without_their_run(tmp_path, monkeypatch, capsys):
    """After the way of comparing was changed: from the trajectories alone, by a commit that can be named."""
    run, out = first_alone(monkeypatch, tmp_path)
    before = {path.stem: path.read_text() for path in out.glob("*.csv")}
    shutil.rmtree(run.path)
    (out / "claims.csv").write_text("stale")
    assert publish(monkeypatch, run, out, "--again") == 0
    assert {path.stem: path.read_text() for path in out.glob("*.csv")} == before
    monkeypatch.setattr(joined, "commit", lambda: "abc1234-dirty")
    assert publish(monkeypatch, run, out, "--again") == 2 and "commit them first" in capsys.readouterr().err
    assert publish(monkeypatch, run, tmp_path / "nowhere", "--again") == 2
    assert "nothing is published" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["demo-replicates", "smollm2", "smollm2-dolly"])
def test_what_is_published_of_methods_follows_from_the_published_trajectories(name):
    folder = ROOT / published.PLACE / name
    for table, found in comparisons.claims_and_distances(read_table(folder / "trajectories.csv")).items():
        kept = read_table(folder / f"{table}.csv")
        text = ["family", "claim", "size", "first", "second", "measure", "quality"]
        assert kept[text].equals(found[text]) and kept["replicates"].equals(found["replicates"])
        numbers = [c for c in ("estimate", "low", "high", "null_largest", "p_holm") if c in found]
        joined.pd.testing.assert_frame_equal(kept[numbers], found[numbers], rtol=1e-4, atol=1e-5)
        assert table != "claims" or kept["verdict"].equals(found["verdict"])
