"""Trainers that are right for ragged batches and cheap: TRL's, with the loss on hidden states at labelled positions.

`CompletionTrainer` is what cross-entropy (here) and distillation (`distill`) share: right padding with positions from 0,
logits and losses at the labelled positions only, means over exactly the tokens trained on, and a loss that is checked.
"""

import itertools
import logging
import math
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from palimpsest.data.examples import Example, by_length, collate
from palimpsest.errors import InputError
from palimpsest.measure.forward import check_examples
from palimpsest.measure.hidden_states import add_head_loss, check_output_layer, fuse_activations, labelled, plain_model
from palimpsest.train.losses import Divergence, Teacher, summed_loss

log = logging.getLogger(__name__)
# transformers' own use of an option it has renamed; the old name is the one that every supported version knows.
warnings.filterwarnings("ignore", message=r".*gradient_checkpointing` is deprecated", category=FutureWarning)

# TRL turns bf16 and gradient checkpointing on by default; here they are asked for. The loss is checked at every step
# (`training_step`), so the trainer need not hide one that isn't a number.
DEFAULTS = {
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_nan_inf_filter": False,
    "remove_unused_columns": False,
    "report_to": "none",
    "max_length": None,
    "dataloader_pin_memory": torch.cuda.is_available(),
}


# Padded tokens a batch's rows are grouped into, longest first, so that short rows are padded less: enough for the matrix
# products to run at full rate. A fifth less time for a ragged batch, for tiny models and GPT-2 alike.
PART = 768 if not torch.cuda.is_available() else 2**14


def completion_batch(
    examples: list[Example], pad_id: int, source: str = "references", part: int = PART
) -> dict[str, Any]:
    """A batch in the form the loss needs, made on the CPU so that no step waits for a device.

    Returns:
        `parts`, each with right-padded `input_ids` `[rows, longest of them]` and `at` (see `labelled`); `targets`, the labels
        in the same order, part by part; `tokens`, their number; `examples` in that order, longest first; `source`, whose
        text it is ("references" or "student").
    """
    groups = [[examples[i] for i in rows] for rows in by_length(examples, part)]
    batches = [collate(group, pad_id) for group in groups]
    places = [labelled(b["labels"]) for b in batches]
    targets = torch.cat([target for _, target in places])
    return {
        "parts": [{"input_ids": b["input_ids"], "at": at} for b, (at, _) in zip(batches, places, strict=True)],
        "targets": targets,
        "tokens": len(targets),
        "examples": [e for group in groups for e in group],
        "source": source,
    }


class CompletionTrainer(SFTTrainer):
    """`SFTTrainer` on tokenized examples: a token-weighted mean over the labelled positions of right-padded batches."""

    loss_is_scaled_for_ga = True  # divided by the labelled tokens of the whole optimizer step

    def prepare(self, divergence: Divergence) -> None:
        """What the constructor would do with arguments of ours; called once, before training."""
        self.divergence = divergence
        self.pieces = 1
        fuse_activations(self.model)
        check_output_layer(plain_model(self.model), "student")
        add_head_loss(plain_model(self.model))
        body = self.model.num_parameters(exclude_embeddings=True)  # counted once, not at every step
        self.floating_point_ops = lambda inputs: 6 * body * sum(p["input_ids"].numel() for p in inputs["parts"])

    def create_model_card(self, *args, **kwargs) -> None:
        """Write none: a run folder describes its models itself."""

    def _send_telemetry(self) -> None:
        """Send none: a study of private text tells nobody that it runs."""

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches = list(itertools.islice(epoch_iterator, num_batches))
        return batches, self.count(batches)

    def count(self, batches: list[dict[str, Any]]) -> int:
        """Labelled tokens of one optimizer step, over all processes."""
        tokens = sum(b["tokens"] for b in batches)
        if self.args.world_size > 1 and self.args.average_tokens_across_devices:
            tokens = int(self.accelerator.gather(torch.tensor(tokens, device=self.args.device)).sum())
        return tokens

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        teacher = self.teacher_states(inputs)
        loss = partial(summed_loss, self.divergence, labels=inputs["targets"], teacher=teacher)
        total = model(parts=inputs["parts"], head_loss=loss)
        if num_items_in_batch is None:  # evaluation: this batch's own mean
            num_items_in_batch = inputs["tokens"]
        elif self.args.average_tokens_across_devices:
            total = total * self.accelerator.num_processes  # data parallelism averages what should be summed
        return total / max(num_items_in_batch, 1)

    def teacher_states(self, inputs: dict[str, Any]) -> Teacher | None:
        """The teacher's side of the loss; cross-entropy has none."""
        return None

    def training_step(self, model, inputs, num_items_in_batch=None):
        untouched = all(p.grad is None for p in model.parameters())
        loss = self.try_step(model, inputs, num_items_in_batch)
        while loss is None:  # out of memory, whose traceback (and tensors) are gone by now
            rows = -(-len(inputs["examples"]) // self.pieces)
            if not untouched or rows < 2 or self.args.world_size > 1:
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
        examples, pad_id = inputs["examples"], self.processing_class.pad_token_id
        rows = -(-len(examples) // self.pieces)
        parts = [examples[i : i + rows] for i in range(0, len(examples), rows)]
        return [completion_batch(part, pad_id, inputs["source"]) for part in parts]


def with_defaults(args: dict[str, Any]) -> dict[str, Any]:
    """`DEFAULTS` and `args` on top. The order of the records has a seed of its own, so that it does not depend on how often
    the process has drawn random numbers before: a resumed run reads the same batches."""
    return {**DEFAULTS, "data_seed": args.get("seed", 42), **args}


def common_arguments(student, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The trainer arguments both kinds share; checks what would otherwise fail in the middle of a run."""
    if not examples:
        raise InputError("There is nothing to train on: the list of examples is empty.")
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    tokenizer.pad_token_id = pad_id
    check_examples(student, examples)
    return {
        "model": student,
        "data_collator": lambda rows: completion_batch([examples[r["row"]] for r in rows], pad_id),
        "train_dataset": Dataset.from_dict({"row": list(range(len(examples)))}),
        "processing_class": tokenizer,
    }


def sft_trainer(
    student: PreTrainedModel,
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    args: dict[str, Any],
    callbacks: Sequence[TrainerCallback] = (),
) -> CompletionTrainer:
    """A trainer that minimizes the cross-entropy of the labelled tokens; call its `train(resume_from_checkpoint=...)`.

    Args:
        student: a causal language model, possibly wrapped by peft.
        examples: tokenized records; one listed several times is trained on as often.
        tokenizer: the student's; its end-of-text token pads where it has no padding token.
        args: fields of TRL's `SFTConfig`, over `DEFAULTS`.
        callbacks: given to the trainer.

    Raises:
        InputError: no examples; records longer than the context or with tokens outside the vocabulary; a model that changes
            its logits after the output layer; during training, a loss that isn't finite or a batch that can't be halved.
    """
    config = SFTConfig(**with_defaults({"dataset_kwargs": {"skip_prepare_dataset": True}, **args}))
    trainer = CompletionTrainer(
        args=config, callbacks=list(callbacks), **common_arguments(student, examples, tokenizer)
    )
    trainer.prepare(Divergence())
    return trainer
