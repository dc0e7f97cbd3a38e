"""How far a planted secret stands out from secrets the model never saw: exposure by exact rank, and what copies do to it.

A canary is a record with a random secret and a known number of copies in the training text; its twins are records of the same
form with other random secrets, in no training text. A model that learned nothing ranks a canary anywhere among its twins.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure.extraction import secret_flags
from palimpsest.measure.score_file import flatten, reduce_records
from palimpsest.measure.statistics import bootstrap, rate


def secret_logprob(scores: pd.DataFrame, examples: Sequence[Example]) -> pd.DataFrame:
    """What a model gives the secrets: one row per record of `scores` that has a secret.

    Arguments and errors as in `extraction.secrets`.

    Returns:
        `id`, `logprob` (sum over the secret's tokens, each given the true text before it; nats), `tokens` (how many) and
        `recited` (greedy decoding of each stretch of the secret, from the true text before it, gives it exactly).
    """
    secret, starts = secret_flags(scores, examples)
    logprob = np.where(secret, flatten(scores, "logprob")[0], 0.0)
    missed = secret & ~flatten(scores, "hit")[0].astype(bool)
    columns = {
        "id": scores["id"].to_numpy(),
        "logprob": reduce_records(np.add, logprob, starts),
        "tokens": reduce_records(np.add, secret.astype(int), starts),
        "recited": ~reduce_records(np.logical_or, missed, starts),
    }
    return pd.DataFrame(columns)[columns["tokens"] > 0].reset_index(drop=True)


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


def exposure(scores: pd.DataFrame, records: pd.DataFrame, examples: Sequence[Example]) -> pd.DataFrame:
    """Exposure of every canary under one model.

    Args:
        scores: the model's score table; it must hold the canaries and their twins.
        records: `id`, `kind`, `split`, `secrets`, `copies`. A canary's twins are those with the same secret kinds.
        examples: the scored examples.

    Returns:
        pd.DataFrame: One row per canary: `id`, `copies`, `teacher_only`, `logprob`, `rank`, `twins`, `exposure` (bits), `recited`.

    Raises:
        InputError: a canary or twin is missing from `scores`, or a canary has no twin of its form.
    """
    planted = records[records["kind"].isin(["canary", "twin"])].drop_duplicates("id")
    missing = set(planted["id"]) - set(scores["id"])
    if missing:
        raise InputError(
            f"the score table lacks {len(missing)} canaries and twins (first {min(missing)}): score them too"
        )
    marked = secret_logprob(scores[scores["id"].isin(planted["id"])], examples)
    planted = planted.assign(teacher_only=planted["split"] == "teacher_only")
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
    return canaries[["id", "copies", "teacher_only", "logprob"]].assign(
        rank=[rank for _, rank in ranked],
        twins=canaries["form"].map({form: len(logprobs) for form, logprobs in twins.items()}),
        exposure=[bits for bits, _ in ranked],
        recited=canaries["recited"],
    )


def dose_response(exposed: pd.DataFrame) -> pd.DataFrame:
    """Exposure and recital over the number of copies.

    Canaries only the teacher was fine-tuned on are a group of their own (`teacher_only`): their `copies` are in the
    teacher's text and in no student's, so what a student shows there came through the teacher.

    Args:
        exposed: rows of `exposure`, of one model or of the seeds of one arm together.

    Returns:
        pd.DataFrame: One row per group: `teacher_only`, `copies`, `canaries`, `exposure` (mean, bits) with `exposure_low` and
        `exposure_high` (95 % bootstrap over seeds and canaries; NaN for a single canary), `chance` and `ceiling` (what an unseen
        canary shows on average, and the most that this many twins can show), and the share recited: `rate`, `count`, `total`
        (canaries x seeds), `low`, `high` (Wilson).
    """
    rows = []
    for (only, copies), group in exposed.groupby(["teacher_only", "copies"]):
        bits = group.assign(run=group.groupby("id").cumcount()).pivot(index="run", columns="id", values="exposure")
        mean, twins, alone = bootstrap(bits.to_numpy()), int(group["twins"].max()), bits.shape[1] == 1
        low, high = (np.nan, np.nan) if alone else (mean["low"], mean["high"])
        row = {"teacher_only": only, "copies": copies, "canaries": bits.shape[1], "exposure": mean["mean"]}
        row |= {"exposure_low": low, "exposure_high": high, "chance": chance(twins), "ceiling": np.log2(twins + 1)}
        rows.append({**row, **rate(group["recited"])})
    return pd.DataFrame(rows)
