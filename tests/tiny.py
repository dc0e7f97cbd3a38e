"""A study small enough for a test, written to a file."""

from palimpsest.study import METHODS, Run, load_study, open_run
from palimpsest.study.files import root

TINY = """
extends: {smoke}
name: tiny
replicates: 1
methods: [{methods}]
data: {{public: 40, members: 16, non_members: 16, test: 4}}
models:
  teacher: {{scratch: {{layers: 1, width: 32, heads: 2, context: 192}}}}
  students:
    small: {{scratch: {{layers: 1, width: 16, heads: 2, context: 192}}}}
pretrain: {{epochs: 1}}
teacher: {{epochs: 2}}
student: {{epochs: 2, rollout_steps: 2, max_new_tokens: 8}}
teacher_text: {{max_new_tokens: 8}}
measure: {{trajectory_every: 1, trajectory_early: [], trajectory_prompts: 2, approximate: 4, sampling: {{}}, left_truncated: [8], left_target: 4}}
"""


def write(folder, methods=None, more=""):
    """The study's file; `more` is YAML that comes after it."""
    path = folder / "tiny.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TINY.format(smoke=root() / "studies" / "smoke.yaml", methods=methods or ", ".join(METHODS)) + more)
    return path


def tiny(folder, methods=None, more="") -> Run:
    """Its run in `folder/run`."""
    return open_run(load_study(write(folder, methods, more)), folder / "run")


def changed(run: Run, **sections) -> Run:
    """The same folder under a study in which some keys of some sections are others: `changed(run, teacher={"epochs": 3})`."""
    study = run.study
    parts = {name: getattr(study, name).model_copy(update=keys) for name, keys in sections.items()}
    return Run(study.model_copy(update=parts), run.path)
