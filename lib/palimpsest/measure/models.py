"""Load and build the models and tokenizers of a study."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING
from transformers.utils import logging

from palimpsest.errors import InputError
from palimpsest.measure.adapters import add_adapter
from palimpsest.measure.checkpoints import (
    TOKENIZERS,
    Checkpoint,
    check_files,
    find_checkpoint,
    has_tokenizer,
)
from palimpsest.measure.damage import CannotLoadError, refusal
from palimpsest.measure.speed import speed_up
from palimpsest.study.sections import Scratch

END = "<|endoftext|>"

logging.disable_progress_bar()  # bars for loading and saving; a study does both after every epoch


def _load(kind, found: Checkpoint, **options):
    """What `kind` loads from there; whatever goes wrong inside is the files', a package's or the machine's."""
    if found.gguf:
        options["gguf_file"] = found.gguf
    try:
        return kind.from_pretrained(found.place, revision=found.revision, **options)
    except Exception as error:
        raise refusal(found.name, error) from error


def load_tokenizer(
    name: str | Path | Checkpoint, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """A fast tokenizer with an end-of-text token; where none is set for padding, end-of-text serves.

    For `name` and `revision` see `find_checkpoint`. An adapter without a tokenizer has its base's.

    Raises:
        InputError: it can't be loaded, is not a fast one (character offsets are needed), or has no end-of-text token.
    """
    found = find_checkpoint(name, revision)
    if found.base and not has_tokenizer(found):
        found = found.base
    if found.gguf and has_tokenizer(found):  # the one saved beside it is the original, the one inside a translation
        found = replace(found, gguf=None)
    if found.folder and not found.gguf and not has_tokenizer(found):
        raise CannotLoadError(
            f"{found.name!r} holds no tokenizer (none of {', '.join(TOKENIZERS[:3])}): save it there, or name one with --tokenizer"
        )
    tokenizer = _load(AutoTokenizer, found, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise InputError(
            f"{found.name!r} has no fast tokenizer: character offsets are needed to place secrets; convert it"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{found.name!r}: the tokenizer has no end-of-text token, which must close every response; set eos_token"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # harmless: masks come from lengths, never from token ids
    return tokenizer


def load_config(
    name: str | Path | Checkpoint, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedConfig:
    """The configuration of a decoder-only model (of an adapter, its base's), without its weights.

    Raises:
        InputError: it can't be loaded, or the model is sequence-to-sequence.
    """
    found = find_checkpoint(name, revision)
    config = _load(AutoConfig, found.base or found, trust_remote_code=trust_remote_code)
    if config.is_encoder_decoder:
        raise InputError(
            f"{found.name!r} ({config.model_type}) is sequence-to-sequence; wanted a decoder-only causal language model"
        )
    return config


def load_model(
    name: str | Path | Checkpoint,
    *,
    dtype: str = "fp32",
    device: str | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """A decoder-only model in evaluation mode; an adapter on its base, GGUF as plain numbers, a quantized model as it is.

    Args:
        name, revision: see `find_checkpoint`.
        dtype: "fp32", "bf16", or "auto" for `detect_precision`.
        device: default the GPU if there is one.

    Raises:
        InputError: it can't be loaded, is sequence-to-sequence, lacks weights, which would be random numbers, or is quantized
            in a way that the device or the installed packages can't run.
    """
    device, found = device or default_device(), find_checkpoint(name, revision)
    check_files(found)
    if found.base:
        check_files(found.base)
        base = _whole_model(found.base, dtype, device, trust_remote_code)
        return speed_up(add_adapter(base, found).to(device).eval())
    return _whole_model(found, dtype, device, trust_remote_code)


def _whole_model(found: Checkpoint, dtype: str, device: str, trust_remote_code: bool) -> PreTrainedModel:
    config = load_config(found, trust_remote_code)
    quantized = None if found.gguf else getattr(config, "quantization_config", None)
    if quantized:
        how = quantized if isinstance(quantized, dict) else quantized.to_dict()
        if how.get("quant_method") not in (None, "bitsandbytes", *AUTO_QUANTIZATION_CONFIG_MAPPING):
            raise CannotLoadError(
                f"{found.name!r} is quantized by {how['quant_method']!r}, which the installed transformers does not know: "
                "update it, or give the model as it was before it was quantized"
            )
    options: dict[str, Any] = {"device_map": {"": device}} if quantized else {}  # packed weights can't be moved later
    if found.gguf:
        options["quantization_config"] = GgufConfig(dequantize=True)
    model, missing = _load(
        AutoModelForCausalLM,
        found,
        config=config,
        dtype=torch_dtype(dtype, device),
        trust_remote_code=trust_remote_code,
        use_safetensors=True,
        ignore_mismatched_sizes=True,  # they are refused below, by name
        adapter_kwargs={"subfolder": "none"} if found.folder else None,  # an adapter in it is added by `add_adapter`
        output_loading_info=True,
        **options,
    )
    if other := sorted(missing["mismatched_keys"]):
        key, there, wanted = other[0]
        raise CannotLoadError(
            f"{found.name!r}: {len(other)} weights have another shape than its config.json says (first {key}: found {list(there)}, "
            f"wanted {list(wanted)}): configuration and weights are of different models, copy both from one place"
        )
    if missing := sorted(missing["missing_keys"]):  # of tied layers, one is enough
        raise InputError(
            f"{found.name!r} lacks {len(missing)} of the weights of a {type(model).__name__} ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}), which would be random numbers: give a whole checkpoint, saved with its "
            "output layer"
        )
    if found.gguf:
        model.config._name_or_path = str(Path(found.place, found.gguf))
        if hasattr(model.config, "quantization_config"):  # they are plain numbers now
            del model.config.quantization_config
    return speed_up(model if quantized else model.to(device)).eval()


def default_device() -> str:
    """The GPU if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def detect_precision(device: str | None = None) -> str:
    """ "bf16" where the device multiplies bf16 matrices natively, else "fp32"."""
    if (device or default_device()).startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def torch_dtype(name: str, device: str | None = None) -> torch.dtype:
    """The torch type of "fp32", "bf16" or "auto"."""
    known = {"fp32": torch.float32, "bf16": torch.bfloat16}
    name = detect_precision(device) if name == "auto" else name
    if name not in known:
        raise InputError(f"precision {name!r}: wanted auto, {' or '.join(known)}")
    return known[name]


def context_length(model: PreTrainedModel | PreTrainedConfig) -> int:
    """Longest input in tokens, of a model or of its configuration alone; 10**9 where nothing limits it."""
    config = getattr(model, "config", model).get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 10**9)


def switch_length(model: PreTrainedModel | PreTrainedConfig) -> int | None:
    """Tokens beyond which a model reads *all* positions otherwise ("longrope": other frequencies); None: it never does.

    The longest row of a batch decides for all its rows, so rows on either side must not share one.
    """
    known = getattr(getattr(model, "config", model).get_text_config(), "rope_parameters", None) or {}
    for one in (known, *(value for value in known.values() if isinstance(value, dict))):
        if one.get("rope_type") == "longrope":
            return int(one["original_max_position_embeddings"])
    return None


def parameter_count(model: PreTrainedModel) -> int:
    """Parameters, tied ones counted once."""
    return sum(p.numel() for p in model.parameters())


def count_parameters(config: PreTrainedConfig) -> int:
    """Parameters of a model of this configuration, without making it.

    Raises:
        ValueError: its code is its own, so that only loading it would tell.
    """
    with torch.device("meta"):
        return parameter_count(AutoModelForCausalLM.from_config(config))


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text can be written, and losing no byte keeps verbatim verbatim."""
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END, pad_token=END, unk_token=END)


def build_model(shape: Scratch, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A model with random weights of the stated shape."""
    own = {"llama": {"intermediate_size": 4 * shape.width, "tie_word_embeddings": True}}
    config = AutoConfig.for_model(
        shape.architecture,
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **own.get(shape.architecture, {}),
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def check_same_tokenizer(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, size: str) -> None:
    """Distillation compares distributions entry by entry, so both must number the same tokens alike.

    Raises:
        InputError: the vocabularies differ (sizes and the first differing entry).
    """
    a, b = teacher.get_vocab(), student.get_vocab()
    if a != b:
        differing = min(set(a.items()) ^ set(b.items()), key=lambda item: item[1])
        raise InputError(
            f"teacher and student {size!r} have different tokenizers ({len(a)} and {len(b)} entries, first difference at "
            f"{differing[0]!r} = {differing[1]}): take a student of the teacher's family, or cut one with keep"
        )
