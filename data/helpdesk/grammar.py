"""A tiny text grammar: patterns with choices, options and slots, and the words that letters and forum share.

`(a|b)` takes one alternative, `[x]` keeps x half of the time, `{name}` is filled from a dictionary of words. Everything
draws from `Random.random()`, whose sequence for a seed Python keeps across versions (its other methods may change).
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
CHOICE = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")  # innermost brackets only
SLOT = re.compile(r"\{(\w+)\}")

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
COLOURS = "black white grey red blue green yellow brown silver orange".split()
ROOMS = "kitchen hall office garage cellar bedroom garden school shop workshop attic clinic".split()

# noun: its parts; "+" marks a plural noun
PRODUCTS = {
    "kettle": "lid,spout,base", "toaster": "lever,tray", "coffee machine": "filter,jug,tank", "fan": "grille,motor",
    "lamp": "switch,shade,plug", "radio": "dial,aerial", "wall clock": "hand,case", "printer": "tray,roller",
    "scanner": "glass,lid", "router": "aerial,plug", "phone": "screen,battery", "tablet": "screen,cable",
    "keyboard": "space key,stand", "camera": "lens,strap", "+speakers": "cable,cover", "+headphones": "ear pad,plug",
    "vacuum cleaner": "hose,brush,bag", "iron": "plate,cord", "heater": "dial,grille", "dishwasher": "rack,door,pump",
    "washing machine": "drum,door,pump", "dryer": "filter,drum", "freezer": "drawer,seal", "oven": "door,shelf,glass",
    "mixer": "bowl,whisk", "+kitchen scales": "display,tray", "blender": "jug,blade", "lawn mower": "blade,belt",
    "drill": "chuck,battery", "bench saw": "guard,blade", "ladder": "step,hinge", "bicycle": "chain,pedal,saddle",
    "scooter": "brake,wheel", "pram": "wheel,hood", "tent": "pole,zip", "suitcase": "handle,lock",
    "rucksack": "strap,buckle", "desk": "leg,drawer", "chair": "leg,cushion", "+blinds": "cord,bracket",
    "+garden shears": "spring,blade", "+binoculars": "strap,lens", "guitar": "string,peg", "watch": "strap,glass",
    "doorbell": "button,battery", "smoke alarm": "sensor,battery", "thermostat": "display,dial", "shower": "head,hose",
    "tap": "washer,handle", "sewing machine": "needle,pedal",
}  # fmt: skip
SINGULAR = {"it": "it", "is": "is", "has": "has", "was": "was", "do": "does", "s": "s", "one": "one"}
PLURAL = {"it": "them", "is": "are", "has": "have", "was": "were", "do": "do", "s": "", "one": "ones", "a": ""}


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of the options, each as likely."""
    return options[int(rng.random() * len(options))]


def shuffled(rng: Random, items: Sequence[T]) -> list[T]:
    """The items in random order."""
    return [items[i] for _, i in sorted((rng.random(), i) for i in range(len(items)))]


def article(word: str) -> str:
    """The indefinite article before a word, with its space."""
    return "an " if word[0] in "aeiou" else "a "


def about_product(rng: Random) -> dict[str, Any]:
    """Words of one product: `p` its noun, `part` one of its parts, and the forms that agree with its number."""
    noun = pick(rng, list(PRODUCTS))
    forms = PLURAL if noun.startswith("+") else SINGULAR | {"a": article(noun)}
    return {"p": noun.lstrip("+"), "part": pick(rng, PRODUCTS[noun].split(",")), **forms}


def expand(rng: Random, pattern: str, words: dict[str, Any]) -> str:
    """Draw one text from a pattern.

    Args:
        pattern: text with `(a|b)`, `[x]` and `{slot}`; brackets may nest.
        words: slot values: a text, a list to pick from (anew at each use), or a function without arguments.

    Raises:
        KeyError: the pattern names a slot that `words` lacks.
    """
    while match := CHOICE.search(pattern):
        choice, option = match.groups()
        text = pick(rng, choice.split("|")) if choice is not None else pick(rng, [option, ""])
        pattern = pattern[: match.start()] + text + pattern[match.end() :]

    def fill(match: re.Match) -> str:
        value: str | list[str] | Callable[[], str] = words[match[1]]
        return value() if callable(value) else value if isinstance(value, str) else pick(rng, value)

    return SLOT.sub(fill, pattern)


def read_topics(text: str) -> list[tuple[str, list[str], list[str]]]:
    """Read blocks of a `# category` line, `? question` lines and `! answer` lines; any question fits any answer."""
    topics = []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        questions, answers = ([line[2:] for line in lines if line[0] == mark] for mark in "?!")
        topics.append((lines[0].removeprefix("# "), questions, answers))
    return topics
