"""Train one model: base, teacher or student. Cross-entropy and distillation share the arguments, trajectory and resume."""

import json
import math
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from palimpsest.data.examples import Example, goldfish
from palimpsest.errors import InputError
from palimpsest.measure.models import default_device, detect_precision
from palimpsest.study.methods import METHODS
from palimpsest.study.runs import remove
from palimpsest.study.sections import Lora, Training
from palimpsest.train.distill import distill_trainer, sft_trainer
from palimpsest.train.trajectory import Trajectory


def arguments(settings: Training, folder: Path, seed: int) -> dict:
    """The trainer's arguments for a `Training` section; a batch is split over accumulation steps and processes."""
    device = default_device()
    precision = detect_precision(device) if settings.precision == "auto" else settings.precision
    schedule, options = settings.scheduler
    return {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.batch_size // settings.accumulation,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": schedule,
        "lr_scheduler_kwargs": options,
        "warmup_steps": settings.warmup_steps,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": precision == "bf16",
        "seed": seed,
        "data_seed": seed,
        "use_cpu": device == "cpu",
        "logging_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,  # if the newest was cut off by a kill, the one before it is whole
        "disable_tqdm": True,  # the trajectory prints a line per epoch, alike in a notebook and in a log
        "report_to": "none",
    }


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    settings: Training,
    folder: Path,
    *,
    method: str = "sft",
    seed: int = 0,
    watch: dict[str, list[Example]] | None = None,
    window: int = 50,
    watch_every: int = 1,
    teacher: PreTrainedModel | None = None,
    cache: Path | None = None,
) -> dict:
    """Train, resuming from the last whole checkpoint in `folder`; write model, tokenizer and trajectory there.

    Args:
        examples: training text, already repeated as often as each record is to be seen per epoch.
        watch: split name -> examples measured before training and after every `watch_every` epochs.
        teacher: needed by the methods that compare with its distribution.
        cache: folder with the teacher's hidden states on `examples` (methods on reference text).

    Returns:
        Facts for `run.json`: steps, epochs, train_seconds, training tokens and labelled tokens per epoch, final loss.

    Raises:
        InputError: no examples, a diverged loss, or LoRA targets that the model does not have.
    """
    if not examples:
        raise InputError("no records to train on: the members split is empty")
    rule, checkpoints = METHODS[method], folder / "checkpoints"
    trainable = with_lora(model, settings.lora) if settings.lora else model
    callbacks = [Trajectory(folder, watch, window, watch_every)] if watch else []
    if rule.goldfish:
        examples = goldfish(examples, settings.goldfish_drop, settings.goldfish_context)
    facts = {
        "method": method,
        "batches_per_epoch": math.ceil(len(examples) / settings.batch_size),
        "examples_per_epoch": len(examples),
        "tokens_per_epoch": sum(len(e.input_ids) for e in examples),
        "labelled_tokens_per_epoch": sum(len(e.response_ids) - sum(e.untrained) for e in examples),
    }
    if rule.private:
        from palimpsest.train.private import train_private  # here, not above: no other method needs Opacus

        found = train_private(trainable, tokenizer.eos_token_id, examples, settings, checkpoints, seed, *callbacks)
        save(trainable, tokenizer, folder)
        return facts | found
    options = arguments(settings, checkpoints, seed)
    if rule.needs_teacher:
        trainer = distill_trainer(
            trainable,
            teacher,
            examples,
            tokenizer,
            method,
            {**options, "max_new_tokens": settings.max_new_tokens},
            cache,
            callbacks,
            cross_entropy_weight=settings.cross_entropy_weight,
            divergence_temperature=settings.temperature,
            sampling_temperature=settings.sampling_temperature,
            rollout_steps=settings.rollout_steps,
        )
    else:
        trainer = sft_trainer(trainable, examples, tokenizer, options, callbacks)
    trainer.remove_callback(PrinterCallback)  # the trajectory prints its own line
    result = trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    save(trainer.accelerator.unwrap_model(trainer.model), tokenizer, folder)
    return facts | {
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch, 3),
        "train_seconds": round(result.metrics["train_runtime"], 3),
        "train_loss": result.training_loss,
    }


def save(trained: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a trained model, low-rank adapters merged, and remove its checkpoints."""
    trained = trained.merge_and_unload() if hasattr(trained, "merge_and_unload") else trained
    trained.config.use_cache = True
    trained.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    remove(folder / "checkpoints")


def with_lora(model: PreTrainedModel, lora: Lora) -> torch.nn.Module:
    """Wrap the model with low-rank adapters (peft).

    Raises:
        InputError: a target module does not exist; the model's linear layers are listed.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM")
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        names = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if type(m).__name__ in ("Linear", "Conv1D")}
        raise InputError(
            f"LoRA targets {lora.targets} do not fit: {error}. This model has {', '.join(sorted(names))}"
        ) from None


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that was written to the end (its `trainer_state.json`, written last, is whole)."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text())
            return str(path)
        except (OSError, json.JSONDecodeError):
            continue
    return None
