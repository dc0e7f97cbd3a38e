"""Train one model: base, teacher or student. Every method shares the arguments, the trajectory, the resume and the facts."""

import json
import math
import resource
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from transformers.pytorch_utils import Conv1D
from trl import SFTConfig

from palimpsest.data.examples import Example, goldfish
from palimpsest.errors import InputError
from palimpsest.measure.models import default_device, detect_precision, torch_dtype
from palimpsest.study.files import remove
from palimpsest.study.methods import METHODS, Method
from palimpsest.study.sections import Lora, Training
from palimpsest.train.curves import Curves
from palimpsest.train.trainer import FineTuner, highest_rate
from palimpsest.train.trajectory import Trajectory

# transformers' own use of an option it has renamed; the old name is the one that every supported version knows.
warnings.filterwarnings("ignore", message=r".*gradient_checkpointing` is deprecated", category=FutureWarning)


def arguments(settings: Training, folder: Path, seed: int) -> SFTConfig:
    """The trainer's arguments, the same whatever the method, for one device: the first where several are visible.

    Raises:
        InputError: this process is one of several.
    """
    device = default_device()
    precision = detect_precision(device) if settings.precision == "auto" else settings.precision
    schedule, options = settings.scheduler
    args = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size // settings.accumulation,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=schedule,
        lr_scheduler_kwargs=options,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        # TRL turns these on unless told otherwise, and for a mixture of experts a second loss.
        gradient_checkpointing=settings.gradient_checkpointing,
        bf16=precision == "bf16",
        router_aux_loss_coef=0.0,
        seed=seed,
        # Of its own, else the order depends on the random numbers drawn before: a resumed run reads the same batches.
        data_seed=seed,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # each loss is checked, so none that isn't a number need be hidden
        report_to="none",
        save_strategy="epoch",
        save_total_limit=1,  # the one before it is deleted when this one is whole
        disable_tqdm=True,  # the trajectory prints a line per epoch, alike in a notebook and in a log
    )
    if args.world_size > 1:
        raise InputError(
            f"Training was started in {args.world_size} processes and uses one device: a loss divided by one process's "
            "tokens would be wrong. Start it without torchrun or accelerate; train several arms side by side instead."
        )
    args._n_gpu = min(args.n_gpu, 1)  # transformers would spread a batch over all of them, which TRL refuses
    return args


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: list[Example],
    settings: Training,
    folder: Path,
    *,
    method: str = "sft",
    seed: int = 0,
    watch: Callable[..., Trajectory] | None = None,
    teacher: PreTrainedModel | None = None,
    cache: Path | None = None,
    keep_in: str = "fp32",
    log_to: Sequence[str] = (),
) -> dict[str, Any]:
    """Train, resuming from the last whole checkpoint in `folder`; write model, tokenizer and trajectory there.

    Args:
        examples: training text, already repeated as often as each record is to be seen per epoch.
        watch: makes the trajectory, from the folder and the optimizer steps of an epoch (`functools.partial` of `Trajectory`).
        teacher: needed by the methods that compare with its distribution; used and cached in the dtype it was loaded in.
        cache: folder with the teacher's hidden states on `examples` (methods on reference text).
        keep_in: precision of the written weights: half the disk in bf16, for a model that is only measured, and in bf16.
        log_to: "tensorboard" writes the curves into the folder `tensorboard` of this one, too; a private method's are not.

    Returns:
        dict[str, Any]: Facts for `run.json`, of what was done: `method`, `batches_per_epoch`, `examples_per_epoch`,
        `tokens_per_epoch`, `labelled_tokens_per_epoch`, `steps`, `epochs`, `train_seconds`, `train_loss`, `learning_rate` (the
        highest), `dropout` (`set_dropout`), `precision`, `devices` (type and count), `peak_memory_bytes` (of the device), and of
        every method but a private one `vocabulary_compared` (tokens, padding rows excluded); of a private one `privacy`.

    Raises:
        InputError: no examples, a diverged loss, LoRA targets that the model does not have; what `FineTuner` refuses.
    """
    if not examples:
        raise InputError("no records to train on: the members split is empty")
    rule, checkpoints = METHODS[method], folder / "checkpoints"
    torch.manual_seed(seed)  # the adapters' weights are drawn next
    trainable = with_lora(model, settings.lora) if settings.lora else model
    steps = len(examples) / settings.batch_size
    steps = max(1, round(steps)) if rule.private else math.ceil(steps)  # drawn at random, a batch has no fixed size
    callbacks = [watch(folder, steps_per_epoch=steps)] if watch else []
    if rule.goldfish:
        examples = goldfish(examples, settings.goldfish_drop, settings.goldfish_context)
    facts = {
        "method": method,
        "batches_per_epoch": steps,
        "examples_per_epoch": len(examples),
        "tokens_per_epoch": sum(len(e.input_ids) for e in examples),
        "labelled_tokens_per_epoch": sum(len(e.response_ids) - sum(e.untrained) for e in examples),
        "dropout": set_dropout(trainable, settings.dropout),
    }
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    if rule.private:
        from palimpsest.train.private import train_private  # here, not above: no other method needs Opacus

        pad_id = tokenizer.eos_token_id
        facts |= train_private(trainable, pad_id, examples, settings, checkpoints, seed, *callbacks)
    else:
        if "tensorboard" in log_to:
            callbacks.append(Curves(folder / "tensorboard", *callbacks))
        facts |= _train(trainable, tokenizer, examples, rule, settings, checkpoints, seed, teacher, cache, callbacks)
    device = model.device.type
    on_cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else on_cpu
    facts |= {"devices": {"type": device, "count": 1}, "peak_memory_bytes": peak}
    trained = trainable.merge_and_unload() if settings.lora else trainable
    trained.config.use_cache = True
    trained.to(torch_dtype(keep_in)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    remove(checkpoints)
    return facts


def _train(model, tokenizer, examples, rule: Method, settings, checkpoints, seed, teacher, cache, callbacks) -> dict:
    args = arguments(settings, checkpoints, seed)
    trainer = FineTuner(model, tokenizer, examples, rule, settings, args, teacher, cache, callbacks)
    trainer.remove_callback(PrinterCallback)  # the trajectory prints its own line
    result = trainer.train(resume_from_checkpoint=last_checkpoint(checkpoints))
    return {
        "steps": trainer.state.global_step,
        "epochs": round(trainer.state.epoch, 3),
        "train_seconds": round(result.metrics["train_runtime"], 3),
        "train_loss": result.training_loss,
        "learning_rate": highest_rate(trainer.lr_scheduler, trainer.state.global_step),
        "precision": "bf16"
        if trainer.args.bf16
        else str(model.dtype).removeprefix("torch.").replace("float32", "fp32"),
        "vocabulary_compared": trainer.words,
    }


def set_dropout(model: torch.nn.Module, rate: float | None) -> float | list[float]:
    """Set every dropout rate that the model's layers use; None leaves them. A configuration names only some of them.

    Returns:
        The rate in force afterwards, or the lowest and highest where layers differ; 0 for a model without dropout.

    Raises:
        InputError: a rate above 0 for a model that has no dropout.
    """
    found = set()
    for layer in model.modules():
        names = [n for n, v in vars(layer).items() if "dropout" in n and isinstance(v, float)]
        names += ["p"] if isinstance(layer, torch.nn.Dropout) else []
        for name in names:
            if rate is not None:
                setattr(layer, name, rate)
            found.add(float(getattr(layer, name)))
    if rate and not found:
        raise InputError(f"dropout {rate}: {type(model).__name__} has no dropout to set; leave it out of the settings")
    low, high = min(found, default=0.0), max(found, default=0.0)
    return low if low == high else [low, high]


def with_lora(model: PreTrainedModel, lora: Lora) -> torch.nn.Module:
    """Wrap the model with low-rank adapters (peft).

    Raises:
        InputError: a target module does not exist; the model's linear layers are listed.
    """
    from peft import LoraConfig, get_peft_model

    transposed = any(isinstance(module, Conv1D) for module in model.modules())  # as GPT-2 keeps its weights
    how = {"target_modules": lora.targets, "task_type": "CAUSAL_LM", "fan_in_fan_out": transposed}
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, **how)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        names = {n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)}
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
