"""README claims of methods what the published table of claims decides, and nothing else."""

import re
from pathlib import Path

import pytest
from claims_by_hand import SOME

from palimpsest.book.published import CLAIMS, FOLDER, published_headline, write_claims
from palimpsest.chapters.claims import NONE_YET, outcomes, say_decided
from palimpsest.errors import InputError
from palimpsest.study import write_table
from palimpsest.study.tables import read_table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
VERDICT = re.compile(r"\b(less|more|fewer|better|worse|closer)\b")


def test_the_list_of_claims_is_that_of_the_published_table():
    assert CLAIMS.search(README)[0].strip() == "\n".join(published_headline())


def test_every_claim_has_its_rows():
    lines = [line for line in CLAIMS.search(README)[0].splitlines() if VERDICT.search(line)]
    table = ROOT / FOLDER / "claims.csv"
    decided = say_decided(outcomes(read_table(table))) if table.exists() else []
    assert [line for line in lines if line not in decided] == []


def test_nothing_else_judges_methods():
    found = README.split("## What it finds")[1].split("## Two commands")[0]
    others = [part for part in CLAIMS.sub("", found).split("\n\n") if VERDICT.search(part)]
    assert len(others) == 1 and others[0].startswith("**Withdrawn first.**")
    assert found.index("Withdrawn") < found.index("<!-- claims -->")


def test_claims_are_written_in_their_place(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    write_table(SOME, tmp_path / "claims.csv")
    write_claims(readme, tmp_path)
    text = readme.read_text()
    assert (
        "- At equal quality, *Word-KD* recites more repeated text than plain fine-tuning." in text
        and NONE_YET not in text
    )
    assert CLAIMS.sub("", text) == CLAIMS.sub("", README)
    write_claims(readme, tmp_path / "nothing")
    assert CLAIMS.search(readme.read_text())[0].strip() == NONE_YET
    readme.write_text("# Another\n")
    with pytest.raises(InputError, match="has no lines '<!-- claims -->'"):
        write_claims(readme, tmp_path)
