"""A causal model's forward pass with its output layer at the labelled places only, for scoring and for training.

The model's own forward runs, and a hook shows its output layer only what is asked for (`output_states`): the hidden states
before the labelled tokens are caught there, and the logits of prompt and padding never exist. Scoring makes logits of them
chunk by chunk, training a loss, and the teacher's cache stores them. Here are also the checks that model and examples fit.
"""

import functools
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from palimpsest.data.examples import IGNORED, Example, collate
from palimpsest.errors import InputError
from palimpsest.measure.memory import free_memory
from palimpsest.measure.models import context_length

CHUNK = 1 << 25  # logits held at once: 128 MB in fp32

# GPT-2 recommends a mask for padded input; `labelled_states` says why none is needed.
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "may be padded" not in record.getMessage())


def vocabulary_size(model: Any) -> int:
    """Token ids the model has an embedding for."""
    return model.get_input_embeddings().weight.shape[0]


@torch.no_grad()
def check_causal(model: Any) -> None:
    """Raise `InputError` unless `model` predicts each token from those before it alone: no encoder, nothing bidirectional."""
    name = type(model).__name__
    remedy = "Memorization is measured on decoder-only models, loaded with AutoModelForCausalLM."
    if model.config.is_encoder_decoder:
        raise InputError(f"{name} is a sequence-to-sequence model; wanted a decoder-only one. {remedy}")
    if model.get_output_embeddings() is None:
        raise InputError(f"{name} has no output layer over a vocabulary, so it gives no token probabilities. {remedy}")
    ids = torch.arange(8).remainder(vocabulary_size(model)).repeat(2, 1)
    ids[1, -1] = vocabulary_size(model) - 1
    ids = ids.to(_device(model))
    one, other = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, :-1].float()
    if (one - other).abs().max() > (1e-5 if model.dtype == torch.float32 else 1e-2) * one.abs().max():
        raise InputError(f"{name} lets a token see those after it; wanted a causal model, not an encoder. {remedy}")


def check_examples(model: Any, examples: Sequence[Example]) -> None:
    """Raise `InputError` for records that `model` can't take whole: too long, with foreign token ids, with nothing given."""
    limit, words = context_length(model), vocabulary_size(model)
    long = [e for e in examples if len(e.input_ids) > limit]
    if long:
        raise InputError(
            f"{len(long)} of {len(examples)} records are longer than the model's context of {limit} tokens (longest"
            f" {max(len(e.input_ids) for e in long)} tokens, first {long[0].id}). Nothing is cut silently: leave them out or"
            " cut them into windows."
        )
    for example in examples:
        if not 1 <= example.prompt_length <= len(example.input_ids):
            raise InputError(
                f"record {example.id} has prompt_length {example.prompt_length} and {len(example.input_ids)} tokens; wanted at"
                " least one given token: a start-of-text token, or the text's own first one."
            )
        if not 0 <= min(example.input_ids) <= max(example.input_ids) < words:
            raise InputError(
                f"the tokenizer does not fit the model: record {example.id} has token id {max(example.input_ids)}, and the model has "
                f"embeddings for 0 to {words - 1} only: load both from the same place, or name the model's own (--tokenizer)"
            )


def _device(model: Any) -> torch.device:
    return model.get_input_embeddings().weight.device


def plain_model(model: Any) -> Any:
    """The language model itself, when peft has wrapped it (its adapters stay inside)."""
    return getattr(model, "get_base_model", lambda: model)()


def output_layer(model: Any, words: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Weight `[words, width]` and bias `[words]` (or None) of the layer that makes logits; None takes all its rows."""
    layer = model.get_output_embeddings()
    bias = getattr(layer, "bias", None)
    return layer.weight[:words], None if bias is None else bias[:words]


@functools.cache
def _accepted(kind: type) -> frozenset[str]:
    # The class's forward: a trainer may have wrapped the instance's in something that takes *args.
    return frozenset(inspect.signature(kind.forward).parameters)


def _inputs(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Those of the tensors that the model's forward takes (state-space models take no positions), on its device."""
    accepted, device = _accepted(type(plain_model(model))), _device(model)
    inputs: dict[str, Any] = {name: t.to(device) for name, t in tensors.items() if name in accepted}
    return inputs | ({"use_cache": False} if "use_cache" in accepted else {})


def labelled(labels: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Where the labels `[batch, length]` (`IGNORED` where nothing is predicted) are predicted, and what they are.

    Returns:
        tuple[Tensor, Tensor]: Places in the flattened input, whose rows have `width` positions (by default `length`): the one
        *before* each label; and the labels. Both `[tokens]`, example by example. A label at position 0 has none before it and is
        left out.
    """
    kept = labels[:, 1:] != IGNORED
    row, column = kept.nonzero(as_tuple=True)
    return row * (width or labels.shape[1]) + column, labels[:, 1:][kept]


def output_states(model: Any, inputs: dict[str, Any], at: Tensor, keep: int | None = 0) -> tuple[Tensor, Tensor]:
    """Run the model with its output layer shown the first `keep` of the places `at` (`labelled`) only; None: all of them.

    Returns:
        What the output layer would be given at all of them, `[tokens, width]`, and the model's logits of the first `keep`,
        `[keep, vocabulary]`.

    Raises:
        IndexError: the model does not call its output layer once on `[batch, time, width]`.
    """
    caught = []

    def select(_module: Any, args: tuple) -> tuple:
        caught.append(args[0].flatten(0, 1).index_select(0, at.to(args[0].device)))
        return (caught[-1][None, :keep], *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        logits = model(**inputs).logits
    finally:
        hook.remove()
    if len(caught) != 1 or logits.shape[:2] != (1, len(caught[0][:keep])):
        raise IndexError("this model does not call its output layer once on [batch, time, width]")
    return caught[0], logits[0]


def labelled_states(model: Any, parts: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Final hidden states `[tokens, width]` at the places `at` of right-padded `input_ids`, part after part.

    No attention mask: with right padding and causal attention no real token sees the padding behind it, and without a
    mask PyTorch takes its fast causal path. Positions count from 0 in every row, stated where the model takes them.
    """
    states = []
    for part in parts:
        ids = part["input_ids"]
        inputs = _inputs(model, {"input_ids": ids, "position_ids": torch.arange(ids.shape[1])[None, :]})
        states.append(output_states(model, inputs, part["at"])[0])
    return torch.cat(states)


@torch.no_grad()
def check_output_layer(model: Any) -> None:
    """Refuse a model whose logits are not simply its output layer applied to the hidden states it is given.

    Raises:
        InputError: the model caps or scales its logits afterwards, so a loss on hidden states would not be its loss.
    """
    training = model.training
    mode = choose_mode(model.eval(), [Example("", [1, 2, 3, 0], 1)])
    model.train(training)
    if mode != "rows":
        raise InputError(
            f"{type(model).__name__} changes its logits after its output layer (soft-capping or scaling); the losses here are "
            "computed from hidden states and would be wrong. Choose another model."
        )


def labelled_inputs(model: Any, examples: Sequence[Example]) -> tuple[dict[str, Any], Tensor, Tensor]:
    """Arguments of `model.forward`, and where it predicts which response tokens (see `labelled`), record by record.

    The last column is left out: nothing is predicted from it.
    """
    batch = collate(list(examples), pad_id=0)  # padding is never attended to, so any id does
    tensors = {name: batch[name][:, :-1] for name in ("input_ids", "attention_mask", "position_ids")}
    return _inputs(model, tensors), *labelled(batch["labels"], batch["labels"].shape[1] - 1)


def labelled_logits(model: Any, inputs: dict[str, Any], at: Tensor, mode: str) -> Iterator[Tensor]:
    """Yield logits `[tokens, vocabulary]` at the places `at`, in order. For `mode` see `choose_mode`."""
    if mode in ("all", "alone"):
        logits = model(**inputs).logits
        yield logits.flatten(0, 1).index_select(0, at.to(logits.device))
        return
    hidden, logits = output_states(model, inputs, at, 0 if mode == "rows" else None)
    if mode == "model":
        yield logits
        return
    rows = max(1, CHUNK // logits.shape[-1])
    for start in range(0, len(hidden), rows):
        yield model.get_output_embeddings()(hidden[start : start + rows])


def choose_mode(model: Any, examples: Sequence[Example]) -> str:
    """The cheapest way to logits that agrees with the model's own forward pass, tried on the first tokens of two examples.

    `rows`: hidden states at the labelled places, then the output layer on a chunk of them at a time. `model`: the forward pass
    as it is, with the output layer shown the labelled places only, for models that scale or cap their logits afterwards.
    `all`: logits at every position, for models that do not call their output layer the usual way. `alone`: the same, one
    example at a time, for models whose logits depend on what they are batched with.
    """
    starts = sorted((e.input_ids for e in examples if len(e.input_ids) > 1), key=len)
    if not starts:
        return "all"
    short, other = starts[0][:8], starts[-1][:16]
    inputs, at, _ = labelled_inputs(model, [Example("", short, 1), Example("", other, 1)])
    alone = torch.tensor([short], device=_device(model))
    wanted = model(input_ids=alone, attention_mask=torch.ones_like(alone)).logits[0, :-1].float()
    limit = (1e-3 if model.dtype == torch.float32 else 5e-2) * max(1.0, wanted.nan_to_num().abs().max().item())

    def agrees(logits: Tensor) -> bool:
        return torch.allclose(logits[: len(wanted)].float(), wanted, rtol=0, atol=limit, equal_nan=True)

    try:
        hidden, logits = output_states(model, inputs, at, None)
        if agrees(logits):
            plain = model.get_output_embeddings()(hidden)
            return "rows" if torch.allclose(plain, logits, rtol=1e-5, atol=1e-6, equal_nan=True) else "model"
    except (IndexError, TypeError):
        pass  # the output layer is used in another way
    return "all" if agrees(next(labelled_logits(model, inputs, at, "all"))) else "alone"


def fitting_token_budget(model: Any, mode: str) -> int:
    """Padded tokens per batch that fit in half of the free memory; more than 1,024 gains nothing on a CPU."""
    device, config = _device(model), model.config.get_text_config()
    most = 65_536 if device.type == "cuda" else 1_024
    each = 40 * config.hidden_size * model.dtype.itemsize  # one layer's intermediate results, no key-value cache
    if mode != "rows":
        each += 24 * vocabulary_size(model)
    return int(min(most, max(256, free_memory(device) // 2 // each)))


def check_ids(words: int, used: int, name: str) -> None:
    """Refuse records with token ids that the model has no embedding for; a tokenizer may have some that no record uses.

    Args:
        words: embeddings of the model.
        used: the highest token id of any record.

    Raises:
        InputError: with both numbers.
    """
    if used >= words:
        raise InputError(
            f"the tokenizer does not fit {name!r}: a record has token id {used}, and the model has embeddings for "
            f"0 to {words - 1} only: give the tokenizer that the model was trained with (--tokenizer)"
        )
