"""One reader for audits and studies: both read the same records of a file, or refuse it with the same words."""

import json

import pandas as pd
import pytest
from audits import in_pieces, records_of

from palimpsest.data.records import read_records
from palimpsest.errors import InputError

ASK, SAY = {"role": "user", "content": "ask"}, {"role": "assistant", "content": "say"}
MORE = [{"role": "user", "content": "more"}, {"role": "assistant", "content": "again"}]
SYSTEM = {"role": "system", "content": "be kind"}


def file_of(folder, rows):
    path = folder / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_both(path, folder, **settings):
    """The records as an audit and as a study read them, by row; or the one message of both."""
    found = []
    for read in (
        lambda: records_of(path, folder, **settings),
        lambda: read_records(path, chat=True, empty=settings.get("empty", "refuse")),
    ):
        try:
            frame = read()
            found.append(frame[[name for name in frame if name not in ("id", "copies")]].to_dict("records"))
        except InputError as refused:
            found.append(str(refused))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    ("row", "context"),
    [
        ({}, ""),
        ({"input": ""}, ""),
        ({"input": None}, ""),
        ({"input": float("nan")}, ""),
        ({"input": "box"}, "box"),
        ({"input": "nan"}, "nan"),
        ({"context": "c", "input": "i"}, "c"),
    ],
)
def test_the_input_of_an_alpaca_file_is_context_and_nothing_is_none(tmp_path, row, context):
    (found,) = read_both(file_of(tmp_path, [{"instruction": "ask", "output": "say", **row}]), tmp_path)
    assert found == {"row": 1, "instruction": "ask", "context": context, "response": "say"}


@pytest.mark.parametrize(
    ("row", "before", "response"),
    [
        ({"messages": [ASK, SAY]}, [ASK], "say"),
        ({"messages": [SYSTEM, ASK, SAY]}, [SYSTEM, ASK], "say"),
        ({"messages": [ASK, SAY, MORE[0]]}, [ASK], "say"),
        ({"messages": [ASK, SAY], "system": "be kind"}, [SYSTEM, ASK], "say"),
        ({"messages": [SYSTEM, ASK, SAY], "system": "be rude"}, [SYSTEM, ASK], "say"),
        ({"messages": [ASK, SAY], "system": None}, [ASK], "say"),
        ({"messages": json.dumps([ASK, SAY])}, [ASK], "say"),
        ({"conversations": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": "say"}]}, [ASK], "say"),
        ({"prompt": [ASK], "completion": [SAY]}, [ASK], "say"),
        ({"prompt": [ASK], "completion": "say"}, [ASK], "say"),
        ({"prompt": "ask", "completion": [SAY]}, [ASK], "say"),
        ({"prompt": [ASK, SAY, MORE[0]], "completion": [MORE[1]]}, [ASK, SAY, MORE[0]], "again"),
        ({"prompt": "ask", "completion": "say", "system": "be kind"}, [SYSTEM, ASK], "say"),
        (
            {"instruction": "ask", "input": "it", "output": "say", "system": ""},
            [{**ASK, "content": "ask\n\nit"}],
            "say",
        ),
    ],
)
def test_conversations_in_every_dress(tmp_path, row, before, response):
    (found,) = read_both(file_of(tmp_path, [row]), tmp_path)
    assert json.loads(found["messages"]) == before and (found["row"], found["response"]) == (1, response)


def test_each_response_of_a_conversation_is_a_record_or_the_last(tmp_path):
    path = file_of(tmp_path, [{"messages": [ASK, SAY]}, {"messages": [ASK, SAY, *MORE]}])
    found = records_of(path, tmp_path)
    assert found[["row", "response", "copies"]].to_numpy().tolist() == [[1, "say", 2], [2, "again", 1]]
    assert json.loads(found["messages"][1]) == [ASK, SAY, MORE[0]] and found["id"].is_unique
    assert records_of(path, tmp_path, turns="last")["response"].tolist() == ["say", "again"]
    parted = file_of(tmp_path, [{"instruction": "more", "output": "again", "history": [["ask", "say"]]}])
    assert records_of(parted, tmp_path)["response"].tolist() == ["say", "again"]


ODD = [
    # a value that is no text, named by its type and place
    ({"question": "q", "answer": 4}, "a number as answer (response) in 1 of 2 records (record 2): wanted text"),
    ({"question": "q", "answer": True}, "true or false as answer (response) in 1 of 2 records (record 2)"),
    ({"question": "q", "answer": ["red"]}, "a list as answer (response) in 1 of 2 records (record 2)"),
    ({"question": "q", "answer": {"text": "x"}}, "an object as answer (response) in 1 of 2 records (record 2)"),
    ({"question": 4, "answer": "a"}, "a number as question (instruction) in 1 of 2 records (record 2)"),
    ({"question": "q", "answer": "x \ud83d"}, "half of a surrogate pair, which is no character, as answer (response)"),
    (
        {"question": "\udc00", "answer": "x"},
        "half of a surrogate pair, which is no character, as question (instruction)",
    ),
    ({"question": "q", "answer": "a", "context": 7}, "a number as context in 1 of 2 records (record 2)"),
    ({"question": "q", "answer": "a", "context": ["x"]}, "a list as context in 1 of 2 records (record 2)"),
    (
        {"question": "q", "answer": "a", "context": "\ud83d"},
        "half of a surrogate pair, which is no character, as context",
    ),
]
EMPTY = [  # may be left out
    ({"question": "q", "answer": None}, "no answer (response) (null) in 1 of 2 records (record 2)"),
    ({"question": "q", "answer": float("nan")}, "no answer (response) (nothing (NaN)) in 1 of 2 records (record 2)"),
    ({"question": "q"}, "no answer (response) (nothing (NaN)) in 1 of 2 records (record 2)"),
    ({"question": "q", "answer": " \n"}, "an empty answer (response) in 1 of 2 records (record 2)"),
    ({"question": "", "answer": "a"}, "an empty question (instruction) in 1 of 2 records (record 2)"),
    ({"answer": "a"}, "no question (instruction) (nothing (NaN)) in 1 of 2 records (record 2)"),
]
TURNS_ODD = [
    ({"messages": 3}, "a number, where a list of turns is wanted, in 1 of 2 records (record 2)"),
    ({"messages": "hello"}, "a text, where a list of turns is wanted, in 1 of 2 records (record 2)"),
    ({"messages": [ASK, "say"]}, "a text as turn 2 in 1 of 2 records (record 2)"),
    ({"messages": [ASK, {**SAY, "content": 4}]}, "a number as content of turn 2 in 1 of 2 records (record 2)"),
    (
        {"messages": [ASK, {**SAY, "content": "\ud83d"}]},
        "half of a surrogate pair, which is no character, in 1 of 2 records (record 2 turn 2)",
    ),
    ({"messages": [ASK, SAY], "system": 4}, "a number as system prompt in 1 of 2 records (record 2)"),
]
TURNS_EMPTY = [
    ({"messages": None}, "no messages (null) in 1 of 2 records (record 2)"),
    ({"messages": []}, "no assistant turn to be measured in 1 of 2 records (record 2)"),
    ({"messages": [ASK]}, "no assistant turn to be measured in 1 of 2 records (record 2)"),
    ({"messages": [SAY]}, "an assistant turn with no user's before it in 1 of 2 records (record 2 turn 1)"),
    ({"messages": [SYSTEM, SAY]}, "an assistant turn with no user's before it in 1 of 2 records (record 2 turn 2)"),
    ({"messages": [ASK, {**SAY, "content": ""}]}, "an empty assistant turn in 1 of 2 records (record 2 turn 2)"),
    ({"messages": [ASK, {**SAY, "content": None}]}, "an empty assistant turn in 1 of 2 records (record 2 turn 2)"),
    ({"messages": [ASK, {"role": "tool", "content": "x"}, SAY]}, "the unknown role 'tool' in turn 2 in 1 of 2 records (record 2)"),
    ({"messages": [ASK, {**SAY, "tool_calls": [{"id": "x"}]}]}, "tool_calls in turn 2 in 1 of 2 records (record 2)"),
    ({"messages": [{**ASK, "content": [{"type": "image"}]}, SAY]}, "a part of the type 'image' in turn 1 in 1 of 2 records (record 2)"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), ODD + TURNS_ODD)
def test_what_is_no_text_is_refused_with_type_and_place(tmp_path, row, message):
    good = {"question": "q", "answer": "a"} if "messages" not in row else {"messages": [ASK, SAY]}
    for empty in ("refuse", "skip"):
        assert message in read_both(file_of(tmp_path, [good, row]), tmp_path, empty=empty)


@pytest.mark.parametrize(("row", "message"), EMPTY + TURNS_EMPTY)
def test_what_is_empty_is_refused_or_left_out(tmp_path, row, message):
    good = {"question": "q", "answer": "a"} if "messages" not in row else {"messages": [ASK, SAY]}
    path = file_of(tmp_path, [good, row])
    said = read_both(path, tmp_path)
    assert message in said and "--empty skip (in a study, data.empty_responses: drop)" in said
    assert len(read_both(path, tmp_path, empty="skip")) == 1
    assert "not one of the 1 records can be used" in read_both(
        file_of(tmp_path, [{**good, **dict.fromkeys(good)}]), tmp_path, empty="skip"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": [ASK], "completion": [ASK, SAY]}, "a response that begins with a turn of the user"),
        ({"prompt": [ASK], "completion": 4}, "a number, where a list of turns is wanted"),
        (
            {"prompt": [{"role": "user"}], "completion": [SAY], "history": [["a"]]},
            "a history that is no list of pairs",
        ),
        ({"prompt": "ask", "completion": "say", "system": 1}, "a number as system prompt"),
        ({"instruction": "ask", "input": 1, "output": "say", "system": "s"}, "a number as input (context)"),
    ],
)
def test_conversations_in_two_columns_are_refused_with_what_is_wrong(tmp_path, row, message):
    assert message in read_both(file_of(tmp_path, [row]), tmp_path)


def test_many_places_are_counted_and_a_few_named(tmp_path):
    path = file_of(tmp_path, [{"text": "a"}] + [{"text": ""}] * 7 + [{"text": None}])
    said = read_both(path, tmp_path)
    assert (
        "no text (null) in 1 of 9 records (record 9); an empty text in 7 of 9 records (record 2, 3, 4, 5, 6, ...): "
        in said
    )


def test_what_is_read_does_not_hang_on_where_the_pieces_end(tmp_path, monkeypatch):
    rows = [{"prompt": f"ask {i}", "completion": f"say {i}", **({"input": "c"} if i == 6 else {})} for i in range(9)]
    whole = read_both(file_of(tmp_path, rows), tmp_path)
    in_pieces(monkeypatch, 2)
    assert read_both(file_of(tmp_path, rows), tmp_path) == whole and whole[6]["context"] == "c"


def test_nested_parquet_and_its_other_columns(tmp_path):
    frame = pd.DataFrame({"messages": [[ASK, SAY], [ASK, *MORE]], "meta": [{"x": [1]}, None], "copies": ["a", "b"]})
    frame.to_parquet(tmp_path / "d.parquet")
    found = read_both(tmp_path / "d.parquet", tmp_path)
    assert [row["response"] for row in found] == ["say", "again"] and set(found[0]) == {"row", "messages", "response"}
