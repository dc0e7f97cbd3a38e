"""Which records will a student memorize? Told before it is distilled, from the teacher's and the baseline's scores.

After Borkar et al. (arXiv 2601.15394): logistic regression on the record's size after zlib, the teacher's and the baseline's
perplexity, and the divergence between the two.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from palimpsest.data.records import encode, template, training_text
from palimpsest.measure import lineage, results
from palimpsest.measure.models import load_tokenizer
from palimpsest.measure.statistics import delong_auc, rate_of
from palimpsest.study import Arm, Study
from palimpsest.study.runs import locate

FEATURES = {
    "zlib_bytes": "size after zlib, bytes",
    "teacher_loss": "teacher's log-perplexity, nats per token",
    "baseline_loss": "baseline's log-perplexity, nats per token",
    "divergence": "KL(teacher || baseline), lower bound, nats per token",
}
UNMEASURABLE = "not measurable: {} of {} records memorized by the student; {} of each kind are needed for {} folds"


def features(records: pd.DataFrame, teacher: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """The columns of `FEATURES`, indexed by record id. Nothing in them comes from a distilled student.

    The divergence is that between two-way distributions, the true token against all others, averaged over the response. By
    the data-processing inequality it can't exceed the divergence over the whole vocabulary, and score tables suffice for it.

    Args:
        records: `id`, `response` (or `text`).
        teacher, baseline: score tables that hold these records.
    """
    t, b = (table.set_index("id").loc[records["id"], "logprob"] for table in (teacher, baseline))
    text = records["response"] if "response" in records else records["text"]
    return pd.DataFrame(
        {
            "zlib_bytes": [len(zlib.compress(x.encode())) for x in text],
            "teacher_loss": [-np.mean(x, dtype=float) for x in t],
            "baseline_loss": [-np.mean(x, dtype=float) for x in b],
            "divergence": [two_way_divergence(x, y).mean() for x, y in zip(t, b, strict=True)],
        },
        index=pd.Index(records["id"], name="id"),
    )


def two_way_divergence(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """KL, in nats per token, between the Bernoulli distributions whose log-probabilities of the true token are given."""
    p, q = (np.minimum(np.asarray(x, dtype=float), -1e-9) for x in (first, second))  # 1 - p must not be 0
    return np.exp(p) * (p - q) - np.expm1(p) * (np.log(-np.expm1(p)) - np.log(-np.expm1(q)))


@dataclass
class Prediction:
    """What a cross-validated prediction is worth.

    Attributes:
        table: `id`, `probability` (given by a regression that never saw the record) and `memorized` (what happened).
        auc: `rate`, `low`, `high` (95 % DeLong interval); NaN where not measurable.
        weights: standardized coefficient per feature, of the regression over all records.
        note: why nothing could be measured, or empty.
    """

    table: pd.DataFrame
    auc: dict
    weights: pd.Series
    note: str = ""


def predict(inputs: pd.DataFrame, memorized: pd.Series, folds: int = 5, seed: int = 0) -> Prediction:
    """Predict `memorized` (booleans indexed by record id) from `inputs` (same ids), every record by folds without it."""
    outcome = memorized.loc[inputs.index].to_numpy(bool)
    table = pd.DataFrame({"id": inputs.index, "probability": np.nan, "memorized": outcome})
    none = pd.Series(np.nan, index=inputs.columns)
    if min(outcome.sum(), (~outcome).sum()) < folds:
        note = UNMEASURABLE.format(outcome.sum(), len(outcome), folds, folds)
        return Prediction(table, dict.fromkeys(("rate", "low", "high"), np.nan), none, note)
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    table["probability"] = cross_val_predict(judge, inputs, outcome, cv=split, method="predict_proba")[:, 1]
    found = table["probability"].to_numpy()
    weights = pd.Series(judge.fit(inputs, outcome)[-1].coef_[0], index=inputs.columns)
    return Prediction(table, delong_auc(found[outcome], found[~outcome]), weights)


def savings(table: pd.DataFrame, shares: Sequence[float] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)) -> pd.DataFrame:
    """What leaving out the records predicted to be memorized would save, if nothing else changed.

    An estimate: no student is trained anew, and a record left out is counted as not memorized. First row: all records given
    a probability of one half or more, as in the paper; then the likeliest `shares` of all records.

    Args:
        table: `Prediction.table`.

    Returns:
        `rule`, `removed` (records), `removed_share`, and the share of memorized records among those removed: `rate`,
        `count`, `total`, `low`, `high`.
    """
    ranked = table.sort_values("probability", ascending=False, kind="stable")
    half = int((table["probability"] >= 0.5).sum())
    cuts = [("probability of 1/2 or more", half)]
    cuts += [(f"likeliest {100 * share:g} %", int(np.ceil(share * len(table)))) for share in shares]
    total = int(table["memorized"].sum())
    return pd.DataFrame(
        [
            {
                "rule": rule,
                "removed": removed,
                "removed_share": removed / len(table),
                **rate_of(int(ranked["memorized"].iloc[:removed].sum()), total),
            }
            for rule, removed in cuts
        ]
    )


def predicted(study: Study, run_dir: str | Path, arm: Arm) -> tuple[set[str], str]:
    """Members that `arm` is predicted to recite with a probability of one half or more, and why there are none, if so.

    After Borkar et al. (arXiv 2601.15394): `arm` is trained once on all records, and a logistic regression on what teacher and
    baseline make of a record, the size of the record, and what `arm` recites (`forecast`) judges every record by folds that
    do not hold it. Whoever leaves records out this way pays for a first training of the same kind. "Recites" is
    `lineage.recites` in the reading that the study's chapters use.

    Raises:
        InputError: `arm`, its baseline or the teacher is not measured yet.
    """
    records = results.load_records(run_dir)
    rows = training_text(records, "student").drop_duplicates("id")
    rows = rows.assign(
        example=encode(rows, load_tokenizer(locate(run_dir) / "data" / "tokenizer"), template(study.data.template))
    )
    recited = lineage.recites(study, run_dir, arm.name, rows, lineage.choose_reading(rows)).dropna()
    rows = rows[rows["id"].isin(set(recited.index))]
    baseline = Arm(arm.size, "sft", arm.seed).name
    inputs = features(rows, results.scores(run_dir, "teacher"), results.scores(run_dir, baseline))
    found = predict(inputs, recited.astype(bool))
    return set(found.table.loc[found.table["probability"] >= 0.5, "id"]), found.note
