"""The run folder: where a stage writes, how it says that it finished, and from what.

A stage writes its files, then `run.json` last; a folder with a `run.json` of the same fingerprint is finished and is not
computed again, whichever way it was started (runner, notebook or command).
"""

import fcntl
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from palimpsest.errors import InputError

PACKAGES = ("palimpsest", "torch", "transformers", "trl", "datasets", "accelerate", "peft", "numpy", "pandas")


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


def finished(folder: Path, fingerprint: str) -> dict | None:
    """The folder's `run.json` if it was written for this fingerprint, else None."""
    try:
        done = json.loads((folder / "run.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return done if done.get("fingerprint") == fingerprint else None


def require(folder: Path, made_by: str) -> dict:
    """The `run.json` of an earlier stage.

    Raises:
        InputError: that stage has not finished; the message says what to run.
    """
    try:
        return json.loads((folder / "run.json").read_text())
    except FileNotFoundError:
        raise InputError(f"{folder} is not finished (no run.json): run {made_by} first") from None


@contextmanager
def stage(folder: Path, fingerprint: str, parameters: dict[str, Any]) -> Iterator[dict | None]:
    """Run the body once: yields None if the stage is already finished, else a dictionary that goes into `run.json`.

    A second process asking for the same stage (a notebook beside the runner, or one left over from a killed run) waits
    for the first. An exception leaves what was written (checkpoints among it) in place and writes no `run.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if finished(folder, fingerprint):
            yield None
            return
        (folder / "run.json").unlink(missing_ok=True)
        facts: dict[str, Any] = {}
        began = time.perf_counter()
        yield facts
        record = {
            "fingerprint": fingerprint,
            "parameters": parameters,
            **facts,
            "seconds": round(time.perf_counter() - began, 3),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **provenance(),
        }
        write_json(folder / "run.json", record)


def provenance() -> dict[str, Any]:
    """Versions, commit (with -dirty), Python, machine and device."""
    device = "cpu"
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        device = sys.modules["torch"].cuda.get_device_name()
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": device,
        "threads": int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)),
    }


def commit() -> str:
    """Short commit of the project, `-dirty` when its files differ from it, or `unknown` outside a clone."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all: a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=1, default=str) + "\n")
    part.replace(path)


def write_table(table, path: Path, **options) -> Path:
    """A tidy table as CSV, whole or not at all; numbers keep six significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n", **options)
    part.replace(path)
    return path


def write_parquet(table, path: Path) -> None:
    """A table with lists in it as Parquet, whole or not at all."""
    part = path.with_name(path.name + ".part")
    table.to_parquet(part)
    part.replace(path)


def remove(folder: Path) -> None:
    """Delete a folder of ours, if it is there."""
    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Folder:
    """The parts of a run folder."""

    path: Path

    @classmethod
    def of(cls, run_dir: str | Path) -> "Folder":
        return cls(locate(run_dir))

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def teacher_text(self) -> Path:
        return self.path / "teacher_text"

    @property
    def scores(self) -> Path:
        return self.path / "scores"

    @property
    def tables(self) -> Path:
        return self.path / "tables"

    def model(self, name: str) -> Path:
        return self.path / "models" / name
