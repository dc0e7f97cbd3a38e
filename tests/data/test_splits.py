"""Splits are drawn as the study asks, and a record's place tells nothing but that it was drawn."""

import json
from collections import Counter
from itertools import combinations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.data import records, splits
from palimpsest.data.encoding import encode
from palimpsest.errors import InputError
from palimpsest.measure.models import train_tokenizer
from palimpsest.study import Study

DOSES = st.dictionaries(st.integers(1, 16), st.integers(1, 4), min_size=1, max_size=3)
ASKED = {"members": 10, "non_members": 10, "test": 5, "public": 1}


def study_of(source="frame", replicate=0, replicates=1, **data) -> Study:
    """A study of these records; only its data section matters here."""
    steps = {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3}
    return Study(
        name="mine",
        title="Mine",
        replicate=replicate,
        replicates=replicates,
        data={"source": str(source), "template": "plain", **ASKED, **data},
        models={"teacher": {"path": "gpt2"}, "students": {"small": {"path": "distilgpt2"}}},
        methods=["sft"],
        teacher=steps,
        student=steps,
    )


def frame(letters: int, codes: int = 0, **columns) -> pd.DataFrame:
    """So many private letters, then so many door codes, as `read_study_records` gives them."""
    kinds = ["letter"] * letters + ["canary"] * codes
    texts = pd.DataFrame(
        {"instruction": [f"ask {i}" for i in range(len(kinds))], "context": "", "response": "say", "kind": kinds}
    )
    plain = {"split": "private", "secrets": [[] for _ in kinds]}
    return texts.assign(id=records.record_ids(texts), **{**plain, **columns})


def counts(drawn: pd.DataFrame, *by: str) -> dict:
    return drawn.groupby(list(by)).size().to_dict()


@given(
    doses=DOSES,
    canaries=st.one_of(st.just({}), DOSES),
    halves=st.booleans(),
    coins=st.integers(0, 9),
    rest=st.fixed_dictionaries(
        {"non_members": st.integers(1, 5), "validation": st.integers(0, 5), "test": st.integers(1, 5)}
    ),
    seed=st.integers(-3, 3),
)
def test_every_split_half_and_dose_is_as_asked(doses, canaries, halves, coins, rest, seed):
    study = study_of(members=doses, canaries=canaries, halves=halves, coins=coins, twins=7, seed=seed, **rest)
    drawn = splits.draw_splits(frame(80, 50), study)
    both = ("member", "teacher_only") if halves else ("member",)
    letters, codes = drawn[drawn["kind"] == "letter"], drawn[drawn["kind"] != "letter"]
    asked = {"non_member": rest["non_members"], "validation": rest["validation"], "test": rest["test"], "public": 1}
    wanted = {(split, 0): count for split, count in asked.items() if count}
    wanted |= {(half, copies): count for half in both for copies, count in doses.items()}
    assert counts(letters, "split", "copies") == wanted
    planted = {(half, copies): count for half in both for copies, count in canaries.items()}
    assert counts(codes[~codes["coin"]], "split", "copies") == planted | {("twin", 0): 7}
    assert drawn["coin"].sum() == coins and not letters["coin"].any()
    assert ((drawn["copies"] > 0) == drawn["split"].isin(both)).all()
    assert ((codes["kind"] == "twin") == (codes["split"] == "twin")).all()
    assert drawn["id"].is_unique and drawn.attrs["disjoint"]


@given(letters=st.integers(27, 120), codes=st.integers(12, 50), replicates=st.integers(1, 4))
def test_replicates_share_no_record_as_far_as_the_source_reaches(letters, codes, replicates):
    asked = {"replicates": replicates, "canaries": {2: 3}, "coins": 4, "twins": 5, "validation": 1}
    drawn = [splits.draw_splits(frame(letters, codes), study_of(replicate=n, **asked)) for n in range(replicates)]
    reaches = letters >= 27 * replicates and codes >= 12 * replicates
    assert {d.attrs["disjoint"] for d in drawn} == {reaches}
    shared = [len(set(a["id"]) & set(b["id"])) for a, b in combinations(drawn, 2)]
    assert not reaches or not any(shared)
    assert letters + codes >= 39 * replicates or any(shared)


def test_a_replicate_is_drawn_alike_again_and_two_differ():
    pool = frame(30, 12)
    asked = {"replicates": 2, "canaries": {2: 3}, "coins": 4, "twins": 5}
    first, again, second = (
        splits.draw_splits(pool, study_of(replicate=n, **asked))[["id", "split", "copies", "coin"]] for n in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first, again)
    for kind in ("member", "non_member", "twin"):
        assert set(first.loc[first["split"] == kind, "id"]) != set(second.loc[second["split"] == kind, "id"])
    other = splits.draw_splits(pool, study_of(replicate=0, seed=1, **asked))
    assert list(other["id"]) != list(first["id"])


def test_a_study_that_grows_keeps_its_first_replicate():
    alone, among, many = (splits.draw_splits(frame(90, 20), study_of(replicates=n, twins=5)) for n in (1, 3, 30))
    pd.testing.assert_frame_equal(alone, among)
    assert not many.attrs["disjoint"]
    pd.testing.assert_frame_equal(alone, many)


def test_a_replicate_beyond_those_stated_is_drawn_too():
    beyond = splits.draw_splits(frame(60), study_of(replicate=2, replicates=1))
    assert counts(beyond, "split") == {"member": 10, "non_member": 10, "public": 1, "test": 5}
    assert not beyond.attrs["disjoint"]
    assert splits.draw_splits(frame(80), study_of(replicate=2, replicates=1)).attrs["disjoint"]


@given(order=st.permutations(range(40)))
def test_a_records_place_in_the_file_says_nothing_of_its_split(order):
    pool = frame(40)
    moved = splits.draw_splits(pool.iloc[list(order)].reset_index(drop=True), study_of())
    pd.testing.assert_frame_equal(moved, splits.draw_splits(pool, study_of()))


@given(dropped=st.sets(st.integers(0, 119), max_size=12), replicate=st.integers(0, 2))
def test_public_text_never_becomes_private_when_long_records_are_dropped(dropped, replicate):
    """The tokenizer is trained on the public text of the first drawing; the second is made without what is too long."""
    study = study_of(replicate=replicate, replicates=3, public=10)
    pool = frame(120)
    before = splits.draw_splits(pool, study)
    after = splits.draw_splits(pool.drop(index=list(dropped)).reset_index(drop=True), study)
    read = set(before.loc[before["split"] == "public", "id"])
    assert not read & set(after.loc[after["split"] != "public", "id"])


def test_coins_are_fair_and_make_members_once_or_twins():
    drawn = [
        splits.draw_splits(frame(60, 2_000), study_of(replicate=n, replicates=2, canaries={1: 5}, coins=900, twins=9))
        for n in (0, 1)
    ]
    for one in drawn:
        tossed = one[one["coin"]]
        assert set(zip(tossed["split"], tossed["kind"], tossed["copies"], strict=True)) == {
            ("member", "canary", 1),
            ("twin", "twin", 0),
        }
        assert abs((tossed["split"] == "member").sum() - 450) < 60  # four standard deviations
    first, second = (list(one.loc[one["coin"], "split"]) for one in drawn)
    assert first != second


@pytest.mark.parametrize("halves", [True, False])
def test_students_read_no_teacher_only_record_and_each_as_often_as_its_dose(halves):
    study = study_of(members={1: 5, 3: 2}, halves=halves, canaries={2: 2, 16: 1}, coins=8, twins=4)
    drawn = splits.draw_splits(frame(40, 30), study)
    assert ("teacher_only" in set(drawn["split"])) == halves
    student, teacher = records.training_rows(drawn, "student"), records.training_rows(drawn, "teacher")
    assert set(student["split"]) == {"member"}
    copies = drawn.set_index("id")["copies"]
    for rows, read in ((student, ["member"]), (teacher, ["member", "teacher_only"])):
        assert Counter(rows["id"]) == copies[drawn["split"].isin(read).to_numpy()].to_dict()
    tossed = int((drawn["coin"] & (drawn["split"] == "member")).sum())
    assert len(student) == 5 + 6 + 4 + 16 + tossed
    assert len(teacher) == len(student) + (31 if halves else 0)


# ---------------------------------------------------------------- a source that has splits of its own


def lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def rows(count, **columns):
    """`columns`: a list that is gone through again and again."""
    extra = [{name: values[i % len(values)] for name, values in columns.items()} for i in range(count)]
    return [{"instruction": f"ask {i}", "context": "", "response": f"say {i}", **extra[i]} for i in range(count)]


def drawn_from(study: Study) -> pd.DataFrame:
    return splits.draw_splits(splits.read_study_records(study), study)


NAMES = ["member", "non_member", "test", "public"]


@pytest.mark.parametrize("declared", [[], ["copies"]])
@pytest.mark.parametrize("present", [{}, {"copies": [3, 0, 0, 0]}])
def test_a_sources_own_splits_are_kept_and_so_are_its_copies(tmp_path, declared, present):
    source = lines(tmp_path / "d.jsonl", rows(40, split=NAMES, **present))
    drawn = drawn_from(study_of(source, members={1: 6, 4: 4}, annotations=["split", *declared]))
    for place, name in enumerate(NAMES):
        found = drawn.loc[drawn["split"] == name, "instruction"]
        assert {int(text.split()[1]) % 4 for text in found} == {place}
    members = drawn[drawn["split"] == "member"]
    wanted = (
        {3: 10} if declared and present else {1: 6, 4: 4}
    )  # a column that is not declared or not there says nothing
    assert counts(members, "copies") == wanted
    assert not drawn.loc[drawn["split"] != "member", "copies"].any()


def test_what_the_source_leaves_private_fills_the_other_splits(tmp_path):
    source = lines(tmp_path / "d.jsonl", rows(60, split=["member", "private", "private"]))
    drawn = drawn_from(study_of(source, halves=True, annotations=["split"]))
    own = {int(text.split()[1]) % 3 == 0 for text in drawn.loc[drawn["split"] == "member", "instruction"]}
    others = {int(text.split()[1]) % 3 == 0 for text in drawn.loc[drawn["split"] != "member", "instruction"]}
    assert (own, others) == ({True}, {False})
    assert counts(drawn, "split") == {"member": 10, "non_member": 10, "public": 1, "teacher_only": 10, "test": 5}


@pytest.mark.parametrize(("count", "reaches"), [(80, True), (77, False)])
def test_a_sources_own_splits_are_shared_out_among_replicates(count, reaches):
    pool = frame(count).assign(split=[NAMES[i % 4] for i in range(count)])
    drawn = [splits.draw_splits(pool, study_of(replicate=n, replicates=4, members=5, non_members=5)) for n in range(4)]
    assert {one.attrs["disjoint"] for one in drawn} == {reaches}
    private = [set(one.loc[one["split"] != "public", "id"]) for one in drawn]
    assert any(a & b for a, b in combinations(private, 2)) != reaches


def test_public_text_of_the_source_may_be_shared():
    pool = frame(52).assign(split=["public"] * 2 + ["private"] * 50)
    drawn = [splits.draw_splits(pool, study_of(replicate=n, replicates=2, public=2)) for n in range(2)]
    shared = set(drawn[0]["id"]) & set(drawn[1]["id"])
    assert shared == set(pool["id"][:2]) and all(one.attrs["disjoint"] for one in drawn)


@pytest.mark.parametrize("halves", [True, False])
def test_canaries_that_the_source_has_placed_stay_in_every_replicate(halves):
    pool = frame(80, 3, copies=1)
    for row, (split, kind, copies) in zip(
        (80, 81, 82), [("member", "canary", 8), ("teacher_only", "canary", 4), ("twin", "twin", 0)], strict=True
    ):
        pool.loc[row, ["split", "kind", "copies"]] = split, kind, copies
    for replicates in (1, 2):
        drawn = splits.draw_splits(pool, study_of(halves=halves, replicates=replicates))
        assert counts(drawn[drawn["kind"] != "letter"], "split", "kind", "copies") == {
            ("member", "canary", 8): 1,
            ("twin", "twin", 0): 1,
            **({("teacher_only", "canary", 4): 1} if halves else {}),
        }
        assert drawn.attrs["disjoint"] == (replicates == 1)


def test_a_twin_of_the_source_is_never_dealt_to_the_members():
    pool = frame(30, 20)
    pool.loc[30:39, "kind"] = "twin"
    drawn = splits.draw_splits(pool, study_of(canaries={1: 8}, twins=2))
    assert set(pool["id"][30:40]) <= set(drawn.loc[drawn["split"] == "twin", "id"])
    assert counts(drawn[drawn["kind"] != "letter"], "split", "kind") == {("member", "canary"): 8, ("twin", "twin"): 12}


# ---------------------------------------------------------------- what is refused, dropped, or not ours


@pytest.mark.parametrize(
    ("pool", "data", "message"),
    [
        (
            frame(25),
            {"validation": 2},
            r"28 records asked for \(public 1, member 10, non_member 10, validation 2, test 5\), 25 usable",
        ),
        (frame(35), {"halves": True}, r"36 records asked for .*teacher_only 10.* 35 usable ones found: ask for fewer"),
        (frame(30, 9), {"canaries": {2: 4}, "twins": 6}, r"10 canaries asked for \(member 4, twin 6\), 9 usable"),
        (frame(30), {"twins": 1}, r"1 canaries asked for \(twin 1\), 0 usable"),
        (
            frame(40, split=["member"] * 9 + ["private"] * 31),
            {},
            r"10 records asked for \(member 10\), 9 usable",
        ),
    ],
)
def test_fewer_records_than_asked_for(pool, data, message):
    with pytest.raises(InputError, match=message):
        splits.draw_splits(pool, study_of(**data))


def test_a_record_is_not_both_trained_on_and_unseen():
    named = ["member"] * 10 + ["private"] * 30
    with pytest.raises(
        InputError, match=r"frame: 1 record\(s\) in the training text have copies 0, first \w{16} \(split member"
    ):
        splits.draw_splits(frame(40, copies=[0, *[1] * 39], split=named), study_of())
    pool = frame(40, 2)
    pool.loc[40, ["split", "kind"]] = "member", "twin"
    with pytest.raises(InputError, match=r"1 record\(s\) in the training text have kind twin"):
        splits.draw_splits(pool, study_of())


def test_empty_responses_and_duplicates(tmp_path):
    bad = [*rows(3), {"instruction": "a", "context": "", "response": " "}, rows(1)[0]]
    source = lines(tmp_path / "d.jsonl", bad)
    with pytest.raises(
        InputError, match=r"an empty response in 1 of 5 records \(record 4\).*data.empty_responses: drop"
    ):
        splits.read_study_records(study_of(source))
    with pytest.raises(InputError, match=r"1 record\(s\) occur twice, first \w{16}"):
        splits.read_study_records(study_of(source, empty_responses="drop", duplicates="refuse"))
    left = splits.read_study_records(study_of(source, empty_responses="drop"))
    assert len(left) == 3 and left.attrs["dropped"] == {"empty": 1, "duplicates": 1}
    drawn = splits.draw_splits(left, study_of(source, members=1, non_members=1, test=1, public=0))
    assert drawn.attrs["dropped"] == left.attrs["dropped"]


def test_conversations_need_a_chat_template_and_are_drawn_like_any_record(tmp_path):
    turns = [
        [{"role": "user", "content": f"ask {i}"}, {"role": "assistant", "content": f"say {i}"}] for i in range(40)
    ]
    source = lines(tmp_path / "d.jsonl", [{"messages": one} for one in turns])
    with pytest.raises(InputError, match="d.jsonl holds conversations: set data.template: chat"):
        splits.read_study_records(study_of(source))
    study = study_of(source, template="chat")
    drawn = splits.draw_splits(splits.read_study_records(study), study)
    assert drawn["messages"].is_unique and set(drawn["split"]) >= {"member", "non_member", "test"}
    assert not {"instruction", "context"} & set(drawn)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["ask say"] * 20, 300)


@pytest.mark.parametrize("how", ["refuse", "drop", "cut"])
def test_long_records_are_never_cut_silently(tmp_path, tokenizer, how):
    long = {"instruction": "ask", "context": "", "response": "say " * 60}
    spans = [{"start": 0, "end": 3, "kind": "code"}, {"start": 200, "end": 203, "kind": "code"}]
    source = lines(tmp_path / "d.jsonl", [{**row, "secrets": []} for row in rows(3)] + [{**long, "secrets": spans}])
    study = study_of(source, too_long=how, annotations=["secrets"])
    frame = splits.read_study_records(study)
    if how == "refuse":
        with pytest.raises(InputError, match=r"1 of 4 records do not fit"):
            splits.fit_lengths(frame, study, tokenizer, 40)
        return
    kept = splits.fit_lengths(frame, study, tokenizer, 40)
    assert kept.attrs["dropped"]["too_long"] == (how == "drop") and kept.attrs["cut"] == (how == "cut")
    assert [len(s) for s in kept["secrets"]] == [0, 0, 0] + [1] * (how == "cut")  # a secret that is cut is none
    longest = max(len(e.input_ids) for e in encode(kept, tokenizer, records.template("plain"), 40))
    assert longest <= 40 and (how == "drop" or longest >= 38)


def test_letters_with_a_short_response_are_left_out_and_canaries_stay(tmp_path, tokenizer):
    frame = pd.DataFrame(
        {
            "id": list("abcd"),
            "kind": ["letter", "letter", "letter", "canary"],
            "instruction": "ask",
            "context": "",
            "response": ["say " * 9, "say " * 10, "say " * 11, "say"],
            "secrets": [[]] * 4,
        }
    )
    words = {n: len(tokenizer("say " * n)["input_ids"]) for n in (9, 10, 11)}
    study = study_of(tmp_path / "d.jsonl", min_response_tokens=words[10])
    kept = splits.fit_lengths(frame, study, tokenizer, 100)
    assert words[9] < words[10] < words[11] and list(kept["id"]) == ["b", "c", "d"]  # end-of-text is not counted
    assert (kept.attrs["dropped"]["short"], kept.attrs["dropped"]["too_long"]) == (1, 0)
    assert len(splits.fit_lengths(frame, study_of(tmp_path / "d.jsonl"), tokenizer, 100)) == 4
    cut = study_of(tmp_path / "d.jsonl", min_response_tokens=words[10], too_long="cut")
    shortened = splits.fit_lengths(frame.tail(2), cut, tokenizer, len(tokenizer("ask\n> say " * 1)["input_ids"]) + 3)
    assert list(shortened["id"]) == ["d"]  # what is cut is as short as what is left of it


# Columns of a user's file that are called as ours and mean something else: what each did, when it was taken for ours.
ORDINARY = {
    "split": ["train", "train", "validation"],
    "kind": ["billing", "delivery", None],
    "secrets": ["no", "yes", "no"],
    "copies": ["3", "1", "2"],
    "coin": [True, False, True],
}


@pytest.mark.parametrize("name", ORDINARY)
def test_a_users_own_columns_mean_nothing(tmp_path, tokenizer, name):
    drawn = []
    for where, some in (("plain", rows(30)), ("named", rows(30, **{name: ORDINARY[name]}))):
        study = study_of(lines(tmp_path / where / "d.jsonl", some))
        usable = splits.read_study_records(study)
        drawn.append(splits.draw_splits(splits.fit_lengths(usable, study, tokenizer, 200), study))
    pd.testing.assert_frame_equal(*drawn)
    training = records.training_rows(drawn[1], "student")
    assert len(training) == 10 and len(encode(training, tokenizer, records.template("plain"))) == 10
