"""What can be said of a study before it runs: that it is valid, what of its models fits, what disk it takes."""

import shutil
from pathlib import Path

from palimpsest.study import Run
from palimpsest.study.files import locate
from palimpsest.study.sections import Scratch, check_logging

FP32 = 4  # bytes of a number
TRAINING = (
    4  # a model being trained has its weights on disk, and a checkpoint of them with the optimizer's two moments
)


def check_study(run: Run) -> list[str]:
    """Lines about a study that can run: its arms, notes on its models, and the disk it takes.

    Configurations and tokenizers are looked at only where the study names models by `path`.

    Raises:
        InputError: a model does not fit, and every fault is listed; or what the study logs to is not installed.
    """
    study, lines = run.study, []
    check_logging(study.train)
    lines.append(f"study {study.name!r} is valid, {len(study.arms())} arms")
    if any(start.path for start in (study.models.teacher, *study.models.students.values())):
        from palimpsest.measure.compatibility import check_models  # transformers takes seconds to import

        lines += [f"note: {note}" for note in check_models(study)]
    return [*lines, disk(run)]


def disk(run: Run) -> str:
    """The disk that the study's models take, what its run folder has now, and what is free there."""
    sizes = {size: model_bytes(run, size) for size in ("teacher", *run.study.models.students)}
    there = run.path if run.path.exists() else Path.cwd()
    now, free = folder_bytes(run.path), shutil.disk_usage(there).free
    said = f"{run.path} holds {_said(now)} now; {_said(free)} are free there."
    if None in sizes.values():
        unknown = ", ".join(size for size, n in sizes.items() if n is None)
        return f"disk: the size of {unknown} is not known before it is there. {said}"
    models = sizes["teacher"] * 2 + sum(sizes[size] for size in run.study.models.students)
    models += sum(sizes[arm.size] for arm in run.study.arms())
    return f"disk: {_said(models)} for the models, {_said(TRAINING * max(sizes.values()))} more while one is trained. {said}"


def model_bytes(run: Run, size: str) -> int | None:
    """Bytes of a model's weights in fp32: computed for one trained from scratch, read off for a local folder, else None."""
    start = run.study.start(size)
    if start.scratch:
        return FP32 * scratch_parameters(start.scratch, run.study.tokenizer.vocabulary or 0)
    if start.keep:
        return model_bytes(run, "teacher")  # at most
    folder = locate(start.path)
    return sum(p.stat().st_size for p in folder.glob("*.safetensors")) or None if folder.is_dir() else None


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
