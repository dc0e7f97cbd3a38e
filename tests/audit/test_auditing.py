"""The audit: right numbers, nothing whole unless all is, and a clear refusal of whatever can't be audited."""

import errno
import functools
import gc
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from palimpsest import cli
from palimpsest.audit import auditing as module
from palimpsest.audit import inputs as audit_inputs
from palimpsest.audit import records as audit_records
from palimpsest.audit import report, scores
from palimpsest.audit.auditing import RESULTS, audit
from palimpsest.book import pairs
from palimpsest.data import sources
from palimpsest.data.examples import Example, collate
from palimpsest.data.records import TEMPLATES, encode
from palimpsest.errors import InputError
from palimpsest.measure import membership_inference
from palimpsest.measure import scoring as scoring
from palimpsest.measure.models import build_model, load_model, load_tokenizer, train_tokenizer
from palimpsest.measure.scoring import score
from palimpsest.study.sections import Scratch

ROOT = Path(__file__).parents[2]
FIRST, LAST = ["Ann", "Bob", "Cid", "Dot", "Eva"], ["Ash", "Birch", "Cedar", "Elm"]
EVIL = "<img src=x onerror=alert(1)>"


def people(count, seed):
    draw = random.Random(seed)
    return [
        {
            "question": f"Who has key {draw.randrange(10**6):06d}?",
            "answer": f"{draw.choice(FIRST)} {draw.choice(LAST)}, code {draw.randrange(10**6):06d}.",
        }
        for _ in range(count)
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model that knows most members by heart (`tuned`), what it was before (`base`), and both files."""
    folder = tmp_path_factory.mktemp("audit")
    members, others = people(24, 1), people(24, 2)
    members[0]["answer"] += EVIL
    write(folder / "members.jsonl", members)
    write(folder / "others.jsonl", others)
    tokenizer = train_tokenizer([r["question"] + r["answer"] for r in people(200, 3)], 300)
    model = build_model(Scratch(architecture="gpt2", layers=2, width=64, heads=2, context=96), tokenizer, 0, 0.0)
    for name in ("base", "tuned"):
        tokenizer.save_pretrained(folder / name)
    model.save_pretrained(folder / "base")
    frame = pd.DataFrame(members).rename(columns={"question": "instruction", "answer": "response"}).assign(context="")
    examples = encode(frame.assign(id=[str(i) for i in range(24)]), tokenizer, audit_inputs.AS_IT_STANDS)
    batch = collate(examples, 0)
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "position_ids", "labels")}
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=4e-3)
    for _ in range(400):
        loss = model(**inputs).loss
        if loss < 0.25:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder / "tuned")
    return folder


@pytest.fixture
def no_report(monkeypatch):
    """The report takes seconds: where it isn't the subject, empty files stand for it."""

    def build(folder):
        (folder / "figures").mkdir(exist_ok=True)
        (folder / "report.html").touch()

    monkeypatch.setattr(report, "build", build)


def records_of(file, folder, columns=None):
    """The records of a file as an audit reads them."""
    return pd.concat(audit_records.read(file, columns or {}, None, "refuse", folder / "read.parquet").frames())


def continued(model, given_, target):
    """Whether the library's greedy decoding of the given tokens gives the target."""
    ids = torch.tensor([given_])
    new = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=len(target))
    return new[0, len(given_) :].tolist() == target


def whole(out):
    return [name for name in RESULTS if (out / name).exists()]


def rate_of(summary, measure, group="members", **setting):
    rows = [r for r in summary["rates"] if r["measure"] == measure and r["group"] == group and r["model"] == "model"]
    return next(r for r in rows if all(r[k] == v for k, v in setting.items()))


# ---------------------------------------------------------------- right numbers, whole report


class Loads(HTMLParser):
    """Everything a page would fetch or run."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        outside = [v for k, v in given.items() if k in ("src", "href", "data") and not v.startswith(("data:", "#"))]
        handlers = [k for k in given if k.startswith("on")]
        if tag in ("script", "link", "iframe", "object") or outside or handlers:
            self.found.append((tag, given))


@pytest.mark.slow
def test_an_audit_from_end_to_end(place, tmp_path):
    out = tmp_path / "out"
    options = {"non_members": place / "others.jsonl", "reference": place / "base", "window": 8}
    options |= {"prefix_lengths": [0, 3, 20], "left_truncated": [4], "sampling": {"top_k5": {"top_k": 5}}}
    summary = audit(place / "tuned", place / "members.jsonl", out, **options)
    assert whole(out) == list(RESULTS) and not (out / "partial").exists()
    assert json.loads((out / "summary.json").read_text()) == summary

    model, tokenizer = load_model(place / "tuned"), load_tokenizer(place / "tuned")
    examples = encode(records_of(place / "members.jsonl", tmp_path), tokenizer, audit_inputs.AS_IT_STANDS)
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

    page = (out / "report.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert loads.found == [] and 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page
    assert page.count("data:image/png;base64,") == 3 and len(list((out / "figures").glob("*.png"))) == 3
    assert "Less context before the same target" in page and "left-truncated" in page
    secrets = [code for row in people(24, 1) for code in re.findall(r"code (\d{6})", row["answer"])]
    written = page + json.dumps(summary)
    assert not [s for s in secrets if s in written]
    assert "token" not in records and "continuation" not in records

    again = audit(place / "tuned", place / "members.jsonl", out, **options)
    assert again == summary  # seconds and all: it was not made again


@pytest.mark.slow
def test_shown_text_is_escaped(place, tmp_path):
    summary = audit(place / "tuned", place / "members.jsonl", tmp_path / "out", approximate=False, show_secrets=True)
    assert any(EVIL in row["text"] for row in summary["most_memorized"]) or len(summary["most_memorized"]) == 10
    page = (tmp_path / "out" / "report.html").read_text()
    loads = Loads()
    loads.feed(page)
    assert loads.found == [] and summary["most_memorized"][0]["text"][:10] in page
    assert any("no non-members" in line for line in summary["warnings"])


def test_the_packaged_notebook_is_the_one_in_the_book():
    packaged = nbformat.read(report.NOTEBOOK, as_version=4)
    assert pairs.cells(packaged) == pairs.cells(pairs.notebook(ROOT / "notebooks" / "audit_report.py"))


def test_plain_texts_are_measured_from_their_first_token(place, tmp_path, no_report):
    texts = [row["question"] + row["answer"] for row in people(6, 1)]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    summary = audit(place / "tuned", tmp_path / "texts.json", tmp_path / "out", window=5)
    records = pd.read_parquet(tmp_path / "out" / "records.parquet")
    tokenizer = load_tokenizer(place / "tuned")
    assert sorted(records["length"]) == sorted(len(tokenizer(t)["input_ids"]) - 1 for t in texts)
    assert summary["data"]["members"]["columns"] == {"text": "text"} and summary["settings"]["template"].startswith(
        "none"
    )


# ---------------------------------------------------------------- columns and templates


@pytest.mark.parametrize(
    ("names", "given_", "wanted"),
    [
        (
            ["instruction", "input", "output", "text"],
            {},
            {"instruction": "instruction", "context": "input", "response": "output"},
        ),
        (["Question", "Answer"], {}, {"instruction": "Question", "response": "Answer"}),
        (["prompt", "completion", "id"], {}, {"instruction": "prompt", "response": "completion"}),
        (["text", "answer"], {}, {"text": "text"}),
        (["body"], {"text": "body"}, {"text": "body"}),
        (["instruction", "response", "story"], {"text": "story"}, {"text": "story"}),
        (["a", "b"], {"instruction": "a", "response": "b"}, {"instruction": "a", "response": "b"}),
    ],
)
def test_columns_are_guessed_from_their_names(names, given_, wanted):
    assert audit_inputs.guess_columns(names, given_, "f") == wanted


def test_a_mapped_column_wins_over_one_that_bears_our_name(tmp_path):
    rows = [{"instruction": "i", "response": "r", "story": "s", "answer": "a"}]
    file = write(tmp_path / "d.jsonl", rows)
    assert records_of(file, tmp_path, {"text": "story"})["text"].tolist() == ["s"]
    assert records_of(file, tmp_path, {"response": "answer"})["response"].tolist() == ["a"]
    with pytest.raises(InputError, match="has no column 'storey'; it has instruction, response, story, answer"):
        records_of(file, tmp_path, {"text": "storey"})


def test_unknown_columns_are_listed():
    with pytest.raises(InputError, match="f has the columns a, b: .*--prompt-column and --response-column"):
        audit_inputs.guess_columns(["a", "b"], {}, "f")
    with pytest.raises(InputError, match="give either --text-column or --prompt-column"):
        audit_inputs.guess_columns(["a", "b"], {"text": "a", "response": "b"}, "f")


def test_templates(tmp_path):
    assert audit_inputs.choose_template("auto", {"instruction": "instruction"})[1] == TEMPLATES["alpaca"]
    assert audit_inputs.choose_template("auto", {"instruction": "question"})[1].prompt("Q?", "") == "Q?"
    (tmp_path / "t.yaml").write_text("with_context: '{context}|{instruction}|'\nwithout_context: '{instruction}|'\n")
    assert audit_inputs.choose_template(str(tmp_path / "t.yaml"), {"instruction": "q"})[1].prompt("Q", "C") == "C|Q|"
    with pytest.raises(InputError, match="unknown template 'alpacca'"):
        audit_inputs.choose_template("alpacca", {"instruction": "q"})


# ---------------------------------------------------------------- longer than the context


@given(st.integers(2, 60), st.data())
def test_windows_label_every_token_once_with_half_a_context_before_it(length, data):
    context = data.draw(st.integers(2, 24))
    prompt = data.draw(st.integers(1, length))
    example = Example("r", list(range(length)), prompt, [t % 3 == 0 for t in range(length - prompt)])
    cut = list(audit_inputs.windows(example, context))
    assert all(len(w.input_ids) <= context for w in cut)
    assert [t for w in cut for t in w.response_ids] == example.response_ids
    assert [s for w in cut for s in w.secret] == example.secret
    for w in cut:
        first = w.input_ids[w.prompt_length] if w.response_ids else length
        assert w.input_ids == list(range(w.input_ids[0], w.input_ids[0] + len(w.input_ids)))
        assert w.prompt_length >= min(first, context - max(1, context // 2))


def long_file(folder):
    rows = [{"text": " ".join(r["answer"] for r in people(n, n))} for n in (1, 12, 2, 15)]
    return write(folder / "long.jsonl", rows)


def test_long_records_are_refused_counted_and_never_cut(place, tmp_path, no_report):
    with pytest.raises(
        InputError, match=r"2 of 4 records are longer than the model's context of 96 tokens .*--long window"
    ):
        audit(place / "tuned", long_file(tmp_path), tmp_path / "out")
    assert whole(tmp_path / "out") == []
    skipped = audit(place / "tuned", long_file(tmp_path), tmp_path / "skip", long="skip")
    assert skipped["data"]["members"]["long"] == 2 and skipped["data"]["members"]["records"] == 2
    assert any("2 records longer than the context were left out" in w for w in skipped["warnings"])


def test_windowed_records_are_one_row_each(place, tmp_path, no_report, monkeypatch):
    in_shards(monkeypatch, 3)
    audit(place / "tuned", long_file(tmp_path), tmp_path / "out", long="window")
    records = pd.read_parquet(tmp_path / "out" / "records.parquet")
    tokenizer, model = load_tokenizer(place / "tuned"), load_model(place / "tuned")
    examples = encode(records_of(tmp_path / "long.jsonl", tmp_path), tokenizer)
    assert records["id"].tolist() == [e.id for e in examples]
    assert records["length"].tolist() == [len(e.response_ids) for e in examples]
    longest = max(examples, key=lambda e: len(e.input_ids))
    cut = score(model, list(audit_inputs.windows(longest, 96)))
    found = records.set_index("id").loc[longest.id]
    assert np.allclose(np.concatenate(list(cut["logprob"])), found["logprob"], atol=1e-5)
    assert pd.isna(found["rouge_l"]) and records["rouge_l"].notna().sum() == 2


# ---------------------------------------------------------------- bad input


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
            "the tokenizer does not fit .*: its highest token id is 299, .* embeddings for 0 to 199 only",
        ),
        (headless, r"lacks 1 of the weights of a LlamaForCausalLM \(lm_head.weight\), which would be random"),
        (gives_nan, "gives NaN"),
        (lambda folder, place: folder / "nowhere", "cannot load"),
    ],
)
def test_models_that_cannot_be_audited(place, tmp_path, make, message):
    with pytest.raises(InputError, match=message):
        audit(make(tmp_path / "model", place), place / "members.jsonl", tmp_path / "out")
    assert whole(tmp_path / "out") == []


def test_a_tied_output_layer_is_not_missing(place):
    weights = load_file(place / "tuned" / "model.safetensors")
    assert "lm_head.weight" not in weights
    model = load_model(place / "tuned")
    assert torch.equal(model.get_output_embeddings().weight, weights["transformer.wte.weight"])


def test_a_tokenizer_without_pad_token_is_fine(place, tmp_path, no_report):
    tokenizer = load_tokenizer(place / "tuned")
    tokenizer.pad_token = None
    load_model(place / "tuned").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert json.loads((tmp_path / "model" / "tokenizer_config.json").read_text()).get("pad_token") is None
    summary = audit(tmp_path / "model", place / "members.jsonl", tmp_path / "out", window=8, approximate=False)
    known = audit(place / "tuned", place / "members.jsonl", tmp_path / "other", window=8, approximate=False)
    assert summary["rates"] == known["rates"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": "a b"}, {"text": " "}, {"text": ""}],
            r"2 of 3 records have an empty text \(record 2, 3\).*--empty skip",
        ),
        ([{"text": "a b"}, {"text": None}], "record 2 has no text"),
        ([{"text": "  "}], "empty text"),
        ([], "holds no records"),
        ([{"question": "q", "body_": "b"}], "has the columns question, body_"),
    ],
)
def test_files_that_cannot_be_audited(place, tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        audit(place / "tuned", write(tmp_path / "d.jsonl", rows), tmp_path / "out")
    assert whole(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b'{"text": "a"}\n{"text": \n', "broken JSON at line 2"),
        ("d.csv", b"", "not a readable .csv file"),
        ("d.parquet", b"no parquet at all", "not a readable .parquet file"),
        ("d.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
        ("d.txt", b"text", "cannot read .txt"),
    ],
)
def test_broken_files(place, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        audit(place / "tuned", tmp_path / name, tmp_path / "out")
    with pytest.raises(InputError, match="no file"):
        audit(place / "tuned", tmp_path / "absent.jsonl", tmp_path / "out")


def test_a_hub_id_without_network_says_so(place, tmp_path):
    with pytest.raises(InputError, match="neither a file here nor a data set the hub would give.*network"):
        audit(place / "tuned", "nobody/no-such-set", tmp_path / "out")
    with pytest.raises(InputError, match="cannot load.*network"):
        audit("nobody/no-such-model", place / "members.jsonl", tmp_path / "out")


def test_empty_and_repeated_records_are_counted(place, tmp_path, no_report):
    rows = [{"text": t} for t in ("Ann has it.", "", None, "Bob has it.", "Ann has it.")]
    summary = audit(place / "tuned", write(tmp_path / "d.jsonl", rows), tmp_path / "out", empty="skip")
    facts = summary["data"]["members"]
    assert (facts["read"], facts["empty"], facts["duplicates"], facts["records"]) == (5, 2, 1, 2)
    assert any("1 repetitions of a record" in w for w in summary["warnings"])
    records = pd.read_parquet(tmp_path / "out" / "records.parquet").set_index("row")
    assert records["copies"].to_dict() == {1: 2, 4: 1}


def test_overlap_is_refused_and_shown_masked(place, tmp_path):
    members, others = people(5, 1), people(5, 2)
    others[3] = {k: v.upper() + "  " for k, v in members[1].items()}
    files = [write(tmp_path / f"{n}.jsonl", rows) for n, rows in (("a", members), ("b", others))]
    with pytest.raises(InputError, match=r"share 1 record\(s\)") as refused:
        audit(place / "tuned", files[0], tmp_path / "out", non_members=files[1])
    assert "row 2 of the members = row 4 of the non-members" in str(refused.value)
    assert members[1]["answer"][3:] not in str(refused.value)
    with pytest.raises(InputError) as shown:
        audit(place / "tuned", files[0], tmp_path / "out", non_members=files[1], show_secrets=True)
    assert members[1]["answer"] in str(shown.value)
    assert whole(tmp_path / "out") == []


# ---------------------------------------------------------------- a disk that refuses, a kill


def test_a_full_disk_leaves_nothing_whole_and_the_next_run_goes_on(place, tmp_path, no_report, monkeypatch):
    import pyarrow.parquet as pq

    real = pq.ParquetWriter.write_table

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(InputError, match="No space left on device.*free space"):
        audit(place / "tuned", place / "members.jsonl", tmp_path / "out")
    assert whole(tmp_path / "out") == []
    monkeypatch.setattr(pq.ParquetWriter, "write_table", real)
    audit(place / "tuned", place / "members.jsonl", tmp_path / "out")
    assert whole(tmp_path / "out") == list(RESULTS)


def test_a_file_size_limit_stops_the_command_with_status_2(place, tmp_path, capsys):
    """A real refusal by the operating system, at the real write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    command = ["audit", "--model", str(place / "tuned"), "--data", str(place / "members.jsonl"), "--quiet"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        status = cli.main([*command, "--out", str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert status == 2 and "File too large" in said and "Traceback" not in said, said
    assert whole(tmp_path / "out") == []


def test_a_place_that_cannot_be_written(place, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for where in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OSError):
            audit(place / "tuned", place / "members.jsonl", where)
    assert (tmp_path / "file").read_text() == "in the way"


SLOW_AUDIT = """
import functools, sys, time
from palimpsest.audit import auditing
from palimpsest.measure import score_file
add = score_file.ScoreFile.add
def slowly(*arguments):
    add(*arguments)
    time.sleep(0.3)
score_file.ScoreFile.add = slowly
auditing.score_to_parquet = functools.partial(auditing.score_to_parquet, shard_rows=4)
auditing.audit(*sys.argv[1:4], non_members=sys.argv[4], approximate=False, lowercase=False)
"""


def test_an_audit_killed_by_the_system_scores_no_finished_shard_again(place, tmp_path, no_report, monkeypatch):
    model, members, out, others = place / "tuned", place / "members.jsonl", tmp_path / "out", place / "others.jsonl"
    process = subprocess.Popen([sys.executable, "-c", SLOW_AUDIT, *map(str, (model, members, out, others))])
    while len(finished := list(out.glob("partial/*/members.parquet.parts/*.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and whole(out) == []
    finished = list(out.glob("partial/*/members.parquet.parts/*.parquet"))
    there = {i for path in finished for i in pd.read_parquet(path)["id"]}
    assert len(there) == 4 * len(finished) < 24

    scored, table = [], scoring._Pass.table
    monkeypatch.setattr(scoring._Pass, "table", lambda run, rows: scored.extend(rows) or table(run, rows))
    in_shards(monkeypatch, 4)
    summary = audit(model, members, out, non_members=others, approximate=False, lowercase=False)
    assert len(scored) == 48 - len(there) and there.isdisjoint(e.id for e in scored)
    assert summary["data"]["members"]["records"] == 24 and whole(out) == list(RESULTS)


# ---------------------------------------------------------------- many records


def in_shards(monkeypatch, rows):
    """Read, tokenize and score a few records at a time, as it happens to large files."""
    monkeypatch.setattr(sources, "chunks", functools.partial(sources.chunks, size=rows))
    monkeypatch.setattr(module, "score_to_parquet", functools.partial(module.score_to_parquet, shard_rows=rows))


def test_nothing_depends_on_the_shards(place, tmp_path, no_report, monkeypatch):
    """Shards of another size than the pieces that are read, windows that cross them, repetitions in another piece."""
    rows = people(21, 1)
    rows += [{"question": "Long?", "answer": " ".join(r["answer"] for r in people(12, 9))}, *rows[:3]]
    members = write(tmp_path / "members.jsonl", rows)
    options = {"non_members": place / "others.jsonl", "reference": place / "base", "window": 6, "long": "window"}
    options |= {"left_truncated": [2, 5], "sampling": {"k5": {"top_k": 5}}}
    found = []
    for size in (None, 5):
        with monkeypatch.context() as patch:
            if size:
                in_shards(patch, size)
                patch.setattr(module, "score_to_parquet", functools.partial(module.score_to_parquet, shard_rows=4))
            out = tmp_path / f"out{size}"
            found.append((audit(place / "tuned", members, out, **options), pd.read_parquet(out / "records.parquet")))
    (one, its), (other, theirs) = found
    pd.testing.assert_frame_equal(its, theirs, rtol=1e-4, atol=1e-5)
    assert one["data"] == other["data"] and one["data"]["members"]["duplicates"] == 3
    for name in ("rates", "curve", "excess", "blind", "headline"):
        assert one[name] == other[name]
    for name in ("means", "membership", "most_memorized"):
        pd.testing.assert_frame_equal(pd.DataFrame(one[name]), pd.DataFrame(other[name]), rtol=1e-4, atol=1e-5)
    by_hand = its[its["group"] == "members"]["loss"]
    mean = next(row for row in one["means"] if row["measure"] == "loss" and row["group"] == "members")
    assert mean["mean"] == pytest.approx(by_hand.mean()) and mean["total"] == 22
    assert mean["high"] - mean["mean"] == pytest.approx(1.96 * by_hand.sem())


def test_no_more_than_a_shard_of_records_is_held(place, tmp_path, no_report, monkeypatch):
    def counted(function):
        def note(*args, **options):
            held.append(examples_alive())
            return function(*args, **options)

        return note

    held, near = [], module.near
    in_shards(monkeypatch, 6)
    monkeypatch.setattr(scoring._Pass, "table", counted(scoring._Pass.table))
    monkeypatch.setattr(near, "near_misses", counted(near.near_misses))
    before = examples_alive()
    audit(place / "tuned", write(tmp_path / "many.jsonl", people(60, 4)), tmp_path / "out")
    assert len(held) == 20 and max(held) - before <= 6 + 6  # a shard, and the piece that is read


def examples_alive():
    return sum(isinstance(thing, Example) for thing in gc.get_objects())


PEAK = """
import resource, sys
from palimpsest.audit import auditing, report
report.build = lambda folder: [(folder / name).touch() for name in ("figures", "report.html")]
auditing.audit(*sys.argv[1:4], approximate=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_records(place, tmp_path):
    def peak(count):
        data = write(tmp_path / f"{count}.jsonl", people(count, 5))
        command = [sys.executable, "-c", PEAK, place / "tuned", data, tmp_path / f"out{count}"]
        return int(subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout)

    assert peak(10_000) < 1.15 * peak(1_000)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_the_drawn_roc_curve_is_the_whole_one(members, others):
    members, others = np.array(members, float), np.array(others, float)
    fpr, tpr = report.roc_points(members, others)
    whole_ = membership_inference.roc(members, others)
    assert np.trapezoid(tpr, fpr) == pytest.approx(np.trapezoid(whole_["tpr"], whole_["fpr"]))
    corners = {(round(a, 9), round(b, 9)) for a, b in whole_[["fpr", "tpr"]].to_numpy()}
    few = report.roc_points(members, others, most=3)
    assert {(round(a, 9), round(b, 9)) for a, b in zip(*few, strict=True)} <= corners


# ---------------------------------------------------------------- the other design


def test_left_truncated_context_against_generate(place, tmp_path, no_report):
    options = {"non_members": place / "others.jsonl", "window": 2, "approximate": False, "lowercase": False}
    summary = audit(place / "tuned", place / "members.jsonl", tmp_path / "out", left_truncated=[9, 3], **options)
    model, tokenizer = load_model(place / "tuned"), load_tokenizer(place / "tuned")
    examples = encode(records_of(place / "members.jsonl", tmp_path), tokenizer, audit_inputs.AS_IT_STANDS)
    some = 0
    for k in (3, 9):
        verdicts = [continued(model, e.input_ids[-2 - k : -2], e.input_ids[-2:]) for e in examples]
        row = rate_of(summary, "left-truncated", k=k, m=2)
        assert (row["count"], row["total"]) == (sum(verdicts), 24) and row["low"] <= row["rate"] <= row["high"]
        some += sum(verdicts)
        column = pd.read_parquet(tmp_path / "out" / "records.parquet").set_index("id")[f"left_truncated_{k}"]
        assert column.loc[[e.id for e in examples]].tolist() == verdicts
    assert some > 0 and sum(r["measure"] == "left-truncated" for r in summary["excess"]) == 2


def test_left_truncated_targets_are_the_same_for_every_k(place, tmp_path, no_report):
    rows = [{"text": " ".join(["key 123456"] * n)} for n in (1, 2, 3, 4)]
    lengths = [len(load_tokenizer(place / "tuned")(r["text"])["input_ids"]) for r in rows]
    out = {"out": tmp_path / "out", "window": 4, "approximate": False}
    summary = audit(place / "tuned", write(tmp_path / "t.jsonl", rows), left_truncated=[1, 15], **out)
    assert {rate_of(summary, "left-truncated", k=k)["total"] for k in (1, 15)} == {sum(n >= 19 for n in lengths)}
    with pytest.raises(
        InputError, match="left-truncated context of 93 tokens and a target of 4 are longer than the model's"
    ):
        audit(place / "tuned", tmp_path / "t.jsonl", left_truncated=[93], **out)


def test_excess_pairs_rates_of_the_same_setting():
    base = {"model": "model", "measure": "verbatim", "k": 0, "m": 8}
    rows = [
        {**base, "group": "members", "rate": 0.5, "count": 50, "total": 100, "low": 0, "high": 1},
        {**base, "group": "non_members", "rate": 0.1, "count": 10, "total": 100, "low": 0, "high": 1},
        {**base, "k": 3, "group": "members", "rate": 0.5, "count": 50, "total": 100, "low": 0, "high": 1},
    ]
    (found,) = scores.excess(rows)
    assert found["excess"] == pytest.approx(0.4) and 0.27 < found["low"] < 0.4 < found["high"] < 0.52
