"""The stages of a study, in order. Each does nothing when its `run.json` says that it has been done from the same inputs.

`data -> base -> teacher -> teacher text -> student (one per arm)`; a model is measured in the stage that trains it. The
runner, the notebooks and the command line all call these.
"""

import hashlib
from pathlib import Path

import pandas as pd

from palimpsest.data import splits
from palimpsest.data.examples import Example
from palimpsest.data.records import record_ids, training_text
from palimpsest.errors import InputError
from palimpsest.measure import models
from palimpsest.measure.finished import COMPARED, examples_of, letters, load_trained, measure
from palimpsest.measure.prediction import predicted
from palimpsest.measure.results import load_records
from palimpsest.study import Arm, Study, fingerprint
from palimpsest.study.methods import METHODS
from palimpsest.study.runs import Folder, locate, require, stage
from palimpsest.train import teacher_text


def prepare_data(study: Study, run_dir: str | Path) -> pd.DataFrame:
    """Read, check, filter and split the records; train or fetch the tokenizer. Writes `data/`.

    Returns the records, also when they were prepared before.
    """
    folder = Folder.of(run_dir).data
    origin = locate(study.data.source)
    contents = hashlib.sha256(origin.read_bytes()).hexdigest() if origin.exists() else None
    print_ = fingerprint([study.data, study.tokenizer, study.models.teacher, contents])
    with stage(folder, print_, {"data": study.data.model_dump(), "tokenizer": study.tokenizer.model_dump()}) as facts:
        if facts is not None:
            records = splits.read_study_records(study)
            if study.tokenizer.vocabulary:
                # An own vocabulary comes from public text only: one trained on the members would be a leak by itself.
                records = splits.draw_splits(records, study)
                public = records[records["split"] == "public"]
                texts = public["instruction"] + "\n" + public["context"] + "\n" + public["response"]
                tokenizer = models.train_tokenizer(texts, study.tokenizer.vocabulary)
            else:
                start = study.models.teacher
                tokenizer = models.load_tokenizer(start.path, start.trust_remote_code)
            records = splits.fit_lengths(records, study, tokenizer, smallest_context(study))
            records = splits.draw_splits(records, study)
            tokenizer.save_pretrained(folder / "tokenizer")
            records.to_parquet(folder / "records.parquet")
            facts |= {
                "splits": records.groupby("split").size().to_dict(),
                "dropped": records.attrs.get("dropped", {}),
                "cut": records.attrs.get("cut", 0),
                "records_hash": fingerprint(sorted(record_ids(records))),
            }
    return load_records(run_dir)


def smallest_context(study: Study) -> int:
    """The shortest context, in tokens, among the study's models."""
    starts = [study.models.teacher, *study.models.students.values()]
    lengths = [
        s.scratch.context if s.scratch else models.config_context(s.path, s.trust_remote_code)
        for s in starts
        if not s.keep_every
    ]
    return min(lengths)


def train_base(study: Study, size: str, run_dir: str | Path) -> Path:
    """The model of a size before fine-tuning: loaded, cut from the teacher's base, or trained on the public split.

    Writes `models/base-<size>/` (size "teacher" for the teacher's own) and measures it: what a model knows without
    ever having seen a member is the floor of every rate.
    """
    paths, start, name = Folder.of(run_dir), study.start(size), f"base-{size}"
    records, seed = prepare_data(study, run_dir), study.seeds[0]
    settings = study.pretraining(size) if start.scratch else None
    parent = require(train_base(study, "teacher", run_dir), "the teacher's base") if start.keep_every else None
    print_ = fingerprint([_print(paths.data), start, settings, seed, parent and parent["fingerprint"]])
    with stage(paths.model(name), print_, {"start": start.model_dump(), "seed": seed}) as facts:
        if facts is not None:
            from palimpsest.train.fine_tuning import train  # here, not above: TRL takes five seconds to import

            tokenizer = models.load_tokenizer(paths.data / "tokenizer")
            if start.scratch:
                model = models.build_model(start.scratch, tokenizer, seed, settings.dropout).to(
                    models.default_device()
                )
                public = examples_of(
                    study, records[records["split"] == "public"], tokenizer, models.context_length(model)
                )
                whole = [Example(e.id, e.input_ids, 1) for e in public]  # a base model learns prompts as well
                facts |= train(model, tokenizer, whole, settings, paths.model(name), seed=seed)
            else:
                if start.keep_every:
                    model = models.keep_layers(load_trained(run_dir, "base-teacher")[0], start.keep_every)
                else:
                    model = models.load_model(start.path, trust_remote_code=start.trust_remote_code)
                    own = models.load_tokenizer(start.path, start.trust_remote_code)
                    models.check_same_tokenizer(tokenizer, own, size)
                model.save_pretrained(paths.model(name))
                tokenizer.save_pretrained(paths.model(name))
                facts |= {"method": "none"}
            facts |= _describe(model, start.path or ("layers kept" if start.keep_every else "scratch"))
    measure(study, name, run_dir)
    return paths.model(name)


def train_teacher(study: Study, run_dir: str | Path) -> Path:
    """Fine-tune the teacher on the members (the teacher-only canaries among them). Writes `models/teacher/`."""
    paths = Folder.of(run_dir)
    train_base(study, "teacher", run_dir)
    print_ = _teacher_print(study, run_dir)
    with stage(
        paths.model("teacher"), print_, {"training": study.teacher.model_dump(), "seed": study.seeds[0]}
    ) as facts:
        if facts is not None:
            facts |= _train_on_members(
                study, run_dir, "teacher", "teacher", "base-teacher", "sft", study.teacher, study.seeds[0]
            )
    measure(study, "teacher", run_dir)
    return paths.model("teacher")


def _teacher_print(study: Study, run_dir: str | Path) -> str:
    base = _print(Folder.of(run_dir).model("base-teacher"))
    return fingerprint([base, study.teacher, _watched(study), study.seeds[0]])


def _watched(study: Study) -> list[int]:
    """What of the measuring goes into a trajectory; anything else may change without training again."""
    return [study.measure.window, study.measure.trajectory_every]


def _current_teacher(study: Study, run_dir: str | Path) -> str:
    """The teacher's fingerprint, if it was made from today's data and settings.

    Raises:
        InputError: it is not finished, or something it was made from has changed since.
    """
    folder = Folder.of(run_dir).model("teacher")
    found, wanted = _print(folder), _teacher_print(study, run_dir)
    if found != wanted:
        raise InputError(
            f"{folder} was made from other data or settings than the study has now (fingerprint {found}, wanted {wanted}): "
            "run the teacher stage (notebook 02) again, then the students"
        )
    return found


def write_teacher_text(study: Study, run_dir: str | Path) -> Path:
    """The fixed corpus of `seq_kd`: the teacher's answer to every prompt a student is trained on, written once.

    This is sequence-level distillation as defined by Kim and Rush (2016): a fixed data set of teacher outputs, trained on
    with cross-entropy. Writes `teacher_text/records.parquet`; `run.json` holds the share equal to the reference, without
    which a Seq-KD rate can't be read.
    """
    paths, how = Folder.of(run_dir), study.teacher_text
    print_ = fingerprint([_current_teacher(study, run_dir), how])
    with stage(paths.teacher_text, print_, {"teacher_text": how.model_dump()}) as facts:
        if facts is not None:
            records = load_records(run_dir)
            rows = records[(records["split"] == "member") & ~records["teacher_only"]].reset_index(drop=True)
            model, tokenizer = load_trained(run_dir, "teacher")
            examples = examples_of(study, rows, tokenizer)
            rows = teacher_text.write_teacher_text(
                model, tokenizer, rows, examples, how, study.seeds[0], paths.teacher_text, made_from=print_
            )
            facts |= {
                "records": len(rows),
                "same_as_reference": int(rows["same"].sum()),
                "tokens": int(rows["teacher_tokens"].map(len).sum()),
            }
    return paths.teacher_text


def warm_start(study: Study, size: str, seed: int, epochs: int, run_dir: str | Path) -> str:
    """Train (once) the student that warm-started arms begin from: `sft` for a few epochs. Returns its model name."""
    paths, name = Folder.of(run_dir), f"warm-{size}-e{epochs}-s{seed}"
    settings = study.training(size, "sft").model_copy(update={"epochs": epochs, "warm_start_epochs": 0})
    parent = require(train_base(study, size, run_dir), f"base-{size}")
    print_ = fingerprint([parent["fingerprint"], settings, seed])
    with stage(paths.model(name), print_, {"training": settings.model_dump(), "seed": seed}) as facts:
        if facts is not None:
            facts |= _train_on_members(study, run_dir, name, "student", f"base-{size}", "sft", settings, seed)
    return name


def train_student(study: Study, arm: Arm, run_dir: str | Path) -> Path:
    """Train one arm from the base of its size. Writes `models/<arm>/` and measures it.

    Raises:
        InputError: the arm is not in the study, or an earlier stage has not finished.
    """
    paths = Folder.of(run_dir)
    if arm not in study.arms():
        raise InputError(f"{arm.name} is not an arm of {study.name}; it has {', '.join(a.name for a in study.arms())}")
    rule, settings = METHODS[arm.method], study.training(arm.size, arm.method)
    parents = [require(train_base(study, arm.size, run_dir), f"base-{arm.size}")["fingerprint"]]
    if rule.needs_teacher or rule.leave_out:
        parents.append(_current_teacher(study, run_dir))
    if rule.text == "teacher":
        parents.append(require(write_teacher_text(study, run_dir), "the teacher text")["fingerprint"])
    if rule.leave_out:
        first = [Arm(arm.size, name, arm.seed).name for name in dict.fromkeys([rule.leave_out, "sft"])]
        parents += [require(paths.scores / name, f"the stage that trains {name}")["fingerprint"] for name in first]
    start = f"base-{arm.size}"
    if settings.warm_start_epochs:
        start = warm_start(study, arm.size, arm.seed, settings.warm_start_epochs, run_dir)
        parents.append(_print(paths.model(start)))
    print_ = fingerprint([parents, arm.method, settings, _watched(study), arm.seed])
    with stage(paths.model(arm.name), print_, {"training": settings.model_dump(), "seed": arm.seed}) as facts:
        if facts is not None:
            without = set()
            if rule.leave_out:
                without, why = predicted(study, run_dir, Arm(arm.size, rule.leave_out, arm.seed))
                facts |= {"left_out": len(without), "left_out_note": why}
            facts |= _train_on_members(
                study, run_dir, arm.name, "student", start, arm.method, settings, arm.seed, without
            )
    measure(study, arm.name, run_dir)
    return paths.model(arm.name)


def _train_on_members(study, run_dir, name, role, start, method, settings, seed, without=frozenset()) -> dict:
    """Fine-tune `start` on the members, those `without` left out, as `method` says, watching members and non-members."""
    from palimpsest.train.fine_tuning import train

    paths, records, rule = Folder.of(run_dir), load_records(run_dir), METHODS[method]
    model, tokenizer = load_trained(run_dir, start, dropout=settings.dropout)
    context = models.context_length(model)
    rows = training_text(records, role)
    rows = rows[~rows["id"].isin(without)]
    if rule.once:
        rows = rows.drop_duplicates("id")
    examples = examples_of(study, rows, tokenizer, context)
    teacher = cache = None
    if rule.needs_teacher:
        teacher, teacher_tokenizer = load_trained(run_dir, "teacher")
        models.check_same_tokenizer(teacher_tokenizer, tokenizer, name)
        cache = paths.path / "cache" / "teacher"
    if rule.text == "teacher":
        written = pd.read_parquet(paths.teacher_text / "records.parquet").set_index("id")["teacher_tokens"]
        examples = [
            Example(e.id, e.input_ids[: e.prompt_length] + [int(t) for t in written[e.id]], e.prompt_length)
            for e in examples
        ]
    asked = letters(records)
    watch = {s: examples_of(study, asked[asked["split"] == s], tokenizer) for s in COMPARED}
    facts = train(
        model,
        tokenizer,
        examples,
        settings,
        paths.model(name),
        method=method,
        seed=seed,
        watch=watch,
        window=study.measure.window,
        watch_every=study.measure.trajectory_every,
        teacher=teacher,
        cache=cache,
    )
    return {
        **facts,
        **_describe(model, start),
        "teacher_parameters": models.parameter_count(teacher) if teacher else 0,
    }


def _print(folder: Path) -> str:
    return require(folder, f"the stage that writes {folder.name}")["fingerprint"]


def _describe(model, start: str) -> dict:
    return {"start": start, "parameters": models.parameter_count(model), "bytes": model.get_memory_footprint()}
