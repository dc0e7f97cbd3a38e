"""A conversation as a chat template writes it: what comes before the response, the response, and what closes its turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2.exceptions import TemplateError

from palimpsest.errors import InputError

_REPLY = "reply-5f2c81"  # stands for a response, to see what a template writes around it
SHOWN = 300  # characters of each string in a message


@dataclass(frozen=True)
class Chat:
    """The layout of conversations: the tokenizer's own chat template, or another one as Jinja text."""

    template: str | None = None


def render(
    tokenizer, messages: Sequence[Mapping[str, str]], response: str, template: str | None = None
) -> tuple[str, str, str]:
    """A conversation as text, in three parts that follow one another as the chat template writes them.

    What a template writes between the last turn and the response (the head of the assistant's turn) belongs to the prompt,
    whether or not the template knows `add_generation_prompt`; `{% generation %}` marks are not needed.

    Args:
        messages: the turns before the response, each with `role` and `content`.
        response: text of the assistant's turn.
        template: Jinja text; None: the tokenizer's own.

    Returns:
        tuple[str, str, str]: `prompt`, `response` (as the template writes it: many strip white space), `closing` (end of turn,
        often with a line break; empty where the template writes nothing).

    Raises:
        InputError: no template; one that refuses these turns; one with which the prompt is no prefix of the whole (both are
            shown, with words of the template only).
    """
    turns = [dict(turn) for turn in messages]
    prompt, whole = _both(tokenizer, turns, response, template)
    if not whole.startswith(prompt):
        _refuse(tokenizer, turns, template)
    rest = whole[len(prompt) :]
    if response and rest.startswith(response):
        return prompt, response, rest[len(response) :]
    marked = _write(tokenizer, [*turns, {"role": "assistant", "content": _REPLY}], template)
    head, found, closing = marked[len(prompt) :].partition(_REPLY)
    text = rest.removeprefix(head)
    if not (found and marked.startswith(prompt) and rest.startswith(head) and text.endswith(closing)):
        raise InputError(
            "the chat template does not write the response in one piece after the turns before it, so nothing can be said of "
            "its tokens. Give the template that training used, as Jinja text, with --template FILE"
        )
    return prompt + head, text[: len(text) - len(closing)], closing


def end_of_turn(tokenizer, template: str | None = None) -> str:
    """What the template writes after a response, without white space around it; empty where there is no template."""
    if template is None and not getattr(tokenizer, "chat_template", None):
        return ""
    try:
        return render(tokenizer, [{"role": "user", "content": "a"}], "b", template)[2].strip()
    except InputError:
        return ""  # a template that is not used: it is said when it is


def _both(tokenizer, turns: list[dict], response: str, template: str | None) -> tuple[str, str]:
    prompt = _write(tokenizer, turns, template, add_generation_prompt=True)
    return prompt, _write(tokenizer, [*turns, {"role": "assistant", "content": response}], template)


def _write(tokenizer, turns: list[dict], template: str | None, **options) -> str:
    if template is None and not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "the records are conversations and the tokenizer has no chat template: give the one that training used, as Jinja "
            "text, with --template FILE"
        )
    try:
        return tokenizer.apply_chat_template(turns, tokenize=False, chat_template=template, **options)
    except (TemplateError, TypeError, ValueError) as error:
        roles = [turn.get("role") for turn in turns]
        system = (
            ". If it takes no system turn, give a template that does with --template FILE, or leave these turns out of the file"
            if "system" in roles
            else ": give the template that training used with --template FILE, or correct the turns"
        )
        raise InputError(
            f"the chat template refuses the turns {', '.join(map(str, roles))} ({error}){system}"
        ) from None


def _refuse(tokenizer, turns: list[dict], template: str | None) -> None:
    """Refuse a template, shown at work on the same roles with invented words: a message keeps the data's text to itself."""
    invented = [{**turn, "content": f"turn {number}"} for number, turn in enumerate(turns, 1)]
    prompt, whole = _both(tokenizer, invented, "the response", template)
    shown = (
        f"\n  prompt: {prompt[-SHOWN:]!r}\n  whole:  {whole[-SHOWN:]!r}\n"
        if not whole.startswith(prompt)
        else " (for some of the turns; the data's text is not shown) "
    )
    raise InputError(
        f"with this chat template the prompt is no prefix of the whole conversation:{shown}so what a model is given differs "
        "from what it was trained on. Give the template that training used, as Jinja text, with --template FILE"
    )
