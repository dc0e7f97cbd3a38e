"""A model's final hidden states, and its output layer kept apart from them.

Training and caching need logits only where there is a label, so the two halves of a causal language model are called
one after the other: the body on the whole batch, the output layer on the labelled positions alone.
"""

import functools
import inspect
import logging
import types
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.activations import NewGELUActivation

from palimpsest.data.examples import IGNORED
from palimpsest.errors import InputError

# GPT-2 recommends a mask for padded input; `body_states` says why none is needed.
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "may be padded" not in record.getMessage())

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (hidden states, weight, bias) -> scalar


def labelled(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where the labels are predicted, and what they are.

    Args:
        labels: `[batch, length]`, `IGNORED` where nothing is predicted.

    Returns:
        Indices into the flattened `[batch x length]` positions (the one *before* each label) and the labels, both
        `[tokens]`, example by example. A label at position 0 has no position before it and is left out.
    """
    kept = labels[:, 1:] != IGNORED
    row, column = kept.nonzero(as_tuple=True)
    return row * labels.shape[1] + column, labels[:, 1:][kept]


def output_layer(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight `[vocabulary, width]` and bias `[vocabulary]` (or None) of the layer that makes logits."""
    layer = model.get_output_embeddings()
    return layer.weight, getattr(layer, "bias", None)


def body_states(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Final hidden states `[batch, length, width]` (after the final norm) of right-padded `input_ids`.

    No attention mask: with right padding and causal attention no real token sees the padding behind it, and without a
    mask PyTorch takes its fast causal path. Positions count from 0 in every row, stated where the model takes them.
    """
    arguments = {"use_cache": False}
    if _takes_positions(type(model.base_model)):
        arguments["position_ids"] = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
    return model.base_model(input_ids=input_ids, **arguments).last_hidden_state


@functools.cache
def _takes_positions(body: type) -> bool:
    return "position_ids" in inspect.signature(body.forward).parameters


def plain_model(model: nn.Module) -> nn.Module:
    """The language model itself, when peft has wrapped it (its adapters stay inside)."""
    return model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model


def fuse_activations(model: nn.Module) -> None:
    """Compute GPT-2's activation (`gelu_new`, written out as eight operations) by PyTorch's single one: the same function to
    rounding, about a fifth less time for a small model's step, and one tensor kept for the backward pass instead of five."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def labelled_states(model: nn.Module, parts: list[dict[str, Tensor]]) -> Tensor:
    """Final hidden states `[tokens, width]` at the labelled positions of a batch given in parts (`completion_batch`)."""
    return torch.cat([body_states(model, p["input_ids"]).flatten(0, 1).index_select(0, p["at"]) for p in parts])


def add_head_loss(model: nn.Module) -> None:
    """Teach `model` the call `model(parts=..., head_loss=loss)`, which returns `loss(states, weight, bias)` of the labelled
    states. The loss runs inside the model's own forward, so that autocast, data parallelism and sharding treat the output
    layer as they always do. Other calls are unchanged."""
    original = model.forward

    @functools.wraps(original)  # `generate` reads the signature
    def forward(self, *args, head_loss: Loss | None = None, parts: list[dict[str, Tensor]] | None = None, **kwargs):
        if head_loss is None:
            return original(*args, **kwargs)
        return head_loss(labelled_states(self, parts), *output_layer(self))

    model.forward = types.MethodType(forward, model)


@torch.no_grad()
def check_output_layer(model: nn.Module, role: str) -> None:
    """Refuse a model whose logits are not simply its output layer applied to its final hidden states.

    Raises:
        InputError: the model caps or scales its logits afterwards, so a loss on hidden states would not be its loss.
    """
    was_training = model.training
    model.eval()
    weight, bias = output_layer(model)
    ids = torch.arange(1, 5, device=weight.device)[None, :] % weight.shape[0]
    wanted = model(input_ids=ids, use_cache=False).logits.float()
    found = nn.functional.linear(body_states(model, ids), weight, bias).float()
    model.train(was_training)
    limit = (1e-5 if weight.dtype == torch.float32 else 1e-2) * wanted.nan_to_num().abs().max().item()
    if found.shape != wanted.shape or not torch.allclose(found, wanted, rtol=0, atol=limit, equal_nan=True):
        raise InputError(
            f"The {role} ({type(model).__name__}) changes its logits after its output layer (soft-capping or scaling, "
            "an adapter on the output layer); the losses here are computed from hidden states and would be wrong. "
            "Choose another model, or leave the output layer out of the adapter's target_modules."
        )
