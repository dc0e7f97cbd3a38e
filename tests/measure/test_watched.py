"""A point of a trajectory, against plain arithmetic on a real model's logits."""

import numpy as np
import pandas as pd
import pytest
import torch
from memorizers import END, memorizer, texts, untrained, words
from rouge_score.rouge_scorer import RougeScorer
from scipy.optimize import minimize_scalar
from sklearn.metrics import roc_auc_score

from palimpsest.measure.watched import ENOUGH, TEMPERATURES, Watched, fit_temperature, take_point, validation_point

GROUPS = [  # split, kind, copies, how many
    ("member", "letter", 1, 6),
    ("member", "letter", 4, 4),
    ("teacher_only", "letter", 1, 4),
    ("teacher_only", "letter", 4, 3),
    ("member", "canary", 4, 3),
    ("teacher_only", "canary", 4, 2),
    ("non_member", "letter", 0, 7),
    ("twin", "twin", 0, 8),
    ("validation", "letter", 0, ENOUGH),
]
PROMPTS, WINDOW = 5, 8
SPAN = [{"start": 0, "end": 1, "kind": "code"}]


def watch(prompts=PROMPTS, secrets=True, leave_out=(), few=0) -> Watched:
    """Records of every group but those of the splits or kinds left out; `few` validation records instead of enough."""
    groups = [g for g in GROUPS if not {g[0], g[1]} & set(leave_out)]
    groups = [(*g[:3], few) if few and g[0] == "validation" else g for g in groups]
    rows = [g[:3] for g in groups for _ in range(g[3])]
    examples, tokenizer = texts(len(rows), longest=20), words()
    for e in examples:
        e.secret = e.secret if secrets else [False] * len(e.secret)
    records = pd.DataFrame(rows, columns=["split", "kind", "copies"]).assign(id=[e.id for e in examples])
    records["secrets"] = [SPAN if secrets else [] for _ in rows]
    records["response"] = [tokenizer.decode(e.response_ids, skip_special_tokens=True) for e in examples]
    return Watched(records, examples, tokenizer, WINDOW, prompts)


@pytest.fixture(scope="module")
def model():
    """Knows the members, half of the teacher's half and every second validation record."""
    w = watch()
    read = w.records["split"].isin(["member", "teacher_only"]) | (
        w.records["split"].eq("validation") & (w.records.index % 2 == 0)
    )
    return memorizer("gpt2", [e for e, known in zip(w.examples, read, strict=True) if known], until=0.3)


def by_hand(model, w: Watched) -> pd.DataFrame:
    """Per record: tokens, log-probability, of the secret too, and whether it is decoded from the true text or from the prompt."""
    rows = []
    for e in w.examples:
        with torch.no_grad():
            logits = model(torch.tensor([e.input_ids])).logits[0, e.prompt_length - 1 : -1].double()
        true = torch.tensor(e.response_ids)
        logprob = logits.log_softmax(-1).gather(1, true[:, None])[:, 0].numpy()
        hit, secret = (logits.argmax(-1) == true).numpy(), np.array(e.secret)
        end = np.flatnonzero(secret).max(initial=-1) + 1
        row = {"tokens": len(true), "logprob": logprob.sum(), "secret": logprob[secret].sum(), "mean": logprob.mean()}
        rows.append(
            {
                **row,
                "recited": hit[secret].all(),
                "from_prompt": hit[:end].all(),
                "window": hit[:WINDOW].all(),
                "logits": logits,
            }
        )
    return pd.concat([w.records, pd.DataFrame(rows)], axis=1)


def loss(rows) -> float:
    return -rows["logprob"].sum() / rows["tokens"].sum()


def test_a_point_is_what_plain_arithmetic_gives(model):
    w = watch()
    row, groups = take_point(model, w)
    each = by_hand(model, w)
    held = each[each["split"] == "validation"]
    assert row["validation_loss"] == pytest.approx(loss(held), rel=1e-5)
    letters, others = each[each["kind"] == "letter"], each[each["split"] == "non_member"]
    twins = each.loc[each["kind"] == "twin", "secret"].to_numpy()
    for split, prefix in (("member", ""), ("teacher_only", "transferred_")):
        half = letters[letters["split"] == split]
        assert row[f"{prefix}member_loss"] == pytest.approx(loss(half), rel=1e-5)
        for name, part in (("unrepeated", half[half["copies"] == 1]), ("repeated", half[half["copies"] > 1])):
            for verdict in ("recited", "from_prompt"):
                assert row[f"{prefix}{verdict}_{name}"] == pytest.approx(part[verdict].mean()), (prefix, verdict, name)
        both = pd.concat([half, others])
        assert row[f"{prefix}auc"] == pytest.approx(roc_auc_score(both["split"] == split, both["mean"]))
        planted = each[(each["kind"] == "canary") & (each["split"] == split)]
        bits = [np.log2(len(twins) + 1) - np.log2(1 + (twins >= s).sum()) for s in planted["secret"]]
        assert row[f"{prefix}exposure"] == pytest.approx(np.mean(bits))
        assert row[f"{prefix}canaries_recited"] == pytest.approx(planted["recited"].mean())
        for copies, part in half.groupby("copies"):
            found = groups[
                (groups["split"] == split) & (groups["kind"] == "letter") & (groups["copies"] == copies)
            ].iloc[0]
            assert found["loss"] == pytest.approx(loss(part), rel=1e-5) and found["records"] == found[
                "secrets"
            ] == len(part)
            assert (found["recited"], found["from_prompt"]) == pytest.approx(
                (part["recited"].mean(), part["from_prompt"].mean())
            )
    assert 0 < row["from_prompt_unrepeated"] <= row["recited_unrepeated"], "the model knows some of what it read"
    kinds = groups.set_index(["split", "kind", "copies"])
    assert len(kinds) == len(GROUPS) - 2, "neither twins nor validation records are a group"
    assert kinds.loc[("member", "canary", 4), "exposure"] == pytest.approx(row["exposure"])


def test_rouge_is_that_of_greedy_text_for_the_first_validation_prompts(model):
    w = watch()
    row, _ = take_point(model, w)
    places = np.flatnonzero(w.records["split"] == "validation")[:PROMPTS]
    limit, scorer, scores = (
        int(1.5 * max(len(w.examples[i].response_ids) for i in places)),
        RougeScorer(["rougeL"]),
        [],
    )
    for i in places:
        e, text = w.examples[i], list(w.examples[i].input_ids[: w.examples[i].prompt_length])
        while len(text) - e.prompt_length < min(limit, 64 - e.prompt_length):
            with torch.no_grad():
                text.append(int(model(torch.tensor([text])).logits[0, -1].argmax()))
            if text[-1] == END:
                break
        answer = w.tokenizer.decode(text[e.prompt_length :], skip_special_tokens=True)
        scores.append(scorer.score(w.records["response"][i], answer)["rougeL"].fmeasure)
    assert row["rouge_l"] == pytest.approx(np.mean(scores)) and 0 < row["rouge_l"] < 1


def test_the_fitted_temperature_is_the_one_of_least_loss(model):
    w = watch()
    row, _ = take_point(model, w)
    each = by_hand(model, w)
    held = each[each["split"] == "validation"]
    logits = torch.cat(list(held["logits"]))
    examples = [e for e, split in zip(w.examples, w.records["split"], strict=True) if split == "validation"]
    true = torch.tensor([token for e in examples for token in e.response_ids])

    def at(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / temperature, true))

    best = minimize_scalar(at, bounds=(TEMPERATURES[0], TEMPERATURES[-1]), method="bounded")
    assert TEMPERATURES[1] < best.x < TEMPERATURES[-2], "the least loss lies inside the range, or this tests nothing"
    assert row["temperature"] == pytest.approx(best.x, rel=0.05)
    assert row["validation_loss_calibrated"] == pytest.approx(best.fun, abs=0.01)
    assert row["validation_loss_calibrated"] < row["validation_loss"] - 0.05


def test_a_fit_stays_in_its_range_and_never_above_what_was_measured():
    x = np.log(TEMPERATURES)
    temperature, least = fit_temperature((x - 0.3) ** 2 + 1)
    assert (temperature, least) == pytest.approx((np.exp(0.3), 1.0))
    for losses in (x, -x, np.zeros(len(x)), -((x - 0.1) ** 2)):
        temperature, least = fit_temperature(losses)
        assert TEMPERATURES[0] - 1e-9 <= temperature <= TEMPERATURES[-1] + 1e-9 and least <= min(losses) + 1e-9


def test_too_few_validation_records_have_no_temperature(model):
    row, _ = take_point(model, watch(few=ENOUGH - 1))
    assert np.isnan(row["temperature"]) and np.isnan(row["validation_loss_calibrated"]) and row["validation_loss"] > 0


def test_without_validation_records_the_non_members_serve(model):
    w = watch(leave_out=["validation"])
    row, _ = take_point(model, w)
    each = by_hand(model, w)
    assert row["validation_loss"] == pytest.approx(loss(each[each["split"] == "non_member"]), rel=1e-5)
    assert row["auc"] > 0.9, "the non-members are still what members are told from"


@pytest.mark.parametrize("canaries", [True, False])
def test_without_marked_secrets_a_record_is_the_unit(model, canaries):
    """Canaries mark their own secrets, whether or not the data marks any."""
    w = watch(secrets=False, leave_out=[] if canaries else ["canary", "twin"])
    for i in np.flatnonzero(w.records["kind"] != "letter"):
        w.records.at[i, "secrets"], w.examples[i].secret = SPAN, texts(len(w.examples), longest=20)[i].secret
    row, groups = take_point(model, w)
    each = by_hand(model, w)
    half = each[(each["split"] == "member") & (each["kind"] == "letter")]
    once = half[half["copies"] == 1]["window"].mean()
    assert row["recited_unrepeated"] == row["from_prompt_unrepeated"] == pytest.approx(once)
    assert np.isnan(row["exposure"]) == np.isnan(row["canaries_recited"]) == (not canaries)
    assert set(groups["kind"]) == ({"letter", "canary"} if canaries else {"letter"})


def test_what_a_study_does_not_have_is_not_a_number(model):
    row, groups = take_point(model, watch(prompts=0, leave_out=["teacher_only", "canary", "twin"]))
    assert np.isnan(
        [row[name] for name in ("rouge_l", "transferred_member_loss", "transferred_auc", "exposure")]
    ).all()
    assert set(groups["split"]) == {"member", "non_member"}


def test_the_quality_part_alone_is_the_same(model):
    w = watch()
    row, _ = take_point(model, w)
    asked = (w.records["split"] == "validation").to_numpy()
    examples = [e for e, is_asked in zip(w.examples, asked, strict=True) if is_asked]
    alone = validation_point(model, w.tokenizer, examples, w.records[asked], PROMPTS)
    assert alone == pytest.approx({name: row[name] for name in alone})
    other = validation_point(untrained("gpt2"), w.tokenizer, examples, w.records[asked], PROMPTS)
    assert other["validation_loss"] != pytest.approx(alone["validation_loss"], rel=0.01)
