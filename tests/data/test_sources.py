"""Files as people have them: read as they are, or refused with the place and the reason."""

import json

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palimpsest.data.records import read_records
from palimpsest.data.sources import chunks, column_names
from palimpsest.errors import InputError


def rows_of(path, **options):
    return pd.concat(list(chunks(path, **options))).to_dict("records")


def test_fields_of_a_csv_are_texts(tmp_path):
    (tmp_path / "d.csv").write_text("q,a\n007,1.50\nNA,true\n,2020-01-01\n")
    wanted = [{"q": "007", "a": "1.50"}, {"q": "NA", "a": "true"}, {"q": "", "a": "2020-01-01"}]
    assert rows_of(tmp_path / "d.csv") == wanted


def test_json_lines_keep_their_values_and_may_bring_a_key_or_a_type_late(tmp_path):
    lines = [{"text": "2020-01-01"}] * 5 + [{"text": "x", "late": "y"}, {"text": 7}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = rows_of(tmp_path / "d.jsonl", size=2)
    assert [row["text"] for row in found] == [line["text"] for line in lines] and found[5]["late"] == "y"
    assert column_names(tmp_path / "d.jsonl") == ["text", "late"]


@pytest.mark.parametrize("name", ["d.jsonl", "d.json", "D.JSONL", "d.JSON"])
def test_a_byte_order_mark_and_capital_endings_are_no_obstacle(tmp_path, name):
    text = '{"text": "é"}'
    (tmp_path / name).write_text(f"[{text}]" if name.lower().endswith("json") else text, encoding="utf-8-sig")
    assert rows_of(tmp_path / name) == [{"text": "é"}] and column_names(tmp_path / name) == ["text"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b'{"text": "a"}\n{"text": "b"\n{"text": "c"}', "broken JSON at line 2"),
        ("d.jsonl", b'{"text": "\\ud83d"}', "half of a surrogate pair"),
        ("d.jsonl", b"[" * 100_000, "not a readable .jsonl file"),
        ("d.json", b"[" * 100_000, "not a readable .json file"),
        ("d.jsonl", b'{"text": ' + b"1" * 10_000 + b"}", "not a readable .jsonl file"),
        ("d.jsonl", b"7", "line 1 holds int, wanted an object"),
        ("d.json", b'{"text": "a"}', "wanted a JSON list, found dict"),
        ("d.csv", b"q,a\n1,2,3,4\n1,2,3,4,5\n", "not a readable .csv file"),
        ("d.csv", "q\nü".encode("cp1252"), "not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        rows_of(tmp_path / name)


def test_a_parquet_file_of_one_row_group_comes_in_pieces(tmp_path):
    table = pa.table({"text": [str(i) for i in range(5_000)]})
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=len(table))
    parts = list(chunks(tmp_path / "d.parquet", size=2_000))
    assert [len(part) for part in parts] == [2_000, 2_000, 1_000] and parts[-1].index[-1] == 4_999


def test_a_hub_data_set_is_asked_for_at_its_revision(monkeypatch):
    """The hub itself can't be had in a test; what it is asked for can."""
    asked = {}

    def load_dataset(name, **options):
        asked.update(options, name=name)
        return datasets.Dataset.from_dict({"instruction": ["a", "b"], "response": ["c", "d"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = read_records("owner/name", revision="v2")
    assert list(found["response"]) == ["c", "d"]
    assert asked == {"name": "owner/name", "split": "train", "revision": "v2"}
