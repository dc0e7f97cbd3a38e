"""What a study will take, said before it starts: operations, hours, memory and disk, stage by stage.

What each stage reads and writes is counted from the study's own records; what this machine does in a second is measured on models of
the study's shapes, with random weights, for a few seconds. Good to a factor of two: texts that students write are taken to be as
long as the references, and on a CPU the hours are those of cores that nothing else uses meanwhile.
"""

import math
import os
import time
from dataclasses import dataclass

import pandas as pd
import torch
from transformers import AutoModelForCausalLM

from palimpsest.book.bases import draw_records
from palimpsest.book.checks import FP32, RUNTIME, disk, memory_free, training_memory
from palimpsest.book.progress import STARTING
from palimpsest.book.stages import WATCHED
from palimpsest.data.examples import Example
from palimpsest.data.records import training_rows
from palimpsest.measure import models
from palimpsest.measure.finished import MEASURED
from palimpsest.measure.forward import labelled_states, output_layer
from palimpsest.measure.generation import generate
from palimpsest.measure.layers import cut_config, evenly
from palimpsest.measure.read_back import examples_of
from palimpsest.measure.scoring import score
from palimpsest.measure.speed import speed_up
from palimpsest.study import METHODS, Arm, Run, Study
from palimpsest.study.fingerprints import HEALED_BY, models_of
from palimpsest.study.methods import Method
from palimpsest.study.parts import is_tuning
from palimpsest.study.sections import Training
from palimpsest.train.batches import completion_batch
from palimpsest.train.losses import Divergence, summed_loss

TRIED = 6  # records that speed is measured on, of the middle of the lengths
COLUMNS = ["part", "stage", "training_flops", "measuring_flops", "seconds"]


@dataclass(frozen=True)
class Speed:
    """What one core does with a model in a second: tokens trained on, scored and written; the model's `parameters`; and the bytes that
    a training step holds for every token of its batch."""

    training: float
    scoring: float
    writing: float
    parameters: int
    held: float


@dataclass(frozen=True)
class _Reads:
    """Tokens of a study's records, by what reads them."""

    learned: dict[str, list[int]]  # tokens of every row of an epoch, longest first: of public records, and by role
    answers: int  # of a student's, those of the responses
    prompted: int  # and of the same responses once each: what the teacher writes in its own words
    watched: int  # at every point of a trajectory
    measured: int  # of a finished model
    written: int  # tokens of the texts decoded at every point
    tested: int  # and of a finished model


def estimate(run: Run, cores: int | None = None, gpu_flops: float | None = None) -> list[str]:
    """Lines that say, stage by stage and in total, what the study takes on so many cores (None: all), each arm on one of them; and at
    `gpu_flops` operations a second, where a GPU's rate is stated."""
    cores = cores or len(os.sched_getaffinity(0))
    table, peak = plan(run)
    lines = [f"estimate for {cores} core(s), each stage on one of them; good to a factor of two"]
    for part, rows in table.groupby("part", sort=False):
        stages = rows.groupby("stage", sort=False)[COLUMNS[2:]].sum()
        shown = stages if not part else stages.sum().to_frame("all of it").T
        lines += [f"  {part}" if part else "  first replicate"]
        lines += [f"    {name}: {_said_stage(row)}" for name, row in shown.iterrows()]
    total = table[COLUMNS[2:]].sum()
    wall = max(total["seconds"] / cores, table.groupby("part")["seconds"].max().max())
    lines.append(f"  total: {_said_stage(total)} on one core, {wall / 3600:.1f} hours on {cores}")
    if gpu_flops:
        operations = total["training_flops"] + total["measuring_flops"]
        lines.append(f"  at {gpu_flops:.3g} operations a second: {operations / gpu_flops / 3600:.2f} hours")
    at_once, free = min(cores, len(table)) * peak, memory_free()
    lines.append(f"  memory: {peak / 1e9:.1f} GB at most for one stage, {at_once / 1e9:.1f} GB for {cores} at once")
    if free is not None and at_once > free and models.default_device() == "cpu":
        fits = free // peak
        instead = (
            f"give it {fits} core(s) (make book CORES={fits})" if fits else "use a smaller model, or shorter records"
        )
        lines.append(f"  too little memory: {free / 1e9:.1f} GB are free here; {instead}")
    return [*lines, disk(run)]


def plan(run: Run) -> tuple[pd.DataFrame, int]:
    """A row per model of the study and its parts, and of the teacher's text where a student reads it, `COLUMNS`; and the most bytes of memory that one stage takes."""
    study = run.study
    records, tokenizer = draw_records(study)
    speeds = {size: measure_speed(study, size, records, tokenizer) for size in ("teacher", *study.models.students)}
    rows, peak = [], 0
    for name, part in {"": run, **run.parts()}.items():
        reads = _reads(part.study, draw_records(part.study)[0] if name.startswith("shadow") else records, tokenizer)
        for arm in part.study.everyone():
            peak = max(peak, _memory(part.study, arm, reads, speeds))
            rows += [[name, _stage(arm), *_costs(part.study, arm, reads, speeds)]] * len(models_of(part.study, arm))
        if any(METHODS[arm.method].text == "teacher" for arm in part.study.arms()):
            writing = 2.0 * speeds["teacher"].parameters * reads.prompted
            rows.append([name, "teacher's text", 0.0, writing, STARTING + reads.prompted / speeds["teacher"].writing])
    return pd.DataFrame(rows, columns=COLUMNS), peak


def _stage(arm: Arm) -> str:
    return arm.name.replace("-", " ") if arm.seed is None else f"{arm.size} {arm.method}"


def _reads(study: Study, records: pd.DataFrame, tokenizer) -> _Reads:
    examples = examples_of(study, records, tokenizer)
    tokens = pd.Series([len(e.input_ids) for e in examples], index=records.index)
    answers = pd.Series([len(e.response_ids) for e in examples], index=records.index)
    by_id = tokens.set_axis(records["id"])
    learned = {role: by_id.loc[training_rows(records, role)["id"]] for role in ("teacher", "student")}
    learned["public"] = tokens[records["split"] == "public"]
    asked = ("validation",) if is_tuning(study) else WATCHED
    validation = int((records["split"] == "validation").sum())
    mean = answers.mean()
    return _Reads(
        learned={whose: sorted(found.tolist(), reverse=True) for whose, found in learned.items()},
        answers=int(answers.set_axis(records["id"]).loc[learned["student"].index].sum()),
        prompted=int(answers[records["split"] == "member"].sum()),
        watched=int(tokens[records["split"].isin(asked)].sum()),
        measured=int(tokens[records["split"].isin(MEASURED)].sum()),
        written=int(mean * min(study.measure.trajectory_prompts, validation)),
        tested=int(mean * (study.data.test + 2 * study.measure.approximate)),
    )


def _costs(study: Study, arm: Arm, reads: _Reads, speeds: dict[str, Speed]) -> tuple[float, float, float]:
    """Operations of training and of measuring (2 N for a token read, 4 N more to learn from it), and seconds on one core."""
    speed, teacher = speeds[arm.size], speeds["teacher"]
    rule, settings, whose = _learning(study, arm)
    epoch = sum(reads.learned[whose])
    epochs = _epochs(settings, study) if settings else 0.0
    learned = epoch * epochs
    share = {"student": 1.0, "mixed": 0.5}.get(rule.text, 0.0)
    own = share * learned
    judged = own + (epoch if rule.needs_teacher and share < 1 and settings else 0)
    points = 0
    if settings and arm.method != "none":
        points = 1 + math.ceil(epochs / study.measure.trajectory_every) + len(study.measure.trajectory_early)
    read = points * reads.watched + (0 if is_tuning(study) else reads.measured)
    written = points * reads.written + (0 if is_tuning(study) else reads.tested)
    training = 6 * speed.parameters * learned + 2 * (speed.parameters + teacher.parameters) * own
    training += 2 * teacher.parameters * (judged - own)
    measuring = 2 * speed.parameters * (read + written)
    seconds = STARTING + learned / speed.training + judged / teacher.scoring
    seconds += own * reads.answers / sum(reads.learned["student"]) / speed.writing
    return training, measuring, seconds + read / speed.scoring + written / speed.writing


def _learning(study: Study, arm: Arm) -> tuple[Method, Training | None, str]:
    """How a model learns: by which method, with which settings (None: it learns nothing), and whose records: "public" or a role."""
    if arm.method == "none":
        start = study.start(arm.size)
        settings = study.pretraining(arm.size) if start.scratch else study.heal if start.keep else None
        return METHODS[HEALED_BY if start.keep else "sft"], settings, "public"
    if arm.size == "teacher":
        return METHODS["sft"], study.teacher, "teacher"
    return METHODS[arm.method], study.training(arm.size, arm.method), "student"


def _memory(study: Study, arm: Arm, reads: _Reads, speeds: dict[str, Speed]) -> int:
    """The most bytes of memory of a stage: weights, gradients and the optimizer's moments, the teacher beside them, and what a step on
    the longest records holds until its backward pass."""
    rule, settings, whose = _learning(study, arm)
    beside = speeds["teacher"].parameters if rule.needs_teacher else 0
    if not settings:
        return RUNTIME + FP32 * (beside + speeds[arm.size].parameters)
    rows = settings.batch_size // settings.accumulation
    step = speeds[arm.size].held * sum(reads.learned[whose][:rows])
    return training_memory(speeds[arm.size].parameters, beside) + int(step)


def _epochs(settings: Training, study: Study) -> float:
    if not settings.max_steps:
        return settings.epochs + settings.warm_start_epochs
    rows = sum(copies * count for copies, count in study.data.doses.items())
    return min(settings.epochs, settings.max_steps * settings.batch_size / rows)


def measure_speed(study: Study, size: str, records: pd.DataFrame, tokenizer) -> Speed:
    """What one core of this machine does with a model of this size's shape: a training step, scoring and writing, each timed once
    after a first round that isn't."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = speed_up(_shape(study, size, tokenizer).to(models.default_device()))
        settings = study.teacher if size == "teacher" else study.student
        examples = examples_of(study, records[records["split"] == "member"], tokenizer)
        middle = sorted(examples, key=lambda e: len(e.input_ids))[len(examples) // 2 :][:TRIED]
        tokens = sum(len(e.input_ids) for e in middle)
        held = _held(model, middle, settings) / tokens
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
        trained = _time(lambda: _step(model, optimizer, middle, settings))
        model.eval().to(models.torch_dtype(study.measure.precision))
        scored = _time(lambda: score(model, middle))
        prompts = [e.input_ids[: e.prompt_length] for e in middle]
        limits = [len(e.response_ids) for e in middle]
        wrote = _time(lambda: generate(model, tokenizer, prompts, limits))
        return Speed(tokens / trained, tokens / scored, sum(limits) / wrote, models.parameter_count(model), held)
    finally:
        torch.set_num_threads(threads)


def _held(model, examples: list[Example], settings: Training) -> int:
    """Bytes that a step's graph keeps for its backward pass, weights not counted: each of its tensors once."""
    weights, kept = {p.data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        if tensor.data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _loss(model, examples, settings)
    return sum(kept.values())


def _step(model, optimizer, examples: list[Example], settings: Training) -> None:
    """Forward, backward and update, as a step of plain fine-tuning computes them."""
    _loss(model, examples, settings).backward()
    optimizer.step()
    optimizer.zero_grad()


def _loss(model, examples: list[Example], settings: Training) -> torch.Tensor:
    narrow = models.torch_dtype(settings.precision) == torch.bfloat16
    batch = completion_batch(examples, pad_id=0)
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=narrow):
        states = labelled_states(model.train(), batch["parts"])
        return summed_loss(Divergence(), states, *output_layer(model), batch["targets"])


def _time(function) -> float:
    """Seconds, after a first round; on a CPU those of this process alone, so that a busy machine gives the same estimate."""
    clock = time.perf_counter if models.default_device() == "cuda" else time.process_time
    function()
    began = clock()
    function()
    return clock() - began


def _shape(study: Study, size: str, tokenizer):
    """A model of the size's shape, its weights random: none is read from disk."""
    start = study.start(size)
    if start.scratch:
        return models.build_model(start.scratch, tokenizer, seed=0)
    origin = study.models.teacher if start.keep else start
    if origin.scratch:
        config = models.build_model(origin.scratch, tokenizer, seed=0).config
    else:
        config = models.load_config(origin.path, origin.trust_remote_code, origin.revision)
    if start.keep:
        config, _ = cut_config(config, evenly(config.get_text_config().num_hidden_layers, start.keep))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _said_stage(row: pd.Series) -> str:
    minutes = row["seconds"] / 60
    took = f"{minutes / 60:.1f} hours" if minutes > 120 else f"{minutes:.1f} minutes"
    return f"{row['training_flops']:.2e} FLOP of training, {row['measuring_flops']:.2e} of measuring, {took}"
