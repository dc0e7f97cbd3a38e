"""Attack scores against five-line references, and the rates read off them against their definitions."""

import warnings
import zlib

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from palimpsest.errors import InputError
from palimpsest.measure import membership_inference
from palimpsest.measure.membership_inference import (
    attack_rates,
    blind_baseline,
    membership,
    operating_points,
    tpr_at_fpr,
)

LENGTHS = [1, 2, 5, 9, 30, 70, 0, 12]  # one-token and empty records among them
TEXTS = ["", "a", "Ünïcode 文", "the same the same the same", *["some words here"] * 4]


def tables(lengths: list[int], vocabulary: int = 11) -> tuple[list, list, pd.DataFrame, pd.DataFrame]:
    """Random logits of a model and its reference, and the score tables that belong to them."""
    generator = torch.Generator().manual_seed(4)
    tokens = [torch.randint(0, vocabulary, (n,), generator=generator) for n in lengths]
    mine, theirs = ([torch.randn(n, vocabulary, generator=generator) * 2 for n in lengths] for _ in range(2))
    return mine, tokens, score_table(mine, tokens), score_table(theirs, tokens)


def score_table(logits: list, tokens: list) -> pd.DataFrame:
    rows = []
    for i, (z, t) in enumerate(zip(logits, tokens, strict=True)):
        log = z.log_softmax(-1)
        mean = (log.exp() * log).sum(-1)
        rows.append(
            {
                "id": f"r{i}",
                "token": t.numpy(),
                "logprob": log.gather(-1, t[:, None])[:, 0].numpy(),
                "hit": (z.argmax(-1) == t).numpy(),
                "mean_logprob": mean.numpy(),
                "std_logprob": ((log.exp() * log**2).sum(-1) - mean**2).sqrt().numpy(),
            }
        )
    return pd.DataFrame(rows)


MINE, TOKENS, TABLE, REFERENCE = tables(LENGTHS)


def expect(scores: np.ndarray, one_record) -> None:
    """`scores` equal `one_record(i)` for each record with tokens, and are NaN for the others."""
    for i, length in enumerate(LENGTHS):
        assert np.isnan(scores[i]) if length == 0 else scores[i] == pytest.approx(one_record(i), abs=1e-5), (i, length)


def loss_of(i: int) -> float:
    return torch.nn.functional.cross_entropy(MINE[i], TOKENS[i]).item()


def test_loss_zlib_lowercase_reference():
    expect(membership_inference.loss(TABLE), lambda i: -loss_of(i))
    expect(membership_inference.zlib(TABLE, TEXTS), lambda i: -loss_of(i) / len(zlib.compress(TEXTS[i].encode())))
    reference = [np.mean(x) for x in REFERENCE["logprob"] if len(x)]
    reference.insert(LENGTHS.index(0), np.nan)
    expect(membership_inference.reference_ratio(TABLE, REFERENCE), lambda i: -loss_of(i) - reference[i])
    lower = REFERENCE.sample(frac=1, random_state=0)  # order does not matter: rows are matched by id
    expect(membership_inference.lowercase(TABLE, lower), lambda i: np.log(np.exp(-reference[i]) / np.exp(loss_of(i))))
    assert np.isnan(membership_inference.lowercase(TABLE, REFERENCE[1:])[0])  # not scored in lower case


def test_lowercased_keeps_ids_and_prompts():
    given = pd.DataFrame(
        {"id": ["a"], "instruction": ["To Whom?"], "response": ["Dear ANN"], "secrets": [[{"start": 5}]]}
    )
    found = membership_inference.lowercased(given).iloc[0].to_dict()
    assert found == {"id": "a", "instruction": "To Whom?", "response": "dear ann", "secrets": []}
    assert list(membership_inference.lowercased(pd.DataFrame({"text": ["Ann"]}))["text"]) == ["ann"]


@pytest.mark.parametrize("share", [0.1, 0.2, 1.0])
def test_min_k_and_min_k_plus(share):
    def min_k(i):
        log = MINE[i].log_softmax(-1)
        x = log.gather(-1, TOKENS[i][:, None])[:, 0].sort().values
        return x[: max(1, int(len(x) * share))].mean().item()

    def min_k_plus(i):
        p, log = MINE[i].softmax(-1), MINE[i].log_softmax(-1)
        mean = (p * log).sum(-1)
        sigma = (p * log.square()).sum(-1) - mean.square()
        x = ((log.gather(-1, TOKENS[i][:, None])[:, 0] - mean) / sigma.sqrt()).sort().values
        return x[: max(1, int(len(x) * share))].mean().item()

    expect(membership_inference.min_k(TABLE, share), min_k)
    expect(membership_inference.min_k_plus(TABLE, share), min_k_plus)


def test_min_k_plus_of_a_certain_model():
    """All probability on one token: no spread, and no division by zero."""
    table = pd.DataFrame({"logprob": [[0.0, 0.0]], "mean_logprob": [[0.0, 0.0]], "std_logprob": [[0.0, 0.0]]})
    assert membership_inference.min_k_plus(table) == [0.0]


def test_ez_mia_is_the_published_ratio_where_that_is_defined():
    scores = membership_inference.ez_mia(TABLE, REFERENCE)
    checked = 0
    for i in range(len(LENGTHS)):
        d = TABLE["logprob"][i].astype(float) - REFERENCE["logprob"][i].astype(float)
        zone = d[MINE[i].argmax(-1).numpy() != TOKENS[i].numpy()]
        if len(zone) >= 2 and (zone < 0).any():
            assert scores[i] == pytest.approx(zone[zone > 0].sum() / -zone[zone < 0].sum(), abs=1e-5)
            checked += 1
    assert checked >= 4 and np.isnan(scores[LENGTHS.index(0)])


def test_ez_mia_ranks_a_recited_record_above_a_forgotten_one():
    """Without an error there is no error zone; that must not make a record look like a non-member."""
    table = pd.DataFrame(
        {
            "id": ["recited", "forgotten"],
            "token": [[1, 2, 3]] * 2,
            "logprob": [[-0.1, -0.2, -0.1], [-3.0, -2.0, -4.0]],
            "hit": [[True] * 3, [False] * 3],
        }
    )
    before = table.assign(logprob=[[-2.0, -3.0, -0.05], [-2.5, -2.5, -3.0]])
    recited, forgotten = membership_inference.ez_mia(table, before)
    assert recited == pytest.approx((1.9 + 2.8) / 0.05) and forgotten == pytest.approx(0.5 / 1.5)


def test_wbc_counts_windows():
    def wbc(i):
        mine, theirs = -TABLE["logprob"][i].astype(float), -REFERENCE["logprob"][i].astype(float)
        n, votes = len(mine), []
        for w in (min(w, n) for w in (2, 3, 4, 6, 9, 13, 18, 25, 32, 40)):
            votes.append(np.mean([theirs[j : j + w].sum() > mine[j : j + w].sum() for j in range(n - w + 1)]))
        return np.mean(votes)

    expect(membership_inference.wbc(TABLE, REFERENCE), wbc)
    same = membership_inference.wbc(TABLE, TABLE)
    assert np.nanmax(same) == 0  # a model equal to its reference has lowered no loss


def test_all_attacks_leaves_out_what_it_lacks_inputs_for():
    assert list(membership(TABLE)) == ["id", "loss", "min_k", "min_k_plus"]
    full = membership(TABLE, TEXTS, REFERENCE, REFERENCE)
    assert list(full) == ["id", *membership_inference.LABELS]
    assert full["wbc"].equals(pd.Series(membership_inference.wbc(TABLE, REFERENCE)))
    assert list(full["id"]) == list(TABLE["id"])


def test_tables_that_do_not_match_are_refused():
    with pytest.raises(InputError, match="lacks 1 of 8"):
        membership(TABLE, reference=REFERENCE[1:])
    with pytest.raises(InputError, match="same tokenizer"):
        membership(TABLE, reference=REFERENCE.assign(token=[t + 1 for t in REFERENCE["token"]]))
    with pytest.raises(InputError, match="1 texts for 8 records"):
        membership(TABLE, texts=["one"])


scores_of = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40).map(np.array)  # integers: many ties


@settings(max_examples=200, deadline=None)
@given(scores_of, scores_of, st.sampled_from([0.1, 0.2, 0.5, 1 / 3]))
def test_tpr_is_the_best_point_of_the_roc_curve_and_its_interval_is_of_that_count(members, others, fpr):
    found = tpr_at_fpr(members, others, fpr)
    if len(others) < round(1 / fpr):
        assert found is None
        return
    curve = operating_points(members, others)
    assert found["rate"] == pytest.approx(curve.loc[curve["fpr"] <= fpr + 1e-9, "tpr"].max())
    assert found["count"] == (members > found["threshold"]).sum() == pytest.approx(found["rate"] * found["total"])
    assert (others > found["threshold"]).mean() <= fpr + 1e-9
    assert found["low"] <= found["rate"] <= found["high"] and found["total"] == len(members)


@settings(deadline=None)
@given(scores_of, scores_of)
def test_roc_ends_in_its_corners_and_its_area_is_the_auc(members, others):
    curve = operating_points(members, others)
    assert tuple(curve[["fpr", "tpr"]].iloc[0]) == (0, 0) and tuple(curve[["fpr", "tpr"]].iloc[-1]) == (1, 1)
    labels = np.repeat([1, 0], [len(members), len(others)])
    auc = roc_auc_score(labels, np.concatenate([members, others]))
    assert np.trapezoid(curve["tpr"], curve["fpr"]) == pytest.approx(auc)


def test_evaluate_says_what_is_not_measurable():
    random = np.random.default_rng(0)
    ids = [f"r{i}" for i in range(300)]
    scores = pd.DataFrame({"id": ids, "loss": random.normal(np.repeat([1.0, 0.0], [100, 200]))})
    scores.loc[0, "loss"] = np.nan  # an empty record
    table = attack_rates(scores, ids[:100], ids[100:]).set_index(["measure", "fpr"])
    assert table.index.droplevel(0).isna().sum() == 1 and (table["left_out"] == 1).all()
    assert (table["members"] == 99).all() and (table["non_members"] == 200).all()
    auc, at_1_percent, at_tenth = table.loc["AUC"].iloc[0], table.loc[("TPR", 0.01)], table.loc[("TPR", 0.001)]
    wanted = roc_auc_score(np.repeat([1, 0], [99, 200]), scores["loss"][1:])
    assert auc["rate"] == pytest.approx(wanted) and auc["low"] < wanted < auc["high"]
    assert at_1_percent["rate"] == at_1_percent["count"] / 99 and at_1_percent["note"] == ""
    assert np.isnan(at_tenth["rate"]) and at_tenth["note"] == "not measurable: 200 non-members, 1000 needed"


def test_evaluate_with_hardly_any_records():
    scores = pd.DataFrame({"id": ["a", "b", "c"], "loss": [0.1, 0.2, np.nan]})
    table = attack_rates(scores, ["a"], ["b", "c"])
    assert table["rate"].isna().all() and table["note"].str.startswith("not measurable").all()


def letters(count: int, seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(["case", "desk", "blue", "green", "please", "soon"], 12)) for _ in range(count)]


def test_blind_baseline_finds_nothing_between_two_draws_of_one_source():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = blind_baseline(letters(150, 1), letters(150, 2))
    assert found["warning"] is None and found["low"] <= 0.5 <= found["high"]


def test_blind_baseline_warns_of_a_shift():
    with pytest.warns(UserWarning, match="differ without any model"):
        found = blind_baseline(letters(60, 1), [f"Dear customer, {t}" for t in letters(60, 2)])
    assert found["auc"] > 0.9 and found["low"] > 0.5 and found["members"] == 60


def test_blind_baseline_takes_empty_texts_and_refuses_too_few():
    found = blind_baseline(["", ""], ["", ""])
    assert found["auc"] == 0.5
    with pytest.raises(InputError, match="1 member and 2 non-member"):
        blind_baseline(["a"], ["b", "c"])
