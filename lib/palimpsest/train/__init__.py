"""Change a model: one trainer for every method of `study.methods`; what is not the method is the same for all.

In: a model and its tokenizer (`measure.load_model`), examples (`data.encode`), a study's `Training` section, a method's name; a
frozen teacher where the method compares with one.
Out: the model's folder, `trajectory.csv` and `groups.csv` (quality and memory while it is trained), and facts of what was done.
Open first: `fine_tuning`, then `trainer`; `losses` has the mathematics.
To add a method: 1. its row in `study.methods`; that is all if its text and objective are known. A new objective: 2. its value
and gradient in `losses`; 3. its plain formula in `tests/train/test_losses.py`.
"""

import importlib

_HOMES = {
    "fine_tune": "fine_tuning",
    "write_teacher_text": "teacher_text",
    "summed_loss": "losses",
    "open_cache": "teacher_cache",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """Import on first use: TRL takes five seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
