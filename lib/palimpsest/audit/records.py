"""The records of an audit on disk: tokenized once, scored in pieces of some thousand, and then one row of numbers each."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from palimpsest.audit.inputs import Reading
from palimpsest.audit.personal import RECITED, SECRET_TOKENS, recited_secrets, secret_tokens
from palimpsest.data.examples import Example
from palimpsest.data.reading import TEXTS
from palimpsest.errors import InputError
from palimpsest.measure import extraction, membership_inference
from palimpsest.measure.near_verbatim import SIMILARITIES
from palimpsest.measure.score_file import gathered, row_groups, smaller

FACTS = b"palimpsest"  # key in the Parquet schema
CONTINUATION = {"first_miss": "Int64", "continuation": "string", **dict.fromkeys(SIMILARITIES, float)}
NO_END = "_no_end"  # ends the name of a column about the text of responses alone, the token that closes them left out
ABOUT_OTHERS = ("verbatim_", "extraction_strength", "loss", "logprob_window")  # of other models, kept per record
NUMBERS = b"pieces"  # key in the Parquet schema


@dataclass(frozen=True)
class Records:
    """The records that are measured, in the Parquet file `path`: `id`, `row`, `copies`, texts, `input_ids`, `prompt_length`,
    `closing` (how many of the last tokens close the response)."""

    path: Path

    @property
    def facts(self) -> dict[str, Any]:
        """`long`, `longest`, `handled`, `records`, `highest_id` (see `tokenize`)."""
        return json.loads(pq.ParquetFile(self.path).metadata.metadata[FACTS])

    @property
    def numbers(self) -> list[int]:
        """Of each piece, its number among those of all shards."""
        return json.loads(pq.ParquetFile(self.path).metadata.metadata[NUMBERS])

    @property
    def texts(self) -> list[str]:
        """The columns of text, prompt first."""
        return [name for name in pq.read_schema(self.path).names if name in ("messages", *TEXTS, "text")]

    def pieces(self) -> Iterator[tuple[int, pd.DataFrame]]:
        """The records, some thousand at a time, and the number of the piece."""
        yield from enumerate(table.to_pandas() for table in row_groups(self.path))

    def made(self, piece: int, what: str) -> Path:
        """Where the outcome of one pass over a piece is kept: a score table, or continuations."""
        return self.path.with_suffix("") / f"{piece:06d}.{what}.parquet"


def as_examples(piece: pd.DataFrame) -> list[Example]:
    """The tokenized records of a piece."""
    rows = zip(piece["id"], piece["input_ids"], piece["prompt_length"], piece["closing"], strict=True)
    examples = [
        Example(name, ids.tolist(), prompt, [False] * (len(ids) - prompt), closing=end)
        for name, ids, prompt, end in rows
    ]
    for example, secrets in zip(examples, piece["secret_tokens"] if "secret_tokens" in piece else (), strict=False):
        for secret in secrets:
            example.secret[secret["k"] : secret["k"] + secret["tokens"]] = [True] * secret["tokens"]
    return examples


def tokenize(
    reading: Reading,
    encoded: Callable[[pd.DataFrame], list[Example]],
    context: int,
    long: str,
    path: Path,
    shard: tuple[int, int] | None = None,
) -> Records:
    """Write the records of a reading with their tokens to `path`, unless they are there; settle those longer than the context.

    Args:
        encoded: makes examples of records (`data.encode` for this audit).
        shard: (i, n): only every n-th piece, from the i-th on.

    Returns:
        The records, with the facts `long` (how many exceed the context), `longest` (tokens), `handled`, `records` and the
        `highest_id` of their tokens.

    Raises:
        InputError: long records where `long` is "refuse"; a record of which no token can be measured.
    """
    if path.exists():
        return Records(path)
    source, unfinished = reading.facts["source"], path.with_suffix(".unfinished")
    total = kept = over = longest = highest = 0
    short, worst, numbers = [], "", []
    number, of = shard or (1, 1)
    schema = pq.read_schema(reading.path)
    added = {
        "copies": pa.int32(),
        "input_ids": pa.list_(pa.int32()),
        "prompt_length": pa.int32(),
        "closing": pa.int32(),
    }
    if "secrets" in schema.names:
        added["secret_tokens"] = SECRET_TOKENS
    schema = pa.schema([*schema, *added.items()])
    with pq.ParquetWriter(unfinished, schema) as writer:
        for place, frame in islice(enumerate(reading.frames()), number - 1, None, of):
            examples = encoded(frame)
            for name in ("input_ids", "prompt_length", "closing"):
                frame[name] = [getattr(example, name) for example in examples]
            if "secrets" in frame:
                frame["secret_tokens"] = secret_tokens(frame, encoded)
            lengths = frame["input_ids"].map(len)
            short += list(frame["id"][(frame["prompt_length"] == 0) | (lengths <= frame["prompt_length"])])
            total, over = total + len(frame), over + int((lengths > context).sum())
            if lengths.max() > longest:
                longest, worst = int(lengths.max()), frame["id"][lengths.idxmax()]
            frame = frame[lengths <= context] if long == "skip" else frame
            if len(frame):
                highest = max(highest, *map(max, frame["input_ids"]))
                writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
                numbers.append(place)
            kept += len(frame)
        facts = {"long": over, "longest": longest, "handled": long, "records": kept, "highest_id": highest}
        writer.add_key_value_metadata({FACTS: json.dumps(facts), NUMBERS: json.dumps(numbers)})
    if short:
        raise InputError(
            f"{source}: {len(short)} record(s) leave no token to measure after the first (record {short[0]}): "
            "a text needs two tokens at least, and a response needs a prompt before it"
        )
    if over and long == "refuse":
        raise InputError(
            f"{source}: {over} of {total} records are longer than the model's context of {context} tokens (the longest, "
            f"record {worst}, has {longest}): measure them in windows with --long window, or leave them out with --long skip"
        )
    if not kept and not shard:
        raise InputError(
            f"{source}: every record is longer than the model's context of {context} tokens; use --long window"
        )
    path.with_suffix("").mkdir(exist_ok=True)  # for what is made of the pieces
    unfinished.replace(path)
    return Records(path)


# ---------------------------------------------------------------- numbers per record


def write_numbers(groups: Mapping[str, Records], path: Path, summary: Mapping[str, Any]) -> dict[tuple, pd.DataFrame]:
    """Write a row per record, its numbers and the lists per token behind them, to the Parquet file `path`.

    Returns:
        dict[tuple, pd.DataFrame]: (group, model) -> for every k the records recited from there and those that reach so far:
        `count`, `total`.
    """
    settings, writer, curves = summary["settings"], None, {}
    hidden = [] if settings["show_secrets"] else ["token", "continuation"]  # these are the text itself

    def blocks(group: str, records: Records) -> Iterator[pa.Table]:
        measured = summary["data"][group]["measured"]
        for table, numbers, others, closing in _pieces(records, measured, summary):
            for model, one in {"model": table, **others}.items():
                one = extraction.without_end(one, closing)
                found = extraction.verbatim_by_prefix(one, settings["window"]).set_index("k")[["count", "total"]]
                curves[group, model] = found.add(curves.get((group, model), found * 0), fill_value=0)
            lists = table.drop(columns=["prompt_length", "length"])
            whole = numbers.merge(lists, on="id").drop(columns=hidden, errors="ignore").assign(group=group)
            block = pa.Table.from_pandas(whole, preserve_index=False)
            if "secrets" in whole:  # a piece without one would have a type of its own
                place, values = block.column_names.index("secrets"), pa.array(whole["secrets"], RECITED)
                block = block.set_column(place, "secrets", values)
            yield block

    for block in (block for one in groups.items() for block in gathered(blocks(*one))):
        block, options = smaller(block)
        writer = writer or pq.ParquetWriter(path.with_suffix(".unfinished"), block.schema, **options)
        writer.write_table(block.cast(writer.schema))
    writer.close()
    path.with_suffix(".unfinished").replace(path)
    return curves


def _pieces(records: Records, measured: str, summary: Mapping[str, Any]) -> Iterator[tuple]:
    """Of one piece after the other: the score table, the numbers per record, the score tables of the other models, `closing`."""
    settings = summary["settings"]
    for number, piece in records.pieces():

        def made(what: str, number: int = number) -> pd.DataFrame:
            return pd.read_parquet(records.made(number, what))

        table, others = made("scores"), {role: made(role) for role in summary["others"]}
        lower = made("lowercase") if settings["lowercase"] else None
        closing = piece["closing"].to_numpy()
        numbers = record_numbers(table, list(piece[measured]), closing, settings, others.get("reference"), lower)
        for role, other in others.items():
            own = record_numbers(other, list(piece[measured]), closing, settings)
            own = own.loc[:, own.columns.str.startswith(ABOUT_OTHERS)]
            numbers = pd.concat([numbers, own.add_prefix(f"{role}_")], axis=1)
        if settings["approximate"]:
            numbers = numbers.merge(made("continuations"), on="id", how="left").astype(CONTINUATION)
        for k in settings["left_truncated"]:
            left = made(f"left{k}")
            numbers[f"left_truncated_{k}"] = extraction.verbatim(left).reindex(table["id"]).array
            text = extraction.without_end(left, pd.Series(closing, table["id"])[left["id"]])
            numbers[f"left_truncated_{k}{NO_END}"] = extraction.verbatim(text).reindex(table["id"]).array
        if "secret_tokens" in piece:
            numbers["secrets"] = recited_secrets(table, piece["secret_tokens"])
        yield table, pd.concat([piece[["row", "copies"]], numbers], axis=1), others, closing


def record_numbers(
    table: pd.DataFrame,
    texts: Sequence[str],
    closing: np.ndarray,
    settings: Mapping[str, Any],
    reference: pd.DataFrame | None = None,
    lowercase: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Every number an audit gives for a record, rows as in `table`.

    Args:
        table: a score table.
        texts: the scored text of each row.
        closing: of each row, how many of its last tokens close it and are none of its text.
        settings: the summary's (`prefix_lengths`, `window`, `sampling`, `tie`).
        reference, lowercase: score tables of the same records by the reference model, and of them in lower case.

    Returns:
        `id`, `prompt_length`, `length` (tokens), `verbatim_<k>` per prefix length and `verbatim_whole` (nullable booleans),
        `longest_span`, `longest_start`, `extraction_strength`, `token_accuracy`, `near_ties` (of the first `window` tokens),
        `logprob_window` and `logprob_window_<name>` (nats, that one sample gives these tokens), `loss` (nats per token), and
        the membership scores; and `closing`. What is recited stands there a second time, with `NO_END` behind the name: of the
        text alone, without the tokens that close it.
    """
    columns = {**_recited(table, settings), "longest_start": extraction.longest_span(table)["start"]}
    columns["near_ties"] = extraction.near_ties(table, 0, settings["window"], tolerance=settings["tie"])
    columns["token_accuracy"] = pd.Series([hit.mean() if len(hit) else np.nan for hit in table["hit"]], dtype=float)
    text = _recited(extraction.without_end(table, closing), settings)
    columns |= {f"{name}{NO_END}": values for name, values in text.items()}
    attacks = membership_inference.membership(table, texts, reference, lowercase).drop(columns="id")
    columns["loss"] = -attacks.pop("loss")  # as a membership score its sign is turned
    numbers = pd.DataFrame({name: values.array for name, values in columns.items()})
    about = table[["id", "prompt_length", "length"]].assign(closing=closing)
    return pd.concat([about, numbers, attacks], axis=1)


def _recited(table: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, pd.Series]:
    """What is recited of each record, greedily and by sampling."""
    window, rules = settings["window"], ["", *(f"_{name}" for name in settings["sampling"])]
    return {
        **{f"verbatim_{k}": extraction.verbatim(table, k, window) for k in settings["prefix_lengths"]},
        "verbatim_whole": extraction.verbatim(table),
        "longest_span": extraction.longest_span(table)["tokens"],
        "extraction_strength": extraction.strength(table),
        **{f"logprob_window{r}": extraction.log_probability(table, 0, window, column=f"logprob{r}") for r in rules},
    }


# ---------------------------------------------------------------- the file of numbers, read a column at a time


def column(path: Path, group: str, name: str) -> pd.Series:
    """One column of an audit's `records.parquet`, of one group's records."""
    return pd.read_parquet(path, columns=[name], filters=[("group", "==", group)])[name]


def of_model(model: str, name: str) -> str:
    """The column `name` of a model: "model" is the audited one, others are named by their role."""
    return name if model == "model" else f"{model}_{name}"


def best_log_probability(path: Path, group: str, model: str = "model") -> pd.Series:
    """Per record of a group, the highest log-probability (nats) of its window in one sample under any of the decoding rules."""
    start = of_model(model, "logprob_window")
    names = [name for name in pq.read_schema(path).names if name.startswith(start)]
    return pd.concat([column(path, group, name) for name in names], axis=1).max(axis=1)


def attack_scores(path: Path) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Of one membership attack after the other, a score of every member and of every non-member, higher = likelier a member."""
    known = pq.read_schema(path).names
    for attack in (name for name in membership_inference.LABELS if name in known):
        sign = -1 if attack == "loss" else 1  # there a loss is a loss
        yield attack, [sign * column(path, group, attack).to_numpy() for group in ("members", "non_members")]


def sample(total: int, most: int) -> np.ndarray:
    """At most `most` of `total` places, rising, drawn at random once and for all (seed 0)."""
    return np.sort(np.random.default_rng(0).choice(total, min(most, total), replace=False))
