"""The one exception for bad input: its message names what was found, what was wanted, why, and what to do next."""

from datetime import date
from numbers import Number
from typing import Any


class InputError(ValueError):
    """Raised for anything the user can correct: a study file, a data file, a model that does not fit.

    The command line prints the message without a traceback and exits with 2. Nothing already computed is removed.
    """


def type_of(value: Any) -> str:
    """What a value is, in a message's words: "a number", "a list", "null"; never the value, which may be private."""
    if value is None:
        return "null"
    if isinstance(value, Number) and value != value:
        return "nothing (NaN)"
    if isinstance(value, bool) or type(value).__name__ == "bool":  # numpy's own is called alike
        return "true or false"
    if isinstance(value, list | tuple) or hasattr(value, "tolist") and getattr(value, "ndim", 0):
        return "a list"
    known = {str: "a text", dict: "an object", Number: "a number", bytes: "bytes", date: "a date"}
    return next((words for kind, words in known.items() if isinstance(value, kind)), type(value).__name__)
