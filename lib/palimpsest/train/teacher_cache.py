"""The teacher's final hidden states at the labelled positions, computed once and read from disk by every arm.

A teacher in evaluation mode gives the same states for the same text in every epoch, for every student and seed. Its output
layer turns them back into the exact distribution over the whole vocabulary, so nothing is lost; per labelled token
`width x bytes of the dtype` are stored (3.2 kB for GPT-2 XL in bf16, where the logits would take 100 kB).
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.data.examples import Example, by_length, collate
from palimpsest.errors import InputError
from palimpsest.measure.hidden_states import body_states, labelled

log = logging.getLogger(__name__)

_STATES, _META = "states.bin", "cache.json"
_INTEGERS = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}  # numpy has no bfloat16: bytes are mapped, then viewed


class TeacherCache:
    """An opened cache; `lookup` is its only use.

    Raises:
        InputError: the folder was made for another teacher, tokenizer, set of records or dtype, or it is damaged.
    """

    def __init__(self, folder: str | Path, wanted: dict[str, str]):
        folder = Path(folder)
        try:
            meta = json.loads((folder / _META).read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} isn't a finished teacher cache ({error}). Delete it; it is made again."
            ) from None
        stale = [name for name, value in wanted.items() if meta["made_from"].get(name) != value]
        if stale:
            raise InputError(
                f"The teacher cache {folder} was made with another {', '.join(stale)}; its states would be wrong. "
                "Delete the folder or name another one; it is made again."
            )
        self.dtype = getattr(torch, meta["dtype"])
        self.width = meta["width"]
        integer = np.dtype(_INTEGERS[self.dtype.itemsize])
        tokens = sum(meta["tokens"])
        found, expected = (folder / _STATES).stat().st_size, tokens * self.width * integer.itemsize
        if found != expected:
            raise InputError(
                f"The teacher cache {folder} holds {found:,} bytes and should hold {expected:,}: it was truncated. "
                "Delete the folder; it is made again."
            )
        shape = (tokens, self.width)
        self._states = np.memmap(folder / _STATES, integer, "r", shape=shape) if tokens else np.zeros(shape, integer)
        ends = np.cumsum(meta["tokens"]).tolist()
        self._parts = {i: slice(e - n, e) for i, e, n in zip(meta["ids"], ends, meta["tokens"], strict=True)}

    def lookup(self, ids: Sequence[str]) -> torch.Tensor:
        """States of the labelled tokens of these examples, one after the other: `[tokens, width]` in the stored dtype."""
        parts = np.concatenate([self._states[self._parts[i]] for i in ids])
        return torch.from_numpy(parts).view(self.dtype)


def open_cache(
    cache_dir: str | Path,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    token_budget: int = 8192,
    dtype: torch.dtype | None = None,
) -> TeacherCache:
    """Open the cache that belongs to exactly this teacher, tokenizer and set of records, making it where it is missing.

    Processes that ask for the same cache at the same time wait for the one that makes it. A truncated cache is made again.

    Args:
        cache_dir: folder that holds one folder per cache.
        teacher: a causal language model in evaluation mode.
        tokenizer: enters the key, and pads.
        examples: the references; an id may be repeated, with the same tokens.
        token_budget: padded tokens per batch while the teacher runs.
        dtype: stored dtype; the teacher's own by default.

    Raises:
        InputError: one id with two different texts, a teacher that gives values that aren't finite, a stale folder.
    """
    unique = {}
    for e in examples:
        if unique.setdefault(e.id, e).input_ids != e.input_ids or unique[e.id].prompt_length != e.prompt_length:
            raise InputError(f"Record {e.id} occurs with two different tokenizations; ids must name one text each.")
    dtype = dtype or teacher.dtype
    made_from = {
        "teacher": hash_model(teacher),
        "tokenizer": hash_tokenizer(tokenizer),
        "records": _digest(json.dumps([[e.id, e.prompt_length, e.input_ids] for e in unique.values()]).encode()),
        "dtype": str(dtype),
    }
    folder = Path(cache_dir) / _digest(json.dumps(made_from).encode())[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system even if this process is killed
        if folder.exists():
            try:
                return TeacherCache(folder, made_from)
            except InputError as error:
                if "another" in str(error):
                    raise
                log.warning("%s Making it again.", error)
                shutil.rmtree(folder)
        _write(folder, teacher, tokenizer, list(unique.values()), made_from, token_budget, dtype)
    return TeacherCache(folder, made_from)


@torch.inference_mode()
def _write(folder, teacher, tokenizer, examples, made_from, token_budget, dtype) -> None:
    """Run the teacher over the examples and put the finished folder in place in one step."""
    draft = folder.with_suffix(".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    order = [i for batch in by_length(examples, token_budget) for i in batch]
    device = next(teacher.parameters()).device
    counts, width = [], 0
    with (
        open(draft / _STATES, "wb") as file,
        tqdm(total=len(order), desc="teacher states", leave=False, disable=None) as bar,
    ):
        for batch in by_length(examples, token_budget):
            chosen = [examples[i] for i in batch]
            tensors = collate(chosen, pad_id)
            at, _ = labelled(tensors["labels"])
            states = body_states(teacher, tensors["input_ids"].to(device)).flatten(0, 1)[at.to(device)]
            width = states.shape[1]
            _check_finite(states, at, tensors["labels"].shape[1], chosen)
            states = states.to("cpu", dtype).contiguous()
            file.write(states.view(getattr(torch, _INTEGERS[dtype.itemsize].__name__)).numpy().tobytes())
            counts += [len(e.input_ids) - max(e.prompt_length, 1) for e in chosen]
            bar.update(len(chosen))
        file.flush()
        os.fsync(file.fileno())
    meta = {
        "made_from": made_from,
        "dtype": str(dtype).removeprefix("torch."),
        "width": width,
        "ids": [examples[i].id for i in order],
        "tokens": counts,
    }
    (draft / _META).write_text(json.dumps(meta))
    os.replace(draft, folder)


def _check_finite(states: torch.Tensor, at: torch.Tensor, length: int, examples: list[Example]) -> None:
    bad = ~torch.isfinite(states).all(-1)
    if bad.any():
        row = int(at[bad.cpu()][0]) // length
        raise InputError(
            f"The teacher gives values that aren't finite for record {examples[row].id}: its weights are damaged or its "
            "dtype overflows. Load it in fp32 or bf16, or train it again."
        )


def hash_model(model: PreTrainedModel) -> str:
    """Digest of a model's configuration and weights (names, shapes, dtypes and bytes)."""
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of a tokenizer's vocabulary and special tokens."""
    return _digest(
        json.dumps([sorted(tokenizer.get_vocab().items()), tokenizer.special_tokens_map], default=str).encode()
    )


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
