"""How private is training at most? A lower bound on epsilon from planted records, each trained on by the toss of a coin.

After Steinke, Nasr & Jagielski, "Privacy auditing with one (1) training run", arXiv 2305.08846. What the bound assumes:

- Each canary is in the training text by a fair coin of its own. A split into halves of a fixed size is not that, nor are
  thirds; of three roles drawn alike, two are fair to each other: leave the canaries of the third role out.
- Neighbours differ by one record added or removed, as in the accounts of DP-SGD: of a canary with many copies the bound is on
  all of them together, and no contradiction of an epsilon per row.
- delta is below 1 / (records in the training text). From there on the claim is empty: publishing one record at random, in
  full, is (0, 1/n)-differentially private, since each is published with probability 1/n.

The bound says what the mechanism gives away at least, to this attack. A bound of 0 does not say that it is private.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit
from scipy.stats import beta, binom, binomtest

from palimpsest.errors import InputError

# Shares of the canaries to guess on, fixed before any score is seen: few sure guesses show a leak of some records, many show a
# weak leak of all. The best of them is taken, each at a confidence that pays for the choice.
GUESSED_SHARES = (0.1, 0.3, 1.0)
UNFAIR = 1e-6  # a fair coin lands so unevenly less often than this


def epsilon_lower_bound(correct: int, guesses: int, canaries: int, delta: float, confidence: float = 0.95) -> float:
    """Largest epsilon so small that an (epsilon, delta)-private mechanism would hardly allow so many correct guesses.

    Under (epsilon, delta) the probability of `correct` or more of at most `guesses` guesses is no larger than f(correct) +
    2 `canaries` delta max over i >= 1 of (f(correct - i) - f(correct)) / i, with f(v) = P(Binomial(guesses, e^epsilon /
    (1 + e^epsilon)) >= v) (their theorem for delta > 0). The bound is the epsilon at which that equals 1 - `confidence`.

    Args:
        correct, guesses: right ones, and all that were allowed. How many are allowed must not be chosen on the same coins:
            `one_run_audit` chooses among declared numbers and pays for it.
        canaries: all that were tossed for, abstentions included.
        delta: below 1 / (records in the training text), see above; 0 for pure differential privacy.

    Returns:
        Epsilon in nats, 0 where the guesses are no better than chance allows.

    Raises:
        InputError: counts that do not nest, nothing guessed, a delta or confidence out of range.
    """
    if guesses < 1:
        raise InputError(f"found {guesses} guesses: a bound needs at least one; guess a larger share of the canaries")
    if guesses > canaries:
        raise InputError(f"found {guesses} guesses for {canaries} canaries: wanted at most one guess for each")
    if not 0 <= correct <= guesses:
        raise InputError(f"found {correct} correct of {guesses} guesses: wanted a count from 0 to {guesses}")
    if not 0 < confidence < 1:
        raise InputError(f"found a confidence of {confidence}: wanted a share between 0 and 1, such as 0.95")
    if not 0 <= delta < 1:
        raise InputError(f"found a delta of {delta}: wanted 0 or more and below 1 / (records in the training text)")
    if 2 * canaries * delta >= 1:  # the allowance for delta is then no longer increasing in epsilon
        raise InputError(
            f"found a delta of {delta} for {canaries} canaries: such a mechanism may publish one of them outright, and no "
            f"bound follows; wanted a delta below {1 / (2 * canaries):.2g} and below 1 / (records in the training text)"
        )

    def above(epsilon: float) -> float:
        return _chance_of(correct, guesses, canaries, epsilon, delta) - (1 - confidence)

    if above(0.0) >= 0:
        return 0.0
    # where delta is 0 the bound is Clopper and Pearson's on the share of correct guesses, and delta can only lower it
    pure = float(logit(beta.ppf(1 - confidence, correct, guesses - correct + 1)))
    return float(brentq(above, 0.0, pure + 1e-6)) if delta else pure


def one_run_audit(
    scores: np.ndarray,
    included: np.ndarray,
    delta: float,
    shares: Sequence[float] = GUESSED_SHARES,
    confidence: float = 0.95,
) -> dict[str, float]:
    """`pooled_audit` of one run: `scores` and `included`, one value per canary."""
    return pooled_audit([(scores, included)], delta, shares, confidence)


def pooled_audit(
    runs: Sequence[tuple[np.ndarray, np.ndarray]],
    delta: float,
    shares: Sequence[float] = GUESSED_SHARES,
    confidence: float = 0.95,
) -> dict[str, float]:
    """Lower bound on epsilon from the attack scores of one run's canaries, or of several independent runs together.

    In each run, for each share: the half of the guesses with the highest scores say "included", the half with the lowest say
    "left out", the rest abstain. Canaries tied across such a cut abstain too, so the order of the
    records can't tell; they still count as guesses, which only lowers the bound.

    The best of the shares is returned, each judged at 1 - (1 - `confidence`) / (number of shares) (Bonferroni), so the bound
    holds at `confidence` though the share was chosen on the same coins. One share alone pays nothing.

    Several runs of one mechanism, with coins and randomness of their own, are one mechanism on all the coins: a coin touches
    the output of its own run only, so the whole is (epsilon, delta)-private if each run is, and the theorem holds for all
    guesses together. It does *not* hold if a run was scored with the help of another's coins, as by leave-one-out shadow
    models: two runs that each guess the other's coins are right together and wrong together. Score pooled runs without
    shadows, or by shadows that are not among the runs; otherwise report each run by itself and not the largest.

    Args:
        runs: per run, an attack score per canary (higher = more likely included) and whether it was included.

    Returns:
        `epsilon`, and for the share it comes from `share`, `correct`, `guesses`; `canaries`, `runs`, `delta`, `confidence`.

    Raises:
        InputError: no run, a run whose arrays do not match or hold no number, coins that are not fair, shares out of range,
            and what `epsilon_lower_bound` refuses.
    """
    if not runs or not shares or not all(0 < share <= 1 for share in shares):
        raise InputError(
            f"found {len(runs)} runs and shares {tuple(shares)}: wanted at least one run and shares above 0, up to 1"
        )
    checked = [_checked_run(*run) for run in runs]
    canaries = sum(len(scores) for scores, _ in checked)
    single = 1 - (1 - confidence) / len(shares)
    found = []
    for share in shares:
        correct, guesses = np.sum([_guess(scores, included, share) for scores, included in checked], axis=0)
        epsilon = epsilon_lower_bound(int(correct), int(guesses), canaries, delta, single)
        found.append({"epsilon": epsilon, "share": share, "correct": int(correct), "guesses": int(guesses)})
    best = max(found, key=lambda row: row["epsilon"])
    return {**best, "canaries": canaries, "runs": len(checked), "delta": delta, "confidence": confidence}


def _chance_of(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """The theorem's bound on the probability of so many correct guesses."""
    at_least = binom.sf(np.arange(correct, -1, -1) - 1, guesses, expit(epsilon))  # of correct, correct - 1, ..., 0
    steps = (at_least[1:] - at_least[0]) / np.arange(1, correct + 1)
    return float(at_least[0] + 2 * canaries * delta * np.max(steps, initial=0.0))


def _guess(scores: np.ndarray, included: np.ndarray, share: float) -> tuple[int, int]:
    """How many of the guesses on a `share` of the canaries are right, and how many guesses that are."""
    guesses = round(share * len(scores))
    high, low = guesses - guesses // 2, guesses // 2
    ordered = np.sort(scores)
    yes = scores > ordered[-1 - high] if high < len(scores) else np.full(len(scores), True)
    no = scores < ordered[low]
    return int((yes & included).sum() + (no & ~included).sum()), guesses


def _checked_run(scores: np.ndarray, included: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, included = np.asarray(scores, dtype=float), np.asarray(included)
    if scores.ndim != 1 or scores.shape != included.shape or included.dtype != bool or not len(scores):
        raise InputError(
            f"found scores of shape {scores.shape} and {included.dtype} coins of shape {included.shape}: wanted, for each run, "
            "one score and one True or False per canary"
        )
    if np.isnan(scores).any():
        raise InputError(
            f"found no score for {int(np.isnan(scores).sum())} of {len(scores)} canaries: leave those without tokens out "
            "whether or not they were included"
        )
    inside = int(included.sum())
    if binomtest(inside, len(included)).pvalue < UNFAIR:
        raise InputError(
            f"found {inside} of {len(included)} canaries included: a fair coin hardly lands so, and the bound needs one per "
            "canary; leave out canaries that had a third role, and do not select by inclusion"
        )
    return scores, included
