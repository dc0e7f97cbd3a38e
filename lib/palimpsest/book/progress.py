"""How far a run is, and how long the rest will take, by what the models finished so far took."""

from statistics import mean

from palimpsest.study import Run
from palimpsest.study.fingerprints import models_of

STARTING = 7.0  # seconds until a stage has imported what it needs, beside another


def say_progress(run: Run, cores: int) -> str:
    """A line: the models finished, and the hours left on so many cores, each model on one of them.

    A model is taken to need as long as the finished ones of its size and method, else of its method, else of its role (`Arm.role`),
    in the other replicates too; a part of another kind is compared with its like. Where none of its role is finished, no hours are said.
    """
    took: dict[tuple, list[float]] = {}
    waiting, done = [], 0
    for name, part in {"": run, **run.parts()}.items():
        sort = "" if name.startswith("replicate") else name.rstrip("0123456789")
        for arm in part.study.everyone():
            keys = [(sort, arm.size, arm.method), (sort, arm.method), (sort, arm.role)]
            for model in models_of(part.study, arm):
                seconds = _seconds(part, model)
                if seconds is None:
                    waiting.append(keys)
                    continue
                done += 1
                for key in keys:
                    took.setdefault(key, []).append(seconds)
    each = [next((mean(took[key]) for key in keys if key in took), None) for keys in waiting]
    if done == 0:
        return f"progress: none of {len(each)} models is done yet"
    if None in each:
        return f"progress: {done} of {done + len(each)} models are done; the time left is known once there is one of each kind"
    hours = sum(STARTING + seconds for seconds in each) / max(1, min(cores, len(each))) / 3600
    minutes = max(1, round(60 * hours))
    left = f"{hours:.1f} hours" if hours >= 1 else f"{minutes} minute{'s' * (minutes > 1)}"
    return f"progress: {done} of {done + len(each)} models are done" + (f"; {left} left" if each else "")


def _seconds(part: Run, model: str) -> float | None:
    """What training and measuring a model took; None until both are done."""
    facts = [part.finished(stage) for stage in stages_of(part, model)]
    return sum(f["seconds"] for f in facts) if all(facts) else None


def stages_of(part: Run, model: str) -> list[str]:
    """The stages that make and measure a model; one of the tuning's grid is only made."""
    return [stage for stage in (f"models/{model}", f"scores/{model}") if stage in part.fingerprints]
