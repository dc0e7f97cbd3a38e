"""What can be said of a study before it runs: that it is valid, what of its models fits, what memory and disk it takes."""

import shutil
from functools import cache
from pathlib import Path

from palimpsest.errors import InputError
from palimpsest.study import Run
from palimpsest.study.files import locate
from palimpsest.study.fingerprints import models_of, warm_name
from palimpsest.study.sections import Scratch, check_logging

FP32 = 4  # bytes of a number
# A model being trained has its weights on disk, and a checkpoint of them with the optimizer's two moments; in memory, gradients as well
# as these. So it takes four numbers a parameter of either.
TRAINING = 4
RUNTIME = 600_000_000  # bytes of memory of a process that has imported what a stage needs
MEMORY, GROUP, GPU = Path("/proc/meminfo"), Path("/sys/fs/cgroup"), Path("/dev/nvidia0")
# Files of a control group, version 2 and 1: its limit, and what it uses.
GROUPS = [
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
]


def check_study(run: Run, cores: int = 1) -> list[str]:
    """Lines about a study that can run: its arms, notes on its models, and the disk it takes.

    Configurations and tokenizers are looked at only where the study names models by `path`.

    Args:
        cores: stages that run at once, each on one.

    Raises:
        InputError: a model does not fit, and every fault is listed; what the study logs to is not installed; or this machine has too
            little memory or disk.
    """
    study = run.study
    check_logging(study.train)
    lines = [f"study {study.name!r} is valid, {len(study.arms())} arms"]
    if any(start.path for start in (study.models.teacher, *study.models.students.values())):
        from palimpsest.measure.compatibility import check_models  # transformers takes seconds to import

        lines += [f"note: {note}" for note in check_models(study)]
    check_capacity(run, cores)
    return [*lines, disk(run)]


def check_capacity(run: Run, cores: int = 1) -> None:
    """Whether what is left to train of a study fits into this machine's memory, so many stages at once, and onto its disk.

    Nothing is tried out, so what is asked for is the least that it can take: weights, gradients and the optimizer's moments, not what a
    batch takes beside them. Of a machine with a GPU only the disk is asked.

    Raises:
        InputError: too little is free; with what to do about it.
    """
    parts = [run, *run.parts().values()]
    if all(part.finished(f"scores/{arm.name}") for part in parts for arm in part.study.everyone()):
        return
    sizes = model_sizes(run)
    if None in sizes.values():
        return  # of a hub id that is not here yet
    needed, held, free = disk_needed(run, sizes, cores), folder_bytes(run.path), disk_free(run)
    if needed > held + free:
        raise InputError(
            f"study {run.study.name!r} takes {_said(needed)} of disk at least; found {_said(free)} free for {run.path}, which holds "
            f"{_said(held)} now. Nothing was started: free some, clone the project onto another disk, or ask for fewer replicates or methods"
        )
    each, free = memory_needed(sizes), None if GPU.exists() else memory_free()
    at_once = min(cores, len(run.study.arms()))
    if free is not None and at_once * each > free:
        fewer = free // each
        instead = f"run on fewer cores (make book CORES={fewer}), " if fewer else ""
        raise InputError(
            f"study {run.study.name!r} takes {_said(each)} of memory at least for one stage and {_said(at_once * each)} for {at_once} at once; "
            f"found {_said(free)} free. Nothing was started: {instead}end what else runs here, or use a smaller model (models in the study file)"
        )


def disk(run: Run) -> str:
    """The disk that the study's models take, what its run folder has now, and what is free there."""
    sizes, held = model_sizes(run), folder_bytes(run.path)
    said = f"{run.path} holds {_said(held)} now; {_said(disk_free(run))} are free there."
    if None in sizes.values():
        unknown = ", ".join(size for size, n in sizes.items() if n is None)
        return f"disk: the size of {unknown} is not known before it is there. {said}"
    models = disk_needed(run, sizes, 0)
    return f"disk: {_said(models)} for the models, {_said(TRAINING * FP32 * max(sizes.values()))} more while one is trained. {said}"


def disk_needed(run: Run, sizes: dict[str, int], cores: int) -> int:
    """Bytes of the models of a run and all its parts, and of what so many in training have beside them."""
    numbers = 0
    for name, part in {"": run, **run.parts()}.items():
        numbers += FP32 * (2 * sizes["teacher"] + sum(sizes[size] for size in part.study.models.students))
        kept = 2 if part.study.measure.precision == "bf16" and name != "tuning" else FP32
        numbers += kept * sum(sizes[arm.size] * len(models_of(part.study, arm)) for arm in part.study.arms())
        begun = [(arm, part.study.training(arm.size, arm.method).warm_start_epochs) for arm in part.study.arms()]
        warm = {warm_name(arm, epochs): arm.size for arm, epochs in begun if epochs}
        numbers += FP32 * sum(sizes[size] for size in warm.values())
    return numbers + cores * TRAINING * FP32 * max(sizes.values())


def disk_free(run: Run) -> int:
    """Bytes free where the run folder is, or will be."""
    there = next(path for path in (run.path, *run.path.parents) if path.exists())
    return shutil.disk_usage(there).free


def memory_needed(sizes: dict[str, int]) -> int:
    """The least bytes of memory of one stage: the largest model being trained, beside the teacher, where a student is."""
    students = max(n for size, n in sizes.items() if size != "teacher")
    return max(training_memory(sizes["teacher"]), training_memory(students, sizes["teacher"]))


def training_memory(parameters: int, beside: int = 0) -> int:
    """Bytes of a stage that trains so many parameters, with a teacher of so many `beside` them; what a step holds is not counted."""
    return RUNTIME + FP32 * (TRAINING * parameters + beside)


def memory_free() -> int | None:
    """Bytes of memory that are free here: what the system has, or what is left of the control group's limit; None where neither says
    so."""
    found = []
    try:
        lines = dict(line.split(":") for line in MEMORY.read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        pass
    for limit, used in GROUPS:
        try:
            found.append(int((GROUP / limit).read_text()) - int((GROUP / used).read_text()))
        except (OSError, ValueError):  # no such group, or "max": no limit
            pass
    return min(found, default=None)


def model_sizes(run: Run) -> dict[str, int | None]:
    """Parameters of every size, as `model_parameters` counts them."""
    return {size: model_parameters(run, size) for size in ("teacher", *run.study.models.students)}


def model_parameters(run: Run, size: str) -> int | None:
    """Parameters of a model: computed for one trained from scratch, read off the configuration of one that is here; of one cut from the
    teacher those of the whole, at most. None of a hub id that was not fetched yet, or where only the model's own code knows."""
    start = run.study.start("teacher" if run.study.start(size).keep else size)
    if start.scratch:
        return scratch_parameters(start.scratch, run.study.tokenizer.vocabulary or 0)
    return _read_off(start.path, start.revision, start.trust_remote_code)


@cache  # a GGUF file takes seconds
def _read_off(path: str, revision: str | None, trust_remote_code: bool) -> int | None:
    from huggingface_hub import try_to_load_from_cache  # these two take seconds to import

    from palimpsest.measure import models

    try:
        if not (locate(path).exists() or path.startswith("package:")):
            # nobody waits here for a hub that can't be reached
            fetched = try_to_load_from_cache(path, "config.json", revision=revision)
            path = str(Path(fetched).parent) if isinstance(fetched, str) else ""
        return models.count_parameters(models.load_config(path, trust_remote_code)) if path else None
    except (InputError, ValueError):
        return None


def scratch_parameters(shape: Scratch, vocabulary: int) -> int:
    """Parameters of a model built from a study's `scratch` section, its output layer tied to its embeddings."""
    w, n = shape.width, shape.layers
    if shape.architecture == "gpt2":
        return (vocabulary + shape.context) * w + n * (12 * w * w + 13 * w) + 2 * w
    return vocabulary * w + n * (4 * w * w + 3 * w * 4 * w + 2 * w) + w


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; none of one that isn't there."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) if folder.exists() else 0


def _said(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
