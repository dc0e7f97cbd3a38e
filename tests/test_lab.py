"""JupyterLab as `make lab` starts it: a chapter opened and run through its menus, and its figures are there."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from browser import browser_page, chromium, nothing_leaves

ROOT = Path(__file__).parents[1]
CHAPTER = "notebooks/04_memorization.ipynb"
FINISHED = """() => {
  const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(e => e.textContent);
  return prompts.some(text => text.includes('[1]')) && !prompts.some(text => text.includes('[*]'));
}"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("smoke, lab"),
    pytest.mark.skipif(chromium() is None, reason="no Chromium installed (Debian: apt-get install chromium)"),
    pytest.mark.skipif(importlib.util.find_spec("jupyterlab") is None, reason="no JupyterLab: pip install '.[book]'"),
]


@contextmanager
def lab(project, folder):
    """JupyterLab with the options of `make lab`, but no browser and no password, on a free port; its address.

    Args:
        project: the folder it shows.
        folder: an empty one for its settings and its log, so that nobody's own are read or changed.
    """
    line = re.search(r"jupyter lab (--.*?) \$\(if", (ROOT / "Makefile").read_text())[1]
    own = {f"JUPYTER_{name}_DIR": f"{folder / name.lower()}" for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": f"{folder / name.lower()}" for name in ("SETTINGS", "WORKSPACES")}
    path = os.pathsep.join(filter(None, [f"{ROOT / 'lib'}", os.environ.get("PYTHONPATH")]))
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *shlex.split(line.replace("$(CURDIR)", f"{project}"))]
            + ["--no-browser", "--allow-root", "--ServerApp.port=0", "--IdentityProvider.token="],
            cwd=project,
            env={**os.environ, **own, "IPYTHONDIR": f"{folder / 'ipython'}", "PYTHONPATH": path},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + 120
        while not (found := [*folder.glob("runtime/jpserver-*.json")]) or not found[0].read_text():
            assert server.poll() is None and time.monotonic() < end, (folder / "log.txt").read_text()
            time.sleep(0.1)
        yield json.loads(found[0].read_text())["url"]
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def project(smoke_run, tmp_path):
    """The project with its finished smoke run, in a folder whose notebooks may be written."""
    folder = tmp_path / "project"
    shutil.copytree(smoke_run.parents[1] / "notebooks", folder / "notebooks")
    for other in smoke_run.parents[1].iterdir():
        if other.name != "notebooks":
            (folder / other.name).symlink_to(other)
    return folder


def test_a_chapter_is_run_through_the_menus_and_its_figures_are_there(smoke_run, project, tmp_path):
    source = nbformat.read(project / CHAPTER, as_version=4)
    assert not any(cell.get("outputs") for cell in source.cells)
    with lab(project, tmp_path) as address, browser_page() as page, nothing_leaves(page, address):
        page.goto(f"{address}lab/tree/{CHAPTER}")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()

        def choose(menu, item):
            page.locator(".lm-MenuBar-item", has_text=menu).first.click()
            page.locator(".lm-Menu-item", has_text=item).first.click()

        choose("Run", "Run All Cells")
        page.wait_for_function(FINISHED)
        with page.expect_response(lambda answer: answer.request.method == "PUT" and CHAPTER in answer.url):
            choose("File", "Save Notebook")
        done = nbformat.read(project / CHAPTER, as_version=4)
        outputs = [output for cell in done.cells for output in cell.get("outputs", [])]
        assert [o.evalue for o in outputs if o.output_type == "error"] == []
        assert all(cell.execution_count for cell in done.cells if cell.cell_type == "code")
        figure = page.locator(".jp-OutputArea-output .figure-panels svg").first
        figure.scroll_into_view_if_needed()
        assert figure.is_visible() and figure.bounding_box()["width"] > 200
    executed = nbformat.read(smoke_run / CHAPTER, as_version=4)  # by the runner
    assert figures_of(done) == figures_of(executed) and sum(figures_of(done)) >= 4


def figures_of(notebook):
    """How many figures each cell shows."""
    shown = [
        "".join(o.get("data", {}).get("text/html", "") for o in cell.get("outputs", [])) for cell in notebook.cells
    ]
    return [html.count("<svg") for html in shown if html]
