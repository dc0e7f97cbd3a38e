"""Reading records: every common format gives the same rows, and bad input is named by line, row or column."""

import json

import pandas as pd
import pytest

from palimpsest.data import records, sources
from palimpsest.errors import InputError

ROWS = [
    {"instruction": "Where is it?", "context": "", "response": "In Öland, at 4 Fern Road."},
    {"instruction": "Who has it?", "context": "The blue one.", "response": "Mina."},
]


def lines(path, rows):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows), encoding="utf-8")
    return path


def test_formats_agree(tmp_path):
    frame = pd.DataFrame(ROWS)
    lines(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.json").write_text(json.dumps(ROWS))
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    read = [records.read_records(tmp_path / f"a.{end}") for end in ("jsonl", "json", "csv", "parquet")]
    for other in read[1:]:
        pd.testing.assert_frame_equal(read[0], other)
    assert list(read[0]["response"]) == [r["response"] for r in ROWS] and read[0]["id"].is_unique


def test_columns_are_mapped_and_text_is_plain(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"q": "a", "a": "b"}])
    frame = records.read_records(path, columns={"instruction": "q", "response": "a"})
    assert frame[["instruction", "context", "response"]].to_numpy().tolist() == [["a", "", "b"]]
    (tmp_path / "t.json").write_text('["one", "two"]')
    assert list(records.read_records(tmp_path / "t.json")["text"]) == ["one", "two"]


def test_a_mapped_column_wins_over_a_namesake(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"text": "t", "response": "r", "instruction": "i", "story": "s", "n": 1}])
    plain = records.read_records(path, columns={"text": "story"})
    assert plain["text"].tolist() == ["s"] and "response" not in plain and "n" not in plain
    assert records.read_records(path, columns={"text": "text"})["id"].tolist() == records.record_ids(
        pd.DataFrame({"text": ["t"]})
    )
    swapped = records.read_records(path, columns={"response": "story"})
    assert swapped[["instruction", "response"]].to_numpy().tolist() == [["i", "s"]] and swapped.columns.is_unique


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_rows_come_in_pieces_with_their_places(tmp_path, name):
    frame, path = (
        pd.DataFrame({"text": [f"no {i}" for i in range(11)], "code": [f"{i:03d}" for i in range(11)]}),
        tmp_path / name,
    )
    write = {
        ".jsonl": lambda: frame.to_json(path, orient="records", lines=True),
        ".csv": lambda: frame.to_csv(path, index=False),
    }
    write |= {".json": lambda: frame.to_json(path, orient="records"), ".parquet": lambda: frame.to_parquet(path)}
    write[path.suffix]()
    pieces = list(sources.chunks(path, 9, size=4))
    assert [list(p.index) for p in pieces] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert pd.concat(pieces)["text"].tolist() == frame["text"][:9].tolist()
    if path.suffix == ".csv":  # no field of it is a number
        assert pieces[0]["code"].tolist() == ["000", "001", "002", "003"]


def test_a_key_may_appear_late_in_json_lines(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"text": "one"}] * 2_500 + [{"text": "two", "note": "late"}])
    assert sources.column_names(path) == ["text", "note"] and sources.column_names(path, 10) == ["text"]


def test_missing_file_and_hub_without_network(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no file"):
        records.read_records(tmp_path / "none.jsonl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="neither a file here nor a data set the hub would give"):
        records.read_records("nobody/nothing-of-this-name")


def test_training_text_repeats_its_records_and_students_do_not_read_the_other_half():
    frame = pd.DataFrame(
        {"id": list("abcd"), "split": ["member", "teacher_only", "test", "twin"], "copies": [2, 3, 0, 0]}
    )
    assert list(records.training_rows(frame, "teacher")["id"]) == list("aabbb")
    assert list(records.training_rows(frame, "student")["id"]) == list("aa")


@pytest.mark.parametrize("name", records.ANNOTATIONS)
def test_an_annotation_with_another_meaning_is_named(tmp_path, name):
    ordinary = {"split": "train", "kind": "billing", "secrets": "no", "copies": "3"}
    path = lines(tmp_path / "d.jsonl", [{**row, name: ordinary[name]} for row in ROWS])
    with pytest.raises(InputError, match=f"record 1 has {name} .* leave {name} out of the study's data.annotations"):
        records.read_records(path, annotations=[name])


def test_a_split_is_one_of_ours(tmp_path):
    path = lines(tmp_path / "d.jsonl", [{**ROWS[0], "split": name} for name in (*records.SPLITS, "dev")])
    wanted = "record 9 has split 'dev'; wanted one of public, private, member, teacher_only, non_member, validation, test, twin"
    with pytest.raises(InputError, match=wanted):
        records.read_records(path, annotations=["split"])
    assert list(records.read_records(path, annotations=["split"], limit=8)["split"]) == list(records.SPLITS)


def test_spans_lie_in_the_response(tmp_path):
    spans = [{"start": 2, "end": 99, "kind": "code"}]
    path = lines(tmp_path / "d.jsonl", [{"instruction": "a", "response": "short", "secrets": spans}])
    with pytest.raises(InputError, match="record 1 has secrets"):
        records.read_records(path, annotations=["secrets"])


def test_a_mapped_annotation_is_one(tmp_path):
    path = lines(tmp_path / "d.jsonl", [{**row, "times": number} for number, row in enumerate(ROWS)])
    assert records.read_records(path, columns={"copies": "times"})["copies"].tolist() == [0, 1]
    with pytest.raises(InputError, match="no column 'time' .asked for as copies."):
        records.read_records(path, columns={"copies": "time"})
    with pytest.raises(InputError, match="columns maps 'copy', which is no column of ours; wanted messages, .*copies"):
        records.read_records(path, columns={"copy": "times"})


def test_of_a_conversation_the_last_response_is_a_study_s_record(tmp_path):
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "abcd", strict=True)]
    path = lines(tmp_path / "d.jsonl", [{"messages": turns, "kind": "x"}])
    (record,) = records.read_records(path).to_dict("records")
    assert record["response"] == "d" and json.loads(record["messages"]) == turns[:3] and "kind" not in record
    assert record["id"] == records.record_ids(pd.DataFrame([record]))[0]
