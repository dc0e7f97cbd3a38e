"""Trainers that are right for ragged batches and cheap: TRL's, with the loss on hidden states at labelled positions.

`GKDTrainer` as shipped pads on the left without positions (wrong for models with learned ones), computes the whole
vocabulary at every position, reruns the teacher each epoch and counts reference tokens when it trains on samples.
What changes here: right padding with positions from 0, completion-only chunked losses (`divergence`), the teacher's
states from disk where its input never changes (`teacher_cache`), and means over exactly the tokens trained on.
`trl.experimental` carries no promise of stability, so this is the only module that imports it.
"""

import itertools
import math
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer
from trl.models.utils import unwrap_model_for_generation

from palimpsest.batches import Example, collate
from palimpsest.divergence import Divergence, Teacher, summed_loss
from palimpsest.errors import InputError
from palimpsest.hidden_states import (
    add_head_loss,
    body_states,
    check_output_layer,
    labelled,
    output_layer,
    plain_model,
)
from palimpsest.methods import METHODS, Method
from palimpsest.teacher_cache import TeacherCache, open_cache

# TRL turns bf16 and gradient checkpointing on by default; here they are asked for. The loss is checked at every step
# (`training_step`), so the trainer need not hide one that isn't a number.
DEFAULTS = {
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_nan_inf_filter": False,
    "remove_unused_columns": False,
    "report_to": "none",
    "max_length": None,
}


class _CompletionTrainer(SFTTrainer):
    """The loss shared by both trainers: a token-weighted mean over the labelled positions of right-padded batches."""

    loss_is_scaled_for_ga = True  # divided by the labelled tokens of the whole optimizer step

    def prepare(self, examples: Sequence[Example], divergence: Divergence) -> None:
        self.examples = examples
        self.divergence = divergence
        check_output_layer(plain_model(self.model), "student")
        add_head_loss(plain_model(self.model))
        body = self.model.num_parameters(exclude_embeddings=True)
        self.floating_point_ops = lambda inputs: 6 * body * inputs["input_ids"].numel()  # counted once, not each step

    def create_model_card(self, *args, **kwargs) -> None:
        """Write none: a run folder describes its models itself."""

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches = list(itertools.islice(epoch_iterator, num_batches))
        return batches, self.count_labels(batches, device)

    def count_labels(self, batches: list[dict[str, Tensor]], device) -> int:
        """Labelled tokens of one optimizer step, over all processes."""
        count = sum(int((b["labels"][:, 1:] >= 0).sum()) for b in batches)
        if self.args.world_size > 1 and self.args.average_tokens_across_devices:
            count = int(self.accelerator.gather(torch.tensor(count, device=device)).sum())
        return count

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        at, labels = labelled(inputs["labels"])
        loss = partial(summed_loss, self.divergence, labels=labels, teacher=self.teacher_states(inputs, at))
        total = model(input_ids=inputs["input_ids"], at=at, head_loss=loss)
        if num_items_in_batch is None:  # evaluation: this batch's own mean
            num_items_in_batch = len(labels)
        elif self.args.average_tokens_across_devices:
            total = total * self.accelerator.num_processes  # data parallelism averages what should be summed
        return total / max(int(num_items_in_batch), 1)

    def teacher_states(self, inputs: dict[str, Any], at: Tensor) -> Teacher | None:
        return None

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = SFTTrainer.training_step(self, model, inputs, num_items_in_batch)
        if not math.isfinite(loss.item()):
            raise InputError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1} "
                f"(learning rate {self._get_learning_rate():.2g}): training has diverged, or a model gives such values. "
                "Lower the learning rate, add warm-up, or train in fp32; checkpoints already written are kept."
            )
        return loss


class CompletionSFTTrainer(_CompletionTrainer):
    """`SFTTrainer` for cross-entropy on tokenized examples."""


class DistillTrainer(_CompletionTrainer, GKDTrainer):
    """`GKDTrainer` for every method whose loss needs the teacher's distribution.

    With the student's own text, the samples for `rollout_steps` optimizer steps are drawn by one call of `generate`,
    at the first of them; a block never crosses an epoch, so a run resumed from an epoch's checkpoint repeats itself.
    """

    def prepare_teacher(self, method: Method, cache: TeacherCache | None, rollout_steps: int) -> None:
        self.method = method
        self.cache = cache
        self.rollout_steps = rollout_steps
        self.source, self.waiting = None, []

    def teacher_states(self, inputs, at):
        weight, bias = output_layer(self.teacher_model)
        if self.cache is not None and inputs["source"] == "references":
            states = self.cache.lookup(inputs["ids"]).to(at.device, non_blocking=True)
        else:
            with torch.no_grad():
                states = body_states(self.teacher_model, inputs["input_ids"]).flatten(0, 1).index_select(0, at)
        return Teacher(states, weight.detach(), None if bias is None else bias.detach())

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if epoch_iterator is not self.source:
            self.source, self.waiting = epoch_iterator, []
        if not self.waiting:
            self.waiting = self.draw_block(epoch_iterator, num_batches)
        batches = self.waiting.pop(0)
        return batches, self.count_labels(batches, device)

    def draw_block(self, epoch_iterator, num_batches: int) -> list[list[dict[str, Any]]]:
        """The batches of the next `rollout_steps` optimizer steps, with the student's samples where the method says so."""
        per_step = self.args.gradient_accumulation_steps
        batches = list(itertools.islice(epoch_iterator, num_batches + per_step * (self.rollout_steps - 1)))
        steps = [batches[i : i + per_step] for i in range(0, len(batches), per_step)] or [[]]
        first = self.state.global_step
        own = [self.uses_samples(first + i) for i in range(len(steps))]
        rows = [b for step, mine in zip(steps, own, strict=True) if mine for b in step]
        if rows:
            samples = iter(self.sample([self.examples[r] for b in rows for r in b["rows"].tolist()], first))
            for batch in rows:
                drawn = list(itertools.islice(samples, len(batch["rows"])))
                batch.update(self.place(collate(drawn, self.processing_class.pad_token_id)), source="student")
        return steps

    def place(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.args.device) for name, tensor in batch.items()}

    def uses_samples(self, step: int) -> bool:
        """Whether optimizer step `step` trains on the student's own text: for "mixed" a coin the seed determines."""
        if self.method.text == "mixed":
            return random.Random(f"text {self.args.seed} {step}").random() < 0.5
        return self.method.samples

    def sample(self, examples: list[Example], step: int) -> list[Example]:
        """The examples with their responses replaced by the student's own, end-of-text included where it wrote one."""
        prompts = [e.input_ids[: e.prompt_length] for e in examples]
        width = max(map(len, prompts))
        config = self.rollout_config(width)
        ids = torch.full((len(prompts), width), config.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        device = self.args.device
        unwrapped = unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs
        )
        # Own generator state: what is drawn depends on the seed, the step and the weights, and on nothing that ran before.
        with unwrapped as model, torch.no_grad(), torch.random.fork_rng(devices=_devices(device)):
            torch.manual_seed(self.args.seed * 1_000_003 + step)
            model.eval()
            out = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
        stops = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        drawn = []
        for example, prompt, tokens in zip(examples, prompts, out[:, width:].tolist(), strict=True):
            end = next((i + 1 for i, token in enumerate(tokens) if token in stops), len(tokens))
            drawn.append(Example(example.id, prompt + tokens[:end], len(prompt)))
        return drawn

    def rollout_config(self, prompt_length: int) -> GenerationConfig:
        context = getattr(self.model.config, "max_position_embeddings", None) or math.inf
        room = min(self.args.max_new_tokens, context - prompt_length)
        if room < 1:
            raise InputError(
                f"The longest prompt has {prompt_length} tokens and the student's context is {context}, so it can't "
                "write a response. Shorten the prompts or drop those records."
            )
        self.generation_config.max_new_tokens = int(room)
        self.generation_config.use_cache = True  # also with gradient checkpointing, which is off while sampling
        return self.generation_config


def _devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


class _Rows:
    """Collator: row numbers to a right-padded batch that remembers its rows and ids."""

    def __init__(self, examples: Sequence[Example], pad_id: int):
        self.examples, self.pad_id = examples, pad_id

    def __call__(self, rows: list[dict[str, int]]) -> dict[str, Any]:
        numbers = [r["row"] for r in rows]
        chosen = [self.examples[i] for i in numbers]
        batch = collate(chosen, self.pad_id)
        return {**batch, "rows": torch.tensor(numbers), "ids": [e.id for e in chosen], "source": "references"}


class _TeacherHead(nn.Module):
    """What is left of a teacher whose hidden states are cached: its configuration and output layer."""

    def __init__(self, teacher: PreTrainedModel):
        super().__init__()
        self.config = teacher.config
        self.head = teacher.get_output_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.head


def _common(student, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The trainer arguments both kinds share; checks what would otherwise fail in the middle of a run."""
    if not examples:
        raise InputError("There is nothing to train on: the list of examples is empty.")
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    tokenizer.pad_token_id = pad_id
    largest = max(max(e.input_ids) for e in examples)
    if largest >= student.config.vocab_size:
        raise InputError(
            f"A record has token {largest} but the student's vocabulary is {student.config.vocab_size}: the tokenizer "
            "isn't the student's. Use the tokenizer the student was made with."
        )
    return {
        "model": student,
        "data_collator": _Rows(examples, pad_id),
        "train_dataset": Dataset.from_dict({"row": list(range(len(examples)))}),
        "processing_class": tokenizer,
    }


def sft_trainer(
    student: PreTrainedModel,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    args: dict[str, Any],
    callbacks: Sequence[TrainerCallback] = (),
) -> CompletionSFTTrainer:
    """A trainer that minimizes the cross-entropy of the labelled tokens; call its `train(resume_from_checkpoint=...)`.

    Args:
        student: a causal language model, possibly wrapped by peft.
        examples: tokenized records; one listed several times is trained on as often.
        tokenizer: the student's; its end-of-text token pads where it has no padding token.
        args: fields of TRL's `SFTConfig`, over `DEFAULTS`.
        callbacks: given to the trainer.

    Raises:
        InputError: no examples, tokens outside the vocabulary, a model that changes its logits after the output layer;
            during training, a loss that isn't finite.
    """
    config = SFTConfig(**{**DEFAULTS, "dataset_kwargs": {"skip_prepare_dataset": True}, **args})
    trainer = CompletionSFTTrainer(args=config, callbacks=list(callbacks), **_common(student, examples, tokenizer))
    trainer.prepare(examples, Divergence())
    return trainer


def distill_trainer(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    method: str | Method,
    args: dict[str, Any],
    cache_dir: str | Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    *,
    cross_entropy_weight: float | None = None,
    divergence_temperature: float = 1.0,
    square_temperature: bool = False,
    sampling_temperature: float = 1.0,
    rollout_steps: int = 1,
) -> DistillTrainer:
    """A trainer for one method of `METHODS` whose loss needs the teacher; call its `train(resume_from_checkpoint=...)`.

    Args:
        student, examples, tokenizer, callbacks: as for `sft_trainer`; the student's own samples start from the examples'
            prompts.
        teacher: same vocabulary and tokenizer. Always used in evaluation mode and its own dtype. With a cache and a method
            that reads references only, nothing but its output layer is kept.
        method: a name in `METHODS`, or a `Method`.
        args: fields of TRL's `GKDConfig`, over `DEFAULTS`; `max_new_tokens` bounds a sample.
        cache_dir: folder for the teacher's hidden states on references; None runs the teacher at each step.
        cross_entropy_weight: overrides the method's.
        divergence_temperature: divides both models' logits inside the divergence, whose value is not multiplied by its
            square unless `square_temperature`.
        sampling_temperature: of the student's samples; the whole distribution is sampled, no top-k or top-p.
        rollout_steps: optimizer steps whose samples are drawn together: 1 is fully on-policy, more is cheaper and makes the
            samples up to `rollout_steps - 1` steps old.

    Raises:
        InputError: as `sft_trainer`; also different vocabularies, or a method that needs no teacher.
    """
    method = METHODS[method] if isinstance(method, str) else method
    if not method.needs_teacher:
        raise InputError(f"Method {method.label} minimizes cross-entropy alone; train it with sft_trainer.")
    teacher = plain_model(teacher).eval()
    sizes = [m.get_output_embeddings().weight.shape[0] for m in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"The student's vocabulary has {sizes[0]} entries and the teacher's {sizes[1]}. Their distributions are "
            "compared entry by entry, so both must use the same tokenizer; choose models that do."
        )
    check_output_layer(teacher, "teacher")
    cache = None
    if cache_dir is not None and method.text != "student":
        cache = open_cache(cache_dir, teacher, tokenizer, examples)
    config = GKDConfig(**{**DEFAULTS, "lmbda": 0.0, "temperature": sampling_temperature, **args})
    trainer = DistillTrainer(
        teacher_model=teacher if cache is None or method.samples else _TeacherHead(teacher),
        args=config,
        callbacks=list(callbacks),
        **_common(student, examples, tokenizer),
    )
    weight = method.cross_entropy_weight if cross_entropy_weight is None else cross_entropy_weight
    trainer.prepare(examples, Divergence(method.objective, weight, divergence_temperature, square_temperature))
    trainer.prepare_teacher(method, cache, rollout_steps)
    return trainer
