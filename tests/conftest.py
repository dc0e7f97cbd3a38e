"""Settings for every test, and the one end-to-end run that several of them read."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

ROOT = Path(__file__).parents[1]
# Before torch is imported. One thread: the numbers then don't depend on the machine's cores, and workers don't fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Collecting tests imports all there is. Looking for garbage meanwhile, and among it ever after, takes a minute of a whole run.
gc.disable()
# A busy machine is slow, not wrong: no example has a deadline.
settings.register_profile("palimpsest", deadline=None)
settings.load_profile("palimpsest")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """A file's tests share a worker, so that what its fixtures make is made once. The smoke run, the longest, is made first; whoever looks
    at what it built comes when it is likely to be there."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.name))
    items.sort(key=turn)


def turn(item):
    [group] = item.get_closest_marker("xdist_group").args
    if group.startswith("smoke"):
        return 0 if group == "smoke" else 2  # "smoke, masked", ...
    return 1 if item.path.parent.name in ("audit", "book", "chapters") else 3


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> Path:
    """The smoke study, run from scratch by the command that `make book` uses, in a copy of the project's inputs: once, by the worker
    that comes first, for all. Returns the run folder, in which nothing may be changed."""
    base = tmp_path_factory.getbasetemp()
    project = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "smoke"
    with FileLock(f"{project}.lock"):
        log = project / "snakemake.log"
        if not project.exists():
            make_smoke_run(project, log)
        if not (project / "made").exists():
            pytest.fail(f"the smoke study failed ({log}):\n" + "\n".join(log.read_text().splitlines()[-60:]))
    return project / "runs" / "smoke"


def make_smoke_run(project, log):
    project.mkdir()
    for name in ("Snakefile", "_config.yml", "studies", "data", "notebooks", "book"):
        here = ROOT / name
        copy = shutil.copytree if here.is_dir() else shutil.copy
        copy(here, project / name)
    with log.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "2", "--config", "study=studies/smoke.yaml"],
            cwd=project,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    if done.returncode == 0:
        (project / "made").touch()
