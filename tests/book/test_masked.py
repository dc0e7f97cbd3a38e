"""A study that shows no text: not a word of its records stands in what is built, even where it once stood there."""

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import snowballstemmer
import yaml

from palimpsest.data.splits import load_records
from palimpsest.study import Run, open_run

ROOT = Path(__file__).parents[2]
WORD = re.compile(r"[^\W\d_]{4,}")
TAG = re.compile(r"<[^<>]*>")
BUILT = ("html", "book", "tables", "notebooks")  # the folders of a run that are for readers
# Whose words are not the data's: the project's own, and the theme's, which stand on pages that no run writes.
OWN = ("lib", "book", "notebooks", "studies")
THEME = ("html/genindex.html", "html/search.html", "html/bibliography.html")


def words_of(run: Run, records: pd.DataFrame) -> tuple[set[str], list[str]]:
    """Every word of the records that neither the project nor the theme uses; and every secret long enough to be no accident."""
    texts = records[["instruction", "context", "response"]].fillna("").to_numpy().ravel()
    files = [
        p for name in OWN for p in (ROOT / name).rglob("*") if p.suffix in (".py", ".md", ".yml", ".yaml", ".bib")
    ]
    known = " ".join(p.read_text(encoding="utf-8") for p in [*files, *(run.path / name for name in THEME)])
    secrets = {row.response[s["start"] : s["end"]] for row in records.itertuples() for s in row.secrets}
    own = set(WORD.findall(known.lower()))
    own |= set(
        snowballstemmer.stemmer("porter").stemWords(own)
    )  # the search's index holds words without their endings
    words = set(WORD.findall(" ".join(texts).lower())) - own
    return words, sorted(s for s in secrets if len(s) > 6)


def held(run: Run, words: set[str], secrets: list[str]) -> dict[str, set[str]]:
    """Built file -> what of them it holds, in its text, its markup or its scripts."""
    found = {}
    for path in (p for folder in BUILT for p in sorted((run.path / folder).rglob("*")) if p.is_file()):
        if "_static" in path.parts:
            continue  # copied from the theme and from `book`
        text = html.unescape(path.read_text(encoding="utf-8", errors="ignore"))
        plain = TAG.sub("", text)
        here = set(WORD.findall(f"{text} {plain}".lower())) & words
        here |= {s for s in secrets if s in text or s in plain}
        if here:
            found[str(path.relative_to(run.path))] = here
    return found


@pytest.mark.slow
@pytest.mark.xdist_group("smoke, masked")
def test_text_that_is_no_longer_to_be_shown_is_gone_from_all_that_is_built(smoke_run, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(smoke_run.parents[1], project, copy_function=shutil.copy2)
    study = project / "studies" / "smoke.yaml"
    run = open_run(study, project / "runs" / "smoke")
    words, secrets = words_of(run, load_records(run))
    assert len(words) > 100 and len(secrets) > 20

    shown = held(run, words, secrets)
    assert {
        "tables/at_risk.csv",
        "html/notebooks/04_memorization.html",
        "html/notebooks/01_data.html",
        "html/searchindex.js",
    } <= set(shown)

    trained = {p: p.stat().st_mtime_ns for p in run.path.rglob("models/*/run.json")}
    study.write_text(yaml.safe_dump(yaml.safe_load(study.read_text()) | {"show_secrets": False}))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "study=studies/smoke.yaml"],
        cwd=project,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert {
        p: p.stat().st_mtime_ns for p in run.path.rglob("models/*/run.json")
    } == trained  # nothing is trained again
    assert held(run, words, secrets) == {}
