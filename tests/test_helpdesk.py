"""The committed help-desk records: made by the committed generator, sound, and as the data card says."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from palimpsest.chapters.dataset import forms, ngram_share
from palimpsest.data.records import ANNOTATIONS, read_records

ROOT = Path(__file__).parents[1]
FILE = ROOT / "data" / "helpdesk" / "records.jsonl"
SIZES = {"public": 1500, "member": 240, "non_member": 240, "test": 120}
PRIVATE = ["member", "non_member", "test"]


@pytest.fixture(scope="module")
def records():
    return read_records(FILE, annotations=list(ANNOTATIONS))


@pytest.fixture(scope="module")
def letters(records):
    return {split: group for split, group in records[records["kind"] == "letter"].groupby("split")}


def card_rows(first: str) -> list[list[str]]:
    """Rows of the card's tables that start with this cell."""
    lines = (ROOT / "data" / "README.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if row[0] == first]


def secret_texts(row) -> list[str]:
    return [row.response[s["start"] : s["end"]] for s in row.secrets]


def test_generator_rewrites_the_file_byte_for_byte(tmp_path):
    script, out = ROOT / "data" / "helpdesk" / "generate.py", tmp_path / "records.jsonl"
    subprocess.run([sys.executable, script, "--out", out], check=True, cwd=tmp_path)
    assert out.read_bytes() == FILE.read_bytes()


def test_file_is_small_utf8_json_lines_with_the_stated_columns():
    text = FILE.read_bytes().decode("utf-8")
    assert len(text.encode()) < 1_600_000 and text.endswith("\n")
    columns = ["instruction", "context", "response", "category", "split", "kind", "secrets", "copies", "teacher_only"]
    assert all(list(json.loads(line)) == columns for line in text.splitlines())


def test_split_sizes_and_copies(records, letters):
    assert {split: len(group) for split, group in letters.items()} == SIZES
    assert all((group["copies"] == (split == "member")).all() for split, group in letters.items())
    assert set(records["kind"]) == {"letter", "canary", "twin"}
    assert len(records) == sum(SIZES.values()) + 35 + 128


def test_splits_share_no_text_and_no_prompt(records):
    for column in ("id", "instruction", "response"):
        assert records[column].is_unique, column


def test_spans_are_the_secrets(records):
    shapes = {
        "case": r"\d\d-\d{4}",
        "phone": r"\d{3} \d{4}",
        "booking": r"[A-HJ-NP-Z2-9]{5}",
        "access_code": r"[A-HJ-NP-Z2-9]{6}",
        "name": r"[A-Z][a-z]+ [A-Z][a-z]+",
        "address": r"\d{1,3} [A-Z][a-z]+ [A-Z][a-z]+",
    }
    for row in records.itertuples():
        for span, text in zip(row.secrets, secret_texts(row), strict=True):
            assert re.fullmatch(shapes[span["kind"]], text), row.response
            around = row.response[max(0, span["start"] - 1) : span["end"] + 1]  # the whole secret, not a part of it
            assert not re.search(rf"\w{re.escape(text)}|{re.escape(text)}\w", around), row.response
        assert not re.search(r"\d\d|\b[A-Z]{2}", forms_of(row)), "a secret outside the spans"


def forms_of(row) -> str:
    if row.split == "public":
        return ""  # the forum may say "25 minutes"
    text = forms(pd.DataFrame([{"response": row.response, "secrets": row.secrets}]))[0]
    return text + row.instruction + row.context


def test_every_private_record_has_one_or_two_secrets_of_different_kinds(records):
    counts = records.groupby("split")["secrets"].agg(lambda s: {len(spans) for spans in s})
    assert counts["public"] == {0} and counts["twin"] == {1}
    assert counts["member"] == counts["non_member"] == counts["test"] == {1, 2}
    assert all(len({s["kind"] for s in spans}) == len(spans) for spans in records["secrets"])


def test_a_secret_stands_nowhere_else(records):
    texts = [f"{r.instruction}\n{r.context}\n{r.response}" for r in records.itertuples()]
    everything = "\x00".join(texts)
    for row in records.itertuples():
        for text in secret_texts(row):
            found = everything.count(text)  # "3 Elm Way" may be part of "13 Elm Way": then count whole words
            assert found == 1 or len(re.findall(rf"\b{re.escape(text)}\b", everything)) == 1, text


def test_canary_doses(records):
    canaries = records[records["kind"] == "canary"]
    assert (canaries["split"] == "member").all()
    doses = canaries[~canaries["teacher_only"]]["copies"].value_counts().to_dict()
    assert doses == {1: 8, 2: 8, 4: 6, 8: 4, 16: 3}
    assert canaries[canaries["teacher_only"]]["copies"].tolist() == [8] * 6
    assert not records[records["kind"] != "canary"]["teacher_only"].any()


def test_twins_have_the_canaries_form_and_alphabet(records):
    canaries, twins = records[records["kind"] == "canary"], records[records["kind"] == "twin"]
    assert len(twins) == 128 and (twins["split"] == "twin").all() and (twins["copies"] == 0).all()
    assert set(forms(canaries)) == set(forms(twins)) == {"The door opens with <access_code>."}
    assert all(
        re.fullmatch(r"Door code for \w+ \w+\?", text) for text in records[records["kind"] != "letter"].instruction
    )
    signs = "".join(secret_texts(r)[0] for r in twins.itertuples())
    counts = pd.Series(list(signs)).value_counts()
    assert len(counts) == 32
    chi_square = ((counts - len(signs) / 32) ** 2 / (len(signs) / 32)).sum()
    assert chi_square < 61.1, "codes are not drawn evenly (31 degrees of freedom, p = 0.001)"


def test_a_classifier_that_sees_no_model_cannot_tell_members_from_non_members(letters):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline

    both = pd.concat([letters["member"], letters["non_member"]])
    texts = both["instruction"] + " " + both["context"] + " " + forms(both)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
    guess = cross_val_predict(model, texts, both["copies"], cv=5, method="predict_proba")[:, 1]
    assert abs(roc_auc_score(both["copies"], guess) - 0.5) < 0.08  # three standard errors of a coin's AUC at 240 + 240


def test_card_sizes(records):
    rows = [row for name in (*SIZES, "twin") for row in card_rows(name) if len(row) == 6]
    assert len(rows) == 6
    for split, kind, count, prompt, response, secrets in rows:
        group = records[(records["split"] == split) & (records["kind"] == kind)]
        assert len(group) == int(count)
        assert f"{(group['instruction'].str.len() + group['context'].str.len()).mean():.1f}" == prompt
        assert f"{group['response'].str.len().mean():.1f}" == response
        assert f"{group['secrets'].map(len).mean():.2f}" == secrets


def test_card_overlap(letters):
    members = forms(letters["member"])
    rows = [row for name in SIZES for row in card_rows(name) if len(row) == 8]
    assert [row[0] for row in rows] == ["public", "non_member", "test"]
    for split, count, whole, distinct, *shares in rows:
        texts = pd.Series(forms(letters[split]))
        assert [len(texts), texts.isin(set(members)).sum(), texts.nunique()] == [int(count), int(whole), int(distinct)]
        assert [f"{ngram_share(texts, members, n):.3f}" for n in (1, 3, 5, 8)] == shares


def test_card_secrets(records):
    counts = pd.Series([s["kind"] for spans in records["secrets"] for s in spans]).value_counts()
    for kind, count in counts.items():
        ((_, _, possibilities, bits, stated),) = card_rows(kind)
        assert int(stated) == count
        assert f"{math.log2(int(possibilities.replace(' ', ''))):.1f}" == bits


def test_card_possibilities():
    code = "import letters as l; print(len(l.FIRST_NAMES), len(l.NAME_STARTS), len(l.NAME_ENDS), len(l.STREETS), "
    code += "len(l.STREET_ENDS), len(l.SIGNS))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=FILE.parent, check=True, capture_output=True, text=True
    ).stdout
    first, starts, ends, streets, street_ends, signs = map(int, found.split())
    stated = {
        kind: int(card_rows(kind)[0][2].replace(" ", "")) for kind in ("name", "address", "booking", "access_code")
    }
    assert stated["name"] == first * starts * ends
    assert stated["address"] == 197 * streets * street_ends
    assert (stated["booking"], stated["access_code"]) == (signs**5, signs**6)
