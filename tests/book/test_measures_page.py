"""The book's index of measures has a row for every measure, and every row leads somewhere."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "book" / "measures.md").read_text().splitlines()
ROWS = [line for line in LINES if line.startswith("|") and "{py:func}" in line]
FUNCTION = re.compile(r"\{py:func\}`~palimpsest\.measure\.(\w+)\.(\w+)`")
# What these modules offer besides measures: their inputs, their parts, and tables made of their results.
OTHERS = {
    "canaries": {"chance", "exposure_by_rank"},
    "extraction": {"left_truncated_examples", "secret_flags", "verbatim_at_every_prefix", "without_end"},
    "lineage": {"across_seeds", "count_sets", "recites", "sorted_into_sets"},
    "membership_inference": {"lowercased", "rated"},
    "near_verbatim": {"continuations", "first_miss", "in_rouge_script"},
    "prediction": {"Prediction", "avoided", "features", "two_way_divergence"},
    "privacy_audit": set(),
    "shadow_attacks": {"confidence_logit"},
    "watched": {"Watched"},
}


def offered(module: str) -> set[str]:
    found = importlib.import_module(f"palimpsest.measure.{module}")
    return {
        name
        for name, value in vars(found).items()
        if not name.startswith("_") and inspect.getmodule(value) is found and callable(value)
    }


@pytest.mark.parametrize("module", OTHERS)
def test_every_measure_has_a_row(module):
    listed = {name for place, name in map(lambda row: FUNCTION.search(row).groups(), ROWS) if place == module}
    assert listed | OTHERS[module] == offered(module) and not listed & OTHERS[module]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: FUNCTION.search(row)[2])
def test_every_row_names_a_function_a_chapter_and_a_paper_that_exist(row):
    module, name = FUNCTION.search(row).groups()
    assert inspect.isfunction(getattr(importlib.import_module(f"palimpsest.measure.{module}"), name))
    _, _, chapter, paper = (cell.strip() for cell in row.strip("|").split("|"))
    if label := re.search(r"\{ref\}`(.+)`", chapter):
        pages = "".join(p.read_text() for p in [*(ROOT / "notebooks").glob("*.py"), *(ROOT / "book").glob("*.md")])
        assert f"({label[1]})=" in pages
    known = set(re.findall(r"@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text()))
    assert set(re.findall(r"\w+", paper.removeprefix("{cite:t}"))) <= known


def test_the_page_is_in_the_book():
    assert "- file: measures" in (ROOT / "book" / "_toc.yml").read_text()
