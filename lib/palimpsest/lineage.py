"""Whose memory is it? Records sorted by which of teacher, student and baseline recite them, with counts and paired tests.

The baseline is the student's own size fine-tuned without a teacher (method `sft`, same seed). A record that it recites too
needed no teacher; one recited by teacher and student but not by the baseline came through the teacher: *inherited*
(Borkar et al., arXiv 2601.15394).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from palimpsest import extraction, results
from palimpsest.errors import InputError
from palimpsest.statistics import bootstrap, bootstrap_means, delong_auc, mcnemar, paired_bootstrap, rate
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


def verdicts(study: Study, run_dir: str | Path, rows: pd.DataFrame, reading: str = "window") -> pd.DataFrame:
    """The `matrix` of every measured model of a study.

    Args:
        rows: the records asked about: `id`, and `example` for reading "secret" (as `memorization.letters` gives).
        reading: one of `extraction.READINGS`, or "secret": greedy decoding gives at least one of the record's secrets from
            the true text before it. Records without a secret are left out there.

    Raises:
        InputError: no model is measured, or no record can be read that way.
    """
    found = {}
    for name in results.model_names(study, run_dir):
        table = results.scores(run_dir, name).set_index("id").loc[rows["id"]].reset_index()
        if reading == "secret":
            found[name] = extraction.secrets(table, list(rows["example"])).groupby("id")["recited"].any()
        else:
            found[name] = extraction.reading(table, reading, study.measure.window)
    return matrix(found)


def sort_records(memorized: pd.DataFrame, arms: Iterable[Arm], baseline: str = "sft") -> pd.DataFrame:
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
            {"size": size, "method": method, "seed": seed, "set": name, **rate(int(counts[name]), len(part))}
            for name in MEANING
        ]
    return pd.DataFrame(rows)


def across_seeds(sorted_records: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Per size, method and set, over all seeds: mean `rate` and `count` of `total` records, `seeds`, and `low`, `high`.

    The 95 % interval is a two-level bootstrap: seeds are drawn, then records, the same ones for every seed drawn. With one
    seed it covers other records only, not other seeds.
    """
    rows = []
    for (size, method), part in _by(sorted_records, "size", "method"):
        wide = part.pivot(index="seed", columns="id", values="set")
        for name in MEANING:
            inside = (wide == name).to_numpy()
            found = bootstrap(inside, seed=seed)
            rows.append(
                {
                    "size": size,
                    "method": method,
                    "set": name,
                    "seeds": len(inside),
                    "rate": found["mean"],
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

    95 % paired bootstrap; NaN where a resample (or the sample) would divide by zero.
    """
    mine, theirs = (bootstrap_means(x, seed=seed) for x in (first, second))  # the same draws for both
    low, high = np.quantile(mine / theirs, [0.025, 0.975]) if theirs.all() else (np.nan, np.nan)
    value = np.mean(first) / np.mean(second) if np.any(second) else np.nan
    return {"ratio": float(value), "ratio_low": float(low), "ratio_high": float(high)}


def counterfactual(exposed: pd.DataFrame) -> pd.DataFrame:
    """What models know of the canaries that only the teacher was fine-tuned on.

    A model that never met them ranks a canary anywhere among its unseen twins, so it finds a canary likelier than a twin half of
    the time; anything above came through the teacher.

    Args:
        exposed: `exposure.exposures` of one or more models, with a column `model`. A canary's `rank` is 1 when it is likelier
            than each of its `twins`.

    Returns:
        Per model, over the teacher-only canaries: `exposure` (mean, bits) and `recited`, `canaries`; `auc` (share of
        canary-twin pairs in which the canary is likelier), with `low`, `high` (95 % DeLong), and `p`, the exact one-sided
        Mann-Whitney probability of such ranks from a model that knows nothing. NaN with fewer than two canaries.
    """
    rows = []
    for (name,), part in _by(exposed[exposed["teacher_only"].astype(bool)], "model"):
        twins = int(part["twins"].max())
        places = twins - part["rank"].to_numpy() + 1.5  # a canary of rank 1 stands above twins 1, 2, ..., `twins`
        unseen = np.arange(1, twins + 1)
        found = {"rate": np.nan, "low": np.nan, "high": np.nan}
        p = np.nan
        if len(part) > 1:
            found = delong_auc(places, unseen)
            p = mannwhitneyu(places, unseen, alternative="greater", method="exact").pvalue
        rows.append(
            {
                "model": name,
                "canaries": len(part),
                "recited": int(part["recited"].sum()),
                "exposure": part["exposure"].mean(),
                "auc": found["rate"],
                "low": found["low"],
                "high": found["high"],
                "p": p,
            }
        )
    return pd.DataFrame(rows)


def _by(frame: pd.DataFrame, *columns: str):
    return frame.groupby(list(columns), sort=False, observed=True)
