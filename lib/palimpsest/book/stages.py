"""The stages of a study that read private text, in order (`bases` has those before). Each does nothing when its `run.json` says
that it has been done from the same inputs.

`data -> base -> teacher -> teacher text -> student (one per arm) -> tables`; a model is measured in the stage that trains it.
The runner, the notebooks and the command line all call these, with a run (`study.open_run`). What a stage's result depends on
is written down in `study.fingerprints` alone.
"""

from functools import partial
from pathlib import Path

import pandas as pd

from palimpsest import measure, train
from palimpsest.book.bases import about, describe_model, train_base
from palimpsest.data.examples import Example
from palimpsest.data.records import training_rows
from palimpsest.data.splits import load_records
from palimpsest.errors import InputError
from palimpsest.measure.read_back import examples_of, load_scores, tokenizer_of
from palimpsest.study import METHODS, Arm, Run, run_once
from palimpsest.study.fingerprints import read_first, tuned_name, warm_name
from palimpsest.study.parts import is_tuning, rates_tried

WATCHED = ("member", "teacher_only", "non_member", "validation", "twin")


def train_teacher(run: Run) -> Path:
    """Fine-tune the teacher on the members (the teacher-only canaries among them). Writes `models/teacher/`."""
    study, seed = run.study, run.study.seed()
    train_base(run, "teacher")
    with run_once(run, "models/teacher", {"training": study.teacher.model_dump(), "seed": seed}) as facts:
        if facts is not None:
            arm = Arm("teacher", "sft")
            facts |= about(arm) | _train_on_members(run, "teacher", arm, "base-teacher", study.teacher)
    measure.measure_model(run, "teacher")
    return run.model("teacher")


def prepare_teacher_text(run: Run) -> Path:
    """The fixed corpus of `seq_kd`: the teacher's answer to every prompt a student is trained on, written once.

    This is sequence-level distillation as defined by Kim and Rush (2016): a fixed data set of teacher outputs, trained on
    with cross-entropy. Writes `teacher_text/records.parquet`; `run.json` holds the share equal to the reference, without
    which a Seq-KD rate can't be read.
    """
    how = run.study.teacher_text
    run.require("models/teacher")
    with run_once(run, "teacher_text", {"teacher_text": how.model_dump()}) as facts:
        if facts is not None:
            rows = training_rows(load_records(run), "student").drop_duplicates("id").reset_index(drop=True)
            model, tokenizer = measure.load_trained(run, "teacher")
            examples = examples_of(run.study, rows, tokenizer)
            made_from, seed = run.fingerprints["teacher_text"], run.study.seed()
            rows = train.write_teacher_text(model, tokenizer, rows, examples, how, seed, run.teacher_text, made_from)
            facts |= {
                "records": len(rows),
                "same_as_reference": int(rows["same"].sum()),
                "tokens": int(rows["teacher_tokens"].map(len).sum()),
            }
    return run.teacher_text


def warm_start(run: Run, arm: Arm, epochs: int) -> str:
    """Train (once) the student that warm-started arms begin from: `sft` for a few epochs. Returns its model name."""
    study, name = run.study, warm_name(arm, epochs)
    settings = study.training(arm.size, "sft").model_copy(update={"epochs": epochs, "warm_start_epochs": 0})
    with run_once(run, f"models/{name}", {"training": settings.model_dump(), "seed": study.seed(arm.seed)}) as facts:
        if facts is not None:
            sft = Arm(arm.size, "sft", arm.seed)
            facts |= about(sft) | _train_on_members(run, name, sft, f"base-{arm.size}", settings)
    return name


def train_student(run: Run, arm: Arm, rate: float | None = None) -> Path:
    """Train one arm from the base of its size. Writes `models/<arm>/` and measures it.

    Args:
        rate: a learning rate of the tuning grid, tried instead of the arm's own; of that model only the quality on validation
            records is looked at, while it is trained.

    Raises:
        InputError: the arm is not in the study, or an earlier stage has not finished.
    """
    study = run.study
    if arm not in study.arms():
        raise InputError(f"{arm.name} is not an arm of {study.name}; it has {', '.join(a.name for a in study.arms())}")
    rule, settings, start = METHODS[arm.method], study.training(arm.size, arm.method), f"base-{arm.size}"
    train_base(run, arm.size)
    if rule.needs_teacher or rule.leave_out or rule.text == "teacher":
        run.require("models/teacher")
    if rule.text == "teacher":
        prepare_teacher_text(run)
    for other in read_first(arm):
        run.require(f"scores/{other.name}")
    if settings.warm_start_epochs:
        start = warm_start(run, arm, settings.warm_start_epochs)
    name = arm.name
    if rate is not None:
        name, settings = tuned_name(arm, rate), settings.model_copy(update={"learning_rate": rate})
    with run_once(run, f"models/{name}", {"training": settings.model_dump(), "seed": study.seed(arm.seed)}) as facts:
        if facts is not None:
            without, why = left_out(run, arm) if rule.leave_out else (frozenset(), "")
            if rule.leave_out:
                facts |= {"left_out": len(without), "left_out_note": why}
            facts |= about(arm) | _train_on_members(run, name, arm, start, settings, without)
    if rate is None:
        measure.measure_model(run, name)
    return run.model(name)


def carry_out(run: Run, part: str, what: str) -> None:
    """Train and measure the teacher of a part (`what` is "teacher"), or then all its students of a size, in one process.

    Args:
        part: a name of `Run.parts`: another replicate, the tuning or a shadow model.
    """
    within = run.parts()[part]
    if what == "teacher":
        train_teacher(within)
    for arm in (arm for arm in within.study.arms() if arm.size == what):
        for rate in rates_tried(within.study, arm) if is_tuning(within.study) else [None]:
            train_student(within, arm, rate)


def left_out(run: Run, arm: Arm) -> tuple[set[str], str]:
    """Members that a student of this size is predicted to recite with a probability of one half or more; and why there are
    none, if so.

    After Borkar et al. (arXiv 2601.15394): the method `leave_out` is trained once on all records, and a logistic regression on
    what teacher and baseline make of a record, its size, and what that student recites (`measure.predict`) judges every
    record by folds that do not hold it. Whoever leaves records out this way pays for a first training of the same kind.
    """
    other, baseline = (a.name for a in (read_first(arm)[0], Arm(arm.size, "sft", arm.seed)))
    rows = training_rows(load_records(run), "student").drop_duplicates("id")
    examples = examples_of(run.study, rows, tokenizer_of(run))
    scores = load_scores(run, other).set_index("id").loc[rows["id"]].reset_index()
    recited = measure.recites(scores, examples, run.require("data")["target"], run.study.measure.window).dropna()
    rows = rows[rows["id"].isin(set(recited.index))]
    inputs = measure.features(rows, load_scores(run, "teacher"), load_scores(run, baseline))
    found = measure.predict(inputs, recited.astype(bool))
    return set(found.table.loc[found.table["probability"] >= 0.5, "id"]), found.note


def _train_on_members(run: Run, name: str, arm: Arm, start: str, settings, without=frozenset()) -> dict:
    """Fine-tune `start` on the members, those `without` left out, as the arm's method says, watching all that is measured."""
    study, records, rule = run.study, load_records(run), METHODS[arm.method]
    model, tokenizer = measure.load_trained(run, start)
    rows = training_rows(records, "teacher" if arm.role == "teacher" else "student")
    rows = rows[~rows["id"].isin(without)]
    if rule.once:
        rows = rows.drop_duplicates("id")
    examples = examples_of(study, rows, tokenizer, measure.context_length(model))
    teacher = cache = None
    if rule.needs_teacher:
        teacher, teacher_tokenizer = measure.load_trained(run, "teacher", dtype=settings.precision)
        measure.check_same_tokenizer(teacher_tokenizer, tokenizer, name)
        cache = run.path / "cache" / "teacher"
    if rule.text == "teacher":
        written = pd.read_parquet(run.teacher_text / "records.parquet").set_index("id")["teacher_tokens"]
        examples = [
            Example(e.id, e.input_ids[: e.prompt_length] + [int(t) for t in written[e.id]], e.prompt_length)
            for e in examples
        ]
    how = study.measure
    asked = records[records["split"].isin(("validation",) if is_tuning(study) else WATCHED)]
    watched = measure.Watched(
        asked, examples_of(study, asked, tokenizer), tokenizer, how.window, how.trajectory_prompts
    )
    facts = train.fine_tune(
        model,
        tokenizer,
        examples,
        settings,
        run.model(name),
        method=arm.method,
        seed=study.seed(arm.seed),
        watch=partial(
            train.Trajectory,
            watched=watched,
            every=how.trajectory_every,
            early=how.trajectory_early,
            precision=how.precision,
            only_validation=is_tuning(study),
        ),
        teacher=teacher,
        cache=cache,
        keep_in=how.precision if name == arm.name and arm.seed is not None else "fp32",  # others are begun from
        log_to=study.train.log_to,
    )
    learned_from = {"teacher_parameters": measure.parameter_count(teacher) if teacher else 0}
    return facts | describe_model(run, arm, model, start) | learned_from
