"""One file as people have it: read as it is, or refused with the place and the reason."""

import bz2
import gzip
import json
import lzma

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from palimpsest.data.sources import chunks
from palimpsest.errors import InputError, type_of

ROWS = [{"q": "one", "a": "ü, 1"}, {"q": "two", "a": 'say "x";\nso'}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
TABLE = 'q,a\none,"ü, 1"\ntwo,"say ""x"";\nso"\n'


def rows_of(path, **options):
    return pd.concat(list(chunks(path, **options))).to_dict("records")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl", LINES),
        ("D.JSONL", LINES),
        ("d.ndjson", LINES),
        ("d.json", LINES),
        ("d.jsonl", LINES.replace("\n", "\r\n")),
        ("d.jsonl", "\n" + LINES.replace("\n", "\n \n")),
        ("d.jsonl", LINES.rstrip()),
        ("d.jsonl", "\ufeff" + LINES),
        ("d.json", "\ufeff" + json.dumps(ROWS)),
        ("d.jsonl", json.dumps(ROWS)),
        ("d.json", json.dumps(ROWS, indent=2)),
        ("d.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
        ("d.json", json.dumps({"version": 1, "data": ROWS})),
        ("d.json", json.dumps({"train": ROWS}, indent=1)),
        ("d.json", json.dumps({"q": {"0": "one", "1": "two"}, "a": {"0": ROWS[0]["a"], "1": ROWS[1]["a"]}})),
        ("d.json", json.dumps({name: [row[name] for row in ROWS] for name in "qa"})),
        ("d.csv", TABLE),
        ("D.CSV", TABLE),
        ("d.csv", "\ufeff" + TABLE),
        ("d.csv", TABLE.replace("\n", "\r\n").replace(";\r\n", ";\n")),
        ("d.csv", TABLE.replace(";\n", ";@").replace("\n", "\r").replace("@", "\n")),
        ("d.csv", TABLE.rstrip()),
        ("d.csv", TABLE.replace("\ntwo", "\n\ntwo")),
        ("d.csv", 'q;a\none;ü, 1\ntwo;"say ""x"";\nso"\n'),
        ("d.csv", 'sep=;\nq;a\none;ü, 1\ntwo;"say ""x"";\nso"\n'),
        ("d.csv", 'q|a\none|ü, 1\ntwo|"say ""x"";\nso"\n'),
        ("d.tsv", 'q\ta\none\tü, 1\ntwo\t"say ""x"";\nso"\n'),
        ("d.csv", 'q\ta\none\tü, 1\ntwo\t"say ""x"";\nso"\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_the_same_rows_under_many_guises(tmp_path, name, content, encoding):
    (tmp_path / name).write_bytes(content.lstrip("\ufeff" if encoding != "utf-8" else "").encode(encoding))
    assert rows_of(tmp_path / name, size=1) == ROWS


@pytest.mark.parametrize(
    ("ending", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda text: pa.Codec("zstd").compress(text, asbytes=True)),
        (".GZ", gzip.compress),
    ],
)
def test_compressed_files_are_read_and_broken_ones_named(tmp_path, ending, pack):
    for name, content in (("d.jsonl", LINES), ("d.csv", TABLE), ("d", LINES)):
        path = tmp_path / (name + ending)
        path.write_bytes(pack(content.encode()))
        assert rows_of(path) == ROWS
    path = tmp_path / ("d.jsonl" + ending)
    for broken in (pack(LINES.encode() * 500)[:-9], LINES.encode(), b"x"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"d.jsonl.* can't be unpacked: .*fetch it again"):
            rows_of(path)


def test_fields_of_a_csv_are_texts_and_a_nameless_column_has_a_number(tmp_path):
    (tmp_path / "d.csv").write_text("q,a,\n007,1.50,\nNA,true,x\n,2020-01-01,\n")
    wanted = [("007", "1.50", ""), ("NA", "true", "x"), ("", "2020-01-01", "")]
    assert rows_of(tmp_path / "d.csv") == [dict(zip(("q", "a", "column 3"), row, strict=True)) for row in wanted]


def test_a_document_may_be_longer_than_python_s_csv_expects(tmp_path):
    (tmp_path / "d.csv").write_text(f"text\n{'word ' * 60_000}\n")
    assert len(rows_of(tmp_path / "d.csv")[0]["text"]) == 300_000


def test_texts_keep_every_character(tmp_path):
    odd = ["👩‍👩‍👧‍👦", "שלום \u200ftest\u200e", "x\0y", "é e\u0301", "a\u2028b", "\U0001f468\u200d"]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in odd))
    (tmp_path / "e.csv").write_text("text\n" + "".join(f"{text}\n" for text in odd), encoding="utf-8")
    for name in ("d.jsonl", "e.csv"):
        assert [row["text"] for row in rows_of(tmp_path / name)] == odd


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b'{"text": "a"}\n{"text": "b"\n{"text": "c"}', "broken JSON at line 2: Expecting ',' delimiter"),
        ("d.jsonl", b'{"text": "a"}\n{"text": "b', r"line 2, the last \(the file seems to be cut off there\)"),
        ("d.json", b'[{"text": "a"},\n {"text": ', r"line 2, the last \(the file seems to be cut off there\)"),
        ("d.json", b'[{"text": "a"}', "seems to be cut off there"),
        ("d.json", b'[{"text": "a"},,\n{}]', "broken JSON at line 1"),
        ("d.jsonl", b'{"text": "a",}\n', "broken JSON at line 1"),
        ("d.jsonl", b"hello\n", "broken JSON at line 1"),
        ("d.jsonl", b"{'text': 'a'}\n", "broken JSON at line 1: Expecting property name"),
        ("d.jsonl", b'{"text": "a", "text": "b"}\n', "line 1: the key 'text' stands twice in one object"),
        ("d.jsonl", b'{"text": "a"}\n7\n', "line 2 holds a number, wanted an object"),
        ("d.jsonl", b'{"text": "a"}\nnull\n', "line 2 holds null, wanted an object"),
        ("d.jsonl", b'{"text": "a"}\n["b"]\n', "line 2 holds a list, wanted an object"),
        ("d.jsonl", b"7", "line 1 holds a number, wanted an object"),
        ("d.json", b"[1]", "entry 1 holds a number, wanted an object"),
        ("d.json", b'{"data": [true]}', "entry 1 of 'data' holds true or false"),
        ("d.json", b'[{"text": "a"}]\n[{"text": "b"}]', "several JSON lists, one after the other"),
        ("d.json", b'{"train": [{"text": "a"}], "data": []}', "holds the lists data, train: save the one"),
        ("d.json", b'{"q": {"0": "a"}, "a": {"1": "b"}}', "the columns have not the same rows"),
        ("d.json", b'{"q": ["a", "b"], "a": ["b"]}', "the columns are not of the same length"),
        ("d.jsonl", b"[" * 100_000, "not a readable .jsonl file"),
        ("d.jsonl", b'{"text": ' + b"1" * 10_000 + b"}", "not a readable .jsonl file"),
        ("d.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', r"not UTF-8: line 2 has the byte 0xff .*iconv"),
        ("d.jsonl", '{"text": "a"}'.encode("utf-16-le"), "looks like UTF-16 without a byte-order mark"),
        (
            "d.jsonl",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
            "pointer of Git LFS.*git lfs pull",
        ),
        ("d.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "pointer of Git LFS"),
        ("d.csv", b"<!DOCTYPE html>\n<html></html>", "is a web page"),
        ("d.csv", b"q,a\nx,y\n1,2,3\n", r"ends at line 3 has 3 fields, the header 2 \(separated by ','\)"),
        ("d.csv", b"q,a\n1,2,3\n1,2,3\n", "ends at line 2 has 3 fields, the header 2"),
        ("d.csv", b"q,a\n1\n", "ends at line 2 has 1 fields, the header 2"),
        ("d.csv", b"text\nhello, world\n", "ends at line 2 has 2 fields, the header 1"),
        ("d.tsv", b"q\ta\n1\t2\t3\n", r"has 3 fields, the header 2 \(separated by a tab\)"),
        ("d.csv", b'sep=;\nq;a\n"x\ny";z;z\n', "ends at line 4 has 3 fields, the header 2"),
        ("d.csv", b'q,a\n"say \\"x\\" now",b\n', "broken quotes in the row that ends at line 2"),
        ("d.csv", b'q,a\nx,"never closed\nand on\n', "broken quotes in the row that ends at line 3"),
        ("d.csv", b"q,a,a\n1,2,3\n", "two columns are called 'a'; rename one"),
        ("d.csv", "q,a\nx,ok\nx,gr\u00fc\u00df".encode("cp1252"), "not UTF-8: line 3 has the byte 0xfc"),
        ("d.parquet", b"PAR1 no more", "not a readable .parquet file"),
        ("d.parquet.gz", gzip.compress(b"PAR1", mtime=0), "Parquet is compressed within; unpack the file first"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        rows_of(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


def test_a_record_of_one_line_is_a_record(tmp_path):
    for row in ({"text": "a"}, {"messages": [{"role": "user", "content": "a"}]}, {"text": "a", "tags": ["x"]}):
        (tmp_path / "d.json").write_text(json.dumps(row))
        assert rows_of(tmp_path / "d.json") == [row]


def test_a_parquet_file_of_one_row_group_comes_in_pieces(tmp_path):
    table = pa.table({"text": [str(i) for i in range(5_000)]})
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=len(table))
    parts = list(chunks(tmp_path / "d.parquet", size=2_000))
    assert [len(part) for part in parts] == [2_000, 2_000, 1_000] and parts[-1].index[-1] == 4_999


def test_parquet_keeps_an_index_as_a_column_and_categories_as_texts(tmp_path):
    frame = pd.DataFrame({"text": pd.Categorical(["a", "b"]), "n": ["x", "y"]}).set_index("n")
    frame.to_parquet(tmp_path / "d.parquet")
    assert rows_of(tmp_path / "d.parquet") == [{"text": "a", "n": "x"}, {"text": "b", "n": "y"}]


def test_values_are_named_by_their_type():
    values = [None, float("nan"), True, 3, 2.5, "x", [1], {"a": 1}, b"x", pd.Timestamp("2020-01-01")]
    wanted = [
        "null",
        "nothing (NaN)",
        "true or false",
        "a number",
        "a number",
        "a text",
        "a list",
        "an object",
        "bytes",
        "a date",
    ]
    assert [type_of(value) for value in values] == wanted
