"""The committed help-desk records: made by the committed generator, sound, and drawn from and counted as the data card says."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml
from statsmodels.stats.proportion import proportion_confint

from palimpsest.chapters.dataset import forms, ngram_share
from palimpsest.data.records import ANNOTATIONS, read_records, training_rows
from palimpsest.data.splits import draw_splits, read_study_records
from palimpsest.study import Study, load_study

ROOT = Path(__file__).parents[1]
FILE = ROOT / "data" / "helpdesk" / "records.jsonl"
SIZES = {("public", "letter"): 2_400, ("private", "letter"): 5_800, ("private", "canary"): 3_000}
SPLITS = ["member", "teacher_only", "non_member", "validation", "test", "twin", "public"]
# What the card calls the demo's draw.
DEMO = {
    "source": str(FILE), "annotations": ["split", "kind", "secrets"], "public": 1500, "halves": True,
    "members": {1: 160, 2: 32, 4: 24, 8: 16, 16: 12}, "non_members": 240, "validation": 100, "test": 100,
    "canaries": {1: 16, 2: 16, 4: 16, 8: 16, 16: 16}, "coins": 128, "twins": 200,
}  # fmt: skip
REPLICATES = 6


@pytest.fixture(scope="module")
def records():
    return read_records(FILE, annotations=list(ANNOTATIONS))


@pytest.fixture(scope="module")
def private(records):
    return records[records["split"] == "private"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Study:
    path = tmp_path_factory.mktemp("study") / "drawn.yaml"
    smoke = str(ROOT / "studies" / "smoke.yaml")
    path.write_text(yaml.safe_dump({"extends": smoke, "name": "drawn", "replicates": REPLICATES, "data": DEMO}))
    return load_study(path)


@pytest.fixture(scope="module")
def drawn(demo) -> list[pd.DataFrame]:
    """The draw of every replicate; the card speaks of the first."""
    usable = read_study_records(demo)
    return [draw_splits(usable, demo.model_copy(update={"replicate": number})) for number in range(REPLICATES)]


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
    assert len(text.encode()) < 3_200_000 and text.endswith("\n")
    columns = ["instruction", "context", "response", "category", "split", "kind", "secrets"]
    assert all(list(json.loads(line)) == columns for line in text.splitlines())


def test_the_file_says_public_or_private_and_letter_or_code_and_no_more(records):
    assert records.groupby(["split", "kind"]).size().to_dict() == SIZES


def test_no_two_records_share_a_text_a_prompt_or_a_secret(records):
    for column in ("id", "instruction", "response"):
        assert records[column].is_unique, column
    assert pd.Series([text for row in records.itertuples() for text in secret_texts(row)]).is_unique
    letters = records[records["kind"] == "letter"]
    assert pd.Series(forms(letters)).is_unique


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
    held = records.groupby(["split", "kind"])["secrets"].agg(lambda s: {len(spans) for spans in s}).to_dict()
    assert held == {("public", "letter"): {0}, ("private", "letter"): {1, 2}, ("private", "canary"): {1}}
    assert all(len({s["kind"] for s in spans}) == len(spans) for spans in records["secrets"])


def places(records) -> Counter:
    """How often every secret stands in the file as a whole word, wherever that is."""
    shapes = r"\d{1,3} [A-Z][a-z]+ [A-Z][a-z]+|[A-Z][a-z]+ [A-Z][a-z]+|\d\d-\d{4}|\d{3} \d{4}|[A-HJ-NP-Z2-9]{5,6}"
    texts = records["instruction"] + "\n" + records["context"] + "\n" + records["response"]
    # Looked ahead for, since "To Ada Elby" holds "To Ada" too.
    return Counter(found for text in texts for found in re.findall(rf"(?=\b({shapes})\b)", text))


def test_a_secret_stands_nowhere_else(records):
    found = places(records)
    assert {found[text] for row in records.itertuples() for text in secret_texts(row)} == {1}


def test_door_codes_have_one_form_and_an_even_alphabet(private):
    codes = private[private["kind"] == "canary"]
    assert set(forms(codes)) == {"The door opens with <access_code>."}
    assert all(re.fullmatch(r"Door code for \w+ \w+\?", text) for text in codes["instruction"])
    signs = "".join(secret_texts(row)[0] for row in codes.itertuples())
    counts = pd.Series(list(signs)).value_counts()
    assert len(counts) == 32
    chi_square = ((counts - len(signs) / 32) ** 2 / (len(signs) / 32)).sum()
    assert chi_square < 61.1, "codes are not drawn evenly (31 degrees of freedom, p = 0.001)"


# ---------------------------------------------------------------- what the demo draws


def test_six_replicates_share_no_private_record(drawn):
    assert all(one.attrs["disjoint"] for one in drawn)
    used = pd.concat([one.loc[one["split"] != "public", "id"] for one in drawn])
    assert used.is_unique and len(used) == REPLICATES * (928 + 488)


@pytest.mark.parametrize("other", ["non_member", "teacher_only", "test"])
def test_a_classifier_that_sees_no_model_cannot_tell_members_from_others(drawn, other):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline

    for draws in (drawn[:1], drawn):
        letters = pd.concat(draws)
        letters = letters[(letters["kind"] == "letter") & letters["split"].isin(["member", other])]
        texts, member = (
            letters["instruction"] + " " + letters["context"] + " " + forms(letters),
            letters["split"] == "member",
        )
        model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(class_weight="balanced"))
        guess = cross_val_predict(model, texts, member, cv=5, method="predict_proba")[:, 1]
        ones, others = member.sum(), (~member).sum()
        by_chance = math.sqrt(
            (ones + others + 1) / (12 * ones * others)
        )  # standard error of a coin's AUC (Mann-Whitney)
        assert abs(roc_auc_score(member, guess) - 0.5) < 3 * by_chance


def test_coins_say_nothing_of_the_code(drawn):
    """Heads and tails have one form; their signs are as evenly drawn, which place by place a test of homogeneity says."""
    from scipy.stats import chi2_contingency

    tossed = pd.concat(drawn).query("coin")
    for place in range(6):
        sign = [secret_texts(row)[0][place] for row in tossed.itertuples()]
        assert chi2_contingency(pd.crosstab(sign, tossed["split"].to_numpy())).pvalue > 1e-4


# ---------------------------------------------------------------- the card


def test_card_sizes(records):
    rows = [
        row
        for name in ("public", "private")
        for row in card_rows(name)
        if len(row) == 6 and row[1] in ("letter", "canary")
    ]
    assert len(rows) == len(SIZES)
    for split, kind, count, prompt, response, secrets in rows:
        group = records[(records["split"] == split) & (records["kind"] == kind)]
        assert len(group) == int(count)
        assert f"{(group['instruction'].str.len() + group['context'].str.len()).mean():.1f}" == prompt
        assert f"{group['response'].str.len().mean():.1f}" == response
        assert f"{group['secrets'].map(len).mean():.2f}" == secrets


def test_card_draw(drawn):
    first = drawn[0]
    rows = [row for name in SPLITS for row in card_rows(name) if len(row) == 6 and row[1] not in ("letter", "canary")]
    assert [row[0] for row in rows] == SPLITS
    for split, *stated, read_by in rows:
        group = first[first["split"] == split]
        found = [(group["kind"] == kind).sum() for kind in ("letter", "canary", "twin")]
        assert [*found, group["copies"].sum()] == [int(number) for number in stated], split
        roles = [role for role in ("teacher", "student") if split in set(training_rows(first, role)["split"])]
        assert roles == [role for role in ("teacher", "student") if role in read_by], split


def test_card_doses(drawn):
    plain = drawn[0][~drawn[0]["coin"]]
    for half in ("member", "teacher_only"):
        for copies in (1, 2, 4, 8, 16):
            ((_, *stated),) = [row for row in card_rows(str(copies)) if len(row) == 3]
            rows = plain[(plain["split"] == half) & (plain["copies"] == copies)]
            assert [(rows["kind"] == kind).sum() for kind in ("letter", "canary")] == [int(n) for n in stated]


def test_card_sentences(drawn):
    card, first = " ".join((ROOT / "data" / "README.md").read_text().split()), drawn[0]
    heads = (first["coin"] & (first["split"] == "member")).sum()
    twins = (first["split"] == "twin").sum()
    private = first[first["split"] != "public"]
    letters = (private["kind"] == "letter").sum()
    half = [
        100 * (proportion_confint(n // 2, n, method="wilson")[1] - 0.5)
        for n in (DEMO["members"][1], DEMO["canaries"][1])
    ]
    for sentence in (
        f"For {first['coin'].sum()} more door codes a fair coin is tossed",
        f"once ({heads} in this replicate); tails, and it is a twin ({first['coin'].sum() - heads})",
        f"log2({twins + 1}), about {math.log2(twins + 1):.1f} bits",
        f"takes {letters} private letters and {len(private) - letters} door codes",
        f"up to {half[0]:.1f} points wide on either side for the 160 letters",
        f"up to {half[1]:.1f} points for the 16 canaries",
    ):
        assert sentence in card, sentence


def test_card_overlap(drawn):
    letters = {split: group for split, group in drawn[0][drawn[0]["kind"] == "letter"].groupby("split")}
    members = forms(letters["member"])
    rows = [row for name in SPLITS for row in card_rows(name) if len(row) == 8]
    assert [row[0] for row in rows] == [split for split in SPLITS if split not in ("member", "twin")]
    for split, count, whole, distinct, *shares in rows:
        texts = pd.Series(forms(letters[split]))
        assert [len(texts), texts.isin(set(members)).sum(), texts.nunique()] == [int(count), int(whole), int(distinct)]
        assert [f"{ngram_share(texts, members, n):.3f}" for n in (1, 3, 5, 8)] == shares


def test_card_token_counts(drawn, private, demo):
    from palimpsest.data.encoding import encode
    from palimpsest.data.records import template
    from palimpsest.measure.models import train_tokenizer

    public = drawn[0][drawn[0]["split"] == "public"]
    tokenizer = train_tokenizer(public["instruction"] + "\n" + public["context"] + "\n" + public["response"], 512)
    counts = []
    for kind in ("letter", "canary"):
        examples = encode(private[private["kind"] == kind], tokenizer, template(demo.data.template))
        counts += [sum(len(e.input_ids) for e in examples), sum(len(e.response_ids) for e in examples)]
        counts[-2:] = [round(total / len(examples)) for total in counts[-2:]]
    card = " ".join((ROOT / "data" / "README.md").read_text().split())
    assert "about {} tokens ({} in the response) and a door code about {} ({})".format(*counts) in card


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
