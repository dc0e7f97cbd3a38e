"""The audit: right numbers, nothing whole unless all is, and a clear refusal of models that can't be audited."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from audits import audited, continued, in_pieces, rate_of, records_of, whole
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from palimpsest.audit import inputs
from palimpsest.audit.results import RESULTS
from palimpsest.data.encoding import encode
from palimpsest.errors import InputError
from palimpsest.measure import scoring
from palimpsest.measure.models import load_model, load_tokenizer
from palimpsest.measure.scoring import score


@pytest.mark.slow
def test_an_audit_from_end_to_end(place, tmp_path):
    out = tmp_path / "out"
    options = {"non_members": place / "others.jsonl", "reference": place / "base", "window": 8}
    options |= {"prefix_lengths": [0, 3, 20], "left_truncated": [4], "sampling": [{"top_k": 5}]}
    summary = audited(place / "tuned", place / "members.jsonl", out, **options)
    assert whole(out) == list(RESULTS) and not (out / "partial").exists()
    assert json.loads((out / "summary.json").read_text()) == summary

    model, tokenizer = load_model(place / "tuned"), load_tokenizer(place / "tuned")
    examples = encode(records_of(place / "members.jsonl", tmp_path), tokenizer, inputs.AS_IT_STANDS)
    for k in (0, 3, 20):
        long = [(e.input_ids, e.prompt_length + k) for e in examples if len(e.response_ids) > k]
        verdicts = [continued(model, ids[:at], ids[at : at + 8]) for ids, at in long]
        row = rate_of(summary, "verbatim", k=k, m=8)
        assert (row["count"], row["total"]) == (sum(verdicts), len(verdicts))
    assert (
        rate_of(summary, "verbatim", k=0, m=8)["rate"]
        > 0.5
        > rate_of(summary, "verbatim", "non_members", k=0, m=8)["rate"]
    )

    records = pd.read_parquet(out / "records.parquet")
    assert records.groupby("group").size().to_dict() == {"members": 24, "non_members": 24}
    assert sorted(records["row"][records["group"] == "members"]) == list(range(1, 25))
    scored = score(model, examples).set_index("id")
    mine = records.set_index("id").loc[scored.index]
    assert np.allclose([-x.mean() for x in scored["logprob"]], mine["loss"], atol=1e-5)
    assert {
        "zlib",
        "min_k",
        "min_k_plus",
        "reference",
        "ez_mia",
        "wbc",
        "lowercase",
        "rouge_l",
        "logprob_window_top_k5",
    } <= set(records)
    aucs = {r["attack"]: r["rate"] for r in summary["membership"] if r["measure"] == "AUC"}
    assert aucs["reference"] > 0.95 and aucs["loss"] > 0.9
    assert {r["model"] for r in summary["rates"]} == {"model", "reference"}
    row = next(
        r
        for r in summary["excess"]
        if r["measure"] == "verbatim" and r["k"] == 0 and r["m"] == 8 and r["model"] == "model"
    )
    assert row["low"] > 0

    again = audited(place / "tuned", place / "members.jsonl", out, **options)
    assert again == summary  # seconds and all: it was not made again


def saved(model, folder, place):
    model.save_pretrained(folder)
    load_tokenizer(place / "base").save_pretrained(folder)
    return folder


def bert(folder, place):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return saved(BertLMHeadModel(BertConfig(vocab_size=300, **sizes)), folder, place)


def t5(folder, place):
    return saved(
        T5ForConditionalGeneration(T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)),
        folder,
        place,
    )


def small_embedding(folder, place):
    model = load_model(place / "base")
    model.resize_token_embeddings(200)
    return saved(model, folder, place)


def headless(folder, place):
    """A model whose file holds all but its output layer, which is not tied to the embedding."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=300, max_position_embeddings=96, tie_word_embeddings=False, **sizes)
    )
    saved(model, folder, place)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def gives_nan(folder, place):
    model = load_model(place / "base")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_fc.weight[0, 0] = torch.nan
    return saved(model, folder, place)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (bert, "lets a token see those after it; wanted a causal model, not an encoder"),
        (t5, "is sequence-to-sequence; wanted a decoder-only"),
        (
            small_embedding,
            "the tokenizer does not fit .*: .*record.* has token id 299, .* embeddings for 0 to 199 only",
        ),
        (headless, r"lacks 1 of the weights of a LlamaForCausalLM \(lm_head.weight\), which would be random"),
        (gives_nan, "gives NaN"),
        (lambda folder, place: folder / "nowhere", "cannot load"),
    ],
)
def test_models_that_cannot_be_audited(place, tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        audited(make(tmp_path / "model", place), place / "members.jsonl", tmp_path / "out")
    assert whole(tmp_path / "out") == []


def test_a_tied_output_layer_is_not_missing(place):
    weights = load_file(place / "tuned" / "model.safetensors")
    assert "lm_head.weight" not in weights
    model = load_model(place / "tuned")
    assert torch.equal(model.get_output_embeddings().weight, weights["transformer.wte.weight"])


def test_a_tokenizer_without_pad_token_is_fine(place, tmp_path):
    tokenizer = load_tokenizer(place / "tuned")
    tokenizer.pad_token = None
    load_model(place / "tuned").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "tokenizer_config.json").read_text()).get("pad_token") is None
    summary = audited(tmp_path / "model", place / "members.jsonl", tmp_path / "out", window=8, approximate=False)
    known = audited(place / "tuned", place / "members.jsonl", tmp_path / "other", window=8, approximate=False)
    assert summary["rates"] == known["rates"]


SLOW_AUDIT = """
import functools, sys, time
from palimpsest import audit
from palimpsest.audit import auditing
from palimpsest.data import sources
write = auditing.write_scores
def slowly(*arguments):
    write(*arguments)
    time.sleep(0.3)
auditing.write_scores = slowly
sources.chunks = functools.partial(sources.chunks, size=4)
settings = audit.Settings(non_members=sys.argv[4], approximate=False, lowercase=False, progress=False)
audit.run(*sys.argv[1:4], settings)
"""


def test_an_audit_killed_by_the_system_scores_no_finished_piece_again(place, tmp_path, monkeypatch):
    model, members, out, others = place / "tuned", place / "members.jsonl", tmp_path / "out", place / "others.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SLOW_AUDIT, *map(str, (model, members, out, others))])
    while len(finished := list(out.glob("partial/*/members/*.scores.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and whole(out) == []
    finished = list(out.glob("partial/*/members/*.scores.parquet"))
    there = {i for path in finished for i in pd.read_parquet(path)["id"]}
    assert len(there) == 4 * len(finished) < 24

    scored, table = [], scoring._table
    monkeypatch.setattr(scoring, "_table", lambda net, rows, *how: scored.extend(rows) or table(net, rows, *how))
    in_pieces(monkeypatch, 4)
    summary = audited(model, members, out, non_members=others, approximate=False, lowercase=False)
    assert len(scored) == 48 - len(there) and there.isdisjoint(e.id for e in scored)
    assert summary["data"]["members"]["records"] == 24 and whole(out) == list(RESULTS)


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_refused(place, tmp_path, device):
    with pytest.raises(InputError, match=f"device '{device}' can't be used: .*wanted auto, cpu, cuda"):
        audited(place / "tuned", place / "members.jsonl", tmp_path, device=device)


def test_a_setting_outside_its_choices_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(InputError, match="the setting long is 'cut'; wanted one of refuse, window, skip"):
        audited("no-model", "no-data", tmp_path, long="cut")
