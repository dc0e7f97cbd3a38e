"""Which records will a student memorize? Told before it is distilled, from the teacher's and the baseline's scores.

After Borkar et al. (arXiv 2601.15394): logistic regression on the record's size after zlib, the teacher's and the baseline's
perplexity, and the divergence between the two.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from palimpsest.measure.statistics import auc, rate_of

FOLDS = 5
POINTS = 200  # of a curve of savings
UNMEASURABLE = "not measurable: {} of {} records memorized by the student; {} of each kind are needed for {} folds"


def features(records: pd.DataFrame, teacher: pd.DataFrame, baseline: pd.DataFrame) -> pd.DataFrame:
    """What a prediction is made from, indexed by record id. Nothing in it comes from a distilled student.

    `zlib_bytes` (size after zlib), `teacher_loss` and `baseline_loss` (log-perplexity) and `divergence` (a lower bound of
    KL(teacher || baseline)), all but the first in nats per token.

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


def predict(inputs: pd.DataFrame, memorized: pd.Series) -> Prediction:
    """Predict `memorized` (booleans indexed by record id) from `inputs` (same ids), every record by folds without it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    outcome = memorized.loc[inputs.index].to_numpy(bool)
    table = pd.DataFrame({"id": inputs.index, "probability": np.nan, "memorized": outcome})
    none = pd.Series(np.nan, index=inputs.columns)
    if min(outcome.sum(), (~outcome).sum()) < FOLDS:
        note = UNMEASURABLE.format(outcome.sum(), len(outcome), FOLDS, FOLDS)
        return Prediction(table, dict.fromkeys(("rate", "low", "high"), np.nan), none, note)
    judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1_000))
    split = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    table["probability"] = cross_val_predict(judge, inputs, outcome, cv=split, method="predict_proba")[:, 1]
    found = table["probability"].to_numpy()
    weights = pd.Series(judge.fit(inputs, outcome)[-1].coef_[0], index=inputs.columns)
    return Prediction(table, auc(found[outcome], found[~outcome]), weights)


def avoided(judged: pd.DataFrame) -> dict[str, float]:
    """What leaving out the records predicted to be memorized would save, if nothing else changed.

    An estimate: no student is trained anew, and a record left out is counted as not memorized. Left out is, as in the paper,
    whatever is given a probability of one half or more.

    Args:
        judged: `Prediction.table`.

    Returns:
        dict[str, float]: `removed` (records), `removed_share`, and the share of memorized records among those removed: `rate`,
        `count`, `total`, `low`, `high`; all but `total` NaN where nothing was predicted.
    """
    removed, memorized = judged["probability"] >= 0.5, judged["memorized"]
    counted = rate_of(int((removed & memorized).sum()), int(memorized.sum()))
    found = {"removed": int(removed.sum()), "removed_share": float(removed.mean()), **counted}
    known = judged["probability"].notna().all()
    return found if known else {**dict.fromkeys(found, np.nan), "total": found["total"]}


def savings(judged: pd.DataFrame) -> pd.DataFrame:
    """`avoided` for any number of records left out, likeliest first: `share_left_out`, `share_avoided`, at `POINTS` or fewer."""
    ranked = (
        judged.dropna().sort_values("probability", ascending=False, kind="stable")["memorized"].to_numpy().cumsum()
    )
    out = np.unique(np.linspace(1, len(ranked), min(POINTS, len(ranked))).round().astype(int))
    return pd.DataFrame({"share_left_out": out / len(ranked), "share_avoided": ranked[out - 1] / ranked[-1:]})
