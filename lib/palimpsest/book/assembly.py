"""Put a run's book together: the static pages of `book/` and the run's executed notebooks, ready for Jupyter Book.

Nothing is executed or computed here. Below every cell tagged `csv:NAME` stands a link to that table of the run.
"""

import copy
import re
import shutil
from html import escape
from pathlib import Path

import nbformat
import yaml

from palimpsest.book import published
from palimpsest.book.made import facts_listed
from palimpsest.chapters.drawing import UNNAMED
from palimpsest.data.markup import SCRIPT, markdown_table
from palimpsest.errors import InputError
from palimpsest.study import METHODS, Arm, Run
from palimpsest.study.tables import COLUMNS, TABLES

TARGET = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
FIRST_HEADING = re.compile(r"^# .*$", re.MULTILINE)
IMPORTS = re.compile(r"(from|import) \w")
SHARED = ("00_intro", "08_comparisons")  # pages on many replicates
LISTED_HERE = "<!-- the tables and their columns -->"  # a place in the glossary
FACTS_HERE = "<!-- the facts of this run -->"  # a place on the page on reproducibility


def assemble(run: Run, book_dir: Path, out_dir: Path) -> list[str]:
    """Write a Jupyter Book source folder and return its pages, in reading order.

    Args:
        run: its folder's `notebooks/` holds the executed chapters (`04_memorization.ipynb`) and, in `runs/`, one executed
            notebook per arm (`small-sft-s0.ipynb`); its `tables/` what the pages offer for download.
        book_dir: the static pages and the table of contents that names every possible chapter.
        out_dir: emptied and written anew.

    Raises:
        InputError: a notebook has a failed cell, or the book's first page is missing.
    """
    shutil.rmtree(out_dir, ignore_errors=True)
    shutil.copytree(book_dir, out_dir, ignore=shutil.ignore_patterns("_build", ".ipynb_checkpoints"))
    shutil.copy(SCRIPT, out_dir / "_static")
    for name in ("notebooks", "runs", "tables"):
        (out_dir / name).mkdir(exist_ok=True)
    executed = run.path / "notebooks"
    arms = {executed / "runs" / f"{arm.name}.ipynb": arm for arm in run.study.arms()}
    arms = {path: arm for path, arm in arms.items() if path.exists()}
    for path in [*sorted(executed.glob("*.ipynb")), *arms]:
        nb = as_page_of(arms[path], checked(path)) if path in arms else checked(path)
        fold_code(nb, all_of_it=path.stem == "00_intro")
        name_figures(nb)
        offer_tables(nb, run, out_dir, arms.get(path, Arm("teacher", "sft")), path.stem)
        nbformat.write(nb, out_dir / path.parent.name / path.name)
    filled = {"glossary": (LISTED_HERE, tables_listed()), "reproducibility": (FACTS_HERE, facts_listed(run))}
    for page, (place, text) in filled.items():
        path = out_dir / f"{page}.md"
        path.write_text(path.read_text(encoding="utf-8").replace(place, text), encoding="utf-8")
    toc = yaml.safe_load((book_dir / "_toc.yml").read_text(encoding="utf-8"))
    toc = contents(toc, out_dir, in_order(list(arms.values())))
    (out_dir / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return pages(toc)


def checked(path: Path) -> nbformat.NotebookNode:
    """An executed notebook; a page with a traceback is not a result.

    Raises:
        InputError: a cell failed.
    """
    nb = nbformat.read(path, as_version=4)
    for number, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise InputError(
                    f"{path}: cell {number} failed with {output.ename}: {output.evalue}. Every page of the book must come "
                    "from a notebook that ran to its end: correct the cause and run the study again"
                )
    return nb


def offer_tables(nb: nbformat.NotebookNode, run: Run, out_dir: Path, arm: Arm, page: str) -> None:
    """Put a link to its table below every cell that says (`csv:NAME`) which one it shows.

    A trajectory is that of `arm`. On the pages `SHARED` a table is the one that `published.choose` chooses, if that has it; of a tag
    `csv:STUDY/NAME` it is that study's (`published.tables_of`)."""
    for at, cell in reversed(list(enumerate(nb.cells))):
        files = []
        for name in (tag.removeprefix("csv:") for tag in cell.metadata.get("tags", []) if tag.startswith("csv:")):
            folder = published.choose(run, published.FOLDER)[0].folder if page in SHARED else run.tables
            if "/" in name:
                study, name = name.split("/")
                folder = published.tables_of(run, f"{published.PLACE}/{study}").folder
            elif not (folder / f"{name}.csv").exists():
                folder = run.tables
            source, file = folder / f"{name}.csv", f"{name}.csv"
            if name == "trajectory":
                source, file = run.model(arm.name) / "trajectory.csv", f"trajectory-{arm.name}.csv"
            elif folder != run.tables:
                file = f"{folder.name}-{name}.csv"
            if source.exists():  # a page of a stage may stand before the tables do
                shutil.copy(source, out_dir / "tables" / file)
                files.append(f"[{file}](../tables/{file})")
        if files and cell.get("outputs"):
            nb.cells.insert(at + 1, nbformat.v4.new_markdown_cell(f"Numbers: {', '.join(files)}"))


def tables_listed() -> str:
    """Every declared table with its columns, then every column with its type and meaning, in Markdown."""
    tables = [(f"`{name}.csv`", ", ".join(f"`{c}`" for c in columns)) for name, columns in TABLES.items()]
    columns = [(f"`{name}`", kind, meaning) for name, (kind, meaning) in COLUMNS.items()]
    return (
        f"{markdown_table(['table', 'columns'], tables)}\n\n{markdown_table(['column', 'type', 'meaning'], columns)}"
    )


def fold_code(nb: nbformat.NotebookNode, all_of_it: bool = False) -> None:
    """Fold every code cell's source away; a reader may open it. Gone are parameters, those that the runner injected, imports, the code
    of sentences, of what came to nothing, and on the first page all of it. A cell tagged `hide-cell` is folded with its output."""
    for cell in nb.cells:
        if cell.cell_type == "code":
            tags = cell.metadata.get("tags", [])
            if "hide-cell" in tags and cell.outputs and not all_of_it:
                continue
            sentences = all("text/markdown" in o.get("data", {}) for o in cell.outputs)  # or nothing
            plumbing = {*tags} & {"parameters", "injected-parameters"} or IMPORTS.match(cell.source) or sentences
            folded = "remove-input" if all_of_it or plumbing else "hide-input"
            cell.metadata["tags"] = [*dict.fromkeys([*tags, folded])]


def name_figures(nb: nbformat.NotebookNode) -> None:
    """Give every figure its caption as the words that are read out in its place."""
    for cell in nb.cells:
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        for output in cell.get("outputs", []) if caption else []:
            if html := output.get("data", {}).get("text/html"):
                output["data"]["text/html"] = html.replace(
                    f'aria-label="{UNNAMED}"', f'aria-label="{escape(caption)}"'
                )


def in_order(arms: list[Arm]) -> list[Arm]:
    """By seed, then size, then in the order in which the methods are defined."""
    return sorted(arms, key=lambda a: (a.seed, a.size, list(METHODS).index(a.method)))


def title(arm: Arm) -> str:
    """What the table of contents calls an arm's page."""
    return f"{arm.size}, {METHODS[arm.method].label}, seed {arm.seed}"


def as_page_of(arm: Arm, nb: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of the training notebook whose title and link targets belong to one arm alone.

    All arms execute the same notebook, so its targets and figure names would otherwise occur once per arm.
    """
    nb = copy.deepcopy(nb)
    markdown = [c for c in nb.cells if c.cell_type == "markdown"]
    figures = [c.metadata["mystnb"]["figure"] for c in nb.cells if "figure" in c.metadata.get("mystnb", {})]
    names = {name for c in markdown for name in TARGET.findall(c.source)} | {f["name"] for f in figures if "name" in f}
    for cell in markdown:
        for name in names:
            cell.source = re.sub(rf"(?<=[(`#<]){re.escape(name)}(?=[)`>])", f"{arm.name}-{name}", cell.source)
    for figure in figures:
        if "name" in figure:
            figure["name"] = f"{arm.name}-{figure['name']}"
    for cell in markdown:
        cell.source, found = FIRST_HEADING.subn(f"# {title(arm)}", cell.source, count=1)
        if found:
            break
    return nb


def contents(toc: dict, out_dir: Path, arms: list[Arm]) -> dict:
    """The table of contents with the chapters that exist in `out_dir`, and every arm's page under `every_run`."""

    def there(entry: dict) -> bool:
        return any((out_dir / entry["file"]).with_suffix(end).exists() for end in (".md", ".ipynb"))

    if not there({"file": toc["root"]}):
        raise InputError(
            f"{out_dir} has no {toc['root']}: the book's first page was not executed; run the whole study"
        )
    toc = copy.deepcopy(toc)
    for part in toc["parts"]:
        part["chapters"] = [c for c in part["chapters"] if there(c) and (arms or c["file"] != "every_run")]
        for chapter in part["chapters"]:
            if chapter["file"] == "every_run":
                chapter["sections"] = [{"file": f"runs/{arm.name}", "title": title(arm)} for arm in arms]
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    return toc


def pages(toc: dict) -> list[str]:
    """Every page named by a table of contents, in reading order, without suffix."""
    chapters = [c for part in toc["parts"] for c in part["chapters"]]
    return [toc["root"], *(p["file"] for c in chapters for p in (c, *c.get("sections", [])))]
