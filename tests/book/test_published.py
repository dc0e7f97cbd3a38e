"""Published tables: which a page shows, and from what run they may be made."""

import json
import shutil

import pandas as pd
import pytest
from claims_by_hand import SOME
from trained_by_hand import finish, made_by_hand

from palimpsest.book import published
from palimpsest.chapters import claims, comparisons, tradeoffs
from palimpsest.errors import InputError
from palimpsest.study import METHODS, load_study, write_table
from palimpsest.study.columns import COLUMNS
from palimpsest.study.files import root
from palimpsest.study.tables import TABLES, Tables

PLACE = root() / "book" / "published"
FOLDERS = sorted(PLACE.iterdir()) if PLACE.exists() else []
# From five replicates on, claims are made.
PUBLISHED = [path for path in FOLDERS if json.loads((path / "made.json").read_text())["replicates"] >= 5]
FEWER = [path for path in FOLDERS if path not in PUBLISHED]


def with_tables(folder, commit="abc1234", **options):
    """A run by hand whose tables are written: those of chapters 07 and 08, and empty ones beside them."""
    run = made_by_hand(folder, commit=commit, **options)
    others = {name: pd.DataFrame() for name in published.KEPT}
    for name, table in {**others, **tradeoffs.tables(run), **comparisons.tables(run)}.items():
        write_table(table, run.tables / f"{name}.csv")
    finish(run, "tables", {"commit": commit})
    return run


def a_publication(folder):
    """A folder as `publish` leaves it, with claims."""
    made = {"study": "five", "replicates": 5, "models": 90, "commit": "fed9876"}
    for name in published.KEPT:
        write_table(SOME if name == "claims" else pd.DataFrame(), folder / f"{name}.csv")
    (folder / "made.json").write_text(json.dumps(made))
    return folder


def test_a_run_of_one_replicate_shows_what_is_published_and_keeps_its_own_numbers(tmp_path):
    run, folder = with_tables(tmp_path, replicates=1), a_publication(tmp_path / "published")
    shown, source = published.choose(run, folder)
    assert "`five`: 5 replicates, 90 models, commit `fed9876`" in source and len(source.split()) <= 27
    assert shown.folder == folder and len(shown.claims) == len(SOME)
    own = Tables(run.tables)
    assert set(own.claims["verdict"]) == {"undecided"} and set(own.trajectories["replicate"]) == {0}


def test_a_run_of_several_replicates_or_with_nothing_published_shows_its_own(tmp_path):
    several = with_tables(tmp_path)
    shown, source = published.choose(several, a_publication(tmp_path / "published"))
    assert shown.folder == several.tables and "2 replicates." in source and "five" not in source
    (tmp_path / "one").mkdir()
    single = with_tables(tmp_path / "one", replicates=1)
    shown, source = published.choose(single, tmp_path / "nowhere")
    assert shown.folder == single.tables and "published" not in source and "1 replicate." in source


def test_what_is_published_is_the_runs_own_tables(tmp_path):
    run, out = with_tables(tmp_path, tuning=True), tmp_path / "out"
    assert published.publish(run, out) == out
    kept = {name for name in published.KEPT if len(getattr(Tables(run.tables), name))}
    assert {path.stem for path in out.glob("*.csv")} == kept > {"trajectories", "claims", "tuning"}
    assert "shadow_attacks" not in kept and published.Kept(out).shadow_attacks.empty  # the study has none
    for name in kept:
        assert (out / f"{name}.csv").read_bytes() == (run.tables / f"{name}.csv").read_bytes()
    made = json.loads((out / "made.json").read_text())
    assert (made["study"], made["replicates"]) == ("hand", 2)
    # two replicates of two bases, a teacher and four students; the same bases and teacher and four students at two rates
    assert made["models"] == 2 * 7 + 3 + 8 and made["training_seconds"] == round(1.5 * made["models"])
    assert made["commit"] == "abc1234" and made["missing"] == {} and made["tuned"]
    assert made["disk_bytes"] > 0 and made["peak_memory_bytes"] == 1 << 20


def test_no_table_that_is_kept_has_a_column_of_text_from_the_data():
    """Every other column of text holds words of ours: names of models, splits, measures, and reasons."""
    ours = {
        *("model", "label", "size", "method", "role", "split", "kind", "set", "target", "when", "given", "state"),
        *("family", "claim", "first", "second", "measure", "quality", "verdict", "because", "attack", "note"),
    }
    held = {name for table in published.KEPT for name in TABLES[table] if COLUMNS[name][0] == "str"}
    assert held <= ours and not {"text", "token", "id"} & held


def test_of_the_study_itself_its_own_tables_are_shown_and_else_the_published_ones(tmp_path):
    run, folder = with_tables(tmp_path, replicates=1), a_publication(tmp_path / "five")
    assert published.tables_of(run, folder).folder == folder and published.made_of(run, folder)["study"] == "five"
    own = tmp_path / "elsewhere" / "hand"
    assert published.tables_of(run, own).folder == run.tables and published.made_of(run, own)["models"] == 7
    nothing = published.tables_of(run, tmp_path / "nowhere")
    assert published.made_of(run, tmp_path / "nowhere") == {} and nothing.claims.empty


def test_what_is_finished_of_a_run_is_published_with_what_is_missing(tmp_path, monkeypatch, capsys):
    run, out = made_by_hand(tmp_path), tmp_path / "out"
    shutil.rmtree(run.parts()["replicate1"].model("small-rkl-s0"))

    def write_tables(part):
        for name, table in {
            **{name: pd.DataFrame() for name in published.KEPT},
            **tradeoffs.tables(part),
            **comparisons.tables(part),
        }.items():
            write_table(table, part.tables / f"{name}.csv")
        finish(part, "tables", {"commit": "abc1234"})

    monkeypatch.setattr(published, "write_tables", write_tables)  # the run has no score tables
    call = ["published", str(tmp_path / "hand.yaml"), str(run.path), str(out)]
    monkeypatch.setattr("sys.argv", [*call, "--finished-only"])
    assert published.main() == 0, capsys.readouterr().err
    made = json.loads((out / "made.json").read_text())
    assert made["missing"] == {"replicate1": ["small-rkl-s0"]} and made["replicates"] == 2 and made["models"] == 13
    paths = published.Kept(out).trajectories.groupby("method")["replicate"].nunique().to_dict()
    assert paths == {"sft": 2, "fkl": 2, "rkl": 1, "sft_goldfish": 2}
    monkeypatch.undo()
    monkeypatch.setattr("sys.argv", call)
    assert published.main() == 2 and "small-rkl-s0 is not finished" in capsys.readouterr().err


def test_the_tuning_may_be_of_an_earlier_commit(tmp_path):
    run = with_tables(tmp_path, tuning=True)
    part = run.parts()["tuning"]
    finish(part, "models/teacher", {**part.require("models/teacher"), "commit": "0123456"})
    made = json.loads((published.publish(run, tmp_path / "out") / "made.json").read_text())
    assert made["commit"] == "abc1234" and made["tuning_commits"] == ["0123456", "abc1234"]


@pytest.mark.parametrize("where", ["model", "replicate", "tables"])
def test_a_run_of_uncommitted_code_is_not_published(tmp_path, where):
    run = with_tables(tmp_path, commit="abc1234-dirty" if where == "model" else "abc1234")
    finish(run, "tables", {"commit": "abc1234-dirty" if where == "tables" else "abc1234"})
    if where == "replicate":
        part = run.parts()["replicate1"]
        finish(part, "models/small-fkl-s0", {**part.require("models/small-fkl-s0"), "commit": "abc1234-dirty"})
    with pytest.raises(InputError, match="abc1234-dirty.*; wanted one commit without local changes"):
        published.publish(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_several_commits_are_named_and_taken_of_an_unfinished_run_alone(tmp_path):
    run = with_tables(tmp_path)
    finish(run, "models/small-fkl-s0", {**run.require("models/small-fkl-s0"), "commit": "0123456"})
    with pytest.raises(InputError, match="0123456, abc1234.*; wanted one commit"):
        published.publish(run, tmp_path / "out")
    out = published.publish(run, tmp_path / "out", {"first replicate": ["small-rkl-s0"]})
    assert json.loads((out / "made.json").read_text())["commit"] == "0123456, abc1234"


@pytest.mark.parametrize("part", ["", "replicate1"])
def test_an_unfinished_run_is_not_published(tmp_path, part):
    run = with_tables(tmp_path)
    shutil.rmtree((run.parts()[part] if part else run).model("small-fkl-s0"))
    with pytest.raises(InputError, match="small-fkl-s0 is not finished"):
        published.publish(run, tmp_path / "out")


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda p: p.name)
def test_published_tables_make_the_chapter(folder):
    made = json.loads((folder / "made.json").read_text())
    study, tables = load_study(f"studies/{made['study']}.yaml"), Tables(folder)
    assert made["replicates"] == study.replicates >= 5 and "dirty" not in made["commit"] + made["tables_commit"]
    assert set(tables.claims["verdict"]) <= {"less", "more", "undecided"} and set(
        tables.trajectories["replicate"]
    ) == {*range(study.replicates)}
    decided = tables.claims[tables.claims["verdict"] != "undecided"]
    assert (decided["p_holm"] < 0.05).all() and (decided["estimate"].abs() > decided["null_largest"]).all()
    assert (
        decided["replicates"].ge(5).all()
        and (tables.claims["because"] != "").eq(tables.claims["verdict"] == "undecided").all()
    )
    methods = {arm.method for arm in study.arms()}
    assert set(tables.trajectories["method"]) == methods
    assert {*tables.claims["first"], *tables.claims["second"]} <= methods
    tuned = tables.tuning[tables.tuning["chosen"]]
    for row in tuned.itertuples():  # what validation quality chose is what the study trains with
        assert study.training(row.size, row.method).learning_rate == row.learning_rate, (row.size, row.method)
    for size, method in {(arm.size, arm.method) for arm in study.arms()} - {
        *zip(tuned["size"], tuned["method"], strict=True)
    }:
        parent = METHODS[method].leave_out or ("sft" if method.startswith("sft") else method.rsplit("_t", 1)[0])
        if not METHODS[method].private:  # a variant takes over what was chosen for the method that it varies
            assert study.training(size, method).learning_rate == study.training(size, parent).learning_rate, method
    unanswered = {
        question for question in comparisons.ASKED if comparisons.plot_claims(tables.claims, question) is None
    }
    lora = {"sft_lora", "fkl_lora"}
    assert unanswered == {
        question
        for question, (pairs, _) in comparisons.ASKED.items()
        if lora & {*sum(pairs, ())} and not lora & methods
    }
    assert (
        claims.say_paper(tables.claims)
        and len(comparisons.show_tuning(tables.tuning)) == tables.tuning["chosen"].sum()
    )


@pytest.mark.parametrize("folder", FEWER, ids=lambda p: p.name)
def test_fewer_than_five_replicates_decide_nothing(folder):
    made, tables = json.loads((folder / "made.json").read_text()), published.Kept(folder)
    study = load_study(f"studies/{made['study']}.yaml")
    assert made["replicates"] <= study.replicates and "dirty" not in made["commit"] + made["tables_commit"]
    assert set(tables.claims["verdict"]) <= {"undecided"} and len(tables.rates) and len(tables.trajectories)
    assert set(tables.trajectories["method"]) <= {arm.method for arm in study.arms()}
    assert {*tables.healing["state"]} >= {"whole", "cut"}
