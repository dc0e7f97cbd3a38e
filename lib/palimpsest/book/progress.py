"""How far a run is, and how long the rest will take, by what the models finished so far took."""

from statistics import mean

from palimpsest.study import Run
from palimpsest.study.fingerprints import tuned_name
from palimpsest.study.parts import is_tuning, rates_tried

STARTING = 12.0  # seconds until a stage has imported what it needs


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
            for model in _models(part, arm):
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


def _models(part: Run, arm) -> list[str]:
    if is_tuning(part.study) and arm.seed is not None:
        return [tuned_name(arm, rate) for rate in rates_tried(part.study, arm)]
    return [arm.name]


def _seconds(part: Run, model: str) -> float | None:
    """What training and measuring a model took; None until both are done."""
    stages = [stage for stage in (f"models/{model}", f"scores/{model}") if stage in part.fingerprints]
    facts = [part.finished(stage) for stage in stages]
    return sum(f["seconds"] for f in facts) if all(facts) else None
