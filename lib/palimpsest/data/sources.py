"""The rows of any common file or hub data set, a few thousand at a time.

Why not `datasets.load_dataset("json" | "csv" | "parquet", streaming=True)` for files (measured with 5.x, 200,000 rows)? It takes
its types from the first block: a key or a type that comes later stops the reading, dates in JSON become timestamps, and in a
CSV "007" becomes 7 and "NA" nothing. Its message for a broken line names the row of a block, not the line. JSON lines take as
long (298,000 rows/s, ours 295,000) and 143 MB more memory, ours 17; CSV 212,000 rows/s to 353,000 and 37 MB to 16; Parquet
written as one row group of 600 MB 75,000 rows/s to 221,000 and 869 MB to 64. Hub data sets do go through it.
"""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from palimpsest.errors import InputError
from palimpsest.study.files import locate

FILES = (".jsonl", ".json", ".csv", ".parquet")
CHUNK = 2_000  # rows read at a time


def chunks(
    source: str | Path, limit: int | None = None, size: int = CHUNK, revision: str | None = None
) -> Iterator[pd.DataFrame]:
    """The rows of a file or hub data set as they are, at most `size` at a time, indexed from 0 on through the whole file.

    Memory does not grow with the number of rows, except for a JSON list, which can only be read whole. The fields of a CSV
    file are texts, whatever they look like; a JSON text stands for an object with that `text`. `revision` is a branch, tag or commit of a hub id.

    Raises:
        InputError: missing file, unknown format, broken content (line named), not UTF-8, half a surrogate pair, a hub id that can't be had.
    """
    path, start = locate(source), 0
    ending = path.suffix.lower()
    if not path.exists():
        if ending in FILES or str(source).startswith((".", "/", "~")) or str(source).count("/") != 1:
            raise InputError(
                f"no file {source} (looked at {path}): give a {', '.join(FILES)} file or a hub id owner/name"
            )
        frames = _hub_chunks(str(source), size, revision)
    elif ending not in FILES or not path.is_file():
        raise InputError(f"{source}: cannot read {path.suffix or 'a folder'}; wanted one of {', '.join(FILES)}")
    elif ending == ".csv":
        frames = _csv_chunks(path, limit, size)
    elif ending == ".parquet":
        frames = _parquet_chunks(path, size)
    else:
        rows = _json_lines(path, source) if ending == ".jsonl" else _json_list(path, source)
        frames = _framed(islice(rows, limit), size)
    try:
        for frame in frames:
            frame = frame.head(limit - start) if limit else frame
            if len(frame):
                yield frame.set_axis(range(start, start + len(frame)))
            start += len(frame)
            if limit and start >= limit:
                return
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 (byte {error.start}: {error.reason}); convert it first") from None
    except UnicodeEncodeError as error:
        raise InputError(
            f"{source}: one of the records {start + 1} to {start + size} holds {error.object[error.start : error.end]!r}, half "
            "of a surrogate pair, which is no character: mend or remove that record"
        ) from None
    except InputError:
        raise
    except (ValueError, RecursionError, pa.ArrowException) as error:  # among them those of pandas and json
        raise InputError(f"{source} is not a readable {path.suffix} file: {error}") from None


def column_names(source: str | Path, limit: int | None = None) -> list[str]:
    """The columns of a file or hub data set, as strings; JSON lines are read through, since any may bring another key."""
    names: dict[str, None] = {}
    for frame in chunks(source, limit):
        names.update(dict.fromkeys(map(str, frame.columns)))
        if locate(source).suffix.lower() != ".jsonl":
            break
    return list(names)


def _framed(rows: Iterator[dict], size: int) -> Iterator[pd.DataFrame]:
    while part := list(islice(rows, size)):
        yield pd.DataFrame(part)


def _csv_chunks(path: Path, limit: int | None, size: int) -> Iterator[pd.DataFrame]:
    yield from pd.read_csv(path, keep_default_na=False, dtype=str, nrows=limit, chunksize=size)


def _parquet_chunks(path: Path, size: int) -> Iterator[pd.DataFrame]:
    # Through a small buffer: a file written as one row group would otherwise be in memory whole.
    with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=size):
            yield batch.to_pandas()


def _hub_chunks(name: str, size: int, revision: str | None) -> Iterator[pd.DataFrame]:
    from datasets import load_dataset

    try:
        data = load_dataset(name, split="train", revision=revision)
    except Exception as error:  # the library raises many kinds for one cause: it can't be had
        raise InputError(
            f"{name!r} is neither a file here nor a data set the hub would give ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); check the name and the network, or give a local file"
        ) from None
    yield from (pd.DataFrame(part) for part in data.iter(batch_size=size))


def _json_list(path: Path, source) -> Iterator[dict]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: broken JSON at line {error.lineno}: {error.msg}") from None
    if not isinstance(rows, list):
        raise InputError(f"{source}: wanted a JSON list, found {type(rows).__name__}; one object a line is .jsonl")
    for number, row in enumerate(rows, 1):
        yield _row(row, f"entry {number}", source)


def _json_lines(path: Path, source) -> Iterator[dict]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"{source}: broken JSON at line {number}: {error.msg}; mend or remove that line"
                ) from None
            yield _row(row, f"line {number}", source)


def _row(row, place: str, source) -> dict:
    if not isinstance(row, (dict, str)):
        raise InputError(f"{source}: {place} holds {type(row).__name__}, wanted an object with named texts")
    return {"text": row} if isinstance(row, str) else row
