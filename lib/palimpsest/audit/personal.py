"""Of the secrets that were found in the records, which come out: each by its own tokens, counted by kind."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from palimpsest.data.examples import Example
from palimpsest.measure.statistics import rate

# of a record's secrets, in the order of its tokens
SECRET_TOKENS = pa.list_(pa.struct([("kind", pa.string()), ("k", pa.int32()), ("tokens", pa.int32())]))
RECITED = pa.list_(pa.struct([*SECRET_TOKENS.value_type, ("recited", pa.bool_()), ("from_prompt", pa.bool_())]))
GIVEN = {"recited": "the true text before it", "from_prompt": "the prompt alone"}


def secret_tokens(frame: pd.DataFrame, encode: Callable[[pd.DataFrame], list[Example]]) -> list[list[dict]]:
    """Which tokens are each secret's, for every record.

    Args:
        frame: records with `secrets` (`start`, `end` in characters, `kind`).
        encode: makes examples of such a frame, with their flags.

    Returns:
        For each record a list of `kind`, `k` (labelled tokens before the secret), `tokens` (its length; a token that a secret
        shares with its neighbours is part of it).
    """
    found: list[list[dict]] = [[] for _ in range(len(frame))]
    rows = [(i, secret) for i, secrets in enumerate(frame["secrets"]) for secret in secrets]
    if not rows:
        return found
    # One record for each secret: of two that touch, the flags would be one stretch.
    alone = frame.iloc[[i for i, _ in rows]].assign(secrets=[[secret] for _, secret in rows])
    flags = [example.secret for example in encode(alone)]
    for (i, secret), own in zip(rows, flags, strict=True):
        places = np.flatnonzero(own)
        if len(places):
            k = int(places[0])
            found[i].append({"kind": secret["kind"], "k": k, "tokens": int(places[-1]) + 1 - k})
    return found


def recited_secrets(table: pd.DataFrame, marked: Iterable[Sequence[dict]]) -> pd.Series:
    """For each record of a score table its secrets, with `recited` (greedy decoding gives all its tokens once it has the true text
    before) and `from_prompt` (it gives everything from the prompt to the secret's end)."""
    rows = [
        [
            {
                **s,
                "recited": bool(hit[s["k"] : s["k"] + s["tokens"]].all()),
                "from_prompt": bool(hit[: s["k"] + s["tokens"]].all()),
            }
            for s in secrets
        ]
        for hit, secrets in zip(table["hit"], marked, strict=True)
    ]
    return pd.Series(rows, dtype=object)


def secret_rates(secrets: Iterable[Sequence[dict]], group: str) -> list[dict[str, Any]]:
    """Rates over the secrets of a group's records, as in the column `secrets` of `records.parquet`.

    Returns:
        list[dict[str, Any]]: `group, kind` ("any": all), `given`, `rate, count, total, low, high` (95 % Wilson).
    """
    found = pd.DataFrame([s for own in secrets for s in own], columns=[field.name for field in RECITED.value_type])
    kinds = {"any": found, **dict(tuple(found.groupby("kind")))}
    return [
        {"group": group, "kind": kind, "given": given, **rate(rows[verdict].astype(bool))}
        for kind, rows in kinds.items()
        for verdict, given in GIVEN.items()
    ]


def say_found_secrets(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What comes out of the members' secrets, a sentence for each kind."""
    said, pairs = [], {(row["kind"], row["given"]): row for row in rows if row["group"] == "members"}
    for kind in dict.fromkeys(kind for kind, _ in pairs):
        before, alone = (pairs[kind, given] for given in GIVEN.values())
        what = "secrets of any kind" if kind == "any" else f"{kind}{'es' if kind.endswith('s') else 's'}"
        if before["total"]:
            said.append(
                f"Of {before['total']} {what} in the members, {before['count']} come out given the true text before them, "
                f"{alone['count']} from the prompt alone."
            )
    return said or ["No secrets were found in the members."]
