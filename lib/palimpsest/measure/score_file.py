"""A score file: written shard by shard, whole or absent, resumable, and saying what it was made from."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from palimpsest.data.examples import Example
from palimpsest.errors import InputError

METADATA = b"palimpsest"  # key in the Parquet schema


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a score file says about itself: model, hash of its weights, dtype, device, versions, sampling settings."""
    return json.loads((pq.read_schema(path).metadata or {}).get(METADATA, b"{}"))


def describe(model: Any, sampling: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What scores depend on besides the records. `weights` is a sha256 over the configuration and every parameter."""
    config = {
        k: v for k, v in model.config.to_diff_dict().items() if k not in ("_name_or_path", "transformers_version")
    }
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, value in sorted(model.named_parameters()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        if not value.is_meta:  # a weight that accelerate keeps on disk is known by its name only
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return {
        "model": Path(model.config._name_or_path).name,
        "class": type(model).__name__,
        "weights": digest.hexdigest(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "attention": model.config._attn_implementation,
        "sampling": {name: dict(setting) for name, setting in sampling.items()},
        **{package: version(package) for package in ("palimpsest", "torch", "transformers")},
    }


def examples_digest(examples: Sequence[Example]) -> str:
    """A hash of ids, prompt lengths and tokens."""
    rows = "".join(f"{e.id} {e.prompt_length} {e.input_ids}\n" for e in examples)
    return hashlib.sha256(rows.encode()).hexdigest()


class ScoreFile:
    """The file at `path`, its finished shards in `<path>.parts`, and the shards of a former version of the file.

    Args:
        path: the Parquet file to be.
        about: what the scores depend on (see `describe`); shards with another `about` are not this file's.
    """

    def __init__(self, path: str | Path, about: dict[str, Any]):
        self.path, self.about = Path(path), about
        self.parts = self.path.with_name(self.path.name + ".parts")
        with self._disk():
            former = read_metadata(self.path) if self.path.exists() else {}
            self.parts.mkdir(parents=True, exist_ok=True)
        self.former = former.get("shards", []) if about.items() <= former.items() else []
        self.digests: list[str] = []

    def has(self, digest: str) -> bool:
        """Whether the next shard is already there.

        Raises:
            InputError: there is an unfinished shard in its place, but made by another model or settings.
        """
        if self._in_former(len(self.digests), digest):
            return True
        part = self._part(len(self.digests))
        if not part.exists():
            return False
        found = read_metadata(part)
        other = [f"{k} was {found.get(k)}, is now {v}" for k, v in self.about.items() if found.get(k) != v]
        if other:
            raise InputError(
                f"{self.parts} has unfinished scores made otherwise ({'; '.join(other)}); mixing them would be wrong."
                " Finish with the former model and settings, or delete that folder to start anew."
            )
        return found["shard"] == digest

    def add(self, digest: str, table: pa.Table | None = None) -> None:
        """Note the next shard, and write it if it is a new one."""
        if table is not None:
            with self._disk():
                _write([table], self._part(len(self.digests)), {**self.about, "shard": digest})
        self.digests.append(digest)

    def finish(self, metadata: Mapping[str, Any]) -> None:
        """Put the shards together at `path`, one row group each, and remove the parts."""
        final = {**metadata, **self.about, "shards": self.digests}
        with self._disk():
            if not self.path.exists() or read_metadata(self.path) != final:
                _write(self._tables(), self.path, final)
            for part in self.parts.iterdir():
                part.unlink()
            self.parts.rmdir()

    def _part(self, index: int) -> Path:
        return self.parts / f"{index:06d}.parquet"

    def _in_former(self, index: int, digest: str) -> bool:
        return self.former[index : index + 1] == [digest]

    def _tables(self) -> Iterator[pa.Table]:
        former = pq.ParquetFile(self.path) if self.former else None
        for i, digest in enumerate(self.digests):
            yield former.read_row_group(i) if self._in_former(i, digest) else pq.read_table(self._part(i))

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.path} can't be written: {error}. Shards scored so far are kept in {self.parts}: free space or mend"
                " the permission, and run the same again."
            ) from error


def _write(tables: Iterable[pa.Table], path: Path, metadata: dict[str, Any]) -> None:
    """Write `tables` as the row groups of `path`, which appears only when complete."""
    unfinished, writer = path.with_name(path.name + ".unfinished"), None
    for table in tables:
        table = table.replace_schema_metadata({METADATA: json.dumps(metadata)})
        writer = writer or pq.ParquetWriter(unfinished, table.schema)
        writer.write_table(table, row_group_size=max(1, len(table)))
    writer.close()
    unfinished.replace(path)
