"""README answers what the published tables decide, and judges methods nowhere else."""

import re
from pathlib import Path

import pytest
from claims_by_hand import SOME
from trained_by_hand import made_by_hand

from palimpsest.book.published import ANSWER, published_answer, write_answer
from palimpsest.chapters import tradeoffs
from palimpsest.chapters.claims import NONE_YET
from palimpsest.errors import InputError
from palimpsest.study import write_table

README = (Path(__file__).parents[1] / "README.md").read_text()
VERDICT = re.compile(r"\b(less|more|fewer|better|worse|closer)\b(?! than [A-Z0-9])")


def test_the_answer_is_that_of_the_published_tables():
    assert ANSWER.search(README)[0].strip() == "\n".join(published_answer())


def test_nothing_else_judges_methods():
    found = README.split("## The answer")[1].split("## Two commands")[0]
    parts = [part for part in re.split(r"\n\n|\n- ", ANSWER.sub("", found)) if VERDICT.search(part)]
    allowed = ("*Equally good*", "The answer is written", "**Withdrawn.**")
    assert [part for part in parts if not part.strip().startswith(allowed)] == []
    assert found.index("**Withdrawn first:**") < found.index("<!-- answer -->") and "**Withdrawn.**" in found


def test_the_answer_is_written_in_its_place(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    write_table(SOME, tmp_path / "claims.csv")
    made = tradeoffs.tables(made_by_hand(tmp_path))
    for name in ("trajectories", "by_dose"):
        write_table(made[name], tmp_path / f"{name}.csv")
    write_answer(readme, tmp_path)
    text = readme.read_text()
    assert "| **distil?** | 0 of 2, 1 more |" in text and NONE_YET not in text
    assert ANSWER.sub("", text) == ANSWER.sub("", README)
    write_answer(readme, tmp_path / "nothing")
    assert ANSWER.search(readme.read_text())[0].strip() == NONE_YET
    readme.write_text("# Another\n")
    with pytest.raises(InputError, match="has no lines '<!-- answer -->'"):
        write_answer(readme, tmp_path)
