"""Carry out what a study does beside its first replicate (`study.parts`), a part in one process, going on where it was."""

from palimpsest.book.stages import train_student, train_teacher
from palimpsest.study import Run
from palimpsest.study.parts import is_tuning, rates_tried


def carry_out(run: Run, part: str, what: str) -> None:
    """Train and measure a part's teacher (`what` is "teacher"), or then all its students of a size.

    Args:
        part: a name of `Run.parts`: another replicate, the tuning or a shadow model.
    """
    within = run.parts()[part]
    if what == "teacher":
        train_teacher(within)
        return
    for arm in (arm for arm in within.study.arms() if arm.size == what):
        if not is_tuning(within.study):
            train_student(within, arm)
        for rate in rates_tried(within.study, arm):
            train_student(within, arm, rate)
