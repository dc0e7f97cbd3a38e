"""Load, build and cut the models and tokenizers of a study."""

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from palimpsest.errors import InputError
from palimpsest.study.runs import locate
from palimpsest.study.sections import Scratch

END = "<|endoftext|>"

logging.disable_progress_bar()  # bars for loading and saving; a study does both after every epoch


def source(name: str | Path) -> str:
    """A local folder's absolute path, or the hub id as it is."""
    path = locate(name)
    return str(path) if path.exists() else str(name)


def _load(kind, name: str | Path, **options):
    try:
        return kind.from_pretrained(source(name), **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"cannot load {name!r}: {first} (neither a local folder with a usable model nor a hub id that can be had now; "
            "check the name and the network, or give a local folder)"
        ) from None


def load_tokenizer(name: str | Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """A fast tokenizer with an end-of-text token; where none is set for padding, end-of-text serves.

    Raises:
        InputError: it can't be loaded, is not a fast one (character offsets are needed), or has no end-of-text token.
    """
    tokenizer = _load(AutoTokenizer, name, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise InputError(f"{name!r} has no fast tokenizer: character offsets are needed to place secrets; convert it")
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{name!r}: the tokenizer has no end-of-text token, which must close every response; set eos_token"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # harmless: masks come from lengths, never from token ids
    return tokenizer


def load_model(
    name: str | Path,
    *,
    dtype: str = "fp32",
    device: str | None = None,
    dropout: float | None = None,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """A decoder-only model in evaluation mode.

    Args:
        dtype: "fp32", "bf16", or "auto" for `detect_precision`.
        device: default the GPU if there is one.
        dropout: overrides every dropout rate of the configuration; None leaves them.

    Raises:
        InputError: it can't be loaded, is sequence-to-sequence, or lacks weights, which would be random numbers.
    """
    device = device or default_device()
    config = _load(AutoConfig, name, trust_remote_code=trust_remote_code)
    if config.is_encoder_decoder:
        raise InputError(
            f"{name!r} ({config.model_type}) is sequence-to-sequence; wanted a decoder-only causal language model"
        )
    if dropout is not None:
        set_dropout(config, dropout)
    model, found = _load(
        AutoModelForCausalLM,
        name,
        config=config,
        dtype=torch_dtype(dtype, device),
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    if missing := sorted(found["missing_keys"]):  # of tied layers, one is enough
        raise InputError(
            f"{name!r} lacks {len(missing)} of the weights of a {type(model).__name__} ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}), which would be random numbers: give a whole checkpoint, saved with its "
            "output layer"
        )
    return model.to(device).eval()


def set_dropout(config, rate: float) -> None:
    """Set every dropout probability a configuration has."""
    for key in ("attn_pdrop", "embd_pdrop", "resid_pdrop", "attention_dropout", "hidden_dropout", "dropout"):
        if hasattr(config, key):
            setattr(config, key, rate)


def default_device() -> str:
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


def context_length(model: PreTrainedModel) -> int:
    """Longest input in tokens."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 10**9))


def config_context(name: str | Path, trust_remote_code: bool = False) -> int:
    """As `context_length`, from the configuration alone."""
    config = _load(AutoConfig, name, trust_remote_code=trust_remote_code).get_text_config()
    return int(getattr(config, "max_position_embeddings", 10**9))


def parameter_count(model: PreTrainedModel) -> int:
    """Parameters, tied ones counted once."""
    return sum(p.numel() for p in model.parameters())


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text can be written, and losing no byte keeps verbatim verbatim."""
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END, pad_token=END, unk_token=END)


def build_model(
    shape: Scratch, tokenizer: PreTrainedTokenizerBase, seed: int, dropout: float | None = None
) -> PreTrainedModel:
    """A model with random weights of the stated shape; `dropout` overrides the architecture's usual rates."""
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if shape.architecture == "gpt2":
        config = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=shape.context,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            **ends,
        )
    else:
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=shape.width,
            intermediate_size=4 * shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            max_position_embeddings=shape.context,
            tie_word_embeddings=True,
            **ends,
        )
    if dropout is not None:
        set_dropout(config, dropout)
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config)


def keep_layers(model: PreTrainedModel, every: int) -> PreTrainedModel:
    """Cut a student from a model: layers 0, every, 2 x every, ..., all else as it was.

    Raises:
        InputError: the model's layers can't be found, or fewer than one would be dropped.
    """
    decoder = model.base_model
    name = next((n for n in ("layers", "h", "blocks") if hasattr(decoder, n)), None)
    layers = getattr(decoder, name) if name else []
    if len(layers) < 2:
        raise InputError(
            f"cannot cut a student from {type(model).__name__}: found {len(layers)} layers, wanted at least 2"
        )
    kept = torch.nn.ModuleList(list(layers)[::every])
    for index, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index  # the key-value cache is addressed by it
    setattr(decoder, name, kept)
    model.config.num_hidden_layers = len(kept)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[::every]
    return model


def check_same_tokenizer(teacher: PreTrainedTokenizerBase, student: PreTrainedTokenizerBase, size: str) -> None:
    """Distillation compares distributions entry by entry, so both must number the same tokens alike.

    Raises:
        InputError: the vocabularies differ (sizes and the first differing entry).
    """
    a, b = teacher.get_vocab(), student.get_vocab()
    if a != b:
        differing = next(iter(sorted(set(a.items()) ^ set(b.items()), key=lambda item: item[1])))
        raise InputError(
            f"teacher and student {size!r} have different tokenizers ({len(a)} and {len(b)} entries, first difference at "
            f"{differing[0]!r} = {differing[1]}): take a student of the teacher's family, or cut one with keep_every"
        )
