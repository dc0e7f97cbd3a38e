"""Published tables: which a page shows, and from what run they may be made."""

import json
import shutil

import pandas as pd
import pytest
from trained_by_hand import finish, made_by_hand

from palimpsest.book import published
from palimpsest.chapters import comparisons, tradeoffs
from palimpsest.errors import InputError
from palimpsest.study import load_study, write_table
from palimpsest.study.files import root
from palimpsest.study.tables import Tables

PUBLISHED = sorted((root() / "book" / "published").iterdir())


def with_tables(folder, commit="abc1234", **options):
    """A run by hand whose tables are written: those of chapters 07 and 08, and empty ones beside them."""
    run = made_by_hand(folder, commit=commit, **options)
    found = {**tradeoffs.tables(run), **comparisons.tables(run), "doses": pd.DataFrame(), "rates": pd.DataFrame()}
    for name, table in found.items():
        write_table(table, run.tables / f"{name}.csv")
    finish(run, "tables", {"commit": commit})
    return run


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda p: p.name)
def test_a_run_of_one_seed_shows_what_is_published_and_keeps_its_own_numbers(tmp_path, folder):
    run = with_tables(tmp_path, seeds=(0,))
    made = json.loads((folder / "made.json").read_text())
    shown, source = published.choose(run, folder)
    assert f"`{made['study']}`" in source and f"`{made['commit']}`" in source and len(source.split()) <= 25
    assert shown.folder == folder and shown.effects["seeds"].eq(len(made["seeds"])).all()
    own = Tables(run.tables).effects
    assert own["seeds"].eq(1).all() and not own.equals(shown.effects) and set(own["size"]) == {"small"}


def test_a_run_of_several_seeds_or_with_nothing_published_shows_its_own(tmp_path):
    several = with_tables(tmp_path)
    shown, source = published.choose(several, PUBLISHED[0])
    assert shown.folder == several.tables and "seeds 0, 1" in source and "demo" not in source
    (tmp_path / "one").mkdir()
    single = with_tables(tmp_path / "one", seeds=(0,))
    shown, source = published.choose(single, tmp_path / "nowhere")
    assert shown.folder == single.tables and "published" not in source


def test_what_is_published_is_the_runs_own_tables(tmp_path):
    run, out = with_tables(tmp_path), tmp_path / "out"
    assert published.publish(run, out) == out
    for name in published.KEPT:
        assert (out / f"{name}.csv").read_bytes() == (run.tables / f"{name}.csv").read_bytes()
    made = json.loads((out / "made.json").read_text())
    assert (made["study"], made["seeds"], made["models"]) == ("hand", [0, 1], 11)
    assert (made["commit"], made["training_seconds"]) == ("abc1234", 16)  # 11 models of 1.5 s


@pytest.mark.parametrize("where", ["model", "tables"])
def test_a_run_of_uncommitted_code_is_not_published(tmp_path, where):
    run = with_tables(tmp_path, commit="abc1234-dirty" if where == "model" else "abc1234")
    finish(run, "tables", {"commit": "abc1234" if where == "model" else "abc1234-dirty"})
    with pytest.raises(InputError, match="abc1234-dirty.*; wanted one commit without local changes"):
        published.publish(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_is_not_published(tmp_path):
    run = with_tables(tmp_path)
    shutil.rmtree(run.scores("small-fkl-s1"))
    with pytest.raises(InputError, match="small-fkl-s1 is not finished"):
        published.publish(run, tmp_path / "out")


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda p: p.name)
def test_published_tables_make_the_chapter(folder):
    made = json.loads((folder / "made.json").read_text())
    study, tables = load_study(f"studies/{made['study']}.yaml"), Tables(folder)
    assert made["seeds"] == study.seeds and "dirty" not in made["commit"] + made["tables_commit"]
    effects, sizes = tables.effects, len(study.models.students)
    assert {c.name for c in comparisons.CONTRASTS} == set(effects["contrast"])
    assert effects["seeds"].eq(len(study.seeds)).all() and effects["low"].le(effects["high"]).all()
    asked = [c for c in comparisons.CONTRASTS if c.question == "distilling"]
    assert len(comparisons.show_effects(effects, "distilling")) == sizes * len(asked)
    assert len(comparisons.show_repeated(tables.doses)) == len(study.methods) + 1
    assert set(tables.rates["model"]) == {arm.name for arm in study.everyone()}
    assert set(tables.trajectories["model"]) == {a.name for a in study.everyone() if a.role != "base"}
    for fit, moments in ((False, 2), (True, 1)):
        drawn = comparisons.plot_effects(effects, fit).axes[0].containers
        assert len(drawn) == moments * (len(comparisons.CONTRASTS) - 1) + (not fit)
