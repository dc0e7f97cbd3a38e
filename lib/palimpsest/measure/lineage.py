"""Whose memory is it? Records sorted by which of teacher, student and baseline recite them, with counts and paired tests.

The baseline is the student's own size fine-tuned without a teacher (method `sft`, same seed). A record that it recites too
needed no teacher; one recited by teacher and student but not by the baseline came through the teacher: *inherited*
(Borkar et al., arXiv 2601.15394).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import mannwhitneyu, t

from palimpsest.errors import InputError
from palimpsest.measure import extraction, results
from palimpsest.measure.statistics import (
    bootstrap,
    bootstrap_means,
    delong_auc,
    mcnemar,
    paired_bootstrap,
    rate,
    rate_of,
)
from palimpsest.study import Arm, Study

SETS = {  # (teacher, student, baseline) -> name
    (True, True, False): "inherited",
    (True, True, True): "easy",
    (True, False, False): "teacher_only",
    (False, True, False): "student_only",
    (False, False, True): "baseline_only",
    (True, False, True): "shed",
    (False, True, True): "small_only",
    (False, False, False): "none",
}
MEANING = {
    "inherited": "teacher and student, not the baseline",
    "easy": "all three",
    "teacher_only": "the teacher alone",
    "student_only": "the student alone",
    "baseline_only": "the baseline alone",
    "shed": "teacher and baseline, not the student",
    "small_only": "student and baseline, not the teacher",
    "none": "none of the three",
}


def matrix(verdicts: Mapping[str, pd.Series]) -> pd.DataFrame:
    """One row per record id, one boolean column per model, of the records that every model was asked about.

    Args:
        verdicts: model name -> booleans indexed by record id; a missing value (not decidable at that length) drops the
            record for all models, so that every comparison is over the same records.

    Raises:
        InputError: the models share no decided record.
    """
    wide = pd.DataFrame({name: series.astype("boolean") for name, series in verdicts.items()}).dropna()
    if wide.empty:
        raise InputError(f"no record has a verdict from all of {', '.join(verdicts)}: score them on the same records")
    return wide.astype(bool)


def choose_reading(rows: pd.DataFrame, wanted: str = "auto") -> str:
    """ "secret" where the data marks secrets, else "window"; any other wish is granted."""
    return wanted if wanted != "auto" else "secret" if any(len(s) for s in rows["secrets"]) else "window"


def recites(study: Study, run_dir: str | Path, name: str, rows: pd.DataFrame, reading: str = "window") -> pd.Series:
    """Whether one measured model recites each record, indexed by id; missing where that can't be decided.

    Args:
        rows: the records asked about: `id`, and `example` for reading "secret" (as `memorization.letters` gives).
        reading: one of `extraction.READINGS`, or "secret": greedy decoding gives at least one of the record's secrets from
            the true text before it. Records without a secret are left out there.
    """
    table = results.scores(run_dir, name).set_index("id").loc[rows["id"]].reset_index()
    if reading == "secret":
        return extraction.secrets(table, list(rows["example"])).groupby("id")["recited"].any()
    return extraction.reading(table, reading, study.measure.window)


def verbatim_matrix(study: Study, run_dir: str | Path, rows: pd.DataFrame, reading: str = "window") -> pd.DataFrame:
    """The `matrix` of every measured model of a study but the `mitigated` ones; arguments as in `recites`.

    Raises:
        InputError: no model is measured, or no record can be read that way.
    """
    names = [n for n in results.model_names(study, run_dir) if results.describe(n)["role"] != "mitigated"]
    return matrix({name: recites(study, run_dir, name, rows, reading) for name in names})


def origins(memorized: pd.DataFrame, arms: Iterable[Arm], baseline: str = "sft") -> pd.DataFrame:
    """Which set each record falls into, for every distilled arm.

    Args:
        memorized: as `matrix` gives; columns "teacher", each arm's name, and each arm's baseline of the same size and seed.

    Returns:
        One row per arm and record: `size`, `method`, `seed`, `id`, `teacher`, `student`, `baseline` (booleans), `set`.

    Raises:
        InputError: a model of the comparison has no column.
    """
    parts = []
    for arm in arms:
        if arm.method == baseline:
            continue
        roles = {"teacher": "teacher", "student": arm.name, "baseline": Arm(arm.size, baseline, arm.seed).name}
        missing = [name for name in roles.values() if name not in memorized]
        if missing:
            raise InputError(
                f"arm {arm.name} cannot be compared: no verdicts of {', '.join(missing)}; measure them first"
            )
        part = pd.DataFrame({role: memorized[name].to_numpy() for role, name in roles.items()})
        part["set"] = pd.Categorical([SETS[row] for row in part.itertuples(index=False, name=None)], list(MEANING))
        parts.append(part.assign(size=arm.size, method=arm.method, seed=arm.seed, id=memorized.index))
    if not parts:
        raise InputError("no distilled arm to compare: the study has only the baseline method")
    order = ["size", "method", "seed", "id", "teacher", "student", "baseline", "set"]
    return pd.concat(parts, ignore_index=True)[order]


def count_sets(sorted_records: pd.DataFrame) -> pd.DataFrame:
    """Per arm and set: `rate`, `count`, `total`, `low`, `high` (95 %) over the arm's records; every set has a row."""
    rows = []
    for (size, method, seed), part in _by(sorted_records, "size", "method", "seed"):
        counts = part["set"].value_counts()
        rows += [
            {"size": size, "method": method, "seed": seed, "set": name, **rate_of(int(counts[name]), len(part))}
            for name in MEANING
        ]
    return pd.DataFrame(rows)


def across_seeds(sorted_records: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Per size, method and set, over all seeds: mean `rate` and `count` of `total` records, `seeds`, and `low`, `high`.

    The 95 % interval is a two-level bootstrap: seeds are drawn, then records, the same ones for every seed drawn. With one
    seed it covers other records only, not other seeds. Of an empty set every resample is empty, so there (and for a set that
    holds every record) it is Wilson's.
    """
    rows = []
    for (size, method), part in _by(sorted_records, "size", "method"):
        wide = part.pivot(index="seed", columns="id", values="set")
        for name in MEANING:
            inside = (wide == name).to_numpy()
            same = inside.all() or not inside.any()
            found = rate(inside[0]) if same else bootstrap(inside, seed=seed)
            rows.append(
                {
                    "size": size,
                    "method": method,
                    "set": name,
                    "seeds": len(inside),
                    "rate": inside.mean(),
                    "count": inside.sum(1).mean(),
                    "total": inside.shape[1],
                    "low": found["low"],
                    "high": found["high"],
                }
            )
    return pd.DataFrame(rows)


def compare(sorted_records: pd.DataFrame, other: str = "baseline", seed: int = 0) -> pd.DataFrame:
    """Does a student recite fewer records than its baseline, or than the teacher, on the same records?

    Args:
        other: "baseline" or "teacher".

    Returns:
        Per size and method: mean rates `student` and `other`; `difference` (student minus other) with `low`, `high`, and
        `ratio` (student over other) with `ratio_low`, `ratio_high`: 95 % paired bootstrap over seeds and records, NaN for a
        ratio that can divide by zero; exact McNemar p-values, one per seed, as `p_lowest` and `p_highest`; `seeds`, `total`.
    """
    rows = []
    for (size, method), part in _by(sorted_records, "size", "method"):
        student, held = (part.pivot(index="seed", columns="id", values=c).to_numpy(bool) for c in ("student", other))
        paired = paired_bootstrap(student, held, seed=seed)
        p = [mcnemar(a, b)["p"] for a, b in zip(student, held, strict=True)]
        rows.append(
            {
                "size": size,
                "method": method,
                "student": student.mean(),
                "other": held.mean(),
                "difference": paired["mean"],
                "low": paired["low"],
                "high": paired["high"],
                **ratio(student, held, seed=seed),
                "p_lowest": min(p),
                "p_highest": max(p),
                "seeds": len(student),
                "total": student.shape[1],
            }
        )
    return pd.DataFrame(rows)


def ratio(first: np.ndarray, second: np.ndarray, seed: int = 0) -> dict[str, float]:
    """`ratio` of two rates over the same records, booleans `[seeds, records]`, with `ratio_low`, `ratio_high`.

    95 % paired bootstrap; NaN where a resample (or the sample) would divide by zero. Where `first` is empty, so that every
    resample is, `ratio_high` is Wilson's upper bound of no record, over the second rate.
    """
    mine, theirs = (bootstrap_means(x, seed=seed) for x in (first, second))  # the same draws for both
    low, high = np.quantile(mine / theirs, [0.025, 0.975]) if theirs.all() else (np.nan, np.nan)
    value = np.mean(first) / np.mean(second) if np.any(second) else np.nan
    if not np.any(first):
        high = rate_of(0, np.shape(first)[-1])["high"] / np.mean(second) if theirs.all() else np.nan
    return {"ratio": float(value), "ratio_low": float(low), "ratio_high": float(high)}


def counterfactual(known: pd.DataFrame) -> pd.DataFrame:
    """What models know of the canaries that only the teacher was fine-tuned on.

    A model that never met them has learned no more about a canary than about any of its unseen twins, so it gains more on the
    canary half of the time; anything above came through the teacher.

    Args:
        known: one row per `model` and planted secret: `kind` ("canary" or "twin"), `form` (secrets compared with each other),
            `gain` (log-probability over that before fine-tuning, nats: what the model started with drops out), `recited`.

    Returns:
        Per model: `canaries`, `twins`, how many canaries are `recited`; `auc` (share of canary-twin pairs in which more is
        gained on the canary) with `low`, `high` (95 %: DeLong's error with Student's t, as canaries are few), and `p`, the exact
        one-sided Mann-Whitney probability of such ranks under a model that learned nothing. NaN with fewer than two canaries.
    """
    centered = known["gain"] - _twin_median(known)
    rows = []
    for (name,), part in _by(known.assign(gain=centered), "model"):
        canary = part["kind"] == "canary"
        first, second = part.loc[canary, "gain"].to_numpy(), part.loc[~canary, "gain"].to_numpy()
        auc = low = high = p = np.nan
        if min(len(first), len(second)) > 1:
            auc, low, high = _auc_of_few(first, second)
            p = mannwhitneyu(first, second, alternative="greater", method="exact").pvalue
        who = {
            "model": name,
            "canaries": len(first),
            "twins": len(second),
            "recited": int(part["recited"][canary].sum()),
        }
        rows.append({**who, "auc": auc, "low": low, "high": high, "p": p})
    return pd.DataFrame(rows)


def _twin_median(known: pd.DataFrame) -> pd.Series:
    """The median gain on the twins of each row's model and form, which makes several forms comparable."""
    twins = known[known["kind"] == "twin"].groupby(["model", "form"])["gain"].median()
    return pd.Series(twins.reindex(pd.MultiIndex.from_frame(known[["model", "form"]])).to_numpy(), known.index)


def _auc_of_few(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    found = delong_auc(first, second)
    auc, error = found["rate"], found["error"]
    if not 0 < auc < 1 or error == 0:
        return auc, found["low"], found["high"]
    reach = t.ppf(0.975, min(len(first), len(second)) - 1) * error / (auc * (1 - auc))
    odds = np.log(auc / (1 - auc))
    return auc, *(float(x) for x in expit([odds - reach, odds + reach]))


def _by(frame: pd.DataFrame, *columns: str):
    return frame.groupby(list(columns), sort=False, observed=True)
