"""The tables of a run, as `study.columns` declares them.

`write_table` checks what it is given against the declaration, `load_tables` reads it back with these types, and the book's
glossary prints it. A column has one meaning in whatever table it stands.
"""

from pathlib import Path

import pandas as pd

from palimpsest.errors import InputError
from palimpsest.study.columns import COLUMNS, TABLES
from palimpsest.study.files import whole
from palimpsest.study.runs import Run

_TYPES = {"str": "string", "float": "float64", "int": "Int64", "bool": "boolean"}
_READ = {"str": str, "float": float, "bool": bool}  # whole numbers are found, or are floats where one is missing


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """A declared table as CSV, whole or not at all; numbers keep six significant digits.

    Args:
        table: the columns declared for `path.stem`, in any order; a table without rows needs none.

    Raises:
        ValueError: columns other than the declared ones, or values that are not of their type.
    """
    declared = TABLES[path.stem]
    table = table.reindex(columns=declared) if table.empty else table
    if odd := set(table.columns) ^ set(declared):
        raise ValueError(f"{path.name}: the columns {', '.join(sorted(odd))} are missing or not declared in `TABLES`")
    typed = table[declared].astype({name: _TYPES[COLUMNS[name][0]] for name in declared})
    with whole(path) as draft:
        typed.to_csv(draft, index=False, float_format="%.6g", lineterminator="\n")
    return path


def read_table(path: Path) -> pd.DataFrame:
    """A table that `write_table` wrote, with plain NumPy types; an empty text is "", a missing number NaN.

    Raises:
        InputError: it is not there, or has other columns than declared.
    """
    kinds = {name: COLUMNS[name][0] for name in TABLES[path.stem]}
    try:
        table = pd.read_csv(path, keep_default_na=False, na_values={n: [""] for n, k in kinds.items() if k != "str"})
    except FileNotFoundError:
        raise InputError(
            f"{path} is not there: run the tables stage first, or the whole study with make book"
        ) from None
    if odd := set(table.columns) ^ set(kinds):
        raise InputError(
            f"{path}: the columns {', '.join(sorted(odd))} are missing or unknown; write the tables again"
        )
    return table.astype({name: _READ[kind] for name, kind in kinds.items() if kind in _READ})


class Tables:
    """The tables in a folder, one attribute each, read when first asked for: `tables.rates`."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name not in TABLES:
            raise AttributeError(f"no table {name!r}; declared are {', '.join(TABLES)}")
        self.__dict__[name] = read_table(self.folder / f"{name}.csv")
        return self.__dict__[name]


def load_tables(run: Run) -> Tables:
    """The tables of a run.

    Raises:
        InputError: the tables stage has not finished, or the study, its data or the library have changed since.
    """
    run.require("tables")
    return Tables(run.tables)
