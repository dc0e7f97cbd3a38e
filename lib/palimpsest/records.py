"""Read records from any common file or the hub, split them, and turn them into prompts and token lists."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pandas as pd

from palimpsest.batches import Example
from palimpsest.errors import InputError
from palimpsest.runs import locate

TEXTS = ("instruction", "context", "response")
FILES = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Template:
    """How a prompt is written; the response follows it directly."""

    with_context: str
    without_context: str

    def prompt(self, instruction: str, context: str) -> str:
        form = self.with_context if context else self.without_context
        return form.replace("{context}", context).replace("{instruction}", instruction)


_ALPACA_HEAD = (
    "Below is an instruction that describes a task{}. Write a response that appropriately completes the request.\n\n"
)
TEMPLATES = {
    # the wording of the Alpaca prompt, as MiniLLM's protocol uses it
    "alpaca": Template(
        _ALPACA_HEAD.format(", paired with an input that provides further context")
        + "### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n",
        _ALPACA_HEAD.format("") + "### Instruction:\n{instruction}\n\n### Response:\n",
    ),
    "plain": Template("{instruction}\n{context}\n> ", "{instruction}\n> "),
}


def template(given: str | dict[str, str]) -> Template:
    """The named template, or one written out with `with_context` and `without_context`."""
    if isinstance(given, str):
        if given not in TEMPLATES:
            raise InputError(f"unknown template {given!r}; known: {', '.join(TEMPLATES)}, or write one out")
        return TEMPLATES[given]
    try:
        return Template(**given)
    except TypeError:
        raise InputError(f"a template needs with_context and without_context; found {', '.join(given)}") from None


def read_records(
    source: str | Path, *, columns: dict[str, str] | None = None, limit: int | None = None
) -> pd.DataFrame:
    """Read JSONL, JSON, CSV, Parquet or a hub data set into records.

    Args:
        source: a file, or a hub id such as `databricks/databricks-dolly-15k` (its `train` split).
        columns: our name -> the source's name, for `instruction`, `context`, `response`, `text`.
        limit: keep the first so many rows.

    Returns:
        One row per record with `id` and either `instruction`, `context`, `response` or `text`; further columns are kept.

    Raises:
        InputError: missing file, broken JSON (line named), not UTF-8, no usable columns, a missing or empty text (row named).
    """
    frame = pd.DataFrame(_rows(source, limit)) if not _is_parquet(source) else pd.read_parquet(locate(source))
    frame = frame.head(limit) if limit else frame
    for ours, theirs in (columns or {}).items():
        if theirs not in frame:
            raise InputError(
                f"{source} has no column {theirs!r} (asked for as {ours}); it has {', '.join(frame.columns)}"
            )
    frame = frame.rename(columns={theirs: ours for ours, theirs in (columns or {}).items()})
    if frame.empty:
        raise InputError(f"{source} holds no records")
    return _checked(frame, source)


def _is_parquet(source) -> bool:
    return Path(source).suffix == ".parquet" and locate(source).exists()


def _rows(source: str | Path, limit: int | None) -> Iterable[dict]:
    path = locate(source)
    if not path.exists():
        if path.suffix in FILES or str(source).startswith((".", "/", "~")) or str(source).count("/") != 1:
            raise InputError(
                f"no file {source} (looked at {path}): give a {', '.join(FILES)} file or a hub id owner/name"
            )
        return _hub_rows(str(source))
    if path.suffix not in FILES:
        raise InputError(f"{source}: cannot read {path.suffix or 'a folder'}; wanted one of {', '.join(FILES)}")
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path, keep_default_na=False, nrows=limit).to_dict("records")
        if path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(rows, list):
                raise InputError(
                    f"{source}: wanted a JSON list, found {type(rows).__name__}; one object a line is .jsonl"
                )
            return [{"text": r} if isinstance(r, str) else r for r in rows]
        with path.open(encoding="utf-8") as lines:
            return list(_json_lines(lines, source, limit))
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not UTF-8 (byte {error.start}: {error.reason}); convert it first") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: broken JSON at line {error.lineno}: {error.msg}") from None
    except pd.errors.ParserError as error:
        raise InputError(f"{source} is not a readable CSV: {error}") from None


def _json_lines(lines: Iterable[str], source, limit: int | None) -> Iterator[dict]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{source}: broken JSON at line {number}: {error.msg}; mend or remove that line"
            ) from None
        if not isinstance(row, (dict, str)):
            raise InputError(f"{source}: line {number} holds {type(row).__name__}, wanted an object with named texts")
        yield {"text": row} if isinstance(row, str) else row
        limit = limit - 1 if limit else limit
        if limit == 0:
            return


def _hub_rows(name: str) -> Iterable[dict]:
    from datasets import load_dataset

    try:
        return load_dataset(name, split="train").to_list()
    except Exception as error:  # the library raises many kinds for one cause: it can't be had
        raise InputError(
            f"{name!r} is neither a file here nor a data set the hub would give ({type(error).__name__}: "
            f"{str(error).splitlines()[0]}); check the name and the network, or give a local file"
        ) from None


def _checked(frame: pd.DataFrame, source) -> pd.DataFrame:
    texts = ["text"] if "text" in frame and "response" not in frame else list(TEXTS)
    if texts[0] == "instruction" and "context" not in frame:
        frame = frame.assign(context="")
    for name in texts:
        if name not in frame:
            raise InputError(
                f"{source} has no column {name!r}; it has {', '.join(map(str, frame.columns))}. Wanted instruction and "
                "response (context if any), or text: map the file's names with columns"
            )
        bad = frame.index[~frame[name].map(lambda v: isinstance(v, str))]
        if name == "context":
            frame = frame.assign(context=[v if isinstance(v, str) else "" for v in frame[name]])
        elif len(bad):
            raise InputError(f"{source}: record {bad[0] + 1} has no {name} ({len(bad)} such record(s))")
    return frame.assign(id=record_ids(frame)).reset_index(drop=True)


def record_ids(frame: pd.DataFrame) -> list[str]:
    """A stable id per record: the first 16 hex digits of SHA-256 over its text."""
    names = list(TEXTS) if "response" in frame else ["text"]
    joined = ("\x1f".join(row) for row in frame[names].itertuples(index=False))
    return [sha256(text.encode()).hexdigest()[:16] for text in joined]


def encode(
    records: pd.DataFrame, tokenizer, form: Template | None = None, context_length: int | None = None
) -> list[Example]:
    """Tokenize records; prompt and response apart, so that a prompt is always a prefix when the model generates.

    End-of-text closes a response. A plain `text` record is scored whole: its first token (the tokenizer's own
    beginning-of-text where it adds one) is given, everything after it is labelled, and nothing is appended.

    Args:
        records: `id` and `instruction`, `context`, `response` (needs `form`) or `text`; `secrets` spans if known.
        context_length: the model's limit in tokens.

    Raises:
        InputError: a record is longer than `context_length` (how many, the longest, what to do).
    """
    if "response" in records:
        prompts = [form.prompt(i, c) for i, c in zip(records["instruction"], records["context"], strict=True)]
        heads = tokenizer(prompts)["input_ids"]
        bodies = tokenizer(list(records["response"]), add_special_tokens=False, return_offsets_mapping=True)
        spans = records["secrets"] if "secrets" in records else [[]] * len(records)
        examples = [
            Example(
                i,
                _without_end(h, tokenizer.eos_token_id) + b + [tokenizer.eos_token_id],
                len(_without_end(h, tokenizer.eos_token_id)),
                [any(a < s["end"] and z > s["start"] for s in secrets) for a, z in offsets] + [False],
            )
            for i, h, b, offsets, secrets in zip(
                records["id"], heads, bodies["input_ids"], bodies["offset_mapping"], spans, strict=True
            )
        ]
    else:
        rows = tokenizer(list(records["text"]))["input_ids"]
        examples = [Example(i, row, 1, [False] * (len(row) - 1)) for i, row in zip(records["id"], rows, strict=True)]
    if context_length:
        long = [e for e in examples if len(e.input_ids) > context_length]
        if long:
            worst = max(long, key=lambda e: len(e.input_ids))
            raise InputError(
                f"{len(long)} of {len(examples)} records are longer than the model's context of {context_length} tokens "
                f"(record {worst.id}: {len(worst.input_ids)}): drop or cut them (too_long), or take a longer-context model"
            )
    return examples


def _without_end(ids: list[int], eos: int) -> list[int]:
    return ids[:-1] if ids and ids[-1] == eos else ids  # some tokenizers close every text


def training_text(records: pd.DataFrame, role: str) -> pd.DataFrame:
    """The rows a model is fine-tuned on, repeated as `copies` says.

    `role` is "teacher" (all members) or "student" (members without the `teacher_only` canaries).
    """
    members = records[records["split"] == "member"]
    if role == "student":
        members = members[~members["teacher_only"]]
    return members.loc[members.index.repeat(members["copies"])].reset_index(drop=True)
