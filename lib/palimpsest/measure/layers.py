"""Cut a student from a model by leaving layers out, whatever the architecture calls them and wherever it keeps them."""

import copy

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from palimpsest.errors import InputError

PLACES = ("mlp_only_layers", "moe_layers", "attn_layer_indices")  # numbers of layers, not one entry for each layer


def keep_layers(model: PreTrainedModel, every: int) -> PreTrainedModel:
    """Cut a student from a model: a new one with its layers 0, every, 2 x every, ..., all else as it was.

    It is built from its own configuration and then given the kept weights, so that what is trained now is what a saved copy
    will be: each layer knows its new place (the key-value cache is addressed by it) and its own kind.

    Raises:
        InputError: as `cut_config`.
    """
    config, stack = cut_config(model.config, every, type(model))
    student = type(model)._from_config(config, dtype=model.dtype).to(model.device)
    student.load_state_dict(_kept(model.state_dict(), stack, every))
    student.generation_config = model.generation_config
    return student.train(model.training)


def cut_config(
    config: PreTrainedConfig, every: int, kind: type[PreTrainedModel] | None = None
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
    text = config.get_text_config()
    count, decoder = getattr(text, "num_hidden_layers", 0), whole.get_decoder()
    lists = [n for n, m in decoder.named_modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if count < 2 or not lists:
        raise InputError(
            f"cannot cut a student from {name}: found {count if lists else 'no list of'} layers, wanted at least 2. Give the "
            "student a path instead of keep_every"
        )
    stack = next(n for n, m in whole.named_modules() if m is decoder.get_submodule(min(lists, key=len)))
    fewer = copy.deepcopy(config)
    text = fewer.get_text_config()
    for key, value in list(vars(text).items()):
        if key in PLACES:
            setattr(text, key, [place // every for place in value or [] if place % every == 0])
        elif "layer" in key and isinstance(value, list) and len(value) == count:
            setattr(text, key, value[::every])
    try:
        text.num_hidden_layers = len(range(0, count, every))
        fewer = type(config).from_dict(fewer.to_dict())  # its own checks
        with torch.device("meta"):
            found = build(copy.deepcopy(fewer)).state_dict()
        wanted = _kept(whole.state_dict(), stack, every)
        shapes = [{n: v.shape for n, v in state.items()} for state in (found, wanted)]
        wrong = sorted(n for n in {**wanted, **found} if shapes[0].get(n) != shapes[1].get(n))
        if _attends(config) and not _attends(fewer):  # transformers' cache of such a model can't be used
            wrong.append("no layer of attention")
    except (ValueError, IndexError, KeyError, TypeError) as error:
        wrong = [f"{type(error).__name__}: {error}"]
    if wrong:
        raise InputError(
            f"cannot cut a student from {name}: with one in {every} of its {count} layers kept, its configuration describes "
            f"another model ({wrong[0]}). Give the student a path instead of keep_every"
        )
    return fewer, stack


def _attends(config: PreTrainedConfig) -> bool:
    """Whether one of the layers whose kinds the configuration lists is one of attention."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None) or getattr(text, "layers_block_type", None) or []
    return any("attention" in kind and kind != "linear_attention" for kind in kinds)


def _kept(state: dict[str, torch.Tensor], stack: str, every: int) -> dict[str, torch.Tensor]:
    """The weights of the kept layers under their new numbers, and all that lie outside the layers."""
    kept = {}
    for name, value in state.items():
        if name.startswith(f"{stack}."):
            place, _, rest = name.removeprefix(f"{stack}.").partition(".")
            if int(place) % every:
                continue
            name = f"{stack}.{int(place) // every}.{rest}"
        kept[name] = value
    return kept
