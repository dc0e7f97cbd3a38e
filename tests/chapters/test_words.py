"""House English: sentences are short, written or computed; terms are linked where they first stand; no private idiom."""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import jupytext
import prose
import pytest
from written_runs import finished_run

from palimpsest.chapters import attacks, claims, dataset
from palimpsest.data.splits import load_records
from palimpsest.study import load_tables
from palimpsest.study.tables import TABLES, Tables, read_table

ROOT = Path(__file__).parents[2]
LONGEST, CAPTION = 30, 35
IDIOMS = re.compile(
    r"\bmend(s|ed|ing)?\b|in this sitting|several sittings|any other wish|is granted|\bfurthermore\b|\bdelve|\bleverag|\butiliz|"
    r"told beforehand|to blame|leaves? the house",
    re.IGNORECASE,
)
WRITTEN = sorted((ROOT / "lib/palimpsest/chapters").glob("*.py"))
READ = [
    *(ROOT / "lib").rglob("*.py"),
    *(ROOT / "notebooks").glob("*.py"),
    *(ROOT / "book").rglob("*.md"),
    *ROOT.glob("*.md"),
    ROOT / "Snakefile",
    ROOT / "Makefile",
]
PUBLISHED = ROOT / "book/published/demo-replicates"
REAL = ROOT / "book/published/smollm2"
# Their tables are measured with weights, which a written run has none of; `test_memorization` and `test_training` read them out.
WITH_WEIGHTS = {
    "say_near_misses", "say_near_ties", "say_quality", "say_by_prefix", "say_context", "say_discoverable", "say_teacher_text",
    "say_progress",
}  # fmt: skip


def words(sentence: str) -> int:
    return len([word for word in sentence.split() if any(c.isalnum() for c in word)])


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.?!:])\**\s+|\n+", prose.LINK.sub(r"\1", text))


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


# ---------------------------------------------------------------- what code says of a run


def speakers() -> dict:
    """Every `say_` function of the chapters."""
    modules = [importlib.import_module(f"palimpsest.chapters.{p.stem}") for p in WRITTEN if p.stem != "__init__"]
    found = {name: f for m in modules for name, f in vars(m).items() if name.startswith("say_")}
    return {
        n: f for n, f in found.items() if f.__module__.startswith("palimpsest.chapters.") and n not in WITH_WEIGHTS
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the functions are given, by the name of a parameter, from a run written by hand."""
    run = finished_run(tmp_path_factory.mktemp("words"), methods=("sft", "word_kd", "seq_kd", "fkl", "fkl_t4"))
    tables, data, records = load_tables(run), run.require("data"), load_records(run)
    given = {name: getattr(tables, name) for name in TABLES if (tables.folder / f"{name}.csv").exists()}
    given |= {"study": run.study, "run": run, "records": records, "groups": dataset.by_split(records)}
    given |= {"members": given["groups"]["member"], "planted": dataset.planted(records), "splits": data["splits"]}
    given |= {"path": read_table(run.model("small-word_kd-s0") / "trajectory.csv"), "target": data["target"]}
    real = Tables(REAL)
    given |= {"small": Tables(PUBLISHED).claims, "real": real.claims, "natural": real.rates, "healing": real.healing}
    given |= {"made": json.loads((REAL / "made.json").read_text())}
    given |= {
        "unit": data["unit"],
        "title": run.study.title,
        "window": 50,
        "attack": attacks.strongest(tables.membership),
        "replicates": 3,
    }
    return given | {"measure": "recited_repeated", "asked": "distilling", "found": claims.outcomes(tables.claims)}


@pytest.fixture(scope="module")
def published(written):
    """The same, with the published tables of many replicates where there are some."""
    tables = Tables(PUBLISHED)
    given = {name: getattr(tables, name) for name in TABLES if (PUBLISHED / f"{name}.csv").exists()}
    return {**written, **given, "found": claims.outcomes(tables.claims)}


@pytest.mark.parametrize("source", ["written", "published"])
def test_what_code_says_of_a_run_is_short(request, source):
    given, long, empty = request.getfixturevalue(source), [], []
    for name, say in speakers().items():
        parameters = [p for p in inspect.signature(say).parameters.values() if p.default is p.empty]
        mine = {**given, "claims": given["published_claims"]} if name == "say_published_claims" else given
        said = say(*(mine[p.name] for p in parameters))
        lines = [said] if isinstance(said, str) else said
        long += [f"{name}: {s}" for s in sentences("\n".join(lines)) if words(s) > LONGEST]
        empty += [name] if any("nan" in line.split() for line in lines) else []
    assert (long, empty) == ([], [])


# ---------------------------------------------------------------- captions, pages


def captions():
    for path in sorted((ROOT / "notebooks").glob("*.py")):
        for cell in jupytext.read(path).cells:
            if caption := cell.metadata.get("mystnb", {}).get("figure", {}).get("caption"):
                yield pytest.param(caption, id=f"{path.stem}-{cell.metadata['mystnb']['figure']['name']}")


@pytest.mark.parametrize("caption", captions())
def test_captions_are_two_sentences_at_most(caption):
    assert len(re.findall(r"[.?!](?:\s|$)", caption)) <= 2 and words(caption) <= CAPTION


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda p: p.stem)
def test_every_figure_has_a_caption_which_is_read_out_in_its_place(path):
    """What a cell draws is its last line; `name_figures` gives the drawing its caption as alternative text."""
    cells = [c for c in jupytext.read(path).cells if c.cell_type == "code"]
    drawn = [c for c in cells if re.match(r"\w+\.plot_\w+\(", c.source.splitlines()[-1])]
    assert [c.source for c in drawn if not c.metadata.get("mystnb", {}).get("figure", {}).get("caption")] == []


@pytest.mark.parametrize("path", prose.FILES, ids=lambda p: p.stem)
def test_sentences_of_a_page_are_short(path):
    assert [s for s in prose.sentences(path) if words(s) > LONGEST] == []


@pytest.mark.parametrize("path", prose.PAGES, ids=lambda p: p.stem)
def test_a_term_is_linked_where_it_first_stands(path):
    assert prose.unlinked(path) == []
    assert set(prose.linked(path)) <= set(prose.terms())


def test_terms_that_need_no_link_are_in_the_glossary():
    terms = prose.terms()
    assert prose.PLAIN <= set(terms) and set(prose.FORMS) <= set(terms) and len(terms) == len(set(terms))


def test_what_stands_in_code_links_and_headings_is_no_plain_term(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Nats\n\n`nats` [nats](x) $nats$ <details>nats</details>\n\n```\nnats\n```\n| nats |\n")
    assert prose.unlinked(page) == []
    for text, missing in (("A nat.", ["nat"]), ("{term}`nats <nat>`, nats", []), ("nats, {term}`nat`", ["nat"])):
        page.write_text(text)
        assert prose.unlinked(page) == missing
    page.write_text("- " + 16 * "one\n  " + "\n- " + 15 * "two " + "\n\n" + 31 * "three ")
    assert [words(s) for s in prose.sentences(page)] == [16, 15, 31]


def test_no_private_idiom():
    found = [f"{p.relative_to(ROOT)}: {m[0]}" for p in READ for m in [IDIOMS.search(p.read_text())] if m]
    assert found == []
