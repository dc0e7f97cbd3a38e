"""Change a model: one trainer for every method of `study.methods`; what is not the method is the same for all.

In: a model and its tokenizer (`measure.models`), examples (`data.encoding`), a study's `Training` section, a method's name; a
frozen teacher where the method compares with one.
Out: the model's folder, `trajectory.csv` and `groups.csv` (quality and memory while it is trained), and facts of what was done.
Open first: `fine_tuning`, then `trainer`; `losses` has the mathematics.
To add a method: 1. its row in `study.methods`; that is all if its text and objective are known. A new objective: 2. its value
and gradient in `losses`; 3. its plain formula in `tests/train/test_losses.py`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(  # a room whole, of which only what is asked for is imported
    __name__,
    submod_attrs={
        "fine_tuning": ["fine_tune"],
        "teacher_text": ["write_teacher_text"],
        "losses": ["summed_loss"],
        "teacher_cache": ["open_cache"],
        "trajectory": ["Trajectory"],
    },
)
