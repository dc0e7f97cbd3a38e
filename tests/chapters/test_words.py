"""House English: what code writes is short, and no page, message or help uses private idiom."""

import ast
import re
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[2]
LONGEST, CAPTION = 30, 35
IDIOMS = re.compile(
    r"\bmend(s|ed)?\b|in this sitting|any other wish|is granted|\bfurthermore\b|\bdelve|\bleverag|\butiliz|told beforehand",
    re.IGNORECASE,
)
WRITTEN = sorted((ROOT / "lib/palimpsest/chapters").glob("*.py"))
READ = [
    *(ROOT / "lib").rglob("*.py"),
    *(ROOT / "notebooks").glob("*.py"),
    *(ROOT / "book").rglob("*.md"),
    *ROOT.glob("*.md"),
]


def words(sentence: str) -> int:
    return len([word for word in sentence.split() if any(c.isalnum() for c in word)])


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.?!:])\**\s+|\n+", text)


def texts(path: Path) -> list[str]:
    """Every text of a module that is no docstring; what is filled in counts as one word."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.FunctionDef, ast.ClassDef)
    skipped = {
        id(n.body[0].value) for n in ast.walk(tree) if isinstance(n, documented) and isinstance(n.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
    found = [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in skipped
    ]
    joined = [n for n in ast.walk(tree) if isinstance(n, ast.JoinedStr)]
    return found + ["".join(v.value if isinstance(v, ast.Constant) else "X" for v in n.values) for n in joined]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda p: p.stem)
def test_sentences_that_code_writes_are_short(path):
    assert [s for text in texts(path) for s in sentences(text) if words(s) > LONGEST] == []


def captions():
    for path in sorted((ROOT / "notebooks").glob("*.py")):
        for cell in jupytext.read(path).cells:
            if caption := cell.metadata.get("mystnb", {}).get("figure", {}).get("caption"):
                yield pytest.param(caption, id=f"{path.stem}-{cell.metadata['mystnb']['figure']['name']}")


@pytest.mark.parametrize("caption", captions())
def test_captions_are_two_sentences_at_most(caption):
    assert len(re.findall(r"[.?!](?:\s|$)", caption)) <= 2 and words(caption) <= CAPTION


def test_no_private_idiom():
    found = [f"{p.relative_to(ROOT)}: {m[0]}" for p in READ for m in [IDIOMS.search(p.read_text())] if m]
    assert found == []
