"""An adapter (LoRA and its kin, as peft saves them) on its base: merged into it where that is exact, else beside it."""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import cached_file

from palimpsest.errors import InputError
from palimpsest.measure.checkpoints import ADAPTER_WEIGHTS, Checkpoint
from palimpsest.measure.damage import CannotLoadError, refusal


def add_adapter(base: PreTrainedModel, found: Checkpoint) -> PreTrainedModel:
    """The base with the adapter of `found` in it; the base is changed.

    In fp32 the adapter is merged, which is faster and differs by rounding alone: that is tried on a few tokens. In less, or in
    a quantized base, sums would swallow what is small in it, so it stays beside the weights, as while it was trained.

    Raises:
        InputError: the adapter does not fit the base, lacks weights, or works by other means than on layers.
    """
    try:
        return _added(base, found)
    except Exception as error:
        raise refusal(found.name, error) from error


def _added(base: PreTrainedModel, found: Checkpoint) -> PreTrainedModel:
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict  # a second to import, and seldom needed
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    config = PeftConfig.from_pretrained(found.place, revision=found.revision)
    if config.is_prompt_learning or config.is_adaption_prompt or getattr(config, "alora_invocation_tokens", None):
        raise InputError(
            f"{found.name!r} is an adapter of the kind {config.peft_type.value}, which changes what the model is given; wanted one "
            "that changes its layers, such as LoRA"
        )
    config.inference_mode, config.base_model_name_or_path = True, base.name_or_path
    weights = load_file(cached_file(found.place, ADAPTER_WEIGHTS, revision=found.revision))
    _resize(base, weights, config, found)
    model = get_peft_model(base, config)
    result = set_peft_model_state_dict(model, weights)
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type]
    own = (prefix, "modules_to_save", "trainable_tokens")
    known = dict(model.named_parameters(remove_duplicate=False))
    # A tied one by its twin.
    filled = {id(value) for key, value in known.items() if key not in set(result.missing_keys)}
    missing = [k for k in result.missing_keys if any(part in k for part in own) and id(known.get(k)) not in filled]
    foreign = [key for key in result.unexpected_keys if prefix in key]  # embeddings may be there under two names
    if missing or foreign:
        raise CannotLoadError(
            f"{found.name!r} does not fit {found.base.name!r}: {len(missing)} of its weights are missing and "
            f"{len(foreign)} have no place there (first {(missing + foreign)[0]}): name its own base with --base, or copy it again"
        )
    inside = model.get_base_model().eval()
    inside.config._name_or_path = found.place
    if inside.dtype != torch.float32 or getattr(inside, "is_quantized", False):
        return inside
    apart = _logits(inside)
    _untie(inside)
    merged = model.merge_and_unload(safe_merge=True)
    if (_logits(merged) - apart).abs().max() > 1e-4 * apart.abs().max():
        raise InputError(
            f"{found.name!r} can't be merged into {found.base.name!r} exactly: merge it with the program that it was trained "
            "with, and give the merged model"
        )
    return merged


def _resize(base: PreTrainedModel, weights: Mapping[str, Tensor], config: Any, found: Checkpoint) -> None:
    """Give the base as many embeddings as it had when the adapter was trained, all of which the adapter must then know."""
    names = {module: name for name, module in base.named_modules()}
    layers = {names[layer] for layer in (base.get_input_embeddings(), base.get_output_embeddings())}
    there, wanted, known = base.get_input_embeddings().weight.shape[0], set(), set()
    for name in layers:
        for key, value in weights.items():
            if f".{name}." not in key:
                continue
            if key.endswith("lora_embedding_A"):
                wanted.add(value.shape[1])
            elif key.endswith("lora_B.weight") or (key.endswith("weight") and "lora" not in key):
                wanted.add(value.shape[0])
            if key.endswith("weight") and "lora" not in key:
                known.add(name)
    trained = getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", None) or []
    for name, rows in (trained if isinstance(trained, dict) else {"": trained}).items():
        if rows and max(rows) >= there:
            wanted.add(max(rows) + 1)
            known |= {
                layer for layer in layers if layer.endswith(name) and set(range(there, max(rows) + 1)) <= set(rows)
            }
    if not wanted or wanted == {there}:
        return
    tied = base.get_input_embeddings().weight is base.get_output_embeddings().weight
    if len(wanted) > 1 or (max(wanted) > there and not (known if tied else known == layers)):
        raise InputError(
            f"{found.name!r} was trained with {max(wanted)} embeddings, {found.base.name!r} has {there}, and the adapter does "
            "not hold all that was added: those numbers would be random. Save it with save_embedding_layers=True, or merge it "
            "where it was trained"
        )
    base.resize_token_embeddings(max(wanted), mean_resizing=False)


def _untie(model: PreTrainedModel) -> None:
    """Let output layer and embedding have weights of their own where an adapter changes one of them, lest it change both."""
    layers = [model.get_input_embeddings(), model.get_output_embeddings()]
    under = [getattr(layer, "base_layer", layer) for layer in layers]
    if under != layers and under[0].weight is under[1].weight:
        under[1].weight = torch.nn.Parameter(under[1].weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    ids = torch.arange(16, device=model.device).reshape(2, 8)
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float()
