"""Was this record in the training text? Membership attacks, each a function of a score table, and how well they tell.

A score is a number per record, higher = more likely a member; NaN where a record has no scored token (empty or one-token
text). All attacks read tables already made: nothing here runs a model.
"""

import warnings
import zlib as zlib_library
from collections.abc import Sequence

import numpy as np
import pandas as pd

from palimpsest.errors import InputError
from palimpsest.measure.score_file import flatten, reduce_records
from palimpsest.measure.statistics import auc, clopper_pearson

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


def loss(scores: pd.DataFrame) -> np.ndarray:
    """Mean log-probability of the scored tokens, in nats (Yeom et al., arXiv 1709.01604)."""
    return _means(*flatten(scores, "logprob"))


def zlib(scores: pd.DataFrame, texts: Sequence[str]) -> np.ndarray:
    """Mean log-probability over the text's size in bytes after zlib (Carlini et al., arXiv 2012.07805, section 5.2).

    Args:
        texts: the scored text of each row of `scores`, in its order.
    """
    if len(texts) != len(scores):
        raise InputError(f"zlib needs one text per record: found {len(texts)} texts for {len(scores)} records")
    return loss(scores) / np.array([len(zlib_library.compress(text.encode())) for text in texts])


def lowercase(scores: pd.DataFrame, lower: pd.DataFrame) -> np.ndarray:
    """log(perplexity of the lowercased text / perplexity of the text) (Carlini et al., arXiv 2012.07805, section 5.2).

    Args:
        lower: the same model's scores of `lowercased` records. A record missing there (lower case takes more tokens, perhaps
            more than the context) gets NaN.
    """
    by_id = pd.Series(loss(lower), index=lower["id"].to_numpy())
    return loss(scores) - by_id.reindex(scores["id"].to_numpy()).to_numpy()


def lowercased(records: pd.DataFrame) -> pd.DataFrame:
    """The records with the text that is scored in lower case and their ids kept: what `lowercase` needs scored as well."""
    name = "response" if "response" in records else "text"
    return records.assign(**{name: records[name].str.lower(), "secrets": [[] for _ in range(len(records))]})


def reference_ratio(scores: pd.DataFrame, reference: pd.DataFrame) -> np.ndarray:
    """Mean log-likelihood ratio to the checkpoint before fine-tuning (Mireshghallah et al., arXiv 2203.03929)."""
    return _means(*_gains(scores, reference))


def min_k(scores: pd.DataFrame, share: float = 0.2) -> np.ndarray:
    """Mean log-probability of the `share` least likely tokens (Shi et al., arXiv 2310.16789)."""
    return _lowest(*flatten(scores, "logprob"), share)


def min_k_plus(scores: pd.DataFrame, share: float = 0.2) -> np.ndarray:
    """Min-K%++: `min_k` of each log-probability standardized by its distribution (Zhang et al., arXiv 2404.02936).

    Where a distribution is one token only, its log-probability has no spread and the standardized value is taken as 0.
    """
    (x, starts), (mean, _), (std, _) = (flatten(scores, c) for c in ("logprob", "mean_logprob", "std_logprob"))
    return _lowest((x.astype(float) - mean) / np.maximum(std, 1e-6), starts, share)


def ez_mia(scores: pd.DataFrame, reference: pd.DataFrame) -> np.ndarray:
    """Error-zone score (Ilic et al., arXiv 2601.12104): gains over losses at the tokens the model gets wrong.

    With d = log-probability minus that of the checkpoint before fine-tuning, and the error zone = tokens that are not the
    model's first choice: sum of positive d over size of the sum of negative d in the zone, as in the authors' code.

    Departure: where that is undefined (fewer than two tokens in the zone, or no loss in it) they return 0, which ranks
    a record recited without an error as the *least* likely member; here the same ratio is then taken over all tokens.
    """
    gain, starts = _gains(scores, reference)
    zone = ~flatten(scores, "hit")[0].astype(bool)
    up, down = np.maximum(gain, 0), np.minimum(gain, 0)
    inside = (_sums(zone, starts) > 1) & (_sums(down * zone, starts) < 0)
    gained, lost = (np.where(inside, _sums(side * zone, starts), _sums(side, starts)) for side in (up, down))
    return np.where(np.diff(starts) > 0, gained / (1e-12 - lost), np.nan)


def wbc(scores: pd.DataFrame, reference: pd.DataFrame) -> np.ndarray:
    """Window-based comparison (Chen et al., arXiv 2601.02751): share of windows in which fine-tuning lowered the loss.

    Every run of w tokens votes 1 if its summed loss is below that of the checkpoint before fine-tuning, else 0; the score
    is the mean over the `WINDOWS` w of the mean vote. A window longer than the text is the whole text.
    """
    gain, starts = _gains(scores, reference)
    lengths, here = np.diff(starts), np.arange(len(gain))
    length, end = np.repeat(lengths, lengths), np.repeat(starts[1:], lengths)
    total = np.concatenate([[0.0], np.cumsum(gain)])
    shares = []
    for window in WINDOWS:
        stop = here + np.minimum(window, length)
        fits = stop <= end
        votes = fits & (total[np.minimum(stop, len(gain))] > total[here])
        shares.append(_sums(votes, starts) / np.maximum(1, _sums(fits, starts)))
    return np.where(lengths > 0, np.mean(shares, axis=0), np.nan)


def membership(
    scores: pd.DataFrame,
    texts: Sequence[str] | None = None,
    reference: pd.DataFrame | None = None,
    lower: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """`id` and one column per attack that the given inputs allow (names as in `LABELS`), rows as in `scores`.

    Args:
        scores: of the model under attack.
        texts: the scored text of each row, for `zlib`.
        reference: scores of the checkpoint before fine-tuning, same records and tokens.
        lower: this model's scores of the `lowercased` records.

    Raises:
        InputError: the reference lacks a record of `scores`, or its tokens differ.
    """
    found = {"loss": loss(scores), "min_k": min_k(scores), "min_k_plus": min_k_plus(scores)}
    if texts is not None:
        found["zlib"] = zlib(scores, texts)
    if lower is not None:
        found["lowercase"] = lowercase(scores, lower)
    if reference is not None:
        attacks = {"reference": reference_ratio, "ez_mia": ez_mia, "wbc": wbc}
        found |= {name: attack(scores, reference) for name, attack in attacks.items()}
    return pd.DataFrame({"id": scores["id"].to_numpy(), **{name: found[name] for name in LABELS if name in found}})


def operating_points(members: np.ndarray, non_members: np.ndarray) -> pd.DataFrame:
    """Every point of the ROC curve: columns `fpr`, `tpr`, `threshold` (a record is called a member from there up)."""
    from sklearn.metrics import roc_curve

    labels = np.repeat([1, 0], [len(members), len(non_members)])
    false, true, threshold = roc_curve(labels, np.concatenate([members, non_members]), drop_intermediate=False)
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


def rated(attack: str, members: np.ndarray, non_members: np.ndarray) -> list[dict]:
    """The rows of `attack_rates` for one attack: the AUC and the TPRs, from the scores of members and non-members."""
    a, b = (side[~np.isnan(side)] for side in (members, non_members))
    sizes = {"members": len(a), "non_members": len(b), "left_out": len(members) + len(non_members) - len(a) - len(b)}
    few = {"note": "not measurable: fewer than two members or non-members"}
    rows = [{"measure": "AUC", **(auc(a, b) if min(len(a), len(b)) > 1 else few)}]
    for fpr in FALSE_POSITIVE_RATES:
        few = {"note": f"not measurable: {len(b)} non-members, {round(1 / fpr)} needed"}
        rows.append({"measure": "TPR", "fpr": fpr, **(tpr_at_fpr(a, b, fpr) or few)})
    blank = dict.fromkeys(("fpr", "rate", "count", "total", "low", "high"), np.nan)
    columns = ("attack", "measure", *blank, *sizes, "note")
    return [{c: {"attack": attack, **blank, **sizes, "note": "", **row}[c] for c in columns} for row in rows]


def attack_rates(scored: pd.DataFrame, member_ids: Sequence[str], non_member_ids: Sequence[str]) -> pd.DataFrame:
    """How well each attack tells members from non-members.

    Args:
        scored: `id` and one column per attack, as `membership` gives.

    Returns:
        pd.DataFrame: One row per attack and measure: `attack`, `measure` ("AUC" or "TPR"), `fpr` (of a TPR), `rate`, `count`,
        `total`, `low`, `high` (95 %: DeLong for AUC, Clopper-Pearson for TPR; NaN where not measurable), `members`, `non_members`,
        `left_out` (records without a score) and `note` ("not measurable: ..." or empty).
    """
    by_id = scored.set_index("id")
    sides = [by_id.loc[list(ids)].astype(float) for ids in (member_ids, non_member_ids)]
    return pd.DataFrame([row for attack in by_id for row in rated(attack, *(s[attack].to_numpy() for s in sides))])


def blind_baseline(member_texts: Sequence[str], non_member_texts: Sequence[str]) -> dict:
    """Can members be told from non-members without any model? Word 1- and 2-grams, logistic regression, cross-validated.

    Every text is judged by a regression that never saw it. If this does better than chance, the two groups differ in
    their text, and a membership attack may be reading that difference instead of the model (Das et al., arXiv 2406.16201).

    Returns:
        `auc`, `low`, `high` (95 % DeLong interval of the pooled out-of-fold scores), `members`, `non_members` and
        `warning`: a sentence where the interval lies above 0.5 (also issued as a warning), else None.

    Raises:
        InputError: fewer than two texts in a group.
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

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
    split = StratifiedKFold(min(5, count), shuffle=True, random_state=0)
    found = cross_val_predict(judge, texts, labels, cv=split, method="decision_function")
    area = auc(found[labels == 1], found[labels == 0])
    result = {"auc": area["rate"], "low": area["low"], "high": area["high"]}
    result |= {"members": len(member_texts), "non_members": len(non_member_texts), "warning": None}
    if result["low"] > 0.5:
        result["warning"] = (
            f"Members and non-members differ without any model: word n-grams alone reach an AUC of {area['rate']:.2f} "
            f"({area['low']:.2f} to {area['high']:.2f}). Membership scores below read that difference too; draw both groups "
            "at random from one source."
        )
        warnings.warn(result["warning"], stacklevel=2)
    return result


def _sums(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return reduce_records(np.add, values.astype(float), starts)


def _means(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    lengths = np.diff(starts)
    return np.divide(_sums(values, starts), lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)


def _lowest(values: np.ndarray, starts: np.ndarray, share: float) -> np.ndarray:
    """Mean of each record's `share` lowest values, at least one; NaN where it has none."""
    lengths = np.diff(starts)
    record = np.repeat(np.arange(len(lengths)), lengths)
    ordered = values[np.lexsort((values, record))]
    kept = np.maximum(1, (share * lengths).astype(int)) * (lengths > 0)
    place = np.arange(len(values)) - starts[record]
    return _means(ordered[place < kept[record]], np.cumsum([0, *kept]))


def _gains(scores: pd.DataFrame, reference: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Per token, how much likelier the model finds it than the checkpoint before fine-tuning does, in nats; and the starts."""
    missing = set(scores["id"]) - set(reference["id"])
    if missing:
        raise InputError(
            f"the reference table lacks {len(missing)} of {len(scores)} records (first {min(missing)}): score the same records"
        )
    other = reference.set_index("id").loc[scores["id"]].reset_index()
    for name, mine, theirs in zip(scores["id"], scores["token"], other["token"], strict=True):
        if not np.array_equal(mine, theirs):
            raise InputError(
                f"record {name} has {len(mine)} tokens here and {len(theirs)} others in the reference table: the reference must "
                "be the checkpoint before fine-tuning, with the same tokenizer and prompt"
            )
    mine, starts = flatten(scores, "logprob")
    return mine.astype(float) - flatten(other, "logprob")[0], starts
