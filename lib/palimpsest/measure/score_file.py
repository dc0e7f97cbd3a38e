"""A score file: in few bytes, whole or absent, made part by part, its lists end to end; and what scores depend on besides the records.

Besides: records longer than the context, cut into `windows` to be scored, and any Parquet file read in pieces.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import dataset

from palimpsest.data.examples import Example
from palimpsest.study.files import whole, write_parquet

ROWS, BYTES = 50_000, 1 << 26  # of a row group of many pieces
ROUNDED = ("margin", "mean_logprob", "std_logprob")  # kept to 16 binary digits


def weights_digest(model: Any) -> str:
    """A sha256 over a model's configuration and every number in it."""
    import torch  # here alone: who reads scores needs none

    config = {
        k: v for k, v in model.config.to_diff_dict().items() if k not in ("_name_or_path", "transformers_version")
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    saved = set(model.state_dict())  # some quantized models keep their weights as buffers
    buffers = ((name, value) for name, value in model.named_buffers() if name in saved)
    for name, value in sorted([*model.named_parameters(), *buffers], key=lambda item: item[0]):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        if not value.is_meta:  # a weight that accelerate keeps on disk is known by its name only
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def describe(model: Any, sampling: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What scores depend on besides the records; `weights` is a `weights_digest`."""
    return {
        "model": Path(model.config._name_or_path).name,
        "class": type(model).__name__,
        "weights": weights_digest(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "attention": model.config._attn_implementation,
        "sampling": {name: dict(setting) for name, setting in sampling.items()},
        **{package: version(package) for package in ("palimpsest", "torch", "transformers")},
    }


def smaller(table: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """A score table as it is written, in about half the bytes, and the options for that; no verdict changes.

    Of a few statistics per token (`ROUNDED`) the last 8 of 24 binary digits are dropped, towards zero: less than 1 in 32,000 of the
    value; a margin is rather called nearly tied. Then bytes of the same significance are stored together, for zstd to find what
    repeats. Everything else, `hit`, `rank` and every log-probability among it, is kept bit by bit.
    """
    for name in (name for name in ROUNDED if name in table.column_names):
        lists = table[name].combine_chunks()
        if not len(lists):
            continue  # of no records, a column has no type
        values = lists.values.to_numpy(zero_copy_only=False).astype(np.float32)
        cut = (values.view(np.uint32) & np.uint32(0xFFFFFF00)).view(np.float32)
        column = type(lists).from_arrays(lists.offsets, pa.array(cut))
        table = table.set_column(table.column_names.index(name), name, column)
    floats = [name for name, kind in leaves(table.schema) if pa.types.is_floating(kind)]
    others = [name for name, kind in leaves(table.schema) if not pa.types.is_floating(kind)]
    return table, {"compression": "zstd", "use_dictionary": others, "use_byte_stream_split": floats}


def leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    """The columns of a schema as Parquet names them, lists by their values, and the type of what they hold."""
    for field in schema:
        is_list = pa.types.is_list(field.type) or pa.types.is_large_list(field.type)
        yield (f"{field.name}.list.element", field.type.value_type) if is_list else (field.name, field.type)


def write_scores(table: pd.DataFrame, path: Path) -> None:
    """A score table as a Parquet file of its own, in few bytes (`smaller`)."""
    with whole(path) as draft:
        small, options = smaller(pa.Table.from_pandas(table, preserve_index=False))
        pq.write_table(small, draft, **options)


def in_parts(folder: Path, rows: int, size: int, make: Callable[[slice], pd.DataFrame]) -> pd.DataFrame:
    """What `make` gives for one `size` of the rows after another, put end to end.

    Each part is kept in `folder`, and one that is there already is read instead: whoever is killed goes on where it was. The
    folder's name must say what the parts are made from; the caller removes it.
    """
    for number, start in enumerate(range(0, max(1, rows), size)):
        path = folder / f"{number:06d}.parquet"
        if not path.exists():
            write_parquet(make(slice(start, start + size)), path)
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))], ignore_index=True)


# ---------------------------------------------------------------- records longer than the context


def windows(example: Example, context: int) -> Iterator[Example]:
    """Cut an example longer than `context` so that every labelled token is labelled in exactly one window.

    The first window is filled from the left as far as it goes; each later one labels up to half a context of further
    tokens, given the tokens before them. Ids are `id/0`, `id/1`, ... in order. An example that fits is returned whole.
    """
    length = len(example.input_ids)
    if length <= context:
        yield example
        return
    step = max(1, context // 2)
    start, number = example.prompt_length, 0
    while start < length:
        end = min(length, context if number == 0 and start < context else start + step)
        left = max(0, end - context)
        flags = example.secret[start - example.prompt_length : end - example.prompt_length]
        yield Example(f"{example.id}/{number}", example.input_ids[left:end], start - left, flags)
        start, number = end, number + 1


def join_windows(table: pd.DataFrame) -> pd.DataFrame:
    """The windows of each record in a score table (ids `id/0`, `id/1`, ...) put end to end in its one row."""
    if not table["id"].str.contains("/", regex=False).any():
        return table.reset_index(drop=True)
    how = dict.fromkeys(table.columns.drop("id"), lambda parts: np.concatenate(list(parts)))
    how |= {"prompt_length": "first", "length": "sum"}
    return table.groupby(table["id"].str.split("/").str[0], sort=False).agg(how).reset_index()


# ---------------------------------------------------------------- any Parquet file, in pieces


def row_groups(path: Path) -> Iterator[pa.Table]:
    """The rows of a Parquet file, one row group at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in fewer tables of about `ROWS` rows or `BYTES` bytes, each to be a row group: what a file says of every
    column of every row group is read with every column."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table.cast(held[0].schema) if held else table)
        if sum(one.num_rows for one in held) >= ROWS or sum(one.nbytes for one in held) >= BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def pick(path: Path, places: np.ndarray, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The rows at `places` (rising, from 0) of a Parquet file, which is never in memory whole."""
    return dataset(path).take(pa.array(places), columns=columns).to_pandas()


def flatten(scores: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """All values `[tokens]` of a list column end to end, and where each record starts `[records + 1]` (the last is the end)."""
    lists = scores[column].to_numpy()
    return (np.concatenate(lists) if len(lists) else np.zeros(0)), np.cumsum([0, *map(len, lists)])


def reduce_records(function: np.ufunc, values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """`function.reduce` over each record's stretch of flat `values` `[records]`; 0 where it has none."""
    out, full = np.zeros(len(starts) - 1, dtype=values.dtype), starts[1:] > starts[:-1]
    if full.any():
        out[full] = function.reduceat(values, starts[:-1][full])
    return out
