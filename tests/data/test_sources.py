"""Files, shards, saved and hub data sets: found, read in order, or refused with what is there."""

import json

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palimpsest.data.records import read_records
from palimpsest.data.sources import chunks, column_names
from palimpsest.errors import InputError

A, B = '{"text": "a"}\n', '{"text": "b"}\n'


def texts(source, **options):
    return pd.concat(list(chunks(source, **options)))["text"].tolist()


def written(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def test_a_folder_and_a_pattern_are_read_in_the_order_of_names(tmp_path):
    shards = {
        "s/train-00001.jsonl": B,
        "s/train-00000.jsonl": A,
        "s/README.md": "x",
        "s/_SUCCESS": "",
        "s/.hidden.csv": ",",
    }
    written(tmp_path, {**shards, "t/deep/x.jsonl": A})
    assert texts(tmp_path / "s") == texts(f"{tmp_path}/s/train-*.jsonl") == texts(f"{tmp_path}/s/*l") == ["a", "b"]
    assert texts(f"{tmp_path}/t/**/*.jsonl") == ["a"]
    (frame,) = (pd.concat(list(chunks(tmp_path / "s", limit=2, size=1))),)
    assert frame.index.tolist() == [0, 1] and column_names(tmp_path / "s") == ["text"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.jsonl": A, "b.csv": "text\na\n"},
            r"files of several kinds \(a.jsonl and b.csv\): name those to be read by a pattern",
        ),
        ({"train-0.jsonl": A, "test-0.jsonl": B}, "holds the splits test, train, which are not one set of records"),
        ({"train.json": "[]", "dev.json": "[]"}, "holds the splits dev, train"),
        ({"notes.md": "x"}, "holds no file to be read"),
        ({"deep/a.jsonl": A}, r"folders within are not looked into: name a pattern such as .*\*\*/\*.jsonl"),
        ({"state.json": "{}"}, "is not a whole saved data set"),
        ({"dataset_dict.json": "[1"}, "is not a whole saved data set"),
    ],
)
def test_a_folder_that_is_not_one_set_of_records_is_refused(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        texts(written(tmp_path / "s", files))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("d.txt", r"cannot read .txt \(is a record a line"),
        ("d.zip", r"cannot read .zip \(unpack it\)"),
        ("d.xlsx", r"cannot read .xlsx \(save it as CSV\)"),
        ("d", "cannot read a file without ending"),
        ("d.pkl", "cannot read .pkl; wanted one of .jsonl, "),
    ],
)
def test_a_file_of_another_kind_says_what_to_do(tmp_path, name, message):
    (tmp_path / name).write_text("hello")
    with pytest.raises(InputError, match=message):
        texts(tmp_path / name)


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.jsonl.gz", "absent/absent/x", "absent"])
def test_a_file_that_is_not_there_is_no_hub_id(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match=f"no file {name} .looked at .*: give a file, a folder, a pattern or a hub id"
    ):
        texts(name)
    with pytest.raises(InputError, match="holds no file to be read"):
        texts("absent-*.jsonl")


@pytest.mark.parametrize("name", ["d", "d.txt", "d.log"])
def test_an_ending_that_says_nothing_leaves_it_to_the_content(tmp_path, name):
    (tmp_path / name).write_text(A + B, encoding="utf-8-sig")
    assert texts(tmp_path / name) == ["a", "b"]
    pq.write_table(pa.table({"text": ["c"]}), tmp_path / name)
    assert texts(tmp_path / name) == ["c"]


def test_a_saved_data_set_is_read_and_one_of_several_splits_is_asked_for(tmp_path):
    rows = datasets.Dataset.from_dict({"text": ["a", "b"], "n": [1, None]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows.select([1])}).save_to_disk(tmp_path / "two")
    datasets.DatasetDict({"test": rows}).save_to_disk(tmp_path / "three")
    assert texts(tmp_path / "one", size=1) == texts(tmp_path / "three") == ["a", "b"]
    with pytest.raises(InputError, match="two holds the splits train, test: name one, such as .*two/train"):
        texts(tmp_path / "two")
    assert texts(tmp_path / "two" / "test") == ["b"]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("owner/name", ("owner/name", None, "train", "v1")),
        ("owner/name:config", ("owner/name", "config", "train", "v1")),
        ("owner/name::test", ("owner/name", None, "test", "v1")),
        ("owner/name:de-v1.0:validation@v2", ("owner/name", "de-v1.0", "validation", "v2")),
        ("owner/name::train[:10%]@refs/pr/3", ("owner/name", None, "train[:10%]", "refs/pr/3")),
    ],
)
def test_a_hub_data_set_is_asked_for_as_it_is_written(monkeypatch, name, asked):
    """The hub itself can't be had in a test; what it is asked for can."""
    found = []

    def load_dataset(name, config, *, split, revision):
        found.append((name, config, split, revision))
        return datasets.Dataset.from_dict({"instruction": ["a", "b"], "response": ["c", "d"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(read_records(name, revision="v1")["response"]) == ["c", "d"] and set(found) == {asked}


def test_rows_of_json_lines_may_bring_a_key_late(tmp_path):
    lines = [{"text": "2020-01-01"}] * 5 + [{"text": "x", "late": "y"}, {"text": 7}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert texts(tmp_path / "d.jsonl", size=2) == [line["text"] for line in lines]
    assert column_names(tmp_path / "d.jsonl") == ["text", "late"] and column_names(tmp_path / "d.jsonl", 5) == ["text"]
