"""What of a study is finished, as a study of its own: where hours ran out, its tables can be written and published.

No model is made again for it: a model's fingerprint does not depend on which others a study has.
"""

from palimpsest.book.progress import stages_of
from palimpsest.errors import InputError
from palimpsest.study import METHODS, Arm, Run
from palimpsest.study.fingerprints import models_of

FIRST = "first replicate"  # what the run itself is called among its parts


def finished_part(run: Run) -> tuple[Run, dict[str, list[str]]]:
    """The same run folder under a study cut down to what is finished there, and what it lacks of the whole one.

    Replicates are taken from the first on: of every size those in which teacher and `sft` are finished, of every method those of
    them in which it is, all seeds. Tuning and shadow models are there as a whole or not at all.

    Returns:
        The run, itself if it is finished; and part of the run ("first replicate", "replicate1", "tuning", ...) -> models that are wanted and not in it.

    Raises:
        InputError: no size has its teacher and its `sft` in the first replicate; or the sizes without them decide what the data are.
    """
    study, replicates = run.study, run.replicates()
    done = [{arm for arm in part.study.everyone() if _is_finished(part, arm)} for part in replicates]
    bases = [Arm("teacher", "none"), Arm("teacher", "sft")]
    sizes, further, fewer = {}, {}, {}
    for size in study.models.students:
        sizes[size] = _leading(done, [*bases, Arm(size, "none"), *_seeds(study, size, "sft")])
        found = {m: min(_leading(done, _seeds(study, size, m)), sizes[size]) for m in study.methods_of(size)}
        further[size] = [method for method, count in found.items() if count and method != "sft"]
        for method in further[size]:
            if found[method] < sizes[size]:
                fewer[method] = min(fewer.get(method, found[method]), found[method])
    for method, other in ((m, METHODS[m].leave_out) for size in further for m in further[size]):
        if other in fewer:  # it reads what the other recites
            fewer[method] = min(fewer.get(method, fewer[other]), fewer[other])
    sizes = {size: count for size, count in sizes.items() if count}
    if not sizes:
        raise InputError(
            f"{run.path} has no size whose teacher and plain fine-tuning (sft) are finished in the first replicate; wanted one at least, "
            f"since every student is held against them: make book STUDY=studies/{study.name}.yaml goes on where it was"
        )
    whole = {name: all(_is_finished(part, arm) for arm in part.study.everyone()) for name, part in run.parts().items()}
    shadows = [there for name, there in whole.items() if name.startswith("shadow")]
    changes = {
        "replicates": max(sizes.values()),
        "models": study.models.model_copy(update={"students": {s: study.models.students[s] for s in sizes}}),
        "methods": ["sft"],
        "methods_by_size": {size: further[size] for size in sizes},
        "replicates_by_size": sizes,
        "replicates_by_method": fewer,
        "tuning": study.tuning if whole.get("tuning") else None,
        "shadows": study.shadows if shadows and all(shadows) else None,
    }
    part = Run(study.model_copy(update=changes), run.path)
    if part.fingerprints["data"] != run.fingerprints["data"]:
        others = ", ".join(size for size in study.models.students if size not in sizes)
        raise InputError(
            f"{others}: not finished, and without it the records would be others, since its model's context limits their length; wanted "
            f"its plain fine-tuning (sft) at least: make book STUDY=studies/{study.name}.yaml goes on where it was"
        )
    missing = _missing(run, part)
    return (part, missing) if missing else (run, {})


def _missing(run: Run, part: Run) -> dict[str, list[str]]:
    there, out = {"": part, **part.parts()}, {}
    for name, wanted in {"": run, **run.parts()}.items():
        kept = {arm.name for arm in there[name].study.everyone()} if name in there else set()
        lacking = [arm.name for arm in wanted.study.everyone() if arm.name not in kept]
        if lacking:
            out[name or FIRST] = lacking
    return out


def _seeds(study, size: str, method: str) -> list[Arm]:
    return [Arm(size, method, seed) for seed in study.seeds]


def _leading(done: list[set[Arm]], wanted: list[Arm]) -> int:
    """In how many replicates, from the first on, every one of these models is finished."""
    return next((i for i, there in enumerate(done) if not there.issuperset(wanted)), len(done))


def _is_finished(part: Run, arm: Arm) -> bool:
    return all(part.finished(stage) for model in models_of(part.study, arm) for stage in stages_of(part, model))
