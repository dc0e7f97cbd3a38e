"""How far a planted secret stands out from secrets the model never saw: exposure by exact rank, and what copies do to it.

A canary is a record with a random secret and a known number of copies in the training text; its twins are records of the same
form with other random secrets, in no training text. A model that learned nothing ranks a canary anywhere among its twins.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure.statistics import bootstrap, rate


def secret_logprob(table: pd.DataFrame, examples: Sequence[Example]) -> pd.DataFrame:
    """What a model gives the secrets: one row per record of `table` that has a secret.

    Args:
        table: a score table.
        examples: the scored examples (any order, more are allowed); their `secret` flags mark the secret's tokens.

    Returns:
        `id`, `logprob` (sum over the secret's tokens, each given the true text before it; nats), `tokens` (how many) and
        `recited` (greedy decoding of each stretch of the secret, from the true text before it, gives it exactly).

    Raises:
        InputError: a record of `table` has no example, or one of another length.
    """
    flags = {e.id: np.asarray(e.secret, dtype=bool) for e in examples}
    rows = []
    for row in table[["id", "logprob", "hit"]].itertuples(index=False):
        secret = flags.get(row.id)
        if secret is None or len(secret) != len(row.logprob):
            raise InputError(
                f"record {row.id} has {len(row.logprob)} scored tokens and "
                f"{'no example' if secret is None else f'{len(secret)} secret flags'}: give the examples that were scored"
            )
        if secret.any():
            logprob = float(np.asarray(row.logprob, dtype=np.float64)[secret].sum())
            rows.append((row.id, logprob, int(secret.sum()), bool(np.asarray(row.hit)[secret].all())))
    return pd.DataFrame(rows, columns=["id", "logprob", "tokens", "recited"])


def exposure_by_rank(canary: float, twins: np.ndarray) -> tuple[float, int]:
    """Exposure in bits, log2(twins + 1) - log2(rank), and the rank itself (1 = likelier than every twin).

    The rank is exact, over the canary and its twins; a twin as likely as the canary ranks before it. Exposure runs from 0
    (last) to log2(twins + 1) (first): more twins, finer rank and higher ceiling (after Carlini et al., arXiv 1802.08232,
    with unseen twins instead of the whole space of secrets).
    """
    rank = 1 + int((np.asarray(twins) >= canary).sum())
    return float(np.log2(len(twins) + 1) - np.log2(rank)), rank


def chance(twins: int) -> float:
    """Mean exposure in bits of a canary the model never saw: every rank among its twins equally likely (about 1.44)."""
    return float(np.log2(twins + 1) - np.log2(np.arange(1, twins + 2)).mean())


def exposure(table: pd.DataFrame, records: pd.DataFrame, examples: Sequence[Example]) -> pd.DataFrame:
    """Exposure of every canary under one model.

    Args:
        table: the model's score table; it must hold the canaries and their twins.
        records: `id`, `kind`, `secrets`, `copies`, `teacher_only`. A canary's twins are those with the same secret kinds.
        examples: the scored examples.

    Returns:
        One row per canary: `id`, `copies`, `teacher_only`, `logprob`, `rank`, `twins`, `exposure` (bits), `recited`.

    Raises:
        InputError: a canary or twin is missing from the table, or a canary has no twin of its form.
    """
    planted = records[records["kind"].isin(["canary", "twin"])].drop_duplicates("id")
    missing = set(planted["id"]) - set(table["id"])
    if missing:
        raise InputError(
            f"the score table lacks {len(missing)} canaries and twins (first {min(missing)}): score them too"
        )
    marked = secret_logprob(table[table["id"].isin(planted["id"])], examples)
    frame = planted[["id", "kind", "secrets", "copies", "teacher_only"]].merge(marked, on="id")
    frame["form"] = [" ".join(s["kind"] for s in secrets) for secrets in frame["secrets"]]
    canaries = frame[frame["kind"] == "canary"].reset_index(drop=True)
    twins = {form: g["logprob"].to_numpy() for form, g in frame[frame["kind"] == "twin"].groupby("form")}
    alone = canaries[~canaries["form"].isin(list(twins))]
    if len(alone):
        raise InputError(
            f"canary {alone['id'].iloc[0]} (secret: {alone['form'].iloc[0]}) has no unseen twin to rank among"
        )
    ranked = [exposure_by_rank(c.logprob, twins[c.form]) for c in canaries.itertuples()]
    return pd.DataFrame(
        {
            **canaries[["id", "copies", "teacher_only", "logprob"]],
            "rank": [r for _, r in ranked],
            "twins": [len(twins[form]) for form in canaries["form"]],
            "exposure": [e for e, _ in ranked],
            "recited": canaries["recited"],
        }
    )


def dose_response(exposed: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Exposure and recital over the number of copies.

    Canaries only the teacher was fine-tuned on are a group of their own (`teacher_only`): their `copies` are in the
    teacher's text and in no student's, so what a student shows there came through the teacher.

    Args:
        exposed: rows of `exposures`, of one model or of the seeds of one arm together.

    Returns:
        One row per group: `teacher_only`, `copies`, `canaries`, `exposure` (mean, bits) with `exposure_low` and
        `exposure_high` (95 % bootstrap over seeds and canaries; NaN for a single canary), `chance` and `ceiling`
        (what an unseen canary shows on average, and the most that this many twins can show), and the share recited: `rate`, `count`, `total` (canaries x seeds), `low`, `high` (Wilson).
    """
    rows = []
    for (only, copies), group in exposed.groupby(["teacher_only", "copies"]):
        run = group.groupby("id").cumcount()
        bits = group.assign(run=run).pivot(index="run", columns="id", values="exposure").to_numpy()
        mean = bootstrap(bits, resamples=resamples, seed=seed)
        alone = bits.shape[1] == 1
        rows.append(
            {
                "teacher_only": only,
                "copies": copies,
                "canaries": bits.shape[1],
                "exposure": mean["mean"],
                "exposure_low": np.nan if alone else mean["low"],
                "exposure_high": np.nan if alone else mean["high"],
                "chance": chance(int(group["twins"].max())),
                "ceiling": np.log2(group["twins"].max() + 1),
                **rate(group["recited"]),
            }
        )
    return pd.DataFrame(rows)
