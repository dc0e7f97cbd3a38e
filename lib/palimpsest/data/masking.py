"""Keep secrets out of what is published: masking by length class, and escaping of data text before it reaches HTML."""

import html
import unicodedata
from collections.abc import Sequence

import numpy as np
import pandas as pd

BOUNDS = (5, 10, 20, 50, 100, 200, 500, 1000)  # upper ends of the length classes, in characters
BLOCK = "\u2587"


def length_class(length: int) -> str:
    """Name the class a length in characters falls in, such as `6-10`; an exact length would narrow down a secret."""
    if length <= 0:
        return "0"
    low = 1
    for high in BOUNDS:
        if length <= high:
            return f"{low}-{high}"
        low = high + 1
    return f"over {BOUNDS[-1]}"


def mask(text: str, first: bool = False) -> str:
    """Replace `text` by a block and its length class; `first` also shows the first character, never more.

    A text of one character shows nothing even then, because its first character is all of it.
    """
    if not text:
        return ""
    lead = text[0] if first and len(text) > 1 and unicodedata.category(text[0])[0] in "LNP" else ""
    return f"{lead}{BLOCK}[{length_class(len(text))}]"


def escape(text: str) -> str:
    """Make data text inert in HTML: markup escaped, invisible and direction-changing characters spelled out."""
    safe = "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else f"\\u{ord(c):04x}" for c in text)
    return html.escape(safe, quote=True)


def to_html(
    frame: pd.DataFrame, text_columns: Sequence[str] = (), show_secrets: bool = False, first: bool = False
) -> str:
    """Write `frame` as HTML, every cell escaped and, unless `show_secrets`, the cells of `text_columns` masked.

    Args:
        frame: a small table; floats are written with three significant digits, the index is left out.
        text_columns: columns that hold text from the data.
        show_secrets: write that text as it is (escaped).
    """

    def cell(column: str, value: object) -> str:
        if column in text_columns and not show_secrets:
            value = mask(str(value))
        elif isinstance(value, float | np.floating):
            value = "" if pd.isna(value) else f"{value:.3g}"
        return f"<td>{escape(str(value))}</td>"

    names = [str(c) for c in frame.columns]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = ["".join(cell(n, v) for n, v in zip(names, row, strict=True)) for row in frame.itertuples(index=False)]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
