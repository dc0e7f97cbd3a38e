"""The notebooks as a reader of JupyterLab meets them: opened from their own folder, defaults untouched, *Run All*."""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import jupytext
import nbformat
import papermill
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))
SOURCES = sorted(FOLDER.glob("*.py"))


@pytest.mark.slow
@pytest.mark.xdist_group("smoke, run all")
def test_run_all_with_the_defaults(smoke_run, tmp_path):
    """All in one kernel, which forgets every name in between: starting ten takes most of the time."""
    folder = smoke_run.parents[1] / "notebooks"
    whole = nbformat.read(NOTEBOOKS[0], as_version=4)
    sources = []
    for path in NOTEBOOKS:
        own = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        sources += [f"%reset -f\nprint({path.name!r})", *own]
    whole.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(whole, tmp_path / "whole.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", tmp_path / "whole.ipynb", tmp_path / "out.ipynb"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": ""},
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_cells_are_few_and_short_and_prose_comes_first(path):
    cells = nbformat.read(path, as_version=4).cells
    code = [c.source.splitlines() for c in cells if c.cell_type == "code"]
    assert cells[0].cell_type == "markdown" and cells[0].source.count("# ") >= 1
    assert (4 if path.stem == "00_intro" else 10) <= len(code) <= 21
    assert median(map(len, code)) <= 8


def cells(nb):
    return [(c.cell_type, c.source.strip(), sorted(c.metadata.get("tags", []))) for c in nb.cells]


def test_every_notebook_is_a_pair():
    assert [p.stem for p in SOURCES] == sorted(p.stem for p in FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_the_halves_of_a_pair_agree_and_hold_no_outputs(source):
    twin = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert cells(jupytext.read(source)) == cells(twin), "the .py is the source: run `make pairs`"
    assert not any(c.get("outputs") or c.get("execution_count") for c in twin.cells)
    assert len({c["id"] for c in twin.cells}) == len(twin.cells)
    assert papermill.inspect_notebook(str(source.with_suffix(".ipynb")))
