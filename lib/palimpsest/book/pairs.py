"""The notebooks' pairs: every `.ipynb` is made from the `.py` (percent format) of the same name, which is the source.

`python -m palimpsest.book.pairs notebooks` writes them, `--check` only compares. Cell ids are computed from the cells, so
writing the same source twice gives the same file; outputs are never kept.
"""

import argparse
import hashlib
import sys
from collections import Counter
from pathlib import Path

import jupytext
import nbformat

KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def notebook(source: Path) -> nbformat.NotebookNode:
    """The notebook of a percent-format file, with stable cell ids and without outputs."""
    nb = jupytext.read(source, fmt="py:percent")
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": {"name": "python"}})
    seen: Counter = Counter()
    for cell in nb.cells:
        key = f"{cell.cell_type}\x1f{cell.source}"
        cell["id"] = hashlib.sha256(f"{key}\x1f{seen[key]}".encode()).hexdigest()[:8]
        seen[key] += 1
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.validate(nb)
    return nb


def cells(nb: nbformat.NotebookNode) -> list[tuple[str, str, tuple[str, ...]]]:
    """What two halves of a pair must share: type, source and tags of every cell."""
    return [(c.cell_type, c.source.strip(), tuple(sorted(c.metadata.get("tags", [])))) for c in nb.cells]


def differences(folder: Path) -> list[str]:
    """One sentence per way in which the pairs of a folder disagree; empty when all agree."""
    sources, twins = ({p.stem: p for p in sorted(folder.glob(f"*.{end}"))} for end in ("py", "ipynb"))
    found = [f"{twins[name]} has no {name}.py beside it" for name in twins.keys() - sources.keys()]
    found += [f"{sources[name]} has no {name}.ipynb beside it" for name in sources.keys() - twins.keys()]
    for name in sorted(sources.keys() & twins.keys()):
        want, nb = cells(notebook(sources[name])), nbformat.read(twins[name], as_version=4)
        got = cells(nb)
        if want != got:
            where = next(
                (i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got))
            )
            found.append(
                f"{twins[name]}: cell {where} differs from {name}.py ({len(got)} cells here, {len(want)} there)"
            )
        if any(c.get("outputs") or c.get("execution_count") for c in nb.cells):
            found.append(f"{twins[name]} holds outputs")
    return found


def write(folder: Path) -> list[Path]:
    """Write the `.ipynb` of every `.py` in a folder; return those whose bytes changed."""
    changed = []
    for source in sorted(folder.glob("*.py")):
        twin, text = source.with_suffix(".ipynb"), nbformat.writes(notebook(source)) + "\n"
        if not twin.exists() or twin.read_text(encoding="utf-8") != text:
            twin.write_text(text, encoding="utf-8")
            changed.append(twin)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description="Write or check the .ipynb twins of a folder's .py notebooks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when a pair disagrees")
    args = parser.parse_args()
    if not args.check:
        for path in write(args.folder):
            print(f"wrote {path}")
    elif found := differences(args.folder):
        sys.exit("\n".join([*found, "The .py is the source: run `make pairs`."]))


if __name__ == "__main__":
    main()
