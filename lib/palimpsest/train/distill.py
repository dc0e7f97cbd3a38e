"""Distillation: TRL's `GKDTrainer`, made right for ragged batches and cheap.

As shipped it pads on the left without positions (wrong for models with learned ones), computes the whole vocabulary at
every position, runs the teacher again in every epoch, and when it trains on samples divides by the references' tokens.
Here the loss is `CompletionTrainer`'s, on hidden states at labelled positions; the teacher's come from disk where its
input never changes (`teacher_cache`). `trl.experimental` promises no stability: this is the only module that imports it.
"""

import itertools
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl.models.utils import unwrap_model_for_generation

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure.forward import check_examples
from palimpsest.measure.generation import decode
from palimpsest.measure.hidden_states import (
    check_output_layer,
    fuse_activations,
    labelled_states,
    output_layer,
    plain_model,
)
from palimpsest.measure.models import context_length
from palimpsest.study.methods import METHODS, Method
from palimpsest.train.completion import (
    CompletionTrainer,
    common_arguments,
    completion_batch,
    sft_trainer,
    with_defaults,
)
from palimpsest.train.losses import Divergence, Teacher
from palimpsest.train.teacher_cache import TeacherCache, open_cache

with warnings.catch_warnings():  # it warns that it is experimental; the version is pinned
    warnings.simplefilter("ignore")
    from trl.experimental.gkd import GKDConfig, GKDTrainer

__all__ = ["DistillTrainer", "distill_trainer", "sft_trainer"]


class DistillTrainer(CompletionTrainer, GKDTrainer):
    """`GKDTrainer` for every method whose loss needs the teacher's distribution.

    The student's own samples for `rollout_steps` optimizer steps are drawn by one call of `generate`, before the first of
    them; a block never crosses an epoch, so a run resumed from an epoch's checkpoint repeats itself.
    """

    def prepare_teacher(self, method: Method, cache: TeacherCache | None, rollout_steps: int) -> None:
        self.method, self.cache, self.rollout_steps = method, cache, rollout_steps
        self.source, self.waiting = None, []

    def teacher_states(self, inputs):
        weight, bias = output_layer(self.teacher_model)
        if self.cache is not None and inputs["source"] == "references":
            states = self.cache.lookup([e.id for e in inputs["examples"]]).to(weight.device, non_blocking=True)
        else:
            with torch.no_grad():
                states = labelled_states(self.teacher_model, inputs["parts"])
        return Teacher(states, weight.detach(), None if bias is None else bias.detach())

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if epoch_iterator is not self.source:
            self.source, self.waiting = epoch_iterator, []
        if not self.waiting:
            self.waiting = self.draw_block(epoch_iterator, num_batches)
        batches = self.waiting.pop(0)
        return batches, self.count(batches)

    def draw_block(self, epoch_iterator, num_batches: int) -> list[list[dict[str, Any]]]:
        """The batches of the next `rollout_steps` optimizer steps, with the student's samples where the method says so."""
        per_step = self.args.gradient_accumulation_steps
        batches = list(itertools.islice(epoch_iterator, num_batches + per_step * (self.rollout_steps - 1)))
        steps = [batches[i : i + per_step] for i in range(0, len(batches), per_step)] or [[]]
        first = self.state.global_step
        own = [b for i, step in enumerate(steps) if self.uses_samples(first + i) for b in step]
        given = [(e, batch) for batch in own for e in batch["examples"]]
        given.sort(key=lambda pair: -len(pair[0].input_ids))  # one order, however the step is split into batches
        drawn = self.sample([e for e, _ in given], first)
        for batch in own:
            mine = [d for d, (_, home) in zip(drawn, given, strict=True) if home is batch]
            batch.update(completion_batch(mine, self.processing_class.pad_token_id, "student"))
        return steps

    def uses_samples(self, step: int) -> bool:
        """Whether optimizer step `step` trains on the student's own text: for "mixed" a coin the seed determines."""
        if self.method.text == "mixed":
            return random.Random(f"text {self.args.seed} {step}").random() < 0.5
        return self.method.samples

    def sample(self, examples: list[Example], step: int) -> list[Example]:
        """The examples with the student's own responses, end-of-text included where it wrote one.

        What is drawn depends on the seed, the step and the weights, and on nothing that ran before.
        """
        if not examples:
            return []
        prompts = [e.input_ids[: e.prompt_length] for e in examples]
        rooms = [context_length(self.model) - len(p) for p in prompts]
        if min(rooms) < 1:
            raise InputError(
                f"A prompt has {max(map(len, prompts))} tokens and the student's context is {context_length(self.model)}, "
                "so no response can be sampled. Shorten the prompts or drop those records (data.max_prompt_tokens)."
            )
        unwrapped = unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs
        )
        with unwrapped as model:
            responses = decode(
                model,
                self.processing_class,
                prompts,
                max_new_tokens=[min(self.args.max_new_tokens, room) for room in rooms],
                do_sample=True,
                temperature=self.args.temperature,
                seed=self.args.seed * 1_000_003 + step,
            )
        return [Example(e.id, p + r, len(p)) for e, p, r in zip(examples, prompts, responses, strict=True)]


class _TeacherHead(nn.Module):
    """What is left of a teacher whose hidden states are cached: its configuration and output layer."""

    def __init__(self, teacher: PreTrainedModel):
        super().__init__()
        self.config = teacher.config
        self.head = teacher.get_output_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        return self.head


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
    check_examples(teacher, examples)
    fuse_activations(teacher)
    check_output_layer(teacher, "teacher")
    cache = None
    if cache_dir is not None and method.text != "student":
        cache = open_cache(cache_dir, teacher, tokenizer, examples)
    config = GKDConfig(**with_defaults({"lmbda": 0.0, "temperature": sampling_temperature, **args}))
    trainer = DistillTrainer(
        teacher_model=teacher if cache is None or method.samples else _TeacherHead(teacher),
        args=config,
        callbacks=list(callbacks),
        **common_arguments(student, examples, tokenizer),
    )
    weight = method.cross_entropy_weight if cross_entropy_weight is None else cross_entropy_weight
    trainer.prepare(Divergence(method.objective, weight, divergence_temperature, square_temperature))
    trainer.prepare_teacher(method, cache, rollout_steps)
    return trainer
