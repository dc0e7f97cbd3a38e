"""The house holds: imports go one way, rooms say what they are for, names mean one thing, every module has its test."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "lib" / "palimpsest"
ROOMS = ("study", "data", "measure", "train", "chapters", "book", "audit")
MODULES = sorted(p for p in LIBRARY.rglob("*.py") if p.stem != "__init__")
# Modules whose test is another one's, and why.
TESTED_ELSEWHERE = {
    "errors": "one class without code",
    "study/sections": "through study files: study/test_file, study/test_fingerprints",
    "study/methods": "every row is trained: train, book/test_stages, book/test_methods",
    "study/files": "whole-or-absent files: study/test_runs",
    "data/examples": "padding and order: train/test_trainer, measure/test_scoring",
    "measure/prediction": "with what it predicts: measure/test_lineage",
    "measure/token_stats": "with the table it fills: measure/test_scoring",
    "train/batches": "with the trainer that reads them: train/test_trainer",
    "train/private": "trained, killed and resumed: book/test_stages, train/test_fine_tuning",
    "chapters/figures": "by every chapter's figures",
    "chapters/published_claims": "with the chapter that shows it: chapters/test_inheritance",
    "audit/command": "test_cli",
    "audit/settings": "audit/test_inputs, test_cli",
}


def test_rooms_import_only_from_rooms_below_them():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_comes_in_what_goes_out_and_what_to_open_first(room):
    page = ast.get_docstring(ast.parse((LIBRARY / room / "__init__.py").read_text()))
    for start in ("In: ", "Out: ", "Open first: ", "To add"):
        assert any(line.startswith(start) for line in page.splitlines()), f"{room}: no line beginning with {start!r}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_modules_stay_small_and_explained(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    assert [n.name for n in public if not ast.get_docstring(n)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_what_is_returned_reads_as_its_type_and_a_text(path):
    """Whatever stands before the first colon under `Returns:` is printed as the type, in bold: it must be the annotation."""
    wrong = []
    for node in ast.walk(ast.parse(path.read_text())):
        said = (ast.get_docstring(node) or "").partition("Returns:\n")[2] if isinstance(node, ast.FunctionDef) else ""
        before, colon, _ = re.sub(r"`[^`]*`", "", said.split("\n")[0]).partition(":")
        if colon and before.strip() != ast.unparse(node.returns):
            wrong.append(node.name)
    assert wrong == []


def test_every_module_has_a_test_of_its_name():
    missing = []
    for path in MODULES:
        name = path.relative_to(LIBRARY).with_suffix("").as_posix()
        test = ROOT / "tests" / path.relative_to(LIBRARY).parent / f"test_{path.stem}.py"
        if test.exists() == (name in TESTED_ELSEWHERE):
            missing.append(name)
    assert missing == []


# A noun may recur with the same columns: every chapter has its `tables`, and a report shows what a page shows.
SAME_IN_MANY = {"main", "tables", "show_rates", "show_facts", "plot_by_prefix", "plot_roc"}


def test_a_name_means_one_thing_across_the_library():
    homes = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(path.relative_to(LIBRARY).as_posix())
    twice = {name: where for name, where in homes.items() if len(where) > 1 and name not in SAME_IN_MANY}
    assert twice == {}


@pytest.mark.parametrize(
    "modules",
    [
        "study, palimpsest.cli",
        "chapters, palimpsest.book.published, palimpsest.book.model_cards, palimpsest.book.stages",
    ],
)
def test_who_describes_a_study_or_reads_its_tables_needs_no_torch(modules):
    code = f"import sys, palimpsest.{modules}; sys.exit(str({{'torch', 'transformers', 'sklearn', 'nltk'}} & {{*sys.modules}} or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
