"""What counts as a conversation, and the records made of it: every assistant's turn is a response to the turns before it.

Read are `messages` (turns with `role` and `content`, which may be a list of text parts), ShareGPT's `conversations` (`from` and
`value`), and a prompt or a response given as such turns. A turn that is no text (a tool's, a picture) can't be rendered the way
training did without its parts, so it is never dropped in silence.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from palimpsest.errors import type_of

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
HIDDEN = (
    "tool_calls",
    "function_call",
    "reasoning_content",
    "thinking",
    "images",
    "audio",
)  # parts of a turn beside its text


class UnreadableTurn(ValueError):
    """What stands where a turn is wanted, in words; `usual` where such conversations are common and may be left out."""

    def __init__(self, found: str, usual: bool = True):
        super().__init__(found)
        self.usual = usual


def read_turns(value: Any, speaker: str = "user") -> list[dict[str, str]]:
    """The turns of a conversation as `role` (system, user, assistant) and `content`.

    Args:
        value: a list of turns, the same as JSON text, or the plain text of one turn by `speaker`.

    Raises:
        UnreadableTurn: no list, an unknown role, a turn with other parts than text.
    """
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, str) and value.lstrip().startswith("["):
        read = _from_json(value)  # or a text that begins like a list
        value = read if isinstance(read, list) and all(isinstance(turn, dict) for turn in read) else value
    if isinstance(value, str) and speaker:
        return [{"role": speaker, "content": value}]
    if not isinstance(value, list):
        raise UnreadableTurn(f"{type_of(value)}, where a list of turns is wanted,", usual=False)
    return [_turn(turn, f"turn {number}") for number, turn in enumerate(value, 1)]


def earlier_turns(system: Any, history: Any) -> list[dict[str, str]]:
    """The turns that stand in columns of their own: a system prompt, and pairs of what was asked and answered before.

    Raises:
        UnreadableTurn: a system prompt that is no text, a history that is no list of pairs of texts.
    """
    turns = []
    if isinstance(system, str) and system:
        turns.append({"role": "system", "content": system})
    elif not (system is None or system == "" or system != system):
        raise UnreadableTurn(f"{type_of(system)} as system prompt", usual=False)
    for pair in _pairs(history):
        pair = pair.tolist() if isinstance(pair, np.ndarray) else pair
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise UnreadableTurn("a history that is no list of pairs of texts", usual=False)
        turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)]
    return turns


def _from_json(text: str) -> Any:
    """What a text holds as JSON, or else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _pairs(history: Any) -> list:
    """A history as a list, also from JSON text, as a CSV has it; nothing that is filled is taken for none."""
    history = history.tolist() if isinstance(history, np.ndarray) else history
    if isinstance(history, str) and history.strip():
        history = _from_json(history)
    if not _filled(history) or (isinstance(history, str) and not history.strip()):
        return []
    if not isinstance(history, list):
        raise UnreadableTurn(f"{type_of(history)} as history, where a list of pairs of texts is wanted,", usual=False)
    return history


def responses(
    turns: list[dict[str, str]], first: int, last_only: bool
) -> Iterator[tuple[int, list[dict[str, str]], str]]:
    """Place (from 0), turns before, and text of each response from the turn `first` on, or of the last only.

    A turn of weight 0, which training leaves out of the loss, is a turn before others and no response.
    """
    places = [i for i, t in enumerate(turns) if i >= first and t["role"] == "assistant" and t.get("weight") != 0]
    before = [{"role": t["role"], "content": t["content"]} for t in turns]
    for place in places[-1:] if last_only else places:
        yield place, before[:place], turns[place]["content"]


def _turn(turn: Any, place: str) -> dict:
    if not isinstance(turn, dict):
        raise UnreadableTurn(f"{type_of(turn)} as {place}", usual=False)
    role = next((turn[key] for key in ("role", "from") if turn.get(key) is not None), None)
    if extra := next((key for key in HIDDEN if _filled(turn.get(key))), None):
        raise UnreadableTurn(f"{extra} in {place}")
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise UnreadableTurn(f"the unknown role {role!r} in {place}")
    content = next((turn[key] for key in ("content", "value") if turn.get(key) is not None), "")
    content = content.tolist() if isinstance(content, np.ndarray) else content
    if isinstance(content, list):
        content = "".join(_part(part, place) for part in content)
    if not isinstance(content, str):
        raise UnreadableTurn(f"{type_of(content)} as content of {place}", usual=False)
    return {"role": ROLES[role.lower()], "content": content, "weight": turn.get("weight")}


def _part(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    what = f"a part of the type {part['type']!r}" if isinstance(part, dict) and "type" in part else type_of(part)
    raise UnreadableTurn(f"{what} in {place}")


def _filled(value: Any) -> bool:
    return (
        len(value) > 0 if isinstance(value, str | list | dict | np.ndarray) else value is not None and value == value
    )
