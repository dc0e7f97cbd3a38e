"""Was this record in the training text? Membership attacks, each a function of a score table, and how well they tell.

A score is a number per record, higher = more likely a member; NaN where a record has no scored token (empty or one-token
text). All attacks read tables already made: nothing here runs a model.
"""

import warnings
import zlib as zlib_library
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from palimpsest.errors import InputError
from palimpsest.statistics import clopper_pearson, delong_auc

LABELS = {
    "loss": "loss",
    "zlib": "zlib",
    "lowercase": "lowercase",
    "reference": "reference ratio",
    "min_k": "Min-K%",
    "min_k_plus": "Min-K%++",
    "ez_mia": "EZ-MIA",
    "wbc": "WBC",
}
FALSE_POSITIVE_RATES = (0.1, 0.01, 0.001)
WINDOWS = (2, 3, 4, 6, 9, 13, 18, 25, 32, 40)  # of WBC, as its authors set them: geometric steps


def loss(table: pd.DataFrame) -> np.ndarray:
    """Mean log-probability of the scored tokens, in nats (Yeom et al., arXiv 1709.01604)."""
    return _per_record(np.mean, table["logprob"])


def zlib(table: pd.DataFrame, texts: Sequence[str]) -> np.ndarray:
    """Mean log-probability over the text's size in bytes after zlib (Carlini et al., arXiv 2012.07805, section 5.2).

    Args:
        texts: the scored text of each row of `table`, in its order.
    """
    if len(texts) != len(table):
        raise InputError(f"zlib needs one text per record: found {len(texts)} texts for {len(table)} records")
    return loss(table) / np.array([len(zlib_library.compress(text.encode())) for text in texts])


def lowercase(table: pd.DataFrame, lowercase_table: pd.DataFrame) -> np.ndarray:
    """log(perplexity of the lowercased text / perplexity of the text) (Carlini et al., arXiv 2012.07805, section 5.2).

    Args:
        lowercase_table: the same model's scores of `lowercased` records. A record missing there (lower case takes more
            tokens, perhaps more than the context) gets NaN.
    """
    lower = pd.Series(loss(lowercase_table), index=lowercase_table["id"].to_numpy())
    return loss(table) - lower.reindex(table["id"].to_numpy()).to_numpy()


def lowercased(records: pd.DataFrame) -> pd.DataFrame:
    """The records with the text that is scored in lower case and their ids kept: what `lowercase` needs scored as well."""
    name = "response" if "response" in records else "text"
    return records.assign(**{name: records[name].str.lower(), "secrets": [[] for _ in range(len(records))]})


def reference(table: pd.DataFrame, reference_table: pd.DataFrame) -> np.ndarray:
    """Mean log-likelihood ratio to the checkpoint before fine-tuning (Mireshghallah et al., arXiv 2203.03929)."""
    return _per_record(np.mean, _gains(table, reference_table))


def min_k(table: pd.DataFrame, share: float = 0.2) -> np.ndarray:
    """Mean log-probability of the `share` least likely tokens (Shi et al., arXiv 2310.16789)."""
    return _per_record(lambda x: _lowest(x, share), table["logprob"])


def min_k_plus(table: pd.DataFrame, share: float = 0.2) -> np.ndarray:
    """Min-K%++: `min_k` of each log-probability standardized by its distribution (Zhang et al., arXiv 2404.02936).

    Where a distribution is one token only, its log-probability has no spread and the standardized value is taken as 0.
    """
    columns = (table["logprob"], table["mean_logprob"], table["std_logprob"])
    return _per_record(lambda x, mean, std: _lowest((x - mean) / np.maximum(std, 1e-6), share), *columns)


def ez_mia(table: pd.DataFrame, reference_table: pd.DataFrame) -> np.ndarray:
    """Error-zone score (Ilic et al., arXiv 2601.12104): gains over losses at the tokens the model gets wrong.

    With d = log-probability minus that of the checkpoint before fine-tuning, and the error zone = tokens that are not the
    model's first choice: sum of positive d over size of the sum of negative d in the zone, as in the authors' code.

    Departure: where that is undefined (fewer than two tokens in the zone, or no loss in it) they return 0, which ranks
    a record recited without an error as the *least* likely member; here the same ratio is then taken over all tokens.
    """

    def score(gain: np.ndarray, hit: np.ndarray) -> float:
        zone = gain[~hit]
        zone = zone if len(zone) > 1 and (zone < 0).any() else gain
        return zone[zone > 0].sum() / (-zone[zone < 0].sum() + 1e-12)

    return _per_record(score, _gains(table, reference_table), table["hit"])


def wbc(table: pd.DataFrame, reference_table: pd.DataFrame, windows: Sequence[int] = WINDOWS) -> np.ndarray:
    """Window-based comparison (Chen et al., arXiv 2601.02751): share of windows in which fine-tuning lowered the loss.

    Every run of w tokens votes 1 if its summed loss is below that of the checkpoint before fine-tuning, else 0; the score
    is the mean over window sizes of the mean vote. A window longer than the text is the whole text.
    """

    def score(gain: np.ndarray) -> float:
        total = np.concatenate([[0.0], np.cumsum(gain)])
        sizes = [min(w, len(gain)) for w in windows]
        return np.mean([(total[w:] > total[:-w]).mean() for w in sizes])

    return _per_record(score, _gains(table, reference_table))


def all_attacks(
    table: pd.DataFrame,
    texts: Sequence[str] | None = None,
    reference_table: pd.DataFrame | None = None,
    lowercase_table: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """`id` and one column per attack that the given inputs allow (names as in `LABELS`), rows as in `table`.

    Args:
        table: scores of the model under attack.
        texts: the scored text of each row, for `zlib`.
        reference_table: scores of the checkpoint before fine-tuning, same records and tokens.
        lowercase_table: this model's scores of the `lowercased` records.

    Raises:
        InputError: the reference table lacks a record of `table`, or its tokens differ.
    """
    scores = {"loss": loss(table), "min_k": min_k(table), "min_k_plus": min_k_plus(table)}
    if texts is not None:
        scores["zlib"] = zlib(table, texts)
    if lowercase_table is not None:
        scores["lowercase"] = lowercase(table, lowercase_table)
    if reference_table is not None:
        scores |= {f.__name__: f(table, reference_table) for f in (reference, ez_mia, wbc)}
    return pd.DataFrame({"id": table["id"].to_numpy(), **{name: scores[name] for name in LABELS if name in scores}})


def roc(members: np.ndarray, non_members: np.ndarray) -> pd.DataFrame:
    """Every point of the ROC curve: columns `fpr`, `tpr`, `threshold` (a record is called a member from there up)."""
    labels, scores = _labelled(members, non_members)
    false, true, threshold = roc_curve(labels, scores, drop_intermediate=False)
    return pd.DataFrame({"fpr": false, "tpr": true, "threshold": threshold})


def tpr_at_fpr(members: np.ndarray, non_members: np.ndarray, fpr: float) -> dict | None:
    """Share of members found by the lowest threshold that calls at most `fpr` of the non-members members.

    Returns:
        `rate`, `count`, `total`, `low`, `high` (95 % Clopper-Pearson of that same count, for this threshold) and
        `threshold`; None, "not measurable", where non-members are fewer than 1/fpr: such a rate could only be 0 of them.
    """
    if len(non_members) < round(1 / fpr) or len(members) == 0:
        return None
    allowed = int(np.floor(fpr * len(non_members) + 1e-9))
    threshold = np.sort(non_members)[::-1][allowed] if allowed < len(non_members) else -np.inf
    count = int((np.asarray(members) > threshold).sum())  # strictly above the first score that would be one too many
    return {**clopper_pearson(count, len(members)), "threshold": float(threshold)}


def evaluate(scores: pd.DataFrame, member_ids: Sequence[str], non_member_ids: Sequence[str]) -> pd.DataFrame:
    """How well each attack tells members from non-members.

    Args:
        scores: `id` and one column per attack, as `all_attacks` gives.

    Returns:
        One row per attack and measure: `attack`, `measure` ("AUC" or "TPR"), `fpr` (of a TPR), `rate`, `count`, `total`,
        `low`, `high` (95 %: DeLong for AUC, Clopper-Pearson for TPR; NaN where not measurable), `members`, `non_members`,
        `left_out` (records without a score) and `note` ("not measurable: ..." or empty).
    """
    by_id = scores.set_index("id")
    rows = []
    for attack in by_id.columns:
        groups = [by_id.loc[list(ids), attack].to_numpy(float) for ids in (member_ids, non_member_ids)]
        members, others = (g[~np.isnan(g)] for g in groups)
        sizes = {"members": len(members), "non_members": len(others), "left_out": sum(map(len, groups))}
        sizes["left_out"] -= len(members) + len(others)
        few = min(len(members), len(others)) < 2
        auc = {"note": "not measurable: fewer than two members or non-members"} if few else delong_auc(members, others)
        rows.append({"attack": attack, "measure": "AUC", **auc, **sizes})
        for fpr in FALSE_POSITIVE_RATES:
            found = tpr_at_fpr(members, others, fpr)
            if found is None:
                found = {"note": f"not measurable: {len(others)} non-members, {round(1 / fpr)} needed"}
            rows.append({"attack": attack, "measure": "TPR", "fpr": fpr, **found, **sizes})
    columns = ["attack", "measure", "fpr", "rate", "count", "total", "low", "high"]
    table = pd.DataFrame(rows).reindex(columns=[*columns, "members", "non_members", "left_out", "note"])
    return table.assign(note=table["note"].fillna(""))


def blind_baseline(
    member_texts: Sequence[str], non_member_texts: Sequence[str], *, folds: int = 5, seed: int = 0
) -> dict:
    """Can members be told from non-members without any model? Word 1- and 2-grams, logistic regression, cross-validated.

    Every text is judged by a regression that never saw it. If this does better than chance, the two groups differ in
    their text, and a membership attack may be reading that difference instead of the model (Das et al., arXiv 2406.16201).

    Returns:
        `auc`, `low`, `high` (95 % DeLong interval of the pooled out-of-fold scores), `members`, `non_members` and
        `warning`: a sentence where the interval lies above 0.5 (also issued as a warning), else None.

    Raises:
        InputError: fewer than two texts in a group.
    """
    count = min(len(member_texts), len(non_member_texts))
    if count < 2:
        raise InputError(
            f"the blind baseline compares two groups: found {len(member_texts)} member and {len(non_member_texts)} "
            "non-member texts, at least 2 of each are needed"
        )
    texts = [*member_texts, *non_member_texts]
    labels = np.repeat([1, 0], [len(member_texts), len(non_member_texts)])
    words = HashingVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), n_features=2**16, alternate_sign=False)
    judge = make_pipeline(
        words, TfidfTransformer(), LogisticRegression(C=10, class_weight="balanced", solver="liblinear")
    )
    split = StratifiedKFold(min(folds, count), shuffle=True, random_state=seed)
    scores = cross_val_predict(judge, texts, labels, cv=split, method="decision_function")
    auc = delong_auc(scores[labels == 1], scores[labels == 0])
    result = {"auc": auc["rate"], "low": auc["low"], "high": auc["high"]}
    result |= {"members": len(member_texts), "non_members": len(non_member_texts), "warning": None}
    if result["low"] > 0.5:
        result["warning"] = (
            f"Members and non-members differ without any model: word n-grams alone reach an AUC of {auc['rate']:.2f} "
            f"({auc['low']:.2f} to {auc['high']:.2f}). Membership scores below read that difference too; draw both groups "
            "at random from one source."
        )
        warnings.warn(result["warning"], stacklevel=2)
    return result


def _per_record(score: Callable[..., float], *columns) -> np.ndarray:
    """Apply `score` to each record's token arrays; NaN where a record has none."""
    rows = ([np.asarray(c) for c in row] for row in zip(*columns, strict=True))
    return np.array([score(*map(_wide, row)) if len(row[0]) else np.nan for row in rows], dtype=float)


def _wide(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == bool else values.astype(np.float64)


def _lowest(values: np.ndarray, share: float) -> float:
    return np.sort(values)[: max(1, int(share * len(values)))].mean()


def _matched(other: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The reference's rows in the order of `table`."""
    missing = set(table["id"]) - set(other["id"])
    if missing:
        raise InputError(
            f"the reference table lacks {len(missing)} of {len(table)} records (first {min(missing)}): score the same records"
        )
    return other.set_index("id").loc[table["id"]].reset_index()


def _gains(table: pd.DataFrame, reference_table: pd.DataFrame) -> list[np.ndarray]:
    """Per token, how much likelier the model finds it than the checkpoint before fine-tuning does, in nats."""
    other = _matched(reference_table, table)
    for i, mine, theirs in zip(table["id"], table["token"], other["token"], strict=True):
        if not np.array_equal(mine, theirs):
            raise InputError(
                f"record {i} has {len(mine)} tokens here and {len(theirs)} others in the reference table: the reference must "
                "be the checkpoint before fine-tuning, with the same tokenizer and prompt"
            )
    return [
        _wide(np.asarray(a)) - _wide(np.asarray(b)) for a, b in zip(table["logprob"], other["logprob"], strict=True)
    ]


def _labelled(members: np.ndarray, non_members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.repeat([1, 0], [len(members), len(non_members)]), np.concatenate([members, non_members])
