"""Logits of a causal model at the labelled places only, and the checks that model and examples fit each other."""

import inspect
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from palimpsest.data.examples import IGNORED, Example, collate
from palimpsest.errors import InputError
from palimpsest.measure.models import context_length

CHUNK = 1 << 25  # logits held at once: 128 MB in fp32


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
                f"record {example.id} has token id {max(example.input_ids)} and the model has ids 0 to {words - 1}: the"
                " tokenizer is not this model's. Load both from the same place."
            )


def _device(model: Any) -> torch.device:
    return model.get_input_embeddings().weight.device


def labelled_inputs(model: Any, examples: Sequence[Example]) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """Arguments of `model.forward`, the places `[batch, time]` that predict a response token, and those tokens, row by row.

    The last column is left out: nothing is predicted from it.
    """
    batch = collate(list(examples), pad_id=0)  # padding is never attended to, so any id does
    labels = batch["labels"][:, 1:]
    where = labels != IGNORED
    # The class's forward: a trainer may have wrapped the instance's in something that takes *args.
    accepted = inspect.signature(type(getattr(model, "get_base_model", lambda: model)()).forward).parameters
    inputs: dict[str, Any] = {
        name: batch[name][:, :-1].to(_device(model))
        for name in ("input_ids", "attention_mask", "position_ids")
        if name in accepted
    }
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs, where, labels[where]


def _run(model: Any, inputs: dict[str, Any], where: torch.Tensor, keep: int | None) -> list[torch.Tensor]:
    """The labelled hidden states `[1, tokens, width]` before the output layer, and the model's logits for the first `keep`.

    The output layer is shown only those, so the logits of prompt and padding never exist.
    """
    caught = []

    def select(_module: Any, args: tuple) -> tuple:
        caught.append(args[0][where.to(args[0].device)][None])
        return (caught[-1][:, :keep], *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        logits = model(**inputs).logits
    finally:
        hook.remove()
    if len(caught) != 1 or logits.shape[:2] != caught[0][:, :keep].shape[:2]:
        raise IndexError("this model does not call its output layer once on [batch, time, width]")
    return [caught[0], logits]


def labelled_logits(model: Any, inputs: dict[str, Any], where: torch.Tensor, mode: str) -> Iterator[torch.Tensor]:
    """Yield logits `[tokens, vocabulary]` at the True places of `where`, in order. For `mode` see `choose_mode`."""
    if mode == "all":
        logits = model(**inputs).logits
        yield logits[where.to(logits.device)]
        return
    hidden, logits = _run(model, inputs, where, 1 if mode == "rows" else None)
    if mode == "model":
        yield logits[0]
        return
    rows = max(1, CHUNK // logits.shape[-1])
    for start in range(0, hidden.shape[1], rows):
        yield model.get_output_embeddings()(hidden[:, start : start + rows])[0]


def choose_mode(model: Any, examples: Sequence[Example]) -> str:
    """The cheapest way to logits that agrees with the model's own forward pass, tried on the first tokens of two examples.

    `rows`: hidden states at the labelled places, then the output layer on a chunk of them at a time. `model`: the forward pass
    as it is, with the output layer shown the labelled places only, for models that scale or cap their logits afterwards.
    `all`: logits at every position, for models that do not call their output layer the usual way.
    """
    starts = sorted((e.input_ids for e in examples if len(e.input_ids) > 1), key=len)
    if not starts:
        return "all"
    short, other = starts[0][:8], starts[-1][:16]
    inputs, where, _ = labelled_inputs(model, [Example("", short, 1), Example("", other, 1)])
    alone = torch.tensor([short], device=_device(model))
    wanted = model(input_ids=alone, attention_mask=torch.ones_like(alone)).logits[0, :-1].float()
    limit = (1e-3 if model.dtype == torch.float32 else 5e-2) * max(1.0, wanted.nan_to_num().abs().max().item())

    def agrees(logits: torch.Tensor) -> bool:
        return torch.allclose(logits[: len(wanted)].float(), wanted, rtol=0, atol=limit, equal_nan=True)

    try:
        hidden, logits = _run(model, inputs, where, None)
        if agrees(logits[0]):
            plain = model.get_output_embeddings()(hidden)
            return "rows" if torch.allclose(plain, logits, rtol=1e-5, atol=1e-6, equal_nan=True) else "model"
    except (IndexError, TypeError):
        pass  # the output layer is used in another way
    if not agrees(next(labelled_logits(model, inputs, where, "all"))):
        warnings.warn("this model's logits depend on what it is batched with; scores carry that noise", stacklevel=3)
    return "all"


def fitting_token_budget(model: Any, mode: str) -> int:
    """Padded tokens per batch that fit in half of the free memory; more than 1,024 gains nothing on a CPU."""
    device, config = _device(model), model.config.get_text_config()
    if device.type == "cuda":
        free, most = torch.cuda.mem_get_info(device)[0], 65_536
    else:
        pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else 1 << 20  # unknown on macOS
        free, most = pages * os.sysconf("SC_PAGE_SIZE"), 1_024
    each = 40 * config.hidden_size * model.dtype.itemsize  # one layer's intermediate results, no key-value cache
    if mode != "rows":
        each += 24 * vocabulary_size(model)
    return int(min(most, max(256, free // 2 // each)))
