"""What an audit is given: records from any file, cleaned and counted, and a model that can be audited at all."""

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pandas as pd
import pyarrow as pa
import yaml

from palimpsest import records as reading
from palimpsest.batches import Example
from palimpsest.errors import InputError
from palimpsest.forward import vocabulary_size
from palimpsest.redact import mask
from palimpsest.runs import locate

GUESSES = {  # our column -> names it goes by elsewhere, the likeliest first
    "instruction": ("instruction", "prompt", "question", "query", "problem", "source"),
    "context": ("context", "input", "passage"),
    "response": ("response", "output", "answer", "completion", "target", "reply", "solution"),
    "text": ("text", "content", "body", "document", "story", "article"),
}
AS_IT_STANDS = reading.Template(with_context="{instruction}\n{context}", without_context="{instruction}")
CHUNK = 2_000  # records tokenized at a time
SHOWN = 5  # overlapping records shown in a message


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


def read(source, given: dict[str, str], limit: int | None, empty: str) -> tuple[pd.DataFrame, dict]:
    """Records of a file or hub id, each once, none empty.

    Returns:
        The records with `row` (1 for the first in the file) and `copies` (times it stands there), and the facts to
        report: `columns`, `read`, `empty`, `duplicates`.

    Raises:
        InputError: as `read_records`; records without text where `empty` is "refuse".
    """
    frame = _frame(source, limit)
    columns = guess_columns([str(c) for c in frame.columns], dict(given), source)
    if missing := [theirs for theirs in columns.values() if theirs not in frame]:
        raise InputError(f"{source} has no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}")
    # Only the columns asked for: another one of the file may bear one of our names.
    frame = frame[list(columns.values())].set_axis(list(columns), axis=1)
    records = reading._checked(frame.fillna("") if empty == "skip" else frame, source)
    measured = "response" if "response" in columns else "text"
    wanted = [c for c in columns if c != "context"]
    blank = (records[wanted].apply(lambda column: column.str.strip()) == "").any(axis=1)
    records["row"] = range(1, len(records) + 1)
    if blank.any() and empty == "refuse":
        rows = ", ".join(map(str, records["row"][blank].head(SHOWN)))
        raise InputError(
            f"{source}: {blank.sum()} of {len(records)} records have an empty {' or '.join(wanted)} (record {rows}"
            f"{', ...' if blank.sum() > SHOWN else ''}): mend them, or leave them out with --empty skip"
        )
    kept = records[~blank]
    if kept.empty:
        raise InputError(f"{source}: every one of the {len(records)} records is empty; nothing to measure")
    kept = kept.assign(copies=kept.groupby("id")["id"].transform("size")).drop_duplicates("id").reset_index(drop=True)
    facts = {
        "source": str(source),
        "sha256": _digest(source, kept["id"]),
        "columns": columns,
        "measured": measured,
        "read": len(records),
        "empty": int(blank.sum()),
        "duplicates": int(len(records) - blank.sum() - len(kept)),
    }
    return kept[["id", "row", "copies", *(c for c in (*reading.TEXTS, "text") if c in kept)]], facts


def _digest(source, ids: pd.Series) -> str:
    """SHA-256 of the file, or of the records' ids where the source is no file."""
    path = locate(source)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _frame(source, limit: int | None) -> pd.DataFrame:
    path = locate(source)
    try:
        if path.suffix == ".parquet" and path.exists():
            frame = pd.read_parquet(path)
        elif path.suffix == ".jsonl" and path.exists():
            frame = pd.concat(_parts(path, source, limit), ignore_index=True)
        else:
            frame = pd.DataFrame(list(reading._rows(source, limit)))
    except (pa.ArrowInvalid, pd.errors.EmptyDataError) as error:
        raise InputError(f"{source} is not a readable {path.suffix} file: {error}") from None
    frame = frame.head(limit) if limit else frame
    if frame.empty:
        raise InputError(f"{source} holds no records")
    return frame


def _parts(path: Path, source, limit: int | None) -> list[pd.DataFrame]:
    """A JSONL file in pieces: rows as dictionaries take many times the memory of a table."""
    try:
        with path.open(encoding="utf-8") as lines:
            rows = reading._json_lines(lines, source, limit)
            return [pd.DataFrame(part) for part in iter(lambda: list(islice(rows, CHUNK)), [])] or [pd.DataFrame()]
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 (byte {error.start}: {error.reason}); convert it first") from None


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


def refuse_overlap(members: pd.DataFrame, others: pd.DataFrame, show_secrets: bool) -> None:
    """Refuse records that stand in both files, also when they differ in case or white space only.

    Raises:
        InputError: how many, and the first few with their rows and (masked) text.
    """
    measured = "response" if "response" in members else "text"
    plain = [_normalized(frame) for frame in (members, others)]
    first = pd.Series(others["row"].to_numpy(), index=plain[1]).groupby(level=0).first()
    shared = plain[0].isin(first.index)
    if shared.any():
        lines = [
            f"  - row {row} of the members = row {first[key]} of the non-members: "
            f"{text[:80] if show_secrets else mask(text)}"
            for row, key, text in list(
                zip(members["row"][shared], plain[0][shared], members[measured][shared], strict=True)
            )[:SHOWN]
        ]
        raise InputError(
            f"members and non-members share {shared.sum()} record(s), so neither side can be trusted; take them out of "
            f"one file:\n" + "\n".join(lines)
        )


def _normalized(records: pd.DataFrame) -> pd.Series:
    columns = [c for c in (*reading.TEXTS, "text") if c in records]
    joined = records[columns[0]].astype(str)
    for name in columns[1:]:
        joined = joined + "\x1f" + records[name].astype(str)
    return joined.str.casefold().str.split().str.join(" ")


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


def encoded(records: pd.DataFrame, tokenizer, form) -> Iterator[Example]:
    """Examples of the records, tokenized a chunk at a time."""
    for at in range(0, len(records), CHUNK):
        yield from reading.encode(records.iloc[at : at + CHUNK], tokenizer, form)


def survey(records: pd.DataFrame, tokenizer, form, context: int, long: str, source) -> tuple[pd.DataFrame, dict]:
    """Settle records that do not fit the context, before anything is scored.

    Returns:
        The records to score, and the facts to report: `long` (how many exceed the context), `longest` (tokens).

    Raises:
        InputError: long records where `long` is "refuse"; a record of which no token can be measured.
    """
    lengths, empty = [], []
    for example in encoded(records, tokenizer, form):
        lengths.append(len(example.input_ids))
        if example.prompt_length == 0 or len(example.input_ids) <= example.prompt_length:
            empty.append(example.id)
    if empty:
        raise InputError(
            f"{source}: {len(empty)} record(s) leave no token to measure after the first (record {empty[0]}): "
            "a text needs two tokens at least, and a response needs a prompt before it"
        )
    over = pd.Series(lengths, index=records.index) > context
    if over.any() and long == "refuse":
        raise InputError(
            f"{source}: {over.sum()} of {len(records)} records are longer than the model's context of {context} tokens "
            f"(the longest, record {records['id'].iloc[lengths.index(max(lengths))]}, has "
            f"{max(lengths)}): measure them in windows with --long window, or leave them out with --long skip"
        )
    kept = records[~over] if long == "skip" else records
    facts = {"long": int(over.sum()), "longest": max(lengths), "handled": long, "records": len(kept)}
    if kept.empty:
        raise InputError(
            f"{source}: every record is longer than the model's context of {context} tokens; use --long window"
        )
    return kept.reset_index(drop=True), facts
