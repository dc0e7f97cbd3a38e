"""Fine-tuning with differential privacy: DP-SGD (Abadi et al., arXiv 1607.00133) by Opacus.

Every record's gradient is clipped and noise is added to their sum, so what the finished model gives away of any one record
is bounded, whatever the attack: that is what epsilon and delta say. The unit is one row of the training text.
"""

import time
import warnings
from pathlib import Path

import torch
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from opacus.accountants.utils import get_noise_multiplier
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch.nn import functional
from transformers import PreTrainedModel, Trainer, TrainerState, get_scheduler

from palimpsest.data.examples import IGNORED, Example, collate
from palimpsest.errors import InputError
from palimpsest.measure.speed import as_built
from palimpsest.study.files import whole
from palimpsest.study.sections import Training, check_private_settings
from palimpsest.train.trainer import highest_rate
from palimpsest.train.trajectory import Trajectory

RESUMED = ("global_step", "epoch", "num_input_tokens_seen")  # of the trainer's state

# An embedding has no input that needs a gradient; Opacus's hook on it works all the same.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)


def train_private(
    model: PreTrainedModel,
    pad_id: int,
    examples: list[Example],
    settings: Training,
    folder: Path,
    seed: int,
    trajectory: Trajectory | None = None,
) -> dict:
    """Fine-tune `model` in place with AdamW on noisy sums of clipped gradients, one per record.

    A step's records are drawn independently with probability `batch_size / records` (Poisson sampling), as the accounting
    assumes; an epoch is `records / batch_size` steps. The noise is what `settings.privacy.epsilon` takes after all epochs, by
    Renyi accounting. A loss is the mean over a record's labelled tokens. A killed run resumes at its last whole epoch.

    Args:
        pad_id: token used as padding; what it is doesn't matter.
        folder: for checkpoints.

    Returns:
        `steps`, `epochs`, `train_seconds`, `train_loss` (mean over the last epoch's records), `learning_rate` (the highest),
        `precision` and `privacy`: `epsilon` spent, `delta`, `noise_multiplier` (standard deviation over the clipping norm),
        `clip` and `sampling_rate`.

    Raises:
        InputError: settings that DP-SGD can't honour, a module Opacus can't follow, or a loss that isn't finite.
    """
    check_private_settings(settings)
    began, rate = time.perf_counter(), min(1.0, settings.batch_size / len(examples))
    per_epoch = max(1, round(1 / rate))
    epochs = round(settings.epochs)
    delta = settings.privacy.delta or 1 / (2 * len(examples))  # the latter as Li et al., arXiv 2110.05679
    noise = get_noise_multiplier(
        target_epsilon=settings.privacy.epsilon,
        target_delta=delta,
        sample_rate=rate,
        steps=epochs * per_epoch,
        accountant="rdp",
    )
    draw = torch.Generator().manual_seed(seed)
    shake = torch.Generator(device=model.device).manual_seed(seed)
    private = _per_sample(model)
    decayed = set(Trainer.get_decay_parameter_names(None, model))  # the other methods leave norms and biases out
    groups = [
        {"params": [p for n, p in model.named_parameters() if (n in decayed) == decay], "weight_decay": much}
        for decay, much in ((True, settings.weight_decay), (False, 0.0))
    ]
    plain = torch.optim.AdamW(groups, lr=settings.learning_rate)
    name, options = settings.scheduler
    schedule = get_scheduler(name, plain, settings.warmup_steps, epochs * per_epoch, scheduler_specific_kwargs=options)
    optimizer = DPOptimizer(
        plain,
        noise_multiplier=noise,
        max_grad_norm=settings.privacy.clip,
        expected_batch_size=rate * len(examples),
        loss_reduction="mean",
        generator=shake,
    )
    state, losses = TrainerState(max_steps=epochs * per_epoch, epoch=0.0), []
    _resume(folder, state, model, plain, schedule, draw, shake)
    if trajectory:
        trajectory.on_train_begin(None, state, None, model=model)
    while state.global_step < state.max_steps:
        losses = []
        for rows in UniformWithReplacementSampler(
            num_samples=len(examples), sample_rate=rate, generator=draw, steps=per_epoch
        ):
            losses += _step(private, optimizer, [examples[i] for i in rows], examples[0], pad_id, settings)
            schedule.step()
            state.global_step += 1
            state.num_input_tokens_seen += sum(len(examples[i].input_ids) for i in rows)
            if trajectory:
                trajectory.on_step_end(None, state, None, model=model)
        state.epoch = state.global_step / per_epoch
        if state.global_step < state.max_steps:
            _keep(folder, state, model, plain, schedule, draw, shake)
    private.remove_hooks()
    spent = RDPAccountant()
    spent.history = [(noise, rate, state.max_steps)]
    return {
        "steps": state.global_step,
        "epochs": float(epochs),
        "train_seconds": round(time.perf_counter() - began, 3),
        "train_loss": sum(losses) / max(1, len(losses)),
        "learning_rate": highest_rate(schedule, state.global_step),
        "precision": "fp32",
        "privacy": {
            "epsilon": spent.get_epsilon(delta),
            "delta": delta,
            "noise_multiplier": noise,
            "clip": settings.privacy.clip,
            "sampling_rate": rate,
        },
    }


def _per_sample(model: PreTrainedModel) -> GradSampleModule:
    model.config.use_cache = False
    try:
        return GradSampleModule(as_built(model).train())
    except NotImplementedError as error:
        raise InputError(f"Opacus can't follow {type(model).__name__}: {error}. Leave this method out") from None


def _step(private, optimizer, batch: list[Example], stand_in: Example, pad_id: int, settings: Training) -> list[float]:
    """One noisy step; per-record gradients are held for `batch_size / accumulation` records at a time."""
    size, losses = settings.batch_size // settings.accumulation, []
    parts = [batch[i : i + size] for i in range(0, len(batch), size)] or [[]]
    for i, part in enumerate(parts):
        optimizer.signal_skip_step(do_skip=i + 1 < len(parts))
        device = next(private.parameters()).device
        inputs = {k: v.to(device) for k, v in collate(part or [stand_in], pad_id).items()}
        labels = inputs["labels"][:, 1:]
        names = ("input_ids", "attention_mask", "position_ids")
        logits = private(**{n: inputs[n] for n in names}, use_cache=False).logits[:, :-1].float()
        each = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none").sum(1)
        each = each / (labels != IGNORED).sum(1).clamp(min=1)
        each.mean().backward()
        if not part:  # nobody was drawn: the step is noise alone
            for p in private.parameters():
                p.grad_sample = p.grad_sample[:0]
        else:
            losses += each.tolist()
        optimizer.step()
        optimizer.zero_grad()
    if not torch.isfinite(torch.tensor(losses)).all():
        raise InputError(f"a record's loss is {max(losses)}: training has diverged; lower the learning rate")
    return losses


def _keep(folder: Path, state, model, *parts) -> None:
    """A checkpoint that is whole or absent."""
    kept = {"state": {name: getattr(state, name) for name in RESUMED}, "model": model.state_dict()}
    kept["parts"] = [p.get_state() if isinstance(p, torch.Generator) else p.state_dict() for p in parts]
    with whole(folder / "private.pt") as draft:
        torch.save(kept, draft)


def _resume(folder: Path, state, model, *parts) -> None:
    if not (folder / "private.pt").exists():
        return
    kept = torch.load(folder / "private.pt", map_location="cpu", weights_only=True)
    if "state" not in kept:  # of an earlier version, which wrote it otherwise: begin anew
        return
    vars(state).update(kept["state"])
    model.load_state_dict(kept["model"])
    for part, saved in zip(parts, kept["parts"], strict=True):
        part.set_state(saved) if isinstance(part, torch.Generator) else part.load_state_dict(saved)
