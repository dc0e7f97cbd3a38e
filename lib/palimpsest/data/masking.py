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


_masked = mask  # for `to_html`, whose argument bears the name


def escape(text: str) -> str:
    """Make data text inert in HTML: markup escaped, invisible and direction-changing characters spelled out."""
    return html.escape(_spelled_out(text), quote=True)


def _spelled_out(text: str) -> str:
    return "".join(c if c in "\n\t" or unicodedata.category(c)[0] != "C" else f"\\u{ord(c):04x}" for c in text)


def to_html(frame: pd.DataFrame, mask: Sequence[str] = ()) -> str:
    """A small table as HTML, the cells of the columns in `mask` masked, every other one made inert as by `escape`.

    Floats are written with three significant digits, missing ones not at all; the index is left out.
    """

    def cell(name: str, value: object) -> str:
        if name in mask:
            return _masked(str(value))
        if isinstance(value, float | np.floating):
            return "" if pd.isna(value) else f"{value:.3g}"
        return _spelled_out(str(value))

    rows = [[cell(n, v) for n, v in zip(frame, row, strict=True)] for row in frame.itertuples(index=False)]
    names = [_spelled_out(str(name)) for name in frame]
    return pd.DataFrame(rows, columns=names, dtype=object).to_html(index=False, border=0, justify="left")
