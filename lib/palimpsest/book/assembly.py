"""Put a run's book together: the static pages of `book/` and the run's executed notebooks, ready for Jupyter Book.

`python -m palimpsest.book.assembly RUN BOOK OUT`. Nothing is executed or computed here.
"""

import argparse
import copy
import re
import shutil
import sys
from pathlib import Path

import nbformat
import yaml

from palimpsest.errors import InputError
from palimpsest.study import Arm
from palimpsest.study.methods import METHODS

TARGET = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
FIRST_HEADING = re.compile(r"^# .*$", re.MULTILINE)


def stage(run_dir: Path, book_dir: Path, out_dir: Path) -> list[str]:
    """Write a Jupyter Book source folder and return its pages, in reading order.

    Args:
        run_dir: the run folder; its `notebooks/` holds the executed chapters (`04_memorization.ipynb`) and, anywhere
            below it, one executed notebook per arm (`small-sft-s0.ipynb`).
        book_dir: the static pages and the table of contents that names every possible chapter.
        out_dir: emptied and written anew.

    Raises:
        InputError: a notebook has a failed cell, or the book's first page is missing.
    """
    shutil.rmtree(out_dir, ignore_errors=True)
    shutil.copytree(book_dir, out_dir, ignore=shutil.ignore_patterns("_build", ".ipynb_checkpoints"))
    (out_dir / "notebooks").mkdir()
    (out_dir / "runs").mkdir()
    arms = []
    for path in sorted((run_dir / "notebooks").rglob("*.ipynb"), key=lambda p: p.stem):
        nb = nbformat.read(path, as_version=4)
        refuse_errors(nb, path)
        if path.stem == "00_intro":
            hide_code(nb)
        if path.stem[0].isdigit():
            nbformat.write(nb, out_dir / "notebooks" / path.name)
        else:
            arms.append(Arm.parse(path.stem))
            nbformat.write(as_page_of(arms[-1], nb), out_dir / "runs" / path.name)
    toc = contents(yaml.safe_load((book_dir / "_toc.yml").read_text(encoding="utf-8")), out_dir, in_order(arms))
    (out_dir / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return pages(toc)


def refuse_errors(nb: nbformat.NotebookNode, path: Path) -> None:
    """Stop at a cell that failed: a page with a traceback is not a result."""
    for number, cell in enumerate(nb.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                raise InputError(
                    f"{path}: cell {number} failed with {output.ename}: {output.evalue}. Every page of the book must come "
                    "from a notebook that ran to its end: mend the cause and run the study again"
                )


def hide_code(nb: nbformat.NotebookNode) -> None:
    """Hide every code cell's source, the parameters that papermill injected among them: the first page is for readers."""
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "remove-input"})


def in_order(arms: list[Arm]) -> list[Arm]:
    """By seed, then size, then in the order in which the methods are defined."""
    return sorted(arms, key=lambda a: (a.seed, a.size, list(METHODS).index(a.method)))


def title(arm: Arm) -> str:
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Stage the book of a run for `jupyter-book build`.")
    for name, text in (
        ("run", "the run folder, runs/<study>"),
        ("book", "the folder of static pages"),
        ("out", "folder to write; emptied first"),
    ):
        parser.add_argument(name, type=Path, help=text)
    args = parser.parse_args()
    try:
        print(f"{args.out}: {len(stage(args.run, args.book, args.out))} pages")
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
