"""Load and build the models and tokenizers of a study."""

from collections.abc import Iterable
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from palimpsest.errors import InputError
from palimpsest.study.files import locate
from palimpsest.study.sections import Scratch

END = "<|endoftext|>"

logging.disable_progress_bar()  # bars for loading and saving; a study does both after every epoch


class CannotLoadError(InputError):
    """A model or tokenizer that can't be had: no such folder, a broken one, or a hub id out of reach."""


def source(name: str | Path) -> str:
    """A local folder's absolute path, or the hub id as it is."""
    path = locate(name)
    return str(path) if path.exists() else str(name)


def _load(kind, name: str | Path, **options):
    try:
        return kind.from_pretrained(source(name), **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CannotLoadError(
            f"cannot load {name!r}: {first} (neither a local folder with a usable model nor a hub id that can be had now; "
            "check the name and the network, or give a local folder)"
        ) from None


def load_tokenizer(
    name: str | Path, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """A fast tokenizer with an end-of-text token; where none is set for padding, end-of-text serves.

    `revision` is a branch, tag or commit of a hub id; a local folder has none.

    Raises:
        InputError: it can't be loaded, is not a fast one (character offsets are needed), or has no end-of-text token.
    """
    tokenizer = _load(AutoTokenizer, name, trust_remote_code=trust_remote_code, revision=revision)
    if not tokenizer.is_fast:
        raise InputError(f"{name!r} has no fast tokenizer: character offsets are needed to place secrets; convert it")
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"{name!r}: the tokenizer has no end-of-text token, which must close every response; set eos_token"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # harmless: masks come from lengths, never from token ids
    return tokenizer


def load_config(name: str | Path, trust_remote_code: bool = False, revision: str | None = None) -> PreTrainedConfig:
    """The configuration of a decoder-only model, without its weights.

    Raises:
        InputError: it can't be loaded, or the model is sequence-to-sequence.
    """
    config = _load(AutoConfig, name, trust_remote_code=trust_remote_code, revision=revision)
    if config.is_encoder_decoder:
        raise InputError(
            f"{name!r} ({config.model_type}) is sequence-to-sequence; wanted a decoder-only causal language model"
        )
    return config


def load_model(
    name: str | Path,
    *,
    dtype: str = "fp32",
    device: str | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """A decoder-only model in evaluation mode.

    Args:
        name: a local folder or a hub id, of which `revision` names a branch, tag or commit.
        dtype: "fp32", "bf16", or "auto" for `detect_precision`.
        device: default the GPU if there is one.

    Raises:
        InputError: it can't be loaded, is sequence-to-sequence, or lacks weights, which would be random numbers.
    """
    device = device or default_device()
    config = load_config(name, trust_remote_code, revision)
    model, found = _load(
        AutoModelForCausalLM,
        name,
        config=config,
        dtype=torch_dtype(dtype, device),
        trust_remote_code=trust_remote_code,
        revision=revision,
        output_loading_info=True,
    )
    if missing := sorted(found["missing_keys"]):  # of tied layers, one is enough
        raise InputError(
            f"{name!r} lacks {len(missing)} of the weights of a {type(model).__name__} ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}), which would be random numbers: give a whole checkpoint, saved with its "
            "output layer"
        )
    return model.to(device).eval()


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


def parameter_count(model: PreTrainedModel) -> int:
    """Parameters, tied ones counted once."""
    return sum(p.numel() for p in model.parameters())


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: any text can be written, and losing no byte keeps verbatim verbatim."""
    from tokenizers import ByteLevelBPETokenizer

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=[END], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END, pad_token=END, unk_token=END)


def build_model(shape: Scratch, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A model with random weights of the stated shape."""
    config = (GPT2Config if shape.architecture == "gpt2" else LlamaConfig)(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **(
            {} if shape.architecture == "gpt2" else {"intermediate_size": 4 * shape.width, "tie_word_embeddings": True}
        ),
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
            f"{differing[0]!r} = {differing[1]}): take a student of the teacher's family, or cut one with keep_every"
        )
