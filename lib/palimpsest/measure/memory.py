"""How much fits in memory, and what to do when it doesn't: the one place for scoring and for decoding."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch

from palimpsest.errors import InputError

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the device or on the host.

    The types say so wherever there is one. PyTorch's CPU allocator has none: it raises a plain `RuntimeError`, known by its
    text alone ("DefaultCPUAllocator: can't allocate memory").
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return type(error) is RuntimeError and "DefaultCPUAllocator: can't allocate memory" in str(error)


def free_memory(device: torch.device) -> int:
    """Bytes that are free on `device` now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    pages = os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else 1 << 20  # unknown on macOS
    return pages * os.sysconf("SC_PAGE_SIZE")


def run_batches(
    batches: Iterable[list[int]],
    run: Callable[[list[int]], Result],
    tokens: Sequence[int],
    names: Sequence[str],
) -> Iterator[tuple[list[int], Result]]:
    """Run batch after batch of row numbers; when memory runs out, halve that batch and all that follow, and go on.

    Args:
        tokens, names: of each row, how long it gets and what to call it.

    Yields:
        The rows of a batch and what `run` gave for them.

    Raises:
        InputError: a row does not fit in memory alone.
    """
    todo = list(batches)
    while todo:
        rows, short = todo[0], False
        try:
            result = run(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            short = True
        if short:  # outside the handler, whose traceback holds on to the batch
            longest = max(tokens[i] for i in rows)
            if len(rows) == 1:
                raise InputError(
                    f"{names[rows[0]]} of {longest} tokens does not fit in memory alone. Use a narrower dtype, a larger "
                    "device, or cut the record into windows."
                )
            budget = len(rows) * longest // 2
            warnings.warn(f"out of memory: going on with at most {budget} tokens a batch", stacklevel=3)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            todo = [half for b in todo for half in (b[: len(b) // 2], b[len(b) // 2 :]) if half]
        else:
            todo.pop(0)
            yield rows, result
