"""Membership attacks by models trained for the purpose: each of several models is the target once, the others its shadows.

In: `signal` and `inside`, both `[models, records]`: how well a model knows a record, and whether it was trained on it. The
models are trained alike, each on records drawn at random for it.

A signal of NaN takes a pair of model and record out of everything: no tokens, or a third role that is neither compared side
(to ask about records only the teacher has seen, give NaN where the student has seen them too).

Out: scores `[models, records]`, higher = more likely a member, NaN where fewer than `FEWEST_SHADOWS` shadows have, or have not,
seen the record. That rule and the scores never read the target's own row of `inside`.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from palimpsest.errors import InputError
from palimpsest.measure.membership_inference import rated

FEWEST_SHADOWS = 2  # on each side of a record, without the target: one has no variance
FEWEST_MODELS = 2 * FEWEST_SHADOWS + 1
MODELS_WANTED = 16  # for figures to publish; fewer are noted
FEWEST_POPULATION = 100  # a score of RMIA is a share of these: fewer make it too coarse
GAMMA = 1.0


def confidence_logit(mean_logprob: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of the mean token probability p = exp(mean log-probability in nats): a signal for `lira`.

    LiRA wants a signal that is normal around each record's mean. For a language model the mean log-probability of a response
    of many tokens is (or its gain on the checkpoint before fine-tuning: what is constant per record cancels), until it nears 0:
    where records are recited it is squeezed and skewed, and this, LiRA's own scaling of a confidence, opens it up again.

    Raises:
        InputError: a value above 0, which is no log-probability.
    """
    logprob = np.asarray(mean_logprob, dtype=float)
    if np.nanmax(logprob, initial=-np.inf) > 0:
        raise InputError(
            f"found a mean log-probability of {np.nanmax(logprob):.3g}: wanted 0 or less; take the model's own, not its gain"
        )
    logprob = np.minimum(logprob, -1e-6)  # certain to rounding
    return logprob - np.log(-np.expm1(logprob))


def lira(signal: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Log likelihood ratio of "trained on it" over "not" (Carlini et al., arXiv 2112.03570, Algorithm 1, online).

    Both are normal around the mean of the record's shadows of that side. The two variances are those around such means over
    all records together, their choice for few shadow models, where a record's own variance is too uncertain.

    Args:
        signal: `confidence_logit`, or mean log-probability or gain where nothing is recited.

    Raises:
        InputError: shapes that differ, fewer than `FEWEST_MODELS` models, no record with enough shadows, or shadows that do
            not differ from one another.
    """
    signal, inside = _checked(signal, inside)
    scores = np.full(signal.shape, np.nan)
    for target, usable, sides in _shadows(signal, inside):
        logs = []
        for seen in sides:
            mean = _mean(signal, seen)
            spread = (np.where(seen, signal - mean, 0.0)[:, usable] ** 2).sum()
            variance = spread / (seen.sum(0) - 1)[usable].sum()
            if not variance > 0:
                raise InputError(
                    f"found the same signal in every shadow of model {target}: wanted models trained with their own draws"
                )
            logs.append(norm.logpdf(signal[target], mean, np.sqrt(variance)))
        scores[target, usable] = (logs[0] - logs[1])[usable]
    return scores


def rmia(signal: np.ndarray, inside: np.ndarray, population: np.ndarray) -> np.ndarray:
    """Share of the population z that record x beats: P_z(ratio(x) / ratio(z) >= `GAMMA`) (Zarifzadeh et al., arXiv 2312.03262).

    ratio(x) = p(x | target) / p(x), with p(x) the mean of the mean over shadows trained on x and the mean over the others (the
    online form), p(z) the mean over shadows, none of which has seen z. p is the mean token probability exp(`signal`); of
    whole responses, one shadow would be the whole mean. What is constant per record cancels.

    Assumed: z comes from where the records come from. gamma is 1: p(x) is at least half of what shadows that know x give it, so
    ratio(x) hardly exceeds 2, and with a gamma of 2 nearly all members would score 0. Within one target the scores order
    records as ratio(x) does, up to ties; the population is what makes them comparable between targets.

    Args:
        signal: mean log-probability in nats, or its gain on the checkpoint before fine-tuning; not its logit.
        population: `[models, z]`, the same signal of at least `FEWEST_POPULATION` records that *no* model was trained on. (A
            target's non-members among the records would be found by its membership, which the attack has to guess.)

    Raises:
        InputError: shapes that differ, too few models or too small a population, no record with enough shadows.
    """
    signal, inside = _checked(signal, inside)
    population = np.asarray(population, dtype=float)
    if population.ndim != 2 or len(population) != len(signal) or population.shape[1] < FEWEST_POPULATION:
        raise InputError(
            f"found a population of shape {population.shape} for {len(signal)} models: wanted [{len(signal)}, "
            f"{FEWEST_POPULATION} or more], records that no model was trained on, scored by every model"
        )
    if not np.isfinite(population).all():
        raise InputError("found a population with missing or infinite signals: leave records without tokens out of it")
    scores = np.full(signal.shape, np.nan)
    # from each record's highest, so that none is lost to rounding; constants per record cancel
    p = np.exp(signal - np.nanmax(signal, axis=0, where=~np.isnan(signal), initial=-np.inf))
    z = np.exp(population - population.max(0))
    for target, usable, (seen, unseen) in _shadows(signal, inside):
        ratio_z = np.sort(z[target] / np.delete(z, target, axis=0).mean(0))
        ratio = (p[target] / ((_mean(p, seen) + _mean(p, unseen)) / 2))[usable]
        scores[target, usable] = np.searchsorted(ratio_z, ratio / GAMMA, side="right") / len(ratio_z)
    return scores


def shadow_rates(scores: np.ndarray, inside: np.ndarray) -> pd.DataFrame:
    """How well shadow scores tell members from non-members, each target model with a threshold of its own, on average.

    A target gives a TPR at a FPR if it has 1/FPR non-members. All pairs of target and record together would often be enough,
    but they are the same few records many times over: one odd record can be all the false alarms.

    Returns:
        pd.DataFrame: One row per measure ("AUC", "TPR" at each `fpr`): `rate` (mean over targets), `count` and `total` (members
        found and members, over all targets), `low`, `high` (95 %: at each end the wider of Student's t over targets, for another
        model, and the mean of the targets' own intervals, for other records: more targets see no others, and share their shadows),
        `models` (targets that give it), `members` and `non_members` (the fewest of a target), `left_out` (records with no score
        under any target) and `note` ("not measurable: ...", fewer models than `MODELS_WANTED`, or empty).

    Raises:
        InputError: shapes that differ.
    """
    scores, inside = _same_shape(scores, inside)
    rows, left_out = [], int(np.isnan(scores).all(0).sum())
    single = [row for s, seen in zip(scores, inside, strict=True) for row in rated("", s[seen], s[~seen])]
    for (measure, fpr), targets in pd.DataFrame(single).groupby(["measure", "fpr"], sort=False, dropna=False):
        group = targets[targets["note"] == ""]
        row = {"measure": measure, "fpr": fpr, **dict.fromkeys(("rate", "count", "total", "low", "high"), np.nan)}
        row |= {"models": len(group), **targets[["members", "non_members"]].min().to_dict(), "left_out": left_out}
        if len(group) < 2:
            row["note"] = targets.loc[targets["non_members"].idxmax(), "note"] or "not measurable: one target model"
        else:
            mean, reach = group["rate"].mean(), t.ppf(0.975, len(group) - 1) * group["rate"].sem()
            row |= {"rate": mean, **group[["count", "total"]].sum(min_count=1).to_dict()}
            row["low"] = max(0.0, min(mean - reach, group["low"].mean()))
            row["high"] = min(1.0, max(mean + reach, group["high"].mean()))
            row["note"] = "" if len(group) >= MODELS_WANTED else f"{len(group)} models, {MODELS_WANTED} wanted"
        rows.append(row)
    return pd.DataFrame(rows)


def _shadows(signal: np.ndarray, inside: np.ndarray) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
    """Per target: its number, the records with enough shadows, and which shadows have (and have not) seen each record."""
    present, enough = ~np.isnan(signal), False
    for target, itself in enumerate(np.eye(len(signal), dtype=bool)):
        shadow = present & ~itself[:, None]
        sides = [shadow & inside, shadow & ~inside]
        usable = present[target] & np.all([side.sum(0) >= FEWEST_SHADOWS for side in sides], axis=0)
        if usable.any():
            enough = True
            yield target, usable, sides
    if not enough:
        raise InputError(
            f"found no record that at least {FEWEST_SHADOWS} shadows have seen and {FEWEST_SHADOWS} have not, among "
            f"{len(signal)} models and {signal.shape[1]} records: draw records for each model anew, or train more models"
        )


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    return np.where(where, values, 0.0).sum(0) / np.maximum(1, where.sum(0))


def _same_shape(values: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, inside = np.asarray(values, dtype=float), np.asarray(inside)
    if values.ndim != 2 or values.shape != inside.shape or inside.dtype != bool:
        raise InputError(
            f"found values of shape {values.shape} and {inside.dtype} membership of shape {inside.shape}: wanted two arrays "
            "[models, records] of one shape, the second of True and False"
        )
    return values, inside


def _checked(signal: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    signal, inside = _same_shape(signal, inside)
    if len(signal) < FEWEST_MODELS:
        raise InputError(
            f"found {len(signal)} models: wanted at least {FEWEST_MODELS}, so that {FEWEST_SHADOWS} shadows with and "
            f"{FEWEST_SHADOWS} without a record are left beside the target, and {MODELS_WANTED} for figures to publish"
        )
    if np.isinf(signal).any():
        raise InputError("found an infinite signal: wanted numbers, and NaN where a record does not count")
    return signal, inside
