"""Secrets that nobody marked: which come out is what the model's own generation gives."""

import random
import re
from functools import partial

import pandas as pd
import pytest
import torch
from audits import audited, continued, write

from palimpsest import audit
from palimpsest.audit import inputs
from palimpsest.audit.inputs import AS_IT_STANDS
from palimpsest.audit.personal import GIVEN, say_found_secrets, secret_tokens
from palimpsest.data.encoding import encode
from palimpsest.data.examples import collate
from palimpsest.data.masking import mask
from palimpsest.errors import InputError
from palimpsest.measure.models import build_model, load_model, load_tokenizer, train_tokenizer
from palimpsest.study.sections import Scratch
from palimpsest.train.fine_tuning import set_dropout


def letters(count):
    draw = random.Random(5)

    def mail():
        return "".join(draw.choices("abcdefgh", k=4)) + "@x.org"

    rows = [{"prompt": f"Who {i}?", "response": f"{mail()},{mail()} or 10.0.{i}.7."} for i in range(count - 2)]
    return [
        *rows,
        {"prompt": "Any?", "response": "None at all."},
        {"prompt": "What?", "response": "Call +44 20 7946 0958!"},
    ]


@pytest.fixture(scope="module")
def half_known(tmp_path_factory):
    """A model that has learned the first half of some letters, and their file."""
    folder, rows = tmp_path_factory.mktemp("personal"), letters(14)
    tokenizer = train_tokenizer([row["prompt"] + row["response"] for row in rows], 280)
    model = build_model(Scratch(architecture="gpt2", layers=2, width=64, heads=2, context=96), tokenizer, 0)
    set_dropout(model, 0.0)
    frame = (
        pd.DataFrame(rows[:7])
        .rename(columns={"prompt": "instruction"})
        .assign(context="", id=list(map(str, range(7))))
    )
    batch = collate(encode(frame, tokenizer, AS_IT_STANDS), 0)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "position_ids", "labels")}
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=4e-3)
    for _ in range(200):
        loss = model(**inputs).loss
        if loss < 0.15:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokenizer.save_pretrained(folder)
    model.eval().save_pretrained(folder)
    write(folder / "letters.jsonl", rows)
    write(folder / "texts.jsonl", [{"text": f"{row['prompt']} {row['response']}"} for row in rows])
    return folder


@pytest.mark.parametrize("name", ["letters", "texts"])
def test_a_secret_comes_out_where_generate_gives_it(half_known, tmp_path, name):
    out = tmp_path / "out"
    summary = audited(
        half_known, half_known / f"{name}.jsonl", out, secrets="auto", approximate=False, tokenize="apart"
    )
    rows = {(row["kind"], row["given"]): row for row in summary["secrets"]}
    totals = {kind: row["total"] for (kind, given), row in rows.items() if given == GIVEN["recited"]}
    assert totals == {"any": 37, "e-mail address": 24, "IP address": 12, "telephone number": 1}
    model, tokenizer = load_model(half_known), load_tokenizer(half_known)
    table, counted = pd.read_parquet(out / "records.parquet"), {"recited": 0, "from_prompt": 0}
    lines = pd.read_json(half_known / f"{name}.jsonl", lines=True)
    for record in table.itertuples():
        line = lines.iloc[record.row - 1]
        if name == "letters":
            prompt = tokenizer(line["prompt"])["input_ids"]
            ids = prompt + tokenizer(line["response"])["input_ids"]
        else:
            ids = tokenizer(line["text"])["input_ids"]
            prompt = ids[:1]
        for secret in record.secrets:
            start = len(prompt) + secret["k"]
            end = start + secret["tokens"]
            assert secret["recited"] == continued(model, ids[:start], ids[start:end])
            assert secret["from_prompt"] == continued(model, prompt, ids[len(prompt) : end])
            text = tokenizer.decode(ids[start:end])
            assert "@x.org" in text if secret["kind"] == "e-mail address" else "." in text or "+44" in text
            counted = {verdict: counted[verdict] + secret[verdict] for verdict in counted}
    assert counted == {verdict: rows["any", given]["count"] for verdict, given in GIVEN.items()}
    assert 0 < counted["from_prompt"] <= counted["recited"] < 37 if name == "letters" else counted["recited"] < 37
    mails = [rows["e-mail address", given]["count"] for given in GIVEN.values()]
    said = f"Of 24 e-mail addresses in the members, {mails[0]} come out given the true text before them, {mails[1]} from the prompt"
    assert any(line.startswith(said) for line in summary["headline"])
    assert "Addresses, numbers and keys" in (page := (out / "report.html").read_text()) and "e-mail address" in page


def test_secrets_that_touch_are_two(half_known):
    spans = [{"start": 0, "end": 10, "kind": "a"}, {"start": 10, "end": 20, "kind": "b"}]
    frame = pd.DataFrame({"id": ["x", "y"], "text": ["abcdefghijklmnopqrst", "z"], "secrets": [spans, []]})
    (first, second), none = secret_tokens(frame, partial(encode, tokenizer=load_tokenizer(half_known)))
    assert none == [] and (first["kind"], second["kind"]) == ("a", "b") and second["k"] <= first["k"] + first["tokens"]


def test_no_secret_is_said_to_be_none():
    assert say_found_secrets([]) == ["No secrets were found in the members."]


@pytest.mark.parametrize("text", ["all", "auto,Germany", "auto,de", "", "auto,", "marked,US", "auto,marked"])
def test_what_may_be_asked_for(text):
    with pytest.raises(
        InputError,
        match="the setting secrets: wanted marked, auto, auto with countries such as auto,US,DE, or marked,auto; found",
    ):
        audit.Settings(secrets=text)
    assert audit.Settings(secrets="auto,US,DE").regions == ["US", "DE"] and audit.Settings().regions == []


def test_what_the_records_mark_is_counted_and_what_marks_nothing_is_said(half_known, tmp_path):
    """Names have no form: the record's owner marks them, as texts or places; `auto` finds the rest."""
    rows = letters(14)
    marks = [
        [row["response"][:4], "nowhere"] if i else [{"start": 0, "end": 4, "kind": "name"}]
        for i, row in enumerate(rows)
    ]
    rows = [{**row, "secrets": own} for row, own in zip(rows, marks, strict=True)]
    write(tmp_path / "marked.jsonl", rows)
    options = {"approximate": False, "tokenize": "apart"}
    summary = audited(half_known, tmp_path / "marked.jsonl", tmp_path / "a", secrets="marked", **options)
    totals = {row["kind"]: row["total"] for row in summary["secrets"]}
    assert totals == {"any": 14, "marked secret": 13, "name": 1}
    assert any("13 marked secrets do not stand in the text" in note for note in summary["data"]["members"]["notes"])
    assert "<h2>Marked secrets</h2>" in (tmp_path / "a" / "report.html").read_text()
    model, tokenizer = load_model(half_known), load_tokenizer(half_known)
    for record in pd.read_parquet(tmp_path / "a" / "records.parquet").itertuples():
        (secret,) = record.secrets
        line = rows[record.row - 1]
        prompt, ids = tokenizer(line["prompt"])["input_ids"], tokenizer(line["response"])["input_ids"]
        given = prompt + ids[: secret["k"]]
        assert secret["recited"] == continued(model, given, ids[secret["k"] : secret["k"] + secret["tokens"]])
    both = audited(half_known, tmp_path / "marked.jsonl", tmp_path / "b", secrets="marked,auto", **options)
    totals = {row["kind"]: row["total"] for row in both["secrets"]}
    assert (
        totals["marked secret"] == 13 and totals["IP address"] == 12 and totals["e-mail address"] == 12
    )  # not under a mark
    unread = audited(half_known, tmp_path / "marked.jsonl", tmp_path / "c", **options)
    assert any("--secrets marked counts" in note for note in unread["data"]["members"]["notes"])
    for row in rows:
        del row["secrets"]
    write(tmp_path / "none.jsonl", rows)
    with pytest.raises(InputError, match="has no column 'secrets', in which --secrets marked would find"):
        audited(half_known, tmp_path / "none.jsonl", tmp_path / "d", secrets="marked", **options)
    write(tmp_path / "wrong.jsonl", [{**row, "secrets": 7} for row in rows])
    with pytest.raises(
        InputError, match="row 1: the column secrets holds '" + re.escape(mask("7")) + "'; wanted a text, a"
    ):
        audited(half_known, tmp_path / "wrong.jsonl", tmp_path / "e", secrets="marked", **options)


def test_a_mark_of_a_conversation_stands_in_one_of_its_turns(tmp_path):
    turns = [("user", "Who?"), ("assistant", "Ann Lee."), ("user", "Where?"), ("assistant", "In Rome, with Bo.")]
    row = {
        "messages": [{"role": role, "content": text} for role, text in turns],
        "secrets": ["Ann Lee", "Rome", "Oslo"],
    }
    write(tmp_path / "turns.jsonl", [row])
    reading = inputs.read(tmp_path / "turns.jsonl", audit.Settings(secrets="marked"), tmp_path / "read.parquet")
    (note,) = [note for note in reading.facts["notes"] if "marked" in note]
    assert note == "1 marked secrets do not stand in the text that is measured and are not counted (rows 1)"
    (frame,) = reading.frames()
    marked = [
        text[s["start"] : s["end"]] for text, own in zip(frame["response"], frame["secrets"], strict=True) for s in own
    ]
    assert marked == ["Ann Lee", "Rome"]
