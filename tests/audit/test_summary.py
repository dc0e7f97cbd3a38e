"""Rates and their differences: what the left-truncated design counts, and what is compared with what."""

import pandas as pd
import pytest
import torch
from audits import audited, continued, rate_of, records_of, write

from palimpsest.audit import inputs, summary
from palimpsest.data.encoding import encode
from palimpsest.errors import InputError
from palimpsest.measure.models import load_model, load_tokenizer


def test_left_truncated_context_against_generate(place, tmp_path):
    options = {"non_members": place / "others.jsonl", "window": 2, "approximate": False, "lowercase": False}
    found = audited(place / "tuned", place / "members.jsonl", tmp_path / "out", left_truncated=[9, 3], **options)
    model, tokenizer = load_model(place / "tuned"), load_tokenizer(place / "tuned")
    examples = encode(records_of(place / "members.jsonl", tmp_path), tokenizer, inputs.AS_IT_STANDS)
    some = 0
    for k in (3, 9):
        verdicts = [continued(model, e.input_ids[-2 - k : -2], e.input_ids[-2:]) for e in examples]
        row = rate_of(found, "left-truncated", k=k, m=2)
        assert (row["count"], row["total"]) == (sum(verdicts), 24) and row["low"] <= row["rate"] <= row["high"]
        some += sum(verdicts)
        column = pd.read_parquet(tmp_path / "out" / "records.parquet").set_index("id")[f"left_truncated_{k}"]
        assert column.loc[[e.id for e in examples]].tolist() == verdicts
    assert some > 0 and sum(r["measure"] == "left-truncated" for r in found["excess"]) == 4


def test_left_truncated_targets_are_the_same_for_every_k(place, tmp_path):
    rows = [{"text": " ".join(["key 123456"] * n)} for n in (1, 2, 3, 4)]
    lengths = [len(load_tokenizer(place / "tuned")(r["text"])["input_ids"]) for r in rows]
    out = {"out": tmp_path / "out", "window": 4, "approximate": False}
    found = audited(place / "tuned", write(tmp_path / "t.jsonl", rows), left_truncated=[1, 15], **out)
    assert {rate_of(found, "left-truncated", k=k)["total"] for k in (1, 15)} == {sum(n >= 19 for n in lengths)}
    with pytest.raises(
        InputError, match="left-truncated context of 93 tokens and a target of 4 are longer than the model's"
    ):
        audited(place / "tuned", tmp_path / "t.jsonl", left_truncated=[93], **out)


def test_a_span_is_looked_for_where_the_text_is_long_enough_for_one(place, tmp_path):
    examples = encode(
        records_of(place / "members.jsonl", tmp_path), load_tokenizer(place / "tuned"), inputs.AS_IT_STANDS
    )
    lengths = [len(e.response_ids) for e in examples]
    window = min(lengths)  # of which the end is one: the shortest text has a token less
    out = {"out": tmp_path / "out", "window": window, "approximate": False}
    found = audited(place / "tuned", place / "members.jsonl", **out)
    totals = {end: rate_of(found, "verbatim span", end_token=end)["total"] for end in ("required", "not required")}
    assert totals == {"required": 24, "not required": sum(n > window for n in lengths)} and totals["not required"] < 24


def test_excess_pairs_rates_of_the_same_setting():
    base = {"model": "model", "measure": "verbatim", "k": 0, "m": 8}
    rows = [
        {**base, "group": "members", "rate": 0.5, "count": 50, "total": 100, "low": 0, "high": 1},
        {**base, "group": "non_members", "rate": 0.1, "count": 10, "total": 100, "low": 0, "high": 1},
        {**base, "k": 3, "group": "members", "rate": 0.5, "count": 50, "total": 100, "low": 0, "high": 1},
    ]
    (found,) = summary.minus_non_members(rows)
    assert found["excess"] == pytest.approx(0.4) and 0.27 < found["low"] < 0.4 < found["high"] < 0.52


def test_worse_than_guessing_is_said_once(place, tmp_path):
    model = load_model(place / "tuned")
    with torch.no_grad():
        model.transformer.wte.weight *= 40
    model.save_pretrained(tmp_path / "m")
    load_tokenizer(place / "tuned").save_pretrained(tmp_path / "m")
    found = audited(tmp_path / "m", place / "members.jsonl", tmp_path / "out", approximate=False)
    assert found["self_check"]["warnings"] and sum("worse than guessing" in line for line in found["warnings"]) == 1
