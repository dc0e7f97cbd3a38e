"""Before the long run: are the verdicts of one forward pass what the library's own decoding and loss give, on a few records?"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from palimpsest.audit.records import Records, as_examples
from palimpsest.data.examples import IGNORED, Example, without_closing
from palimpsest.measure.extraction import near_ties, verbatim
from palimpsest.measure.forward import plain_model, vocabulary_size
from palimpsest.measure.generation import decoding
from palimpsest.measure.scoring import score

CHECKED = 8  # records decoded one by one


def self_check(model: Any, records: Records, said: Mapping[str, Any], token_budget: int | None) -> dict[str, Any]:
    """`check_alone` on records of the first piece that fit the context; `said`: the summary's settings."""
    first = next((as_examples(piece) for _, piece in records.pieces()), [])  # a shard may have none
    fitting = [e for e in first if len(e.input_ids) <= said["context"]]
    return check_alone(model, fitting, said["window"], said["tie"], token_budget=token_budget)


def check_alone(model: Any, examples: Sequence[Example], window: int, tie: float, **options: Any) -> dict[str, Any]:
    """Score some records as the audit does, and decode and read each by itself with the library's own `generate` and loss.

    Args:
        examples: records that fit the context; `CHECKED` of them, evenly spaced, are looked at.
        window: tokens to be recited.
        tie: logits closer than this are nearly tied; a verdict that differs there is rounding.
        options: for `score`.

    Returns:
        `records`, `mismatches` (verdicts that decoding contradicts), `tied` (of these, explained by a near-tie), `loss` (nats per
        token), `loss_difference` (largest to the model's own, NaN where it computes none) and `warnings` with the likely cause.
    """
    usable = [e for e in without_closing(examples) if e.prompt_length and e.response_ids]
    some = [usable[i] for i in np.unique(np.linspace(0, len(usable) - 1, min(CHECKED, len(usable))).astype(int))]
    said = {"records": len(some), "mismatches": 0, "tied": 0, "loss": math.nan, "loss_difference": math.nan}
    if not some:
        return {**said, "warnings": []}
    table = score(model, some, **options)
    verdicts = verbatim(table, 0, window).to_numpy(bool)
    close = near_ties(table, 0, window, tolerance=tie).to_numpy(int) > 0
    losses = np.array([-values.mean() for values in table["logprob"]])
    with decoding(model):
        found = np.array([_greedy(model, e, window) for e in some])
        own = np.array([_loss(model, e) for e in some])
    wrong, apart = found != verdicts, np.abs(own - losses)
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    said |= {"mismatches": int(wrong.sum()), "tied": int((wrong & close).sum())}
    said |= {"loss": float(losses.mean()), "loss_difference": float(apart.max())}
    return {**said, "warnings": _suspicions(model, said, (apart > tolerance * (1 + losses)).sum())}


def _suspicions(model: Any, said: dict[str, Any], unlike: int) -> list[str]:
    out, name = [], type(model).__name__
    if bad := said["mismatches"] - said["tied"]:
        out.append(
            f"Self-check: for {bad} of {said['records']} records the library's greedy decoding contradicts the verdict, and no "
            f"near-tie explains it. {name} may compute a token otherwise once earlier ones are cached: don't rely on the rates."
        )
    if unlike:
        out.append(
            f"Self-check: on {unlike} of {said['records']} records the loss of {name} itself differs from the one measured here "
            f"(by up to {said['loss_difference']:.2g} nats per token): its logits may depend on what it is batched with."
        )
    uniform = math.log(vocabulary_size(model))
    if said["loss"] > uniform:
        out.append(
            f"Self-check: the model does worse than guessing on the first records ({said['loss']:.2f} nats per token; a uniform "
            f"guess has {uniform:.2f}): its tokenizer or the prompt template may be another than in training."
        )
    return out


@torch.no_grad()
def _greedy(model: Any, example: Example, window: int) -> bool:
    """Whether the library's greedy decoding of the prompt alone, past any end token, gives the target."""
    prompt, target = example.input_ids[: example.prompt_length], example.response_ids[:window]
    ids, own = torch.tensor([prompt], device=model.device), model.generation_config
    config = GenerationConfig(max_new_tokens=len(target), do_sample=False, pad_token_id=0)
    try:
        model.generation_config = (
            GenerationConfig()
        )  # `generate` fills in the checkpoint's settings where ours are unset
        new = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    finally:
        model.generation_config = own
    return new[0, len(prompt) :].tolist() == target


@torch.no_grad()
def _loss(model: Any, example: Example) -> float:
    """The model's own mean loss on the response, read alone; NaN where its forward takes no labels."""
    if "labels" not in inspect.signature(type(plain_model(model)).forward).parameters:
        return math.nan
    ids = torch.tensor([example.input_ids], device=model.device)
    labels = ids.clone()
    labels[0, : example.prompt_length] = IGNORED
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.item()
