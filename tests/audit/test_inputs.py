"""Columns, templates and files: read as meant, or refused with what was found."""

import pytest
from audits import audited, people, records_of, whole, write

from palimpsest.audit import inputs
from palimpsest.data.chat import Chat
from palimpsest.data.records import TEMPLATES
from palimpsest.errors import InputError


def test_a_mapped_column_wins_over_one_that_bears_our_name(tmp_path):
    rows = [{"instruction": "i", "response": "r", "story": "s", "answer": "a"}]
    file = write(tmp_path / "d.jsonl", rows)
    assert records_of(file, tmp_path, {"text": "story"})["text"].tolist() == ["s"]
    assert records_of(file, tmp_path, {"response": "answer"})["response"].tolist() == ["a"]
    with pytest.raises(InputError, match="has no column 'storey'; it has instruction, response, story, answer"):
        records_of(file, tmp_path, {"text": "storey"})


def test_templates(tmp_path):
    assert inputs.choose_template("auto", {"instruction": "instruction"})[1] == TEMPLATES["alpaca"]
    assert inputs.choose_template("auto", {"instruction": "question"})[1].prompt("Q?", "") == "Q?"
    (tmp_path / "t.yaml").write_text("with_context: '{context}|{instruction}|'\nwithout_context: '{instruction}|'\n")
    assert inputs.choose_template(str(tmp_path / "t.yaml"), {"instruction": "q"})[1].prompt("Q", "C") == "C|Q|"
    for content in ("with_context: 3\nwithout_context: [1]\n", "1: text", "- 1", "[" * 3_000, "a: ["):
        (tmp_path / "t.yaml").write_text(content)
        with pytest.raises(InputError, match="template file .*t.yaml"):
            inputs.choose_template(str(tmp_path / "t.yaml"), {"instruction": "q"})
    with pytest.raises(InputError, match="unknown template 'alpacca'"):
        inputs.choose_template("alpacca", {"instruction": "q"})
    assert inputs.choose_template("auto", {"messages": "m"}) == ("chat", Chat())
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}")
    for columns in ({"messages": "m"}, {"instruction": "q"}):
        assert inputs.choose_template(str(tmp_path / "own.jinja"), columns)[1] == Chat("{{ messages[0].content }}")
    with pytest.raises(InputError, match="conversations .column m., which the template 'alpaca' cannot lay out"):
        inputs.choose_template("alpaca", {"messages": "m"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": "a b"}, {"text": " "}, {"text": ""}],
            r"an empty text in 2 of 3 records \(record 2, 3\).*--empty skip",
        ),
        ([{"text": "a b"}, {"text": None}], r"no text \(null\) in 1 of 2 records \(record 2\)"),
        ([{"text": "  "}], "empty text"),
        ([], "holds no records"),
        ([{"question": "q", "body_": "b"}], "has the columns question, body_"),
    ],
)
def test_files_that_cannot_be_audited(place, tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        audited(place / "tuned", write(tmp_path / "d.jsonl", rows), tmp_path / "out")
    assert whole(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b'{"text": "a"}\n{"text": \n', "broken JSON at line 2"),
        ("d.csv", b"", "holds no records"),
        ("d.parquet", b"no parquet at all", "not a readable .parquet file"),
        ("d.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
        ("d.txt", b"text", "cannot read .txt"),
    ],
)
def test_broken_files(place, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        audited(place / "tuned", tmp_path / name, tmp_path / "out")
    with pytest.raises(InputError, match="no file"):
        audited(place / "tuned", tmp_path / "absent.jsonl", tmp_path / "out")


def test_a_hub_id_without_network_says_so(place, tmp_path):
    with pytest.raises(InputError, match="neither a file here nor a data set the hub would give.*network"):
        audited(place / "tuned", "nobody/no-such-set", tmp_path / "out")
    with pytest.raises(InputError, match="cannot load.*network"):
        audited("nobody/no-such-model", place / "members.jsonl", tmp_path / "out")


def test_overlap_is_refused_and_shown_masked(place, tmp_path):
    members, others = people(5, 1), people(5, 2)
    others[3] = {k: v.upper() + "  " for k, v in members[1].items()}
    files = [write(tmp_path / f"{n}.jsonl", rows) for n, rows in (("a", members), ("b", others))]
    with pytest.raises(InputError, match=r"share 1 record\(s\)") as refused:
        audited(place / "tuned", files[0], tmp_path / "out", non_members=files[1])
    assert "row 2 of the members = row 4 of the non-members" in str(refused.value)
    assert members[1]["answer"][3:] not in str(refused.value)
    with pytest.raises(InputError) as shown:
        audited(place / "tuned", files[0], tmp_path / "out", non_members=files[1], show_secrets=True)
    assert members[1]["answer"] in str(shown.value)
    assert whole(tmp_path / "out") == []
