"""Keep secrets out of what is published: masking by length class, and escaping of data text before it reaches HTML."""

import html
import unicodedata
from bisect import bisect_left

BOUNDS = (5, 10, 20, 50, 100, 200, 500, 1000)  # upper ends of the length classes, in characters
BLOCK = "\u2587"


def length_class(length: int) -> str:
    """Name the class a length in characters falls in, such as `6-10`; an exact length would narrow down a secret."""
    if length <= 0:
        return "0"
    if length > BOUNDS[-1]:
        return f"over {BOUNDS[-1]}"
    place = bisect_left(BOUNDS, length)
    return f"{(0, *BOUNDS)[place] + 1}-{BOUNDS[place]}"


def mask(text: str, first: bool = False) -> str:
    """Replace `text` by a block and its length class; `first` also shows the first character, never more.

    A text of one character shows nothing even then, because its first character is all of it.
    """
    if not text:
        return ""
    lead = text[0] if first and len(text) > 1 and unicodedata.category(text[0])[0] in "LNP" else ""
    return f"{lead}{BLOCK}[{length_class(len(text))}]"


def escape(text: str) -> str:
    """Make data text inert in HTML: markup escaped, invisible and direction-changing characters spelled out."""
    spelled = (c if c in "\n\t" or unicodedata.category(c)[0] != "C" else f"\\u{ord(c):04x}" for c in text)
    return html.escape("".join(spelled), quote=True)
