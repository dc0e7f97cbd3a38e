"""The teacher's final hidden states at the labelled positions, computed once and read from disk by every arm.

A teacher in evaluation mode gives the same states for the same text in every epoch, for every student and seed. Its output
layer turns them back into the exact distribution over the whole vocabulary, so nothing is lost; per labelled token
`width x bytes of the dtype` are stored (3.2 kB for GPT-2 XL in bf16, where the logits would take 100 kB).
"""

import fcntl
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import PreTrainedModel

from palimpsest.data.examples import Example, by_length, collate
from palimpsest.errors import InputError
from palimpsest.measure.forward import labelled, labelled_states
from palimpsest.measure.score_file import weights_digest
from palimpsest.study import fingerprint

log = logging.getLogger(__name__)


class TeacherCache:
    """An opened cache, a file per batch that the teacher read, an entry per record; `lookup` is its only use.

    Raises:
        SafetensorError: a file is damaged.
    """

    def __init__(self, folder: Path):
        files = [safe_open(path, "pt") for path in sorted(folder.glob("*.safetensors"))]
        self._home = {name: file for file in files for name in file.keys()}  # noqa: SIM118

    def lookup(self, ids: Sequence[str]) -> torch.Tensor:
        """States of the labelled tokens of these examples, one after the other: `[tokens, width]` in the stored dtype."""
        return torch.cat([self._home[i].get_tensor(i) for i in ids])

    def holds(self, ids: Sequence[str]) -> bool:
        """Whether every one of these examples is there."""
        return self._home.keys() >= set(ids)


def open_cache(
    cache_dir: str | Path, teacher: PreTrainedModel, examples: Sequence[Example], token_budget: int = 8192
) -> TeacherCache:
    """Open the cache that belongs to exactly this teacher and set of records, making it where it is missing or damaged.

    Processes that ask for the same cache at the same time wait for the one that makes it. The folder's name is a hash of
    the teacher's weights and of the records' tokens, so a cache made from anything else is never opened.

    Args:
        cache_dir: folder that holds one folder per cache.
        teacher: a causal language model in evaluation mode; its states are stored in its dtype.
        examples: the references; an id may be repeated, with the same tokens.
        token_budget: padded tokens per batch while the teacher runs.

    Raises:
        InputError: one id with two different texts, or a teacher that gives values that aren't finite.
    """
    unique = {}
    for e in examples:
        first = unique.setdefault(e.id, e)
        if (first.input_ids, first.prompt_length, first.untrained) != (e.input_ids, e.prompt_length, e.untrained):
            raise InputError(f"Record {e.id} occurs with two different tokenizations; ids must name one text each.")
    records = [[e.id, e.prompt_length, e.input_ids, e.untrained] for e in unique.values()]
    folder = Path(cache_dir) / fingerprint([weights_digest(teacher), records])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system even if this process is killed
        if folder.exists():
            try:
                if (cache := TeacherCache(folder)).holds(unique):
                    return cache
            except SafetensorError:
                pass
            log.warning("The teacher cache %s is damaged. Making it again.", folder)
            shutil.rmtree(folder)
        _write(folder, teacher, list(unique.values()), token_budget)
    return TeacherCache(folder)


@torch.inference_mode()
def _write(folder: Path, teacher: PreTrainedModel, examples: list[Example], token_budget: int) -> None:
    """Run the teacher over the examples and put the finished folder in place in one step."""
    draft = folder.with_suffix(".part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    with tqdm(total=len(examples), desc="teacher states", leave=False, disable=None) as bar:
        for number, batch in enumerate(by_length(examples, token_budget)):
            chosen = [examples[i] for i in batch]
            tensors = collate(chosen, pad_id=0)  # padding is never attended to, so any id does
            at, _ = labelled(tensors["labels"])
            states = labelled_states(teacher, [{"input_ids": tensors["input_ids"], "at": at}]).to("cpu", teacher.dtype)
            lengths = torch.bincount(at // tensors["labels"].shape[1], minlength=len(chosen)).tolist()
            entries = {e.id: part for e, part in zip(chosen, states.split(lengths), strict=True)}
            for name, part in entries.items():
                if not torch.isfinite(part).all():
                    raise InputError(
                        f"The teacher gives values that aren't finite for record {name}: its weights are damaged or its "
                        "dtype overflows. Load it in fp32 or bf16, or train it again."
                    )
            save_file(entries, draft / f"{number:06d}.safetensors")
            bar.update(len(chosen))
    draft.replace(folder)
