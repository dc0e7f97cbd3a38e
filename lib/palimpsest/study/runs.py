"""The run folder: where a stage writes, how it says that it finished, and from what.

A stage writes its files, then `run.json` last; a folder with a `run.json` of the stage's present fingerprint is finished and is
not computed again, whichever way it was started (runner, notebook or command). Whatever lies there from another fingerprint,
checkpoints among it, is removed before the stage begins.
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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from palimpsest.errors import InputError
from palimpsest.study.file import Arm, Study, load_study
from palimpsest.study.files import locate, write_json
from palimpsest.study.fingerprints import fingerprints
from palimpsest.study.parts import parts_of

PACKAGES = ("palimpsest", "torch", "transformers", "trl", "datasets", "accelerate", "peft", "numpy", "pandas")


@dataclass(frozen=True)
class Run:
    """A study being carried out in a folder."""

    study: Study
    path: Path

    def parts(self) -> dict[str, "Run"]:
        """The runs of `parts_of`, each in a folder of its name."""
        return {name: Run(study, self.path / name) for name, study in parts_of(self.study).items()}

    def replicates(self) -> list["Run"]:
        """The run itself, which is the first replicate, and the others."""
        return [self, *(part for name, part in self.parts().items() if name.startswith("replicate"))]

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Stage -> fingerprint, as the study and its files stand now (`fingerprints.fingerprints`)."""
        return fingerprints(self.study)

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def teacher_text(self) -> Path:
        return self.path / "teacher_text"

    @property
    def tables(self) -> Path:
        return self.path / "tables"

    def model(self, name: str) -> Path:
        return self.path / "models" / name

    def scores(self, name: str) -> Path:
        return self.path / "scores" / name

    def finished(self, stage: str) -> dict[str, Any] | None:
        """The `run.json` of a stage if it was made from what the study says now, else None."""
        found = _read(self.path / stage / "run.json")
        return found if found.get("fingerprint") == self.fingerprints[stage] else None

    def require(self, stage: str) -> dict[str, Any]:
        """The `run.json` of an earlier stage.

        Raises:
            InputError: it has not finished, or was made from other settings, data or code than there are now.
        """
        if found := self.finished(stage):
            return found
        other = (self.path / stage / "run.json").exists()
        found = (
            "was made from other settings, data or code than there are now"
            if other
            else "is not finished (no run.json)"
        )
        raise InputError(
            f"{self.path / stage} {found}: run the stage that makes it first, by its notebook or with the whole study: "
            f"make book STUDY=studies/{self.study.name}.yaml"
        )

    def facts(self, arm: Arm) -> dict[str, Any]:
        """What training a model and measuring it (under `measured`) wrote down."""
        return {**self.require(f"models/{arm.name}"), "measured": self.require(f"scores/{arm.name}")}

    def measured(self) -> list[Arm]:
        """The measured models in reading order.

        Raises:
            InputError: none is measured yet.
        """
        found = [arm for arm in self.study.everyone() if self.finished(f"scores/{arm.name}")]
        if not found:
            raise InputError(f"no measured models in {self.path}: run notebooks 01 to 03, or the whole study, first")
        return found


def open_run(study: Study | str | Path, path: str | Path | None = None) -> Run:
    """The run of a study (or study file) in the folder `path`; default `runs/<name of the study>`."""
    study = study if isinstance(study, Study) else load_study(study)
    return Run(study, locate(path or Path("runs") / study.name))


@contextmanager
def run_once(run: Run, stage: str, parameters: dict[str, Any] | None = None) -> Iterator[dict[str, Any] | None]:
    """Run the body once: yields None if the stage is already finished, else a dictionary that goes into `run.json`.

    A second process asking for the same stage (a notebook beside the runner, or one left over from a killed run) waits
    for the first. An exception leaves what was written (checkpoints among it) in place and writes no `run.json`; the
    same stage with the same fingerprint goes on from there, any other one starts from an empty folder.

    Args:
        stage: the stage's folder in the run, a key of `Run.fingerprints`.
        parameters: settings worth reading in `run.json`.
    """
    folder, wanted = run.path / stage, run.fingerprints[stage]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if run.finished(stage):
            yield None
            return
        if _read(folder / "begun.json").get("fingerprint") != wanted:
            _empty(folder)
            write_json(folder / "begun.json", {"fingerprint": wanted, "time": _now()})
        (folder / "run.json").unlink(missing_ok=True)
        facts: dict[str, Any] = {}
        by = commit()  # before the clone can move on
        began, used = time.perf_counter(), time.process_time()
        yield facts
        took = {"seconds": round(time.perf_counter() - began, 3)}
        took["processor_seconds"] = round(time.process_time() - used, 3)  # of all threads; the same on a busy machine
        peak = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
        about = {"fingerprint": wanted, "stage": stage, "parameters": parameters or {}}
        about |= {"began": _read(folder / "begun.json").get("time"), "ended": _now()}
        write_json(folder / "run.json", {**about, **took, **peak, **facts, **provenance(by)})


def _empty(folder: Path) -> None:
    """Remove what another fingerprint left in a stage's folder; a folder that no stage has begun is somebody else's."""
    left = [path for path in folder.iterdir() if path.name != ".lock"]
    if left and not {"begun.json", "run.json"} & {path.name for path in left}:
        raise InputError(
            f"{folder} holds {left[0].name}, which no stage of a run has written; wanted a folder of this run alone, since what is "
            "stale in it is removed: choose another run folder"
        )
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def provenance(by: str | None = None) -> dict[str, Any]:
    """Versions, commit (`by`, or the one now), Python, platform, machine and device."""
    device = "cpu"
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        device = sys.modules["torch"].cuda.get_device_name()
    return {
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": by or commit(),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
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


def changed_code(commits: Iterable[str]) -> list[str]:
    """Those of the names that `commit` gave which nobody can check out: files differed, or there was no clone."""
    return sorted({name for name in commits if name.endswith("-dirty") or name == "unknown"})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
