"""What an audit is given: which columns are what, how a prompt is laid out, whether a tokenizer fits, records cut to size."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from palimpsest.data import records as reading
from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure.extraction import left_truncated_examples
from palimpsest.measure.forward import vocabulary_size
from palimpsest.study.runs import locate

GUESSES = {  # our column -> names it goes by elsewhere, the likeliest first
    "instruction": ("instruction", "prompt", "question", "query", "problem", "source"),
    "context": ("context", "input", "passage"),
    "response": ("response", "output", "answer", "completion", "target", "reply", "solution"),
    "text": ("text", "content", "body", "document", "story", "article"),
}
AS_IT_STANDS = reading.Template(with_context="{instruction}\n{context}", without_context="{instruction}")


def guess_columns(names: list[str], given: dict[str, str], source) -> dict[str, str]:
    """Which column of `source` is which of ours: `given` ones as they are, the rest guessed from their names.

    Prompt and response win over text where a file has both.

    Raises:
        InputError: neither a prompt with a response nor a text is recognized.
    """
    lower = {name.lower(): name for name in reversed(names)}
    taken = set(given.values())
    found = dict(given)
    for ours, known in GUESSES.items():
        match = next((lower[k] for k in known if k in lower and lower[k] not in taken), None)
        if ours not in found and match:
            found[ours] = match
            taken.add(match)
    if "text" in given and {"instruction", "response"} & set(given):
        raise InputError("give either --text-column or --prompt-column with --response-column, not both")
    if "text" not in given and {"instruction", "response"} <= set(found):
        return {k: v for k, v in found.items() if k != "text"}
    if "text" in found and not {"instruction", "response", "context"} & set(given):
        return {"text": found["text"]}
    raise InputError(
        f"{source} has the columns {', '.join(names)}: which of them are prompt and response, or text, cannot be told "
        "from their names. Map them: --prompt-column and --response-column (--context-column), or --text-column"
    )


def choose_template(name: str, columns: dict[str, str]) -> tuple[str, reading.Template | None]:
    """The prompt template and its name; None for plain text.

    "auto" takes the Alpaca layout where the prompt column is called instruction, and the prompt as it stands elsewhere.

    Raises:
        InputError: an unknown name, or a file without the two layouts.
    """
    if "text" in columns:
        return "none (plain text)", None
    if name == "auto":
        name = "alpaca" if columns["instruction"].lower() == "instruction" else "none"
    if name == "none":
        return "none (the prompt as it stands)", AS_IT_STANDS
    if Path(name).suffix not in (".yaml", ".yml"):
        return name, reading.template(name)
    try:
        layouts = yaml.safe_load(locate(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"template file {name} cannot be read: {error}") from None
    if not isinstance(layouts, dict):
        raise InputError(f"template file {name}: wanted the keys with_context and without_context")
    return name, reading.template(layouts)


def check_fits(model, tokenizer, name: str) -> None:
    """Refuse a tokenizer with ids the model has no embedding for.

    Raises:
        InputError: with both numbers.
    """
    rows, highest = vocabulary_size(model), max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise InputError(
            f"the tokenizer does not fit {name!r}: its highest token id is {highest}, and the model has embeddings for "
            f"0 to {rows - 1} only: give the tokenizer that the model was trained with (--tokenizer)"
        )


def windows(example: Example, context: int) -> Iterator[Example]:
    """Cut an example longer than `context` so that every labelled token is labelled in exactly one window.

    The first window is filled from the left as far as it goes; each later one labels up to half a context of further
    tokens, given the tokens before them. Ids are `id/0`, `id/1`, ... in order. An example that fits is returned whole.
    """
    length = len(example.input_ids)
    if length <= context:
        yield example
        return
    step = max(1, context // 2)
    start, number = example.prompt_length, 0
    while start < length:
        end = min(length, context if number == 0 and start < context else start + step)
        left = max(0, end - context)
        flags = example.secret[start - example.prompt_length : end - example.prompt_length]
        yield Example(f"{example.id}/{number}", example.input_ids[left:end], start - left, flags)
        start, number = end, number + 1


def left_truncated(example: Example, k: int, most: int, window: int) -> Iterator[Example]:
    """The last `window` labelled tokens of an example as a target of their own, with only the `k` tokens before them given.

    Nothing where the record has fewer than `window` labelled tokens, or fewer than `most` tokens before those: `most` is the
    largest k asked for, so that every k is measured on the same records.
    """
    start = len(example.input_ids) - example.prompt_length - window
    if start >= 0 and example.prompt_length + start >= most:
        yield from left_truncated_examples([example], start, k, window)
