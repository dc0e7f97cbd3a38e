"""The one trainer of every method: TRL's `SFTTrainer` with its loss on hidden states at the labelled positions.

What is not the method is the same for all of them, because one class and one set of arguments serves them: dropout,
precision, data order, padding, logging, checkpoints. Batches are padded on the right with positions from 0, logits and losses
are made at the labelled positions only, means are over exactly the tokens trained on, and every loss is checked.

TRL's stable `DistillationTrainer` does not serve: it trains on the student's own samples only, never on references; it has
no share of cross-entropy, refuses vocabularies padded to different widths, samples and compares at one temperature, and runs
the teacher in every step. Its loss is right and equals ours (0.2047161 at GPT-2's shapes), but off a GPU it projects every
padded position: a step takes 20.1 processor seconds beside 5.0 here, 2.1 with the cache (stock `GKDTrainer` 18.0), and
3,792 MB beside 397 (`benchmarks/distillation.py --parts stock`; one thread, a busy machine). Not measured on a GPU.
"""

import itertools
import logging
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from palimpsest.data.examples import Example, ends_of
from palimpsest.errors import InputError
from palimpsest.measure.forward import (
    check_examples,
    check_output_layer,
    labelled_states,
    output_layer,
    plain_model,
)
from palimpsest.measure.generation import generate
from palimpsest.measure.models import context_length
from palimpsest.measure.speed import speed_up
from palimpsest.study.methods import Method
from palimpsest.study.sections import Training
from palimpsest.train.batches import completion_batch
from palimpsest.train.losses import Divergence, Teacher, summed_loss
from palimpsest.train.teacher_cache import open_cache

log = logging.getLogger(__name__)


def shared_words(tokenizer: PreTrainedTokenizerBase, *models: nn.Module) -> int:
    """Tokens the tokenizer has and every model gives a logit to; rows beyond are padding and enter no loss.

    Raises:
        InputError: a model has fewer.
    """
    wanted = 1 + max(tokenizer.get_vocab().values())
    for model in models:
        if (rows := len(output_layer(model)[0])) < wanted:
            raise InputError(
                f"{type(plain_model(model)).__name__} has {rows} output rows and the tokenizer {wanted} tokens. Distributions "
                "are compared token by token, so student and teacher must both have all of them; choose models that do."
            )
    return wanted


def highest_rate(schedule: torch.optim.lr_scheduler.LambdaLR, steps: int) -> float:
    """The highest learning rate of the `steps` taken, also those before a resume."""
    return max(schedule.base_lrs[0] * schedule.lr_lambdas[0](step) for step in range(max(1, steps)))


class FineTuner(SFTTrainer):
    """Trains a student by one method; call its `train(resume_from_checkpoint=...)`.

    The student's own samples for `settings.rollout_steps` optimizer steps are drawn by one call of `generate`, before the first
    of them; a block never crosses an epoch, so a run resumed from an epoch's checkpoint repeats itself.

    Args:
        student: a causal language model, possibly wrapped by peft.
        tokenizer: the student's and the teacher's; its end-of-text token pads where it has no padding token.
        examples: tokenized records; one listed several times is trained on as often. Samples start from their prompts.
        method: a row of `METHODS`.
        settings: what of them is a method's own: weight of cross-entropy, temperatures, samples.
        args: as `fine_tuning.arguments` makes them.
        teacher: for methods that need one: same tokenizer; always in evaluation mode and in its own dtype.
        cache: folder for the teacher's hidden states on references; None runs the teacher at each step. With a cache and a
            method that reads references only, nothing but the teacher's output layer is kept.

    Raises:
        InputError: records longer than the context or with tokens outside the vocabulary; a model that changes
            its logits after the output layer, or has no logit for a token; a missing teacher; during training, a loss that
            isn't finite or a batch that can't be halved.
    """

    loss_is_scaled_for_ga = True  # divided by the labelled tokens of the whole optimizer step

    def __init__(
        self,
        student: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        method: Method,
        settings: Training,
        args: SFTConfig,
        teacher: PreTrainedModel | None = None,
        cache: str | Path | None = None,
        callbacks: Sequence[TrainerCallback] = (),
    ):
        if method.needs_teacher and teacher is None:
            raise InputError(f"Method {method.label} compares with a teacher's distribution; no teacher was given.")
        models = [student, *([teacher] if method.needs_teacher else [])]
        for model in models:
            check_examples(model, examples)
            speed_up(model)
            check_output_layer(plain_model(model))
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.pad_id = tokenizer.pad_token_id
        super().__init__(
            student,
            args=args,
            data_collator=lambda rows: completion_batch([examples[r["row"]] for r in rows], self.pad_id),
            train_dataset=Dataset.from_dict({"row": list(range(len(examples)))}),
            processing_class=tokenizer,
            callbacks=list(callbacks),
        )
        own = settings.cross_entropy_weight
        weight = method.cross_entropy_weight if own is None else own
        self.divergence = Divergence(method.objective, weight, settings.temperature)
        self.method, self.settings, self.words = method, settings, shared_words(tokenizer, *models)
        self.pieces, self.source, self.waiting = 1, None, []
        self.context = min(map(context_length, models))
        self.teacher = self.cache = self.teacher_layer = None
        if method.needs_teacher:
            self.teacher = plain_model(teacher).to(self.args.device).eval()
            if cache is not None and method.text != "student":
                self.cache = open_cache(cache, self.teacher, examples)
            self.teacher_layer = [t if t is None else t.detach() for t in output_layer(self.teacher, self.words)]
            if self.cache is not None and not method.samples:
                self.teacher = None

    def create_model_card(self, *args, **kwargs) -> None:
        """Write none: a run folder describes its models itself."""

    def floating_point_ops(self, inputs) -> int:
        return 0  # nothing reads it

    def _send_telemetry(self) -> None:
        """Send none: a study of private text tells nobody that it runs."""

    def _save_checkpoint(self, model, trial) -> None:
        """What a resume needs: no copy of the tokenizer, and nothing after the last step, when the model itself is written."""
        if self.state.global_step < self.state.max_steps:
            tokenizer, self.processing_class = self.processing_class, None
            super()._save_checkpoint(model, trial)
            self.processing_class = tokenizer

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        if epoch_iterator is not self.source:
            self.source, self.waiting = epoch_iterator, []
        if not self.waiting:
            self.waiting = self.draw_block(epoch_iterator, num_batches)
        batches = self.waiting.pop(0)
        return batches, sum(b["tokens"] for b in batches)

    def draw_block(self, epoch_iterator, num_batches: int) -> list[list[dict[str, Any]]]:
        """The batches of the next optimizer steps, with the student's samples where the method says so."""
        per_step = self.args.gradient_accumulation_steps
        ahead = per_step * (self.settings.rollout_steps - 1) if self.method.samples else 0
        batches = list(itertools.islice(epoch_iterator, num_batches + ahead))
        steps = [batches[i : i + per_step] for i in range(0, len(batches), per_step)] or [[]]
        first = self.state.global_step
        own = [b for i, step in enumerate(steps) if self.uses_samples(first + i) for b in step]
        given = [(e, batch) for batch in own for e in batch["examples"]]
        given.sort(key=lambda pair: -len(pair[0].input_ids))  # one order, however the step is split into batches
        drawn = self.sample([e for e, _ in given], first)
        for batch in own:
            mine = [d for d, (_, home) in zip(drawn, given, strict=True) if home is batch]
            batch.update(completion_batch(mine, self.pad_id, "student"))
        return steps

    def uses_samples(self, step: int) -> bool:
        """Whether optimizer step `step` trains on the student's own text: for "mixed" a coin the seed determines."""
        if self.method.text == "mixed":
            return random.Random(f"text {self.args.seed} {step}").random() < 0.5
        return self.method.samples

    def sample(self, examples: list[Example], step: int) -> list[Example]:
        """The examples with the student's own responses, end-of-text included where it wrote one.

        What is drawn depends on the seed, the step and the weights, and on nothing that ran before. A response ends before
        a padding row of the vocabulary, which is no token.
        """
        if not examples:
            return []
        prompts = [e.input_ids[: e.prompt_length] for e in examples]
        rooms = [self.context - len(p) for p in prompts]
        if min(rooms) < 1:
            raise InputError(
                f"A prompt has {max(map(len, prompts))} tokens and the context of student and teacher is {self.context}, so no "
                "response can be sampled. Shorten the prompts or drop those records (data.max_prompt_tokens)."
            )
        responses = generate(
            self.model,
            self.processing_class,
            prompts,
            max_new_tokens=[min(self.settings.max_new_tokens, room) for room in rooms],
            do_sample=True,
            temperature=self.settings.sampling_temperature,
            seed=self.args.seed * 1_000_003 + step,
            ends=ends_of(examples, self.processing_class.eos_token_id),
        )
        responses = [list(itertools.takewhile(lambda t: t < self.words, r)) for r in responses]
        return [Example(e.id, p + r, len(p)) for e, p, r in zip(examples, prompts, responses, strict=True)]

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        teacher = self.teacher_states(inputs)
        with self.accelerator.autocast():
            states = labelled_states(model, inputs["parts"])
            layer = output_layer(model, self.words)
            total = summed_loss(self.divergence, states, *layer, inputs["targets"], teacher)
        return total / max(num_items_in_batch, 1)

    def teacher_states(self, inputs: dict[str, Any]) -> Teacher | None:
        """The teacher's side of the loss; cross-entropy has none."""
        if self.teacher_layer is None:
            return None
        weight, bias = self.teacher_layer
        if self.cache is not None and inputs["source"] == "references":
            states = self.cache.lookup([e.id for e in inputs["examples"]]).to(weight.device, non_blocking=True)
        else:
            with torch.no_grad():
                states = labelled_states(self.teacher, inputs["parts"])
        return Teacher(states, weight, bias)

    def training_step(self, model, inputs, num_items_in_batch=None):
        untouched = all(p.grad is None for p in model.parameters())
        loss = self.try_step(model, inputs, num_items_in_batch)
        while loss is None:  # out of memory, whose traceback (and tensors) are gone by now
            rows = -(-len(inputs["examples"]) // self.pieces)
            if not untouched or rows < 2:
                raise InputError(
                    f"{rows} records of up to {len(inputs['examples'][0].input_ids)} tokens do not fit in memory. Use more "
                    "accumulation steps (smaller pieces, same training), gradient checkpointing, or shorter texts."
                )
            model.zero_grad()
            self.pieces *= 2
            log.warning("A batch of %d rows does not fit in memory; from now on each is computed in halves.", rows)
            loss = self.try_step(model, inputs, num_items_in_batch)
        if not math.isfinite(loss.item()):
            raise InputError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1} "
                f"(learning rate {self._get_learning_rate():.2g}): training has diverged, or a model gives such values. "
                "Lower the learning rate, add warm-up, or train in fp32; checkpoints already written are kept."
            )
        self.state.num_input_tokens_seen += sum(len(e.input_ids) for e in inputs["examples"])
        return loss

    def try_step(self, model, inputs, num_items_in_batch):
        """Forward and backward over the parts of a batch: the loss, or None where memory did not suffice."""
        try:
            return sum(SFTTrainer.training_step(self, model, part, num_items_in_batch) for part in self.split(inputs))
        except torch.OutOfMemoryError:
            return None

    def split(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """The batch in `pieces` parts. The loss is a sum over tokens divided by their total, so parts add up exactly."""
        if self.pieces == 1:
            return [inputs]
        examples = inputs["examples"]
        rows = -(-len(examples) // self.pieces)
        parts = [examples[i : i + rows] for i in range(0, len(examples), rows)]
        return [completion_batch(part, self.pad_id, inputs["source"]) for part in parts]
