"""The rows of one file as people write it: JSON in its many shapes, separated values, Parquet; compressed or not.

JSON is one object a line, one list, objects over several lines, a list inside an object (`{"data": [...]}`), or pandas' columns
of rows: told by the content, not by the ending. Separated values are read by Python's own `csv`, which alone counts fields:
pandas fills a short row up and takes the first field of a long one for an index, so that columns shift (measured with 3.x).
"""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from palimpsest.errors import InputError, type_of

KINDS = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
OPENERS = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda path: pa.CompressedInputStream(str(path), "zstd"),
}
READABLE = f"{', '.join(KINDS)} (also with {', '.join(OPENERS)} after it)"
MARKS = {  # byte-order mark -> encoding; UTF-32's begins with UTF-16's
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
WRAPPERS = ("data", "rows", "records", "examples", "items", "train")  # keys of an object that hold the list of records
SEPARATORS = ",;\t|"


def kind(path: Path) -> str | None:
    """ "json", "csv" or "parquet", by the ending; where that says nothing, by the content; None if that doesn't either.

    Raises:
        InputError: a compressed file that can't be unpacked.
    """
    ending = (path.with_suffix("") if path.suffix.lower() in OPENERS else path).suffix.lower()
    if ending in KINDS or not path.is_file():
        return KINDS.get(ending)
    try:
        with _opened(path) as file:
            start = file.read(200)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InputError(f"{path} can't be unpacked: {error}") from None
    if start.startswith(b"PAR1"):
        return "parquet"
    return "json" if start.translate(None, b"\xef\xbb\xbf\xff\xfe\0").lstrip()[:1] in (b"{", b"[") else None


def file_frames(path: Path, source, size: int) -> Iterator[pd.DataFrame]:
    """The rows of a file, at most `size` at a time; `source` is what messages call it.

    Raises:
        InputError: broken content (line named), a row with more or fewer fields than the header, a name that stands twice, not
            UTF-8 (nor marked as UTF-16), a file cut off or not unpacked.
    """
    what = kind(path)
    try:
        if what == "parquet":
            yield from _parquet_frames(path, source, size)
        elif what == "csv":
            yield from _csv_frames(path, source, size)
        else:
            rows = _json_rows(path, source)
            while part := list(islice(rows, size)):
                yield pd.DataFrame(part, dtype=object)
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not {error.encoding.upper()}: {_undecodable(path, error)}") from None
    except (EOFError, lzma.LZMAError, OSError) as error:
        if getattr(error, "errno", None) is not None:  # the system's; those of unpacking have none
            raise
        raise InputError(f"{source} can't be unpacked: {error}: fetch it again") from None
    except InputError:
        raise
    except (ValueError, RecursionError, pa.ArrowException) as error:  # among them those of json and Parquet
        raise InputError(f"{source} is not a readable {path.suffix or 'JSON'} file: {error}") from None


# ---------------------------------------------------------------- text


def _opened(path: Path):
    return OPENERS.get(path.suffix.lower(), lambda path: path.open("rb"))(path)


def _text(path: Path, source) -> io.TextIOWrapper:
    with _opened(path) as file:
        start = file.read(100)
    if start.startswith(b"version https://git-lfs"):
        raise InputError(f"{source} is a pointer of Git LFS, not the file: fetch that with git lfs pull")
    if start.lstrip()[:1] == b"<":
        raise InputError(f"{source} is a web page (or XML), not records: fetch the file itself")
    encoding = next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in start[:4]:
        raise InputError(f"{source} looks like UTF-16 without a byte-order mark: convert it to UTF-8 first")
    return io.TextIOWrapper(_opened(path), encoding=encoding, newline="")


def _undecodable(path: Path, error: UnicodeDecodeError) -> str:
    """Where and what cannot be read as UTF-8."""
    convert = "convert it first (a file from Windows: iconv -f WINDOWS-1252 -t UTF-8)"
    if error.encoding != "utf-8":
        return f"{error.reason}; {convert}"
    with _opened(path) as file:
        for number, line in enumerate(io.BufferedReader(file), 1):
            try:
                line.decode()
            except UnicodeDecodeError as first:
                return f"line {number} has the byte 0x{line[first.start]:02x} ({first.reason}); {convert}"
    return f"{error.reason}; {convert}"


# ---------------------------------------------------------------- JSON


def _json_rows(path: Path, source) -> Iterator[dict]:
    with _text(path, source) as file:
        lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
        number, first = next(lines, (1, ""))
        if not first:
            return
        try:
            row = _DECODER.decode(first)
        except json.JSONDecodeError as error:
            if first.lstrip()[0] not in "[{" or first.lstrip()[0] == "{" and first.rstrip()[-1] == "}":
                raise _broken(error, number, source) from None
            row = []  # a list or an object over several lines
        if not isinstance(row, list):
            second = next(lines, None)
            if second is None and isinstance(row, dict):
                yield from _unwrapped(row, source)
                return
            yield _row(row, f"line {number}", source)
            for number, line in chain([second] if second else [], lines):
                try:
                    yield _row(_DECODER.decode(line), f"line {number}", source)
                except json.JSONDecodeError as error:
                    raise _broken(error, number, source, cut=not line.endswith(("\n", "\r"))) from None
            return
    yield from _whole_json(path, source)


def _whole_json(path: Path, source) -> Iterator[dict]:
    """A list, or objects one after the other, read whole."""
    with _text(path, source) as file:
        text = file.read()
    end, rows = 0, []
    while end < len(text):
        if text[end].isspace():
            end += 1
            continue
        try:
            row, end = _DECODER.raw_decode(text, end)
        except json.JSONDecodeError as error:
            raise _broken(error, error.lineno, source, cut=error.pos >= len(text.rstrip()) - 1) from None
        rows.append(row)
    if len(rows) > 1 and any(isinstance(row, list) for row in rows):
        raise InputError(f"{source}: several JSON lists, one after the other; wanted one list, or one object a line")
    if isinstance(rows[0], list):
        for number, row in enumerate(rows[0], 1):
            yield _row(row, f"entry {number}", source)
    elif len(rows) == 1:
        yield from _unwrapped(rows[0], source)
    else:
        yield from rows


def _unwrapped(row: dict, source) -> Iterator[dict]:
    """The only object of a file: a record, a list of records under a known key, or columns as pandas writes them."""
    keys = [key for key in WRAPPERS if isinstance(row.get(key), list)]
    if len(keys) > 1:
        raise InputError(f"{source} holds the lists {', '.join(keys)}: save the one to be read in a file of its own")
    if keys:
        for number, entry in enumerate(row[keys[0]], 1):
            yield _row(entry, f"entry {number} of {keys[0]!r}", source)
    elif row and all(isinstance(column, dict) for column in row.values()):
        names = list(next(iter(row.values())))
        if any(list(column) != names for column in row.values()):
            raise InputError(f"{source}: the columns have not the same rows; wanted a JSON list, or one object a line")
        yield from ({column: values[name] for column, values in row.items()} for name in names)
    elif row and all(isinstance(column, list) and all(isinstance(v, str) for v in column) for column in row.values()):
        if len({len(column) for column in row.values()}) > 1:
            raise InputError(f"{source}: the columns are not of the same length; wanted one object a line")
        yield from (dict(zip(row, values, strict=True)) for values in zip(*row.values(), strict=True))
    else:
        yield row


def _once(pairs: list[tuple]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise json.JSONDecodeError(f"the key {twice!r} stands twice in one object", "", 0)
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def _broken(error: json.JSONDecodeError, line: int, source, cut: bool = False) -> InputError:
    last = ", the last (the file seems to be cut off there)" if cut else ""
    return InputError(f"{source}: broken JSON at line {line}{last}: {error.msg}; correct or remove that line")


def _row(row, place: str, source) -> dict:
    if not isinstance(row, dict | str):
        raise InputError(f"{source}: {place} holds {type_of(row)}, wanted an object with named texts")
    return {"text": row} if isinstance(row, str) else row


# ---------------------------------------------------------------- tables


def _csv_frames(path: Path, source, size: int) -> Iterator[pd.DataFrame]:
    csv.field_size_limit(2**31 - 1)  # a document in one field
    with _text(path, source) as file:
        head = file.readline()
        declared = head.strip().strip('"').lower()
        declared = declared[4:5] or "\t" if declared[:4] == "sep=" else ""  # Excel's first line
        head = file.readline() if declared else head
        fields = {mark: len(next(csv.reader([head], delimiter=mark), [])) for mark in SEPARATORS}
        first = "\t" if ".tsv" in path.name.lower() else ","
        separator = declared or max(SEPARATORS, key=lambda mark: (fields[mark], mark == first))
        reader = csv.reader(chain([head], file), delimiter=separator, strict=True)
        try:
            names = [name.strip() or f"column {number}" for number, name in enumerate(next(reader, []), 1)]
            _refuse_twice(names, source)
            rows = _checked(reader, len(names), separator, bool(declared), source)
            while part := list(islice(rows, size)):
                yield pd.DataFrame(part, columns=names, dtype=object)
        except csv.Error as error:
            raise InputError(
                f"{source}: broken quotes in the row that ends at line {reader.line_num + bool(declared)} ({error}): within "
                'quotes a quote is written twice ("")'
            ) from None


def _checked(reader, wanted: int, separator: str, before: int, source) -> Iterator[list[str]]:
    for row in reader:
        if not row:
            continue
        if len(row) != wanted:
            mark = {"\t": "a tab"}.get(separator, repr(separator))
            raise InputError(
                f"{source}: the row that ends at line {reader.line_num + before} has {len(row)} fields, the header {wanted} "
                f"(separated by {mark}): put fields that hold {mark} in quotes, and give every row each field"
            )
        yield row


def _parquet_frames(path: Path, source, size: int) -> Iterator[pd.DataFrame]:
    if path.suffix.lower() in OPENERS:
        raise InputError(f"{source}: Parquet is compressed within; unpack the file first")
    # Through a small buffer: a file written as one row group would otherwise be in memory whole.
    with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        _refuse_twice(file.schema_arrow.names, source)
        for batch in file.iter_batches(batch_size=size):
            # Not by pandas' own notes in the file: a column that was an index is a column here.
            yield pa.Table.from_batches([batch]).to_pandas(ignore_metadata=True).astype(object)


def _refuse_twice(names: list[str], source) -> None:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{source}: two columns are called {twice!r}; rename one")
