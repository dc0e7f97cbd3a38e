"""What the data chapter says of a study's records, on records small enough to count by hand."""

import math

import pandas as pd
import pytest
from written_runs import COINS, HALF, MEMBERS, OWN, SHARED, TWINS, sentences, write_run, written_tables

from palimpsest.chapters import dataset


def record(split, response, instruction="Ask?", secrets=(), kind="letter", copies=0, coin=False, context=""):
    spans = [
        {"start": response.index(text), "end": response.index(text) + len(text), "kind": k} for k, text in secrets
    ]
    return {
        "id": f"{split}{instruction}{response}", "instruction": instruction, "context": context, "response": response,
        "category": "c", "split": split, "kind": kind, "secrets": spans, "copies": copies, "coin": coin,
    }  # fmt: skip


@pytest.fixture
def records():
    return pd.DataFrame(
        [
            record("public", "you just wait", "How?"),
            record("public", "you just ring", "When?"),
            record("member", "shall ring 12 now", "A", [("phone", "12")], copies=1),
            record("member", "shall wait for Ann", "B", [("name", "Ann")], copies=1),
            record("non_member", "shall ring 77 now", "C", [("phone", "77")]),
            record("non_member", "shall ring Ann now", "A", [("name", "Ann")]),
            record("member", "code Q", "K", [("access_code", "Q")], "canary", 4),
            record("teacher_only", "code R", "L", [("access_code", "R")], "canary", 8),
            record("member", "code T", "N", [("access_code", "T")], "canary", 1, True),
            record("twin", "code S", "M", [("access_code", "S")], "twin"),
            record("twin", "code U", "O", [("access_code", "U")], "twin", 0, True),
        ]
    )


def test_forms_replace_secrets_by_their_kind():
    row = record("member", "Ring 12 or Ann.", secrets=[("n", "12"), ("x", "Ann")])
    assert dataset.forms(pd.DataFrame([row])) == ["Ring <n> or <x>."]


def test_share_of_ngrams():
    assert dataset.ngram_share(["a b c", "b c"], ["x b c"], 2) == pytest.approx(2 / 3)
    assert math.isnan(dataset.ngram_share(["a"], ["a"], 2))


def test_overlap_sees_a_response_that_differs_only_in_its_secret_and_a_repeated_prompt(records):
    table = dataset.overlap(records).set_index("split")
    assert list(table.index) == ["public", "non_member"]
    assert table.loc["non_member", ["prompts", "responses"]].tolist() == [1, 1]
    assert table.loc["public", ["prompts", "responses"]].tolist() == [0, 0]
    # of "shall ring <phone> now" both three-word runs are known, of "shall ring <name> now" none
    assert table.loc["non_member", "runs_3"] == pytest.approx(2 / 4)
    assert math.isnan(table.loc["public", "runs_5"])


def test_splits_count_rows_of_training_rows(records):
    table = dataset.splits(records).set_index(["split", "kind"])
    assert table.loc[("member", "record"), ["records", "training_rows"]].tolist() == [2, 2]
    assert table.loc[("member", "canary"), "training_rows"] == 5
    assert table.loc[("teacher_only", "canary"), "training_rows"] == 8
    assert table.loc[("public", "record"), "secrets_per_record"] == 0


def test_planted_keeps_halves_and_coins_apart(records):
    planted = dataset.planted(records)
    assert planted.set_index(["read_by", "copies", "coin"])["records"].to_dict() == {
        ("teacher and students", 1, True): 1,
        ("teacher and students", 4, False): 1,
        ("the teacher alone", 8, False): 1,
        ("nobody (unseen twins)", 0, False): 1,
        ("nobody (unseen twins)", 0, True): 1,
    }
    assert dataset.say_planted(planted) == (
        "2 canaries take 5 rows of every student's training text. 1 more take 8 rows of the teacher's alone. "
        "2 twins are read by nobody. Of 2 canaries and twins, a fair coin decided which they are."
    )
    plain = dataset.say_planted(planted[~planted["coin"] & (planted["read_by"] != "the teacher alone")])
    assert plain == "1 canaries take 4 rows of every student's training text. 1 twins are read by nobody."
    without = dataset.planted(records[records["kind"] == "letter"])
    assert without.empty and "no canaries" in dataset.say_planted(without)


def test_splits_and_canaries_are_shown_in_words(records):
    shown = dataset.show_splits(dataset.splits(records))
    assert list(shown.index) == [
        "public", "members", "non-members", "canaries", "canaries, the teacher alone", "twins of canaries",
    ]  # fmt: skip
    assert shown.loc["canaries", ["records", "training rows"]].tolist() == [2, 5]
    wide = dataset.show_planted(dataset.planted(records))
    assert wide.loc[("read by teacher and students", "1 copy, by the toss of a coin"), "records"] == 1
    assert dataset.show_planted(dataset.planted(records[records["kind"] == "letter"])) is None


def test_lengths_are_drawn_a_row_per_split_with_its_mark():
    rows = [("member", 10), ("member", 20), ("member", 30), ("non_member", 5)]
    lengths = pd.DataFrame([{"split": split, "prompt": n, "response": 2 * n} for split, n in rows])
    prompt, response = dataset.plot_lengths(lengths).axes
    assert [t.get_text() for t in prompt.get_yticklabels()] == ["non-members", "members"]
    marks = [line for line in response.lines if line.get_marker() != "None"]
    assert [line.get_xdata()[0] for line in marks] == [10, 40]
    assert [line.get_markerfacecolor() for line in marks] == ["white", "#444444"]


def test_halves_and_copies_are_told(records):
    assert dataset.say_halves(records) == (
        "The teacher and the students read 2 members, 2 rows with their copies. The teacher reads no others."
    )
    more = [
        record("member", "d", copies=16),
        record("teacher_only", "e", copies=4),
        record("teacher_only", "f", copies=1),
    ]
    said = dataset.say_halves(pd.concat([records, pd.DataFrame(more)], ignore_index=True))
    assert "3 members, 18 rows with their copies: 2 stand there once, the others up to 16 times." in said
    assert "alone reads 2 more, 5 rows:" in said
    assert max(len(s.split()) for s in sentences(said)) <= 25


def test_samples_escape_text_and_mask_it_unless_shown():
    rows = pd.DataFrame([record("member", "<b>Ann</b> & co", "a<i>", [("name", "Ann")])])
    shown, hidden = dataset.show_samples(rows, True), dataset.show_samples(rows, False)
    assert "&lt;b&gt;<mark>Ann</mark>&lt;/b&gt; &amp; co" in shown and "a&lt;i&gt;" in shown
    assert "Ann" not in hidden and "a&lt;" not in hidden and "<b>" not in shown + hidden


def test_telling_words_leave_secrets_out(records):
    table = dataset.telling_words(records, count=2)
    assert set(table["public"]) == {"you", "just"} and table["private"].iloc[0] == "shall"
    words = dataset.telling_words(records, count=6)["private"]
    assert not set(words) & {"12", "ann", "phone", "name"}


def test_secret_kinds_and_sentences(records):
    table = dataset.show_secret_kinds(dataset.secret_kinds(records))
    assert table.loc["phone", ["members", "held out", "characters"]].tolist() == [1, 1, "2.0"]
    groups = dataset.by_split(records)
    assert dataset.say_secrets(groups["member"]).startswith("The 2 members hold 2 secrets, 14%")  # 5 of 35
    assert "does not say" in dataset.say_secrets(groups["public"])
    assert "25%" in dataset.say_style(groups)  # "ring", "wait" of eight words
    assert "not part of this study" in dataset.say_style({"member": groups["member"]})


def test_records_without_anything_special(records):
    plain = records[records["kind"] == "letter"].assign(secrets=[[]] * 6)
    assert dataset.secret_kinds(plain).empty
    assert "shall ring 12 now" in dataset.show_samples(plain, True)


@pytest.mark.parametrize("special", [True, False], ids=["canaries, secrets and halves", "none of them"])
def test_the_tables_are_what_the_page_shows(tmp_path, special):
    tables = written_tables(write_run(tmp_path, canaries=special, secrets=special, halves=special), dataset)
    splits = tables.splits.set_index(["split", "kind"])["records"]
    assert splits["member", "record"] == MEMBERS
    assert tables.overlap["split"].tolist() == ["teacher_only"] * special + ["non_member", "validation", "test"]
    assert tables.planted.empty == tables.secret_kinds.empty == (not special)
    if special:
        assert splits["member", "canary"] == SHARED + COINS // 2 and splits["teacher_only", "canary"] == OWN
        assert splits["teacher_only", "record"] == HALF and splits["twin", "twin"] == TWINS + COINS // 2
        assert set(tables.planted["read_by"]) == set(dataset.READERS)
    assert "letter" not in tables.splits.to_csv()
