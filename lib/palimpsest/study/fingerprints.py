"""What every stage's result depends on, in one place: the fingerprints that decide what is stale.

A stage's fingerprint is made of the settings that can change its result, the content of the files it reads, and the
fingerprints of the stages before it. Snakemake is given these values as its rules' parameters, and a stage compares the same
ones with what lies in its folder (`runs.run_once`), so the two can't disagree.

What costs seconds, tables and pages, depends on the library's code too, or an update would leave its old sentences in a finished
run. Models and scores do not, or a corrected sentence would train them all again: their `run.json` says which commit made them.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from palimpsest.study.file import Arm, Study
from palimpsest.study.files import file_digest, files_of, locate
from palimpsest.study.methods import METHODS, Method
from palimpsest.study.parts import is_tuning, parts_of, rates_tried
from palimpsest.study.sections import Start, Training

LARGE = 1 << 26  # bytes; of a larger file in a model's folder, size and time of change stand for its content
OF_DIVERGENCE = {"temperature", "cross_entropy_weight"}
OF_SAMPLES = {"sampling_temperature", "max_new_tokens", "rollout_steps"}
OF_GOLDFISH = {"goldfish_drop", "goldfish_context"}
# The method that heals a cut model: of all that compare with a teacher on given text, the best quality.
HEALED_BY = "fkl"
SINCE = {"min_response_tokens"}  # keys younger than finished runs, which must not go stale where nobody gives one
START = {"warm_start_epochs"}  # known by the stage that is begun from
OF_TABLES = ("study", "data", "measure", "chapters")  # the rooms whose code the tables are made by
OF_PAGES = (*OF_TABLES, "train", "book")  # those that a page of a run shows something of


def fingerprint(value: Any) -> str:
    """16 hex digits that change when `value` (pydantic models, dictionaries, lists, numbers) does."""
    text = json.dumps(value, sort_keys=True, default=lambda v: v.model_dump() if isinstance(v, BaseModel) else str(v))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def code_of(rooms: tuple[str, ...]) -> str:
    """What the library's modules in these rooms say, as 16 hex digits."""
    library = Path(__file__).parents[1]
    files = [path for room in rooms for path in sorted((library / room).rglob("*.py"))]
    return fingerprint([[path.relative_to(library).as_posix(), file_digest(path)] for path in files])


def fingerprints(study: Study) -> dict[str, str]:
    """Stage (its folder in the run) -> fingerprint, of all stages in their order, and of the `pages` made from the tables."""
    done: dict[str, str] = {}

    def stage(name: str, *inputs: Any, after: tuple[str, ...] = ()) -> None:
        done[name] = fingerprint([*inputs, [done[parent] for parent in after]])

    # What of the measuring goes into a trajectory; the rest may change without training again.
    path = {"trajectory_every", "trajectory_early", "trajectory_prompts"}
    watched = study.measure.model_dump(include={*path, "window", "precision"})
    measuring = study.measure.model_dump(exclude={*path, "window"})
    first, plain = study.seed(), METHODS["sft"]
    stage(
        "data", _data(study), study.replicate, _content(study.data.source), _tokenizer(study), _shortest_context(study)
    )
    for size in ("teacher", *study.models.students):
        start = study.start(size)
        parents = ("data", "models/base-teacher") if start.keep else ("data",)
        settings = relevant(study.pretraining(size), plain) if start.scratch else None
        if start.keep and study.heal:
            settings = relevant(study.heal, METHODS[HEALED_BY])
        seed = first if settings else None
        stage(f"models/base-{size}", start, _content(start.path), settings, seed, after=parents)
    stage("models/teacher", relevant(study.teacher, plain), watched, first, after=("models/base-teacher",))
    how = study.teacher_text
    unread = {"beams"} if how.decode != "beam" else set()
    unread |= {"temperature"} if how.decode != "sample" else set()
    written = [how.model_dump(exclude=unread), first if how.decode == "sample" else None]
    stage("teacher_text", written, after=("models/teacher",))
    for arm in study.everyone():
        if arm.seed is None:
            stage(f"scores/{arm.name}", measuring, after=(f"models/{arm.name}",))
    # An arm that leaves records out reads the scores of another one, whatever their order in the file.
    for arm in sorted(study.arms(), key=lambda a: METHODS[a.method].leave_out is not None):
        rule, settings = METHODS[arm.method], study.training(arm.size, arm.method)
        warm = f"models/{warm_name(arm, settings.warm_start_epochs)}"
        if settings.warm_start_epochs and warm not in done:
            own = relevant(study.training(arm.size, "sft"), plain) | {"epochs": settings.warm_start_epochs}
            stage(warm, own, watched, study.seed(arm.seed), after=(f"models/base-{arm.size}",))
        parents = [warm if settings.warm_start_epochs else f"models/base-{arm.size}"]
        parents += ["models/teacher"] if rule.needs_teacher or rule.leave_out else []
        parents += ["teacher_text"] if rule.text == "teacher" else []
        parents += [f"scores/{a.name}" for a in read_first(arm)]
        row = {k: v for k, v in vars(rule).items() if k not in ("label", "settings")}  # these are the training's
        stage(f"models/{arm.name}", row, relevant(settings, rule), watched, study.seed(arm.seed), after=tuple(parents))
        stage(f"scores/{arm.name}", measuring, after=(f"models/{arm.name}",))
        for rate in rates_tried(study, arm):
            other = relevant(settings.model_copy(update={"learning_rate": rate}), rule)
            stage(f"models/{tuned_name(arm, rate)}", row, other, watched, study.seed(arm.seed), after=tuple(parents))
    everyone = study.everyone()
    beside = [
        {k: v for k, v in fingerprints(part).items() if k not in ("tables", "pages")}
        for part in parts_of(study).values()
    ]
    measured = tuple(f"scores/{a.name}" for a in everyone)
    # Two of the tables hold text of the records, or none: a study that is to show no more of it must lose what it wrote.
    shown = [a.columns() for a in everyone], study.show_secrets
    stage("tables", shown, code_of(OF_TABLES), study.measure.window, beside, after=measured)
    stage("pages", {**study.model_dump(exclude={"train"}), "data": _data(study)}, code_of(OF_PAGES), after=("tables",))
    return done


def relevant(settings: Training, rule: Method) -> dict[str, Any]:
    """The training settings that a method reads; the others may change without training it again."""
    unread = START | (set() if rule.needs_teacher else OF_DIVERGENCE) | (set() if rule.samples else OF_SAMPLES)
    unread |= (set() if rule.goldfish else OF_GOLDFISH) | (set() if rule.private else {"privacy"})
    return settings.model_dump(exclude=unread)


def read_first(arm: Arm) -> list[Arm]:
    """The arms whose scores decide which records this one leaves out; none for most methods."""
    other = METHODS[arm.method].leave_out
    return [Arm(arm.size, method, arm.seed) for method in dict.fromkeys([other, "sft"])] if other else []


def warm_name(arm: Arm, epochs: int) -> str:
    """The student that a warm-started arm begins from: `sft` of its size and seed after so many epochs."""
    return f"warm-{arm.size}-e{epochs}-s{arm.seed}"


def tuned_name(arm: Arm, rate: float) -> str:
    """The student of an arm at one learning rate of the grid."""
    return f"{arm.name}-lr{rate:g}"


def models_of(study: Study, arm: Arm) -> list[str]:
    """What is trained for an arm: a model of its name, or of a student in the tuning one at each learning rate."""
    if is_tuning(study) and arm.seed is not None:
        return [tuned_name(arm, rate) for rate in rates_tried(study, arm)]
    return [arm.name]


def _data(study: Study) -> dict[str, Any]:
    """The section `data`, without keys of `SINCE` that are not given."""
    return {name: value for name, value in study.data.model_dump().items() if value is not None or name not in SINCE}


def _tokenizer(study: Study) -> Any:
    """An own vocabulary, or whose is taken."""
    if study.tokenizer.vocabulary:
        return study.tokenizer
    teacher = study.models.teacher
    return [teacher.path, teacher.revision, teacher.trust_remote_code, _content(teacher.path)]


def _shortest_context(study: Study) -> list[Any]:
    """What limits the length of a record: the shortest context of the models made here, and the configurations of the others."""
    starts = [study.models.teacher, *study.models.students.values()]
    made = min((s.scratch.context for s in starts if s.scratch), default=None)
    return [made, [_configuration(s) for s in starts if s.path]]


def _configuration(start: Start) -> list[Any]:
    file = locate(start.path) / "config.json"
    return [start.path, start.revision, _file(file) if file.is_file() else None]


def _content(source: str | None) -> Any:
    """What a local file, folder or pattern of files holds; None for a hub id, which its name and revision stand for."""
    if not source:
        return None
    path = locate(source)
    if path.is_file():
        return _file(path)
    held = [[name, _file(file)] for name, file in files_of(source)]
    return held if path.exists() else held or None


def _file(path: Path) -> str:
    stat = path.stat()
    if stat.st_size > LARGE and path.suffix not in (".jsonl", ".json", ".csv", ".parquet"):
        return f"{stat.st_size} {stat.st_mtime_ns}"
    return file_digest(path)
