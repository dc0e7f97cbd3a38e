"""Cut a student from a model by leaving layers out, whatever the architecture calls them and wherever it keeps them."""

import copy
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from palimpsest.data.examples import Example, by_length, collate
from palimpsest.errors import InputError

PLACES = ("mlp_only_layers", "moe_layers", "attn_layer_indices")  # numbers of layers, not one entry for each layer


def keep_layers(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """Cut a student from a model: a new one with the layers `kept` (numbers, rising), all else as it was.

    It is built from its own configuration and then given the kept weights, so that what is trained now is what a saved copy
    will be: each layer knows its new place (the key-value cache is addressed by it) and its own kind.

    Raises:
        InputError: as `cut_config`.
    """
    config, stack = cut_config(model.config, kept, type(model))
    student = type(model)._from_config(config, dtype=model.dtype).to(model.device)
    student.load_state_dict(_kept(model.state_dict(), stack, kept))
    student.generation_config = model.generation_config
    return student.train(model.training)


@torch.no_grad()
def block_influence(model: PreTrainedModel, examples: Sequence[Example]) -> np.ndarray:
    """How much each layer changes what it is given: one minus the cosine between its input and its output, mean over the tokens of
    the examples, `[layers]`.

    The layers of least influence can be left out at the least loss (Men et al. 2024, arXiv 2403.03853, equation 1); every second
    one, say, can't: a model of 30 layers cut that way is worse than guessing.
    """
    layers = model.get_submodule(_find_layers(model, type(model).__name__))
    sums, real = torch.zeros(len(layers), dtype=torch.float64), None

    def look(module, args, inputs, output, place):
        before = args[0] if args else inputs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        cosine = torch.cosine_similarity(before[real].float(), after[real].float(), dim=-1)
        sums[place] += (1 - cosine).sum().item()

    hooks = [layer.register_forward_hook(partial(look, place=i), with_kwargs=True) for i, layer in enumerate(layers)]
    try:
        for rows in by_length(list(examples), 1024):
            batch = collate([examples[i] for i in rows], pad_id=0)
            real = batch["attention_mask"].bool().to(model.device)
            # With padding on the right, causal attention needs no mask.
            model(input_ids=batch["input_ids"].to(model.device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return (sums / sum(len(e.input_ids) for e in examples)).numpy()


def _find_layers(whole: PreTrainedModel, name: str) -> str:
    """The name of a model's list of layers."""
    count, decoder = getattr(whole.config.get_text_config(), "num_hidden_layers", 0), whole.get_decoder()
    lists = [n for n, m in decoder.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if count < 2 or not lists:
        raise InputError(
            f"cannot cut a student from {name}: found {count if lists else 'no list of'} layers, wanted at least 2. Give the "
            "student a path instead of keep"
        )
    return next(n for n, m in whole.named_modules() if m is decoder.get_submodule(min(lists, key=len)))


def cut_config(
    config: PreTrainedConfig, kept: Sequence[int], kind: type[PreTrainedModel] | None = None
) -> tuple[PreTrainedConfig, str]:
    """The configuration of a model cut by `keep_layers`, and the name of its list of layers. Needs no weights.

    Args:
        kind: the model's class; None: the one that transformers has for such a configuration.

    Raises:
        InputError: the layers can't be found, none would be dropped, or the architecture has layers of several kinds in an
            order that its configuration can't express once some are left out.
    """
    name = kind.__name__ if kind else config.model_type
    build = kind._from_config if kind else AutoModelForCausalLM.from_config
    with torch.device("meta"):
        whole = build(copy.deepcopy(config))
    stack, count = _find_layers(whole, name), config.get_text_config().num_hidden_layers
    if not 0 < len(kept) < count:
        raise InputError(
            f"cannot cut a student from {name}: it has {count} layers and {len(kept)} would be kept; wanted fewer"
        )
    fewer = copy.deepcopy(config)
    text = fewer.get_text_config()
    for key, value in list(vars(text).items()):
        if key in PLACES:
            setattr(text, key, [kept.index(place) for place in value or [] if place in kept])
        elif "layer" in key and isinstance(value, list) and len(value) == count:
            setattr(text, key, [value[place] for place in kept])
    try:
        text.num_hidden_layers = len(kept)
        fewer = type(config).from_dict(fewer.to_dict())  # its own checks
        with torch.device("meta"):
            found = build(copy.deepcopy(fewer))
        states = (found.state_dict(), _kept(whole.state_dict(), stack, kept))
        shapes = [{(name, value.shape) for name, value in state.items()} for state in states]
        wrong = sorted({name for name, _ in shapes[0] ^ shapes[1]})
        if _attends(config) and not _attends(fewer):  # transformers' cache of such a model can't be used
            wrong.append("no layer of attention")
    except (ValueError, IndexError, KeyError, TypeError) as error:
        wrong = [f"{type(error).__name__}: {error}"]
    if wrong:
        raise InputError(
            f"cannot cut a student from {name}: with {len(kept)} of its {count} layers kept, its configuration describes "
            f"another model ({wrong[0]}). Give the student a path instead of keep"
        )
    return fewer, stack


def evenly(count: int, keep: int) -> list[int]:
    """So many of `count` layers, evenly spread: which ones have most influence is known only with the weights."""
    return [place * count // keep for place in range(keep)]


def _attends(config: PreTrainedConfig) -> bool:
    """Whether one of the layers whose kinds the configuration lists is one of attention."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or []
    return any("attention" in kind and kind != "linear_attention" for kind in kinds)


def _kept(state: dict[str, torch.Tensor], stack: str, layers: Sequence[int]) -> dict[str, torch.Tensor]:
    """The weights of the kept layers under their new numbers, and all that lie outside the layers."""
    kept = {}
    for name, value in state.items():
        if name.startswith(f"{stack}."):
            place, _, rest = name.removeprefix(f"{stack}.").partition(".")
            if int(place) not in layers:
                continue
            name = f"{stack}.{layers.index(int(place))}.{rest}"
        kept[name] = value
    return kept
