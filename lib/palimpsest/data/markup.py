"""A table as HTML or Markdown, for the book's pages and an audit's report: its texts inert, its intervals lighter, in a frame of its own."""

import re
from collections.abc import Iterable
from typing import Any

import pandas as pd

from palimpsest.data.masking import escape

INTERVAL = re.compile(r"^([^(]*\d[^(]*?) (\([^)]*\d to [^)]*\)(?:, n = \d+)?)")
NUMBERS = "0123456789+-−"  # what a number begins with
MANY = 4  # columns from which intervals stand below their numbers on every screen


def table_as_html(frame: pd.DataFrame) -> str:
    """A table whose intervals are lighter than what they belong to; on a telephone they stand below it, and a table that is still too
    wide is scrolled within its own frame, by keyboard as well. Numbers are set flush right, words flush left and may break."""
    rows = frame.reset_index() if any(frame.index.names) else frame.reset_index(names="")
    heads = rows.columns if rows.columns.nlevels == 1 else [": ".join(filter(None, map(str, c))) for c in rows.columns]
    texts = _texts(rows)
    words = [not any(map(_is_number, column)) for column in zip(*texts, strict=True)] or [False] * len(heads)
    kinds = [' class="words"' if is_words else "" for is_words in words]
    head = "".join(f'<th scope="col"{kind}>{escape(str(name))}</th>' for name, kind in zip(heads, kinds, strict=True))
    body = "".join(f"<tr>{''.join(map(_cell, range(len(row)), row))}</tr>" for row in texts)
    wide = " many" if len(heads) > MANY else ""
    table = f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="table-frame{wide}" role="region" tabindex="0" aria-label="table">{table}</div>'


def _texts(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """Every cell as text, numbers with as many digits as the page's settings say."""
    digits = pd.get_option("display.precision")
    shown = rows.map(
        lambda v: "" if v is None or v is pd.NA else f"{v:.{digits}g}" if isinstance(v, float) else str(v)
    )
    return list(shown.itertuples(index=False, name=None))


def _cell(column: int, text: str) -> str:
    shown = INTERVAL.sub(r"\1 <small>\2</small>", escape(text).replace(" %", "\u00a0%"))
    if column == 0:
        return f'<th scope="row">{shown}</th>'
    return f"<td>{shown}</td>" if _is_number(text) else f'<td class="words">{shown}</td>'


def _is_number(text: str) -> bool:
    return text[:1] in NUMBERS or len(text) < 4


def markdown_table(heads: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown; a bar in a cell becomes a stroke."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)
