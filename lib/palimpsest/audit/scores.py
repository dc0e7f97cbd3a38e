"""From score files to what an audit says: one row of numbers per record, and rates over records."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from palimpsest.audit.records import pick, sample
from palimpsest.measure import extraction, membership_inference
from palimpsest.measure.scoring import flatten
from palimpsest.measure.statistics import newcombe, rate, rate_of

SAMPLES = (1, 10, 100, 1_000)  # n of (n, p)-discoverable extraction
PROBABILITY = 0.5  # its p
NEAR = 0.9  # edit similarity from which a continuation counts as nearly verbatim
MEANS = (
    "loss",
    "token_accuracy",
    "extraction_strength",
    "longest_span",
    "rouge_l",
    "edit_similarity",
    "longest_common",
)


def chunks(path: Path) -> Iterator[pd.DataFrame]:
    """The score table of `path`, shard by shard; windows of one record (ids `id/0`, `id/1`, ...) joined into its row."""
    file, rest = pq.ParquetFile(path), None
    for group in range(file.num_row_groups):
        table = file.read_row_group(group).to_pandas()
        if table.empty:
            continue
        table = table if rest is None else pd.concat([rest, table], ignore_index=True)
        last = table["id"].iloc[-1].split("/")[0]
        open_ended = table["id"].str.startswith(last + "/") if group + 1 < file.num_row_groups else table["id"].isna()
        rest = table[open_ended]
        done = table[~open_ended]
        if len(done):
            yield _join_windows(done)


def _join_windows(table: pd.DataFrame) -> pd.DataFrame:
    if not table["id"].str.contains("/", regex=False).any():
        return table.reset_index(drop=True)
    lists = [c for c in table.columns if c not in ("id", "prompt_length", "length")]
    how = {
        "prompt_length": "first",
        "length": "sum",
        **dict.fromkeys(lists, lambda parts: np.concatenate(list(parts))),
    }
    record = table["id"].str.split("/").str[0]
    return table.groupby(record, sort=False).agg(how).reset_index(names="id")


def per_record(
    table: pd.DataFrame,
    texts: Sequence[str],
    prefix_lengths: Sequence[int],
    window: int,
    sampling: Sequence[str] = (),
    reference: pd.DataFrame | None = None,
    tie: float = 1e-3,
) -> pd.DataFrame:
    """Every number an audit gives for a record, rows as in `table`.

    Args:
        table: a score table.
        texts: the scored text of each row.
        sampling: names of the sampling rules it was scored under.
        reference: the reference model's score table of the same records.
        tie: two top logits closer than this are nearly tied.

    Returns:
        `id`, `prompt_length`, `length` (tokens), `verbatim_<k>` per prefix length and `verbatim_whole` (nullable booleans),
        `longest_span`, `longest_start`, `extraction_strength`, `token_accuracy`, `near_ties` (of the first `window` tokens),
        `logprob_window` and `logprob_window_<name>` (nats, that one sample gives these tokens), and the membership scores.
    """
    spans = extraction.longest_span(table)
    columns = {f"verbatim_{k}": extraction.verbatim(table, k, window) for k in prefix_lengths}
    columns |= {
        "verbatim_whole": extraction.verbatim(table),
        "longest_span": spans["tokens"],
        "longest_start": spans["start"],
        "extraction_strength": extraction.strength(table),
        "token_accuracy": _accuracy(table),
        "near_ties": extraction.near_ties(table, 0, window, tolerance=tie),
        "logprob_window": extraction.log_probability(table, 0, window),
    }
    for name in sampling:
        columns[f"logprob_window_{name}"] = extraction.log_probability(table, 0, window, column=f"logprob_{name}")
    attacks = membership_inference.membership(table, texts, reference).drop(columns=["id", "loss"])
    numbers = pd.DataFrame({name: v if name == "token_accuracy" else v.array for name, v in columns.items()})
    numbers["loss"] = -membership_inference.loss(
        table
    )  # here a loss is a loss; as a membership score its sign is turned
    return pd.concat([table[["id", "prompt_length", "length"]], numbers, attacks], axis=1)


def _accuracy(table: pd.DataFrame) -> np.ndarray:
    hits, starts = flatten(table, "hit")
    right = np.concatenate([[0], np.cumsum(hits)])
    with np.errstate(invalid="ignore"):
        return np.diff(right[starts]) / np.diff(starts)  # 0 / 0, NaN, for a record without tokens


def numbers(path: str | Path, most: int) -> dict[str, pd.DataFrame]:
    """Some records of an audit's `records.parquet` without its lists: per group at most `most`, drawn at random (seed 0)."""
    out, start = {}, 0
    for group, count in group_sizes(path).items():
        out[group] = pick(Path(path), start + sample(count, most), columns(path))
        start += count
    return out


def columns(path: str | Path) -> list[str]:
    """The columns of an audit's `records.parquet` that are no lists."""
    return [field.name for field in pq.read_schema(path) if not hasattr(field.type, "value_type")]


def group_sizes(path: str | Path) -> dict[str, int]:
    """The groups of an audit's `records.parquet`, in their order, and how many records each has."""
    counts = pq.read_table(path, columns=["group"]).column("group").value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in counts}


def scores(path: str | Path, attack: str) -> list[np.ndarray]:
    """One membership score of every record of an audit's `records.parquet`, higher = likelier a member: an array per group."""
    values = pq.read_table(path, columns=[attack]).column(attack).to_numpy()
    values = -values if attack == "loss" else values  # there a loss is a loss
    return np.split(values, np.cumsum(list(group_sizes(path).values()))[:-1])


def add_curve(total: dict[int, np.ndarray], table: pd.DataFrame, window: int) -> None:
    """Add a chunk's verbatim counts and totals for every k to `total`, k -> [count, total]."""
    for row in extraction.verbatim_by_prefix(table, window).itertuples(index=False):
        total[row.k] = total.get(row.k, np.zeros(2, dtype=int)) + (row.count, row.total)


def curve(total: Mapping[int, np.ndarray]) -> list[dict]:
    """One row per k from counts and totals, `rate, count, total, low, high`; up to where fewer than ten records reach."""
    enough = min(10, max(n for _, n in total.values()))
    return [{"k": k, **rate_of(int(c), int(n))} for k, (c, n) in sorted(total.items()) if n >= enough]


def verbatim_rates(numbers: pd.DataFrame, prefix_lengths: Sequence[int], window: int) -> list[dict]:
    """Verbatim rates at each prefix length, and of the whole record from k = 0 (`m` None)."""
    rows = [{"measure": "verbatim", "k": k, "m": window, **rate(numbers[f"verbatim_{k}"])} for k in prefix_lengths]
    return [*rows, {"measure": "verbatim", "k": 0, "m": None, **rate(numbers["verbatim_whole"])}]


def rates(numbers: pd.DataFrame, prefix_lengths: Sequence[int], window: int, sampling: Sequence[str]) -> list[dict]:
    """Every rate over the records of `numbers` (see `per_record`), each with `rate, count, total, low, high` (95 % Wilson)."""
    rows = verbatim_rates(numbers, prefix_lengths, window)
    whole = numbers.loc[numbers["length"] >= window, "longest_span"]
    rows.append({"measure": "verbatim span", "m": window, **rate(whole >= window)})
    for name in ("", *sampling):
        logprob = numbers["logprob_window" + (f"_{name}" if name else "")].dropna()
        for n in SAMPLES:
            found = extraction.probability_in(logprob, n) >= PROBABILITY
            where = {"m": window, "sampling": name or "plain", "n": n, "p": PROBABILITY}
            rows.append({"measure": "discoverable", **where, **rate(found)})
    if "edit_similarity" in numbers:
        rows.append({"measure": "nearly verbatim", **rate(numbers["edit_similarity"].dropna() >= NEAR)})
    rows.append({"measure": "near-tie", "m": window, **rate(numbers["near_ties"].dropna() > 0)})
    for name in numbers.filter(regex=r"^left_truncated_\d+$"):
        rows.append({"measure": "left-truncated", "k": int(name.split("_")[-1]), "m": window, **rate(numbers[name])})
    return rows


def excess(rows: Sequence[Mapping]) -> list[dict]:
    """Members' rates minus non-members', with Newcombe's 95 % interval: what chance and common wording don't explain.

    Args:
        rows: rates with `group` and `model`; those of both groups that share every setting are paired.
    """
    numbers = ("rate", "count", "total", "low", "high", "group")
    sides: dict[str, dict[tuple, Mapping]] = {"members": {}, "non_members": {}}
    for row in rows:
        sides[row["group"]][tuple((k, v) for k, v in row.items() if k not in numbers)] = row
    out = []
    for setting, a in sides["members"].items():
        b = sides["non_members"].get(setting)
        if b is None or not a["total"] or not b["total"]:
            continue
        low, high = newcombe(a["count"], a["total"], b["count"], b["total"])
        out.append({**dict(setting), "excess": a["rate"] - b["rate"], "low": low, "high": high})
    return out
