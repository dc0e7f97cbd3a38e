"""A table as HTML or Markdown, for the book's pages and an audit's report: its texts inert, its intervals lighter, in a frame of its own."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from palimpsest.data.masking import escape

INTERVAL = re.compile(r"^([^(]*\d[^(]*?) (\([^)]*\d to [^)]*\)(?:, n = \d+)?)")
NUMBERS = "0123456789+-−"  # what a number begins with
MANY = 4  # columns from which intervals stand below their numbers on every screen
MOST = 500  # records that a page lists
SCRIPT = Path(__file__).with_name("records.js")
SEARCH = (
    '<p class="play" hidden><label>search <input type="search" aria-label="search the records"></label> '
    '<span class="found" role="status"></span></p>'
)


def table_as_html(frame: pd.DataFrame) -> str:
    """A table whose intervals are lighter than what they belong to; on a telephone they stand below it, and a table that is still too
    wide is scrolled within its own frame, by keyboard as well. Numbers are set flush right, words flush left and may break.

    Rows whose index has several levels are put in groups, each below a line that says the outer levels: a column less.
    """
    groups = _groups(frame)
    frame = frame.droplevel(list(range(frame.index.nlevels - 1))) if groups else frame
    return _in_frame(frame.reset_index() if any(frame.index.names) else frame.reset_index(names=""), groups)


def records_as_html(frame: pd.DataFrame, values: Mapping[str, Iterable[float]], total: int) -> str:
    """A table of records, the most at risk first, that `records.js` makes searchable and sortable; without script it is the same, still.

    Args:
        frame: a row per record as text, its first column naming the row. At most `MOST` rows are shown, so that a page stays light.
        values: column -> the numbers behind its texts, by which it is sorted; other columns are sorted by their text.
        total: how many records there are, whether in the frame or not.
    """
    some = frame.head(MOST)
    keys = {name: [_key(v) for v in list(numbers)[: len(some)]] for name, numbers in values.items()}
    said = f"<p>The {MOST:,} most at risk of {total:,}.</p>" if total > len(some) else ""
    return f'<div class="records">{SEARCH}{said}{_in_frame(some, [], "records, most at risk first", keys)}</div>'


def _in_frame(
    rows: pd.DataFrame, groups: list[str], label: str = "table", keys: Mapping[str, list[str]] | None = None
) -> str:
    """Every column of a table, in a frame that can be scrolled, with a line above each of its `groups`. With `keys` (column -> what each
    row is sorted by) it is a long one."""
    heads = rows.columns if rows.columns.nlevels == 1 else [": ".join(filter(None, map(str, c))) for c in rows.columns]
    texts = _texts(rows)
    words = [not any(map(_is_number, column)) for column in zip(*texts, strict=True)] or [False] * len(heads)
    if keys is not None:  # a text may begin with a number and is none
        words = [is_words or name not in keys for is_words, name in zip(words, heads, strict=True)]
    kinds = [' class="words"' if is_words else "" for is_words in words]
    head = "".join(f'<th scope="col"{kind}>{escape(str(name))}</th>' for name, kind in zip(heads, kinds, strict=True))
    sort = [(keys or {}).get(name, [""] * len(rows)) for name in heads]
    body = ""
    for number, row in enumerate(texts):
        if groups and (number == 0 or groups[number] != groups[number - 1]):
            body += f'<tr class="group"><th scope="rowgroup" colspan="{len(heads)}">{escape(groups[number])}</th></tr>'
        # in a long table's column of numbers "never" stands where the numbers do
        texted = [
            is_words or (keys is None and not _is_number(text)) for is_words, text in zip(words, row, strict=True)
        ]
        cells = (_cell(i, text, texted[i], sort[i][number]) for i, text in enumerate(row))
        body += f"<tr>{''.join(cells)}</tr>"
    frame = "table-frame" + " many" * (len(heads) > MANY) + " tall" * (keys is not None)
    table = f'<table class="dataframe{" sortable" * (keys is not None)}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="{frame}" role="region" tabindex="0" aria-label="{label}">{table}</div>'


def _groups(frame: pd.DataFrame) -> list[str]:
    """What stands above each row: the outer levels of its index; nothing, where the index has one."""
    return [", ".join(map(str, key[:-1])) for key in frame.index] if frame.index.nlevels > 1 else []


def _texts(rows: pd.DataFrame) -> list[tuple[str, ...]]:
    """Every cell as text, numbers with as many digits as the page's settings say."""
    digits = pd.get_option("display.precision")
    shown = rows.map(
        lambda v: "" if v is None or v is pd.NA else f"{v:.{digits}g}" if isinstance(v, float) else str(v)
    )
    return list(shown.itertuples(index=False, name=None))


def _key(number: float) -> str:
    """What a cell is sorted by, as the attribute of its markup; what is missing or without end comes last."""
    return f' data-v="{number:g}"' if math.isfinite(number) else ' data-v="Infinity"'


def _cell(column: int, text: str, words: bool, key: str = "") -> str:
    shown = INTERVAL.sub(r"\1 <small>\2</small>", escape(text).replace(" %", "\u00a0%"))
    if column == 0:
        return f'<th scope="row"{key}>{shown}</th>'
    return f'<td{key} class="words">{shown}</td>' if words else f"<td{key}>{shown}</td>"


def _is_number(text: str) -> bool:
    return text[:1] in NUMBERS


def markdown_table(heads: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown; a bar in a cell becomes a stroke."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)
