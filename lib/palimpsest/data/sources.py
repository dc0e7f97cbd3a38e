"""The rows of any common source, a few thousand at a time: a file, a folder or pattern of shards, a saved or hub data set.

Why not `datasets.load_dataset("json" | "csv" | "parquet", streaming=True)` for files (measured with 5.x, 200,000 rows)? It takes
its types from the first block: a key or a type that comes later stops the reading, dates in JSON become timestamps, and in a
CSV "007" becomes 7 and "NA" nothing. Its message for a broken line names the row of a block, not the line. It is no faster for
JSON lines and takes 869 MB to our 64 for Parquet written as one row group of 600 MB. What `datasets` wrote itself, and hub data
sets, do go through it.
"""

import re
from collections.abc import Iterator
from glob import has_magic
from pathlib import Path

import pandas as pd

from palimpsest.data.formats import KINDS, OPENERS, READABLE, file_frames, kind
from palimpsest.errors import InputError
from palimpsest.study.files import locate, matching

CHUNK = 2_000  # rows read at a time
SPLIT_NAMES = ("train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval")
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]*))?(?::([^@]*))?(?:@(\S+))?")  # owner/name:config:split@revision


def chunks(
    source: str | Path, limit: int | None = None, size: int = CHUNK, revision: str | None = None
) -> Iterator[pd.DataFrame]:
    """The rows of a source as they are, at most `size` at a time, indexed from 0 on through the whole of it.

    Memory does not grow with the number of rows, except for a JSON list or objects over several lines, which can only be read
    whole. The fields of a CSV file are texts, whatever they look like; a JSON text stands for an object with that `text`.

    Args:
        source: a file; a folder, or a pattern such as `data/train-*.jsonl.gz`, of files of one kind, read in the order of their
            names; a folder that `datasets.save_to_disk` wrote; or a hub id `owner/name:config:split@revision`, of which all
            but the name may be left out (the split is then `train`).
        revision: of a hub id that names none: branch, tag or commit.

    Raises:
        InputError: nothing of this name, an unknown format, a folder of several kinds or splits, a hub id that can't be had;
            whatever `formats.file_frames` refuses.
    """
    start = 0
    for frame in _frames(source, min(size, limit or size), revision):
        frame = frame.set_axis(map(str, frame.columns), axis=1)
        frame = frame.head(limit - start) if limit else frame
        if len(frame):
            yield frame.set_axis(range(start, start + len(frame)))
        start += len(frame)
        if limit and start >= limit:
            return


def column_names(source: str | Path, limit: int | None = None, revision: str | None = None) -> list[str]:
    """The columns of a source; JSON is read through, since any object may bring another key."""
    names: dict[str, None] = {}
    files = source_files(source)
    for frame in chunks(source, limit, revision=revision):
        names.update(dict.fromkeys(frame.columns))
        if not files or kind(files[0]) != "json":
            break
    return list(names)


def source_files(source: str | Path) -> list[Path]:
    """The files a source stands for, in order; none for a saved or hub data set.

    Raises:
        InputError: as `chunks`, for what is found by name.
    """
    path = locate(source)
    if path.is_file():
        if kind(path) is None:
            raise InputError(f"{source}: cannot read {_said(path)}; wanted one of {READABLE}")
        return [path]
    if path.is_dir():
        if any((path / name).exists() for name in ("state.json", "dataset_dict.json")):
            return []
        found = sorted(file for file in path.iterdir() if file.is_file() and _is_data(file))
    elif HUB_ID.fullmatch(str(source)) and not _is_data(path) and not str(source).startswith((".", "/", "~")):
        return []
    elif has_magic(str(source)):
        found = matching(source)
    else:
        raise InputError(
            f"no file {source} (looked at {path}): give a file, a folder, a pattern or a hub id owner/name"
        )
    return _of_one_kind(found, source)


def _is_data(path: Path) -> bool:
    ending = path.with_suffix("").suffix if path.suffix.lower() in OPENERS else path.suffix
    return ending.lower() in KINDS and not path.name.startswith((".", "_"))


def _said(path: Path) -> str:
    advice = {".txt": " (is a record a line, a paragraph, or the whole? Write one JSON object a line)"}
    advice |= dict.fromkeys((".zip", ".tar", ".7z", ".tgz", ".rar"), " (unpack it)")
    advice |= dict.fromkeys((".xlsx", ".xls", ".ods"), " (save it as CSV)")
    return f"{path.suffix or 'a file without ending'}{advice.get(path.suffix.lower(), '')}"


def _of_one_kind(files: list[Path], source) -> list[Path]:
    if not files:
        raise InputError(
            f"{source} holds no file to be read (folders within are not looked into: name a pattern such as "
            f"{source}/**/*.jsonl); wanted one of {READABLE}"
        )
    kinds: dict[str | None, Path] = {}
    for file in files:
        kinds.setdefault(kind(file), file)
    if len(kinds) > 1 or None in kinds:
        names = " and ".join(file.name for file in kinds.values())
        raise InputError(
            f"{source} holds files of several kinds ({names}): name those to be read by a pattern such as {source}/*.jsonl"
        )
    splits = {re.split(r"[-_.]", file.name.lower())[0] for file in files}.intersection(SPLIT_NAMES)
    if len(splits) > 1:
        raise InputError(
            f"{source} holds the splits {', '.join(sorted(splits))}, which are not one set of records: name one by a pattern, "
            f"such as {source}/{min(splits)}*"
        )
    return files


# ---------------------------------------------------------------- frames


def _frames(source: str | Path, size: int, revision: str | None) -> Iterator[pd.DataFrame]:
    files = source_files(source)
    for file in files:
        yield from file_frames(file, source if len(files) == 1 else file, size)
    if not files:
        path = locate(source)
        data = _saved(path, source) if path.is_dir() else _from_hub(str(source), revision)
        for part in data.with_format(None).iter(batch_size=size):
            yield pd.DataFrame(part, dtype=object)


def _saved(path: Path, source):
    from datasets import DatasetDict, load_from_disk

    try:
        data = load_from_disk(str(path))
    except Exception as error:  # the library raises many kinds for one cause: what it wrote is not whole
        raise InputError(
            f"{source} is not a whole saved data set ({type(error).__name__}: {error}): save it again"
        ) from None
    if not isinstance(data, DatasetDict):
        return data
    if len(data) > 1:
        raise InputError(f"{source} holds the splits {', '.join(data)}: name one, such as {source}/{next(iter(data))}")
    return next(iter(data.values()))


def _from_hub(source: str, revision: str | None):
    from datasets import load_dataset

    name, config, split, own = HUB_ID.fullmatch(source).groups()
    try:
        return load_dataset(name, config or None, split=split or "train", revision=own or revision)
    except Exception as error:  # as above: it can't be had
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{source!r} is neither a file here nor a data set the hub would give ({type(error).__name__}: {reason}); check the "
            "name (owner/name:config:split@revision) and the network, or give a local file"
        ) from None
