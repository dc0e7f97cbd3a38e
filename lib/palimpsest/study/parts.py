"""What a study carries out beside its first replicate: the other replicates, the tuning, the shadow models.

Each part is a study of its own, with other random numbers and other records, and has a folder of its own in the run.
"""

from palimpsest.study.file import Arm, Study
from palimpsest.study.methods import METHODS

# Of these the chapters show the first replicate alone.
NOT_SHOWN = {"sampling": {}, "left_truncated": [], "approximate": 0}


def parts_of(study: Study) -> dict[str, Study]:
    """The parts by the names of their folders; a part has none. The tuning has a replicate to itself that is not reported."""
    if study.replicate:
        return {}
    alone = {"tuning": None, "shadows": None, "replicates": 1, "measure": study.measure.model_copy(update=NOT_SHOWN)}
    parts = {
        f"replicate{i}": study.model_copy(update={**alone, "replicate": i, **_still(study, i)})
        for i in range(1, study.replicates)
    }
    if study.tuning:
        parts["tuning"] = study.model_copy(update={**alone, "replicate": study.replicates, "tuning": study.tuning})
    shadows = range(study.shadows.models if study.shadows else 0)
    return parts | {f"shadow{i}": study.model_copy(update={**alone, **_shadow(study, i)}) for i in shadows}


def _still(study: Study, replicate: int) -> dict:
    """The sizes and further methods that a replicate has."""
    most = study.replicates_by_size
    sizes = {name: start for name, start in study.models.students.items() if most.get(name, replicate + 1) > replicate}
    most = study.replicates_by_method
    further = {
        size: [method for method in methods if most.get(method, replicate + 1) > replicate]
        for size, methods in study.methods_by_size.items()
    }
    return {"models": study.models.model_copy(update={"students": sizes}), "methods_by_size": further}


def is_tuning(study: Study) -> bool:
    """Whether a study is the part in which the grid is tried."""
    return study.tuning is not None and study.replicate > 0


def rates_tried(study: Study, arm: Arm) -> list[float]:
    """The learning rates an arm is tried at; none but in the tuning."""
    if not is_tuning(study) or METHODS[arm.method].leave_out or arm.method in study.tuning.leave_out:
        return []
    return study.tuning.learning_rates


def _shadow(study: Study, number: int) -> dict:
    """What a shadow model changes: one size and few methods on random parts of one pool of letters, each standing once in the text."""
    how = study.shadows
    letters = {"members": how.members, "halves": True, "non_members": how.non_members, "validation": 0}
    letters |= {"limit": 2 * how.members + how.non_members, "canaries": {}, "coins": 0, "twins": 0}
    path = {"trajectory_every": 1e6, "trajectory_early": [], "trajectory_prompts": 0}
    return {
        "replicate": number + 1,
        "seeds": study.seeds[:1],
        "data": study.data.model_copy(update=letters),
        "models": study.models.model_copy(update={"students": {how.size: study.models.students[how.size]}}),
        "methods": how.methods,
        "methods_by_size": {},
        "measure": study.measure.model_copy(update={**NOT_SHOWN, **path}),
    }
