"""Which column of a source is what: told by its name, for audits and studies alike, or mapped by the user."""

from palimpsest.errors import InputError

GUESSES = {  # our column -> names it goes by elsewhere, the likeliest first
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog"),
    "instruction": ("instruction", "prompt", "question", "query", "problem"),
    "context": ("context", "input", "passage"),
    "response": ("response", "output", "answer", "completion", "reply", "solution"),
    "text": ("text", "content", "body", "document", "story", "article"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
}
SHAPES = {  # what a record consists of, and what it may have besides; the first that a source has is taken
    ("messages",): ("system",),
    ("instruction", "response"): ("context", "system", "history"),
    ("text",): (),
}
FLAGS = {
    "messages": "--messages-column",
    "instruction": "--prompt-column with --response-column",
    "text": "--text-column",
}
SHOWN_NAME = 40  # characters of a name in a message: a file without header has data for names


def guess_columns(names: list[str], given: dict[str, str], source) -> dict[str, str]:
    """Which column of `source` is which of ours: `given` ones as they are, the rest guessed from their names.

    Conversations (`messages`) win over prompt (`instruction`) and `response`, these over `text`. Words that often mean another
    thing count only where nothing else fits: `input` as a prompt, `source` with `target`.

    Raises:
        InputError: none of the three is recognized; columns given for two of them; a given column that is not there.
    """
    if missing := next((theirs for theirs in given.values() if theirs not in names), None):
        raise InputError(f"{source} has no column {missing!r}; it has {_said(names)}")
    asked = [needed for needed, more in SHAPES.items() if {*needed, *more} & {*given} - {"system", "history"}]
    if len(asked) > 1:
        raise InputError(f"give either {' or '.join(FLAGS[needed[0]] for needed in asked)}, not both")
    free = _candidates([name for name in names if name not in given.values()], given)
    for needed in asked or SHAPES:
        found = {ours: given.get(ours) or next(iter(free[ours]), None) for ours in (*needed, *SHAPES[needed])}
        if all(found[ours] for ours in needed):
            return {ours: theirs for ours, theirs in found.items() if theirs}
    raise InputError(
        f"{source} has the columns {_said(names)}: which of them are prompt and response, conversations, or text, cannot be told "
        "from their names. Map them: --prompt-column and --response-column (--context-column), --messages-column, or "
        "--text-column; in a study, data.columns"
    )


def passed_over(names: list[str], columns: dict[str, str]) -> list[str]:
    """In words, which column was guessed where another may be meant too."""
    free = _candidates([name for name in names if name not in columns.values()], columns)
    said = [
        f"{theirs} is taken for the {ours}, not {' or '.join(free[ours])}"
        for ours, theirs in columns.items()
        if free[ours]
    ]
    taken = next(needed for needed in SHAPES if needed[0] in columns)
    for needed in SHAPES:
        if needed != taken and all(free[ours] for ours in needed):
            said.append(
                f"{' with '.join(columns[ours] for ours in taken)} is taken, not {' with '.join(free[o][0] for o in needed)}"
            )
    return said


def _candidates(free: list[str], given) -> dict[str, list[str]]:
    """Our column -> those of `free` that may be meant, the likeliest first."""
    found = {
        ours: [name for word in known for name in free if name.lower() == word] for ours, known in GUESSES.items()
    }
    words = {name.lower(): name for name in free}
    if found["instruction"] or "instruction" in given:
        return found
    if "input" in words and (found["response"] or "response" in given):
        found["instruction"] = [words["input"]]
        found["context"].remove(words["input"])
    elif {"source", "target"} <= set(words) and not found["text"]:
        found["instruction"], found["response"] = [words["source"]], [words["target"]]
    return found


def _said(names: list[str]) -> str:
    return ", ".join(name if len(name) <= SHOWN_NAME else f"{name[:SHOWN_NAME]}..." for name in names)
