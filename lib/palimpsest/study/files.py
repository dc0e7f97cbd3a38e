"""Where the project's files are found, and files that are whole or absent."""

import glob
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SETTLED = 2 * 10**9  # nanoseconds
_digests: dict[tuple[int, ...], str] = {}


def root() -> Path:
    """The nearest folder at or above the working one that holds the project's Snakefile; else the working folder.

    Lets a notebook opened in JupyterLab (working folder `notebooks/`) and a batch run (project root) use the same paths.
    """
    here = Path.cwd()
    return next((p for p in (here, *here.parents) if (p / "Snakefile").exists()), here)


def locate(path: str | Path) -> Path:
    """An absolute path: relative ones are taken from the working folder if something is there, else from `root()`."""
    path = Path(path).expanduser()
    return path.resolve() if path.is_absolute() or path.exists() else (root() / path).resolve()


def matching(pattern: str | Path) -> list[Path]:
    """The files that a pattern such as `data/train-*.jsonl` names, sorted; looked for as in `locate`. None for a name without one."""
    pattern = str(Path(pattern).expanduser())
    if not glob.has_magic(pattern):
        return []
    found = glob.glob(pattern, recursive=True) or glob.glob(str(root() / pattern), recursive=True)
    return sorted(Path(file).resolve() for file in found if Path(file).is_file())


def files_of(source: str | Path) -> list[tuple[str, Path]]:
    """Name and place of each file that a source consists of: itself, all below a folder, or those that a pattern names; none of a hub id."""
    here = locate(source)
    if here.is_dir():
        return [(p.relative_to(here).as_posix(), p) for p in sorted(here.rglob("*")) if p.is_file()]
    return [(p.name, p) for p in ([here] if here.is_file() else matching(source))]


def is_local(source: str) -> bool:
    """Whether a model or data set is, or was, on this machine: no id of the hub, no `package:`."""
    place = source.split(":")[0]
    written_as_path = Path(place).is_absolute() or place.startswith((".", "~")) or len(Path(place).parts) > 2
    return written_as_path or locate(source).exists() or bool(matching(source))


def public_name(source: str) -> str:
    """An id of the hub or a package as it is; of what is local the last name alone, since where it lies is nobody's business."""
    return Path(source).name if is_local(source) else source


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, read in pieces; once in a process, as long as its size and times stay what they are.

    A file changed in the last seconds is read every time: one more change at the same moment would leave its times as they are.
    """
    stat = path.stat()
    changed = max(stat.st_mtime_ns, stat.st_ctime_ns)
    seen = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if seen in _digests:
        return _digests[seen]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - changed > SETTLED:
        _digests[seen] = digest
    return digest


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """The path of a draft that takes the place of `path` when the body ends well: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    yield draft
    draft.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Indented JSON."""
    with whole(path) as draft:
        draft.write_text(json.dumps(value, indent=1, default=str) + "\n")


def write_parquet(table, path: Path) -> None:
    """A data frame, lists in it or not, as Parquet."""
    with whole(path) as draft:
        table.to_parquet(draft)


def remove(folder: Path) -> None:
    """Delete a folder of ours, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)
