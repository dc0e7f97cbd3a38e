"""Records on disk: tokenized, cut, scored in pieces, one row each, in memory that doesn't grow with their number."""

import gc
import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from audits import audited, in_pieces, people, records_of, whole, write

from palimpsest.audit import auditing
from palimpsest.data.encoding import encode
from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure import scoring
from palimpsest.measure.models import load_model, load_tokenizer
from palimpsest.measure.score_file import windows
from palimpsest.measure.scoring import score


def test_plain_texts_are_measured_from_their_first_token(place, tmp_path):
    texts = [row["question"] + row["answer"] for row in people(6, 1)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    summary = audited(place / "tuned", tmp_path / "texts.json", tmp_path / "out", window=5)
    records = pd.read_parquet(tmp_path / "out" / "records.parquet")
    tokenizer = load_tokenizer(place / "tuned")
    assert sorted(records["length"]) == sorted(len(tokenizer(t)["input_ids"]) - 1 for t in texts)
    assert summary["data"]["members"]["columns"] == {"text": "text"} and summary["settings"]["template"].startswith(
        "none"
    )


def test_empty_and_repeated_records_are_counted(place, tmp_path):
    rows = [{"text": t} for t in ("Ann has it.", "", None, "Bob has it.", "Ann has it.")]
    summary = audited(place / "tuned", write(tmp_path / "d.jsonl", rows), tmp_path / "out", empty="skip")
    facts = summary["data"]["members"]
    assert (facts["read"], facts["empty"], facts["duplicates"], facts["records"]) == (5, 2, 1, 2)
    assert any("1 repetitions of a record" in w for w in summary["warnings"])
    records = pd.read_parquet(tmp_path / "out" / "records.parquet").set_index("row")
    assert records["copies"].to_dict() == {1: 2, 4: 1}


def long_file(folder):
    rows = [{"text": " ".join(r["answer"] for r in people(n, n))} for n in (1, 12, 2, 15)]
    return write(folder / "long.jsonl", rows)


def test_long_records_are_refused_counted_and_never_cut(place, tmp_path):
    with pytest.raises(
        InputError, match=r"2 of 4 records are longer than the model's context of 96 tokens .*--long window"
    ):
        audited(place / "tuned", long_file(tmp_path), tmp_path / "out")
    assert whole(tmp_path / "out") == []
    skipped = audited(place / "tuned", long_file(tmp_path), tmp_path / "skip", long="skip")
    assert skipped["data"]["members"]["long"] == 2 and skipped["data"]["members"]["records"] == 2
    assert any("2 records longer than the context were left out" in w for w in skipped["warnings"])


def test_windowed_records_are_one_row_each(place, tmp_path, monkeypatch):
    in_pieces(monkeypatch, 3)
    audited(place / "tuned", long_file(tmp_path), tmp_path / "out", long="window")
    records = pd.read_parquet(tmp_path / "out" / "records.parquet")
    tokenizer, model = load_tokenizer(place / "tuned"), load_model(place / "tuned")
    examples = encode(records_of(tmp_path / "long.jsonl", tmp_path), tokenizer)
    assert records["id"].tolist() == [e.id for e in examples]
    assert records["length"].tolist() == [len(e.response_ids) for e in examples]
    longest = max(examples, key=lambda e: len(e.input_ids))
    cut = score(model, list(windows(longest, 96)))
    found = records.set_index("id").loc[longest.id]
    assert np.allclose(np.concatenate(list(cut["logprob"])), found["logprob"], atol=1e-5)
    assert pd.isna(found["rouge_l"]) and records["rouge_l"].notna().sum() == 2


def in_round_numbers(lines):
    """Numbers of samples are reciprocals of small probabilities, whose last digits are rounding."""
    return [
        re.sub(r"\d[\d,]{4,}\d", lambda number: f"{float(number[0].replace(',', '')):.3g}", line) for line in lines
    ]


def test_nothing_depends_on_the_pieces(place, tmp_path, monkeypatch):
    """Also with windows, and with a repetition in another piece."""
    rows = people(21, 1)
    rows += [{"question": "Long?", "answer": " ".join(r["answer"] for r in people(12, 9))}, *rows[:3]]
    members = write(tmp_path / "members.jsonl", rows)
    options = {"non_members": place / "others.jsonl", "reference": place / "base", "window": 6, "long": "window"}
    options |= {"left_truncated": [2, 5], "sampling": [{"top_k": 5}]}
    found = []
    for size in (None, 5):
        with monkeypatch.context() as patch:
            if size:
                in_pieces(patch, size)
            out = tmp_path / f"out{size}"
            found.append((audited(place / "tuned", members, out, **options), pd.read_parquet(out / "records.parquet")))
    (one, its), (other, theirs) = found
    ratio = ["ez_mia"]  # of sums that may be nearly nothing: rounding in a batch of another size shows a hundredfold
    pd.testing.assert_frame_equal(its.drop(columns=ratio), theirs.drop(columns=ratio), rtol=1e-4, atol=1e-5)
    pd.testing.assert_frame_equal(its[ratio], theirs[ratio], rtol=1e-2)
    assert one["data"] == other["data"] and one["data"]["members"]["duplicates"] == 3
    for name in ("rates", "curve", "excess", "blind"):
        assert one[name] == other[name]
    assert in_round_numbers(one["headline"]) == in_round_numbers(other["headline"])
    for name in ("means", "membership", "most_at_risk"):
        pd.testing.assert_frame_equal(pd.DataFrame(one[name]), pd.DataFrame(other[name]), rtol=1e-4, atol=1e-5)
    by_hand = its[its["group"] == "members"]["loss"]
    mean = next(row for row in one["means"] if row["measure"] == "loss" and row["group"] == "members")
    assert mean["mean"] == pytest.approx(by_hand.mean()) and mean["total"] == 22
    assert mean["high"] - mean["mean"] == pytest.approx(1.96 * by_hand.sem())


def test_no_more_than_a_piece_of_records_is_held(place, tmp_path, monkeypatch):
    def counted(function):
        def note(*args, **options):
            held.append(examples_alive())
            return function(*args, **options)

        return note

    held = []
    in_pieces(monkeypatch, 6)
    monkeypatch.setattr(scoring, "_table", counted(scoring._table))
    monkeypatch.setattr(auditing, "near_misses", counted(auditing.near_misses))
    before = examples_alive()
    audited(place / "tuned", write(tmp_path / "many.jsonl", people(60, 4)), tmp_path / "out")
    assert len(held) == 21 and max(held) - before <= 6 + 6  # a piece, and those of it that fit


def examples_alive():
    return sum(type(thing) is Example for thing in gc.get_objects())


PEAK = """
import resource, sys
from palimpsest import audit
audit.run(*sys.argv[1:4], audit.Settings(approximate=False, progress=False))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_records(place, tmp_path):
    def peak(count):
        data = write(tmp_path / f"{count}.jsonl", people(count, 5))
        command = [sys.executable, "-c", PEAK, place / "tuned", data, tmp_path / f"out{count}"]
        return int(subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout)

    assert peak(10_000) < 1.15 * peak(1_000)
