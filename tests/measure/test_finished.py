"""The measuring stage on a model made by hand: what it writes beside the score table, against the plain way to get it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from palimpsest.book import stages
from palimpsest.chapters import attacks
from palimpsest.data.examples import collate
from palimpsest.measure import finished, membership_inference
from palimpsest.measure.extraction import left_truncated_examples
from palimpsest.measure.generation import greedy, until_end
from palimpsest.measure.near_verbatim import similarity
from palimpsest.measure.scoring import score
from palimpsest.study import load_study
from palimpsest.study.runs import root, write_json

STUDY = """
extends: {smoke}
name: tiny
tokenizer: {{vocabulary: 300}}
data: {{public: 40, members: 10, non_members: 10, test: 3, canaries: false}}
measure: {{approximate: {approximate}, left_truncated: {k}, left_target: 6, sampling: {{}}}}
"""
TARGET = 6


def load(folder, approximate=4, k=(9, 4)):
    text = STUDY.format(smoke=root() / "studies" / "smoke.yaml", approximate=approximate, k=list(k))
    (folder / "tiny.yaml").write_text(text)
    return load_study(folder / "tiny.yaml")


def model_of(study, records, tokenizer):
    """Knows most member letters, and their ends after a few tokens, by heart; its context is the longest record."""
    examples = finished.examples_of(study, records[records["split"].isin(finished.MEASURED)], tokenizer)
    letters = finished.examples_of(study, records[(records["split"] == "member")], tokenizer)[:8]
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=max(len(e.input_ids) for e in examples),
        n_embd=64,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    batch = collate(letters + left_truncated_examples(letters, -TARGET, 9, TARGET), 0)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids", "labels")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(70):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Study, run folder, model, tokenizer and the letters measured."""
    folder = tmp_path_factory.mktemp("measured")
    study, run = load(folder), folder / "run"
    records = stages.prepare_data(study, run)
    records.loc[records["split"].eq("member").idxmax(), "response"] += "\u023a" * 40  # lower case takes more bytes
    records.to_parquet(run / "data" / "records.parquet")
    tokenizer = finished.models.load_tokenizer(run / "data" / "tokenizer")
    model = model_of(study, records, tokenizer)
    for part in (model, tokenizer):
        part.save_pretrained(run / "models" / "teacher")
    write_json(run / "models" / "teacher" / "run.json", {"fingerprint": "by hand"})
    finished.measure(study, "teacher", run)
    letters = records[(records["kind"] == "letter") & records["split"].isin(["member", "non_member"])]
    return study, run, model, tokenizer, letters


def read(run, what):
    return pd.read_parquet(run / "scores" / "teacher" / f"{what}.parquet")


def test_lowercased_letters_are_scored_where_they_fit(measured):
    study, run, model, tokenizer, letters = measured
    lower = finished.examples_of(study, letters.assign(response=letters["response"].str.lower()), tokenizer)
    fitting = [e for e in lower if len(e.input_ids) <= model.config.n_positions]
    assert len(fitting) == len(lower) - 1
    found, wanted = read(run, "lowercase"), score(model, fitting)
    assert list(found["id"]) == list(wanted["id"])
    np.testing.assert_allclose(membership_inference.loss(found), membership_inference.loss(wanted), atol=1e-5)
    attacked = attacks.scores(study, run).set_index("id")["lowercase"]
    plain = pd.Series(membership_inference.loss(read(run, "records")), index=read(run, "records")["id"])
    wanted = plain[found["id"]].to_numpy() - membership_inference.loss(found)
    np.testing.assert_allclose(attacked[found["id"]].to_numpy(), wanted, atol=1e-6)
    assert attacked.isna().sum() == 1


def test_approximate_memorization_of_the_first_letters_of_each_split(measured):
    study, run, model, tokenizer, letters = measured
    found = read(run, "approximate")
    assert found.groupby("split").size().to_dict() == {"member": 4, "non_member": 4}
    chosen = letters.groupby("split").head(4)
    examples = finished.examples_of(study, chosen, tokenizer)
    prompts, limits = [e.input_ids[: e.prompt_length] for e in examples], [len(e.response_ids) for e in examples]
    written = tokenizer.batch_decode(greedy(model, tokenizer, prompts, limits), skip_special_tokens=True)
    for row, text, letter in zip(found.itertuples(), written, chosen.itertuples(), strict=True):
        assert (row.id, row.split) == (letter.id, letter.split)
        wanted = similarity(text, letter.response)
        assert (row.rouge_l, row.edit_similarity, row.longest_common) == pytest.approx(tuple(wanted.values()))
    assert (found["edit_similarity"] == 1).any() and (found["edit_similarity"] < 1).any()


def test_left_truncated_verdicts_equal_decoding(measured):
    study, run, model, tokenizer, letters = measured
    found = read(run, "left_truncated")
    ends = {e.id: e.input_ids for e in finished.examples_of(study, letters, tokenizer)}
    assert sorted(found["k"].unique()) == [4, 9] and found.groupby("k").size().nunique() == 1
    assert len(found) == 2 * sum(len(ids) >= 9 + TARGET for ids in ends.values())
    contexts = [ends[row.id][-TARGET - row.k : -TARGET] for row in found.itertuples()]
    written = greedy(model, tokenizer, contexts, TARGET)
    end = tokenizer.eos_token_id
    assert list(found["verbatim"]) == [
        t == until_end(ends[i][-TARGET:], end) for t, i in zip(written, found["id"], strict=True)
    ]
    shares = found[found["split"] == "member"].groupby("k")["verbatim"].mean()
    assert shares[9] > shares[4], "it was trained on nine tokens of context"
    assert (found["split"] == found["id"].map(letters.set_index("id")["split"])).all()


def test_seconds_are_recorded_and_both_can_be_off(measured, tmp_path):
    _, run, *_ = measured
    facts = json.loads((run / "scores" / "teacher" / "run.json").read_text())
    assert set(facts["seconds_more"]) == {"lowercase", "approximate", "left_truncated"}
    study, letters = load(tmp_path, 0, ()), measured[-1]
    _, _, model, tokenizer, _ = measured
    table = read(run, "records")
    off = finished.approximate_scores(study, model, tokenizer, letters, table)
    assert off.empty and list(off) == list(read(run, "approximate"))
    off = finished.left_truncated_scores(study, model, tokenizer, letters)
    assert off.empty and list(off) == list(read(run, "left_truncated"))
