"""A program's start: what it needs is imported without a search for garbage among a million objects of which none is any."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def first_import() -> Iterator[None]:
    """Import torch and what is built on it here, if a program (never a library) is about to need them: in half of the time.

    What is there afterwards is looked through no more, neither later nor when the program ends. Where torch is there already, nothing
    is done: somebody else's objects would be kept for good.
    """
    if "torch" in sys.modules:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
