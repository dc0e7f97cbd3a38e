"""Adding a method is adding one row in one file: a fourteenth, in a copy of the library, goes all the way to its page."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from tiny import write

ROOT = Path(__file__).parents[2]
ROW = '    "fkl_goldfish": Method("references", "forward_kl", 0.0, "forward KL, goldfish loss", goldfish=True),\n'


# The stages as the runner carries them out, and two chapters, in one process: the runner's own part is the smoke run's.
SCRIPT = """
import sys
from pathlib import Path
import nbformat
from palimpsest import chapters
from palimpsest.book import stages
from palimpsest.book.launch import run_notebook
from palimpsest.study import open_run

study, folder, page = sys.argv[1:]
run = open_run(study, folder)
stages.train_teacher(run)
for arm in run.study.arms():
    stages.train_student(run, arm)
chapters.write_tables(run)
given = {"study_file": study, "run_dir": folder}
for name in ("04_memorization", "07_tradeoffs"):
    names = {}
    for cell in nbformat.read(f"notebooks/{name}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
            if "parameters" in cell.metadata.get("tags", []):
                names.update(given)
run_notebook(Path("notebooks/03_student.ipynb"), Path(page), run.path / "log.ipynb", {**given, "arm": Path(page).stem})
"""


@pytest.mark.slow
def test_a_fourteenth_method_is_one_row(tmp_path):
    library = tmp_path / "lib"
    shutil.copytree(ROOT / "lib", library, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    methods = library / "palimpsest" / "study" / "methods.py"
    text = methods.read_text()
    methods.write_text(re.sub(r"(?m)^(METHODS: .* = \{\n)", rf"\1{ROW}", text, count=1))
    assert methods.read_text() != text
    for name in ("Snakefile", "notebooks", "book", "data", "studies", "_config.yml"):
        (tmp_path / name).symlink_to(ROOT / name)
    study = write(tmp_path, "sft, fkl_goldfish")
    page = "runs/tiny/notebooks/runs/small-fkl_goldfish-s0.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, study, "runs/tiny", page],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    text = "".join(c.source + str(c.get("outputs", "")) for c in nbformat.read(tmp_path / page, as_version=4).cells)
    assert "forward KL, goldfish loss" in text
    rates = pd.read_csv(tmp_path / "runs" / "tiny" / "tables" / "rates.csv")
    assert "small-fkl_goldfish-s0" in set(rates["model"])
