"""A card for every fine-tuned model: what it says is in the tables, the hub reads it, and it holds no text of the data."""

import pandas as pd
import pytest
from huggingface_hub import ModelCard

from palimpsest.book.model_cards import _named, write_model_cards
from palimpsest.data.splits import load_records
from palimpsest.errors import InputError
from palimpsest.study import open_run
from palimpsest.study.tables import Tables


@pytest.fixture(scope="module")
def run(finished):
    write_model_cards(finished)
    return finished


def card(run, name, part="") -> str:
    return (run.path / part / "models" / name / "README.md").read_text(encoding="utf-8")


def test_every_fine_tuned_model_has_one_and_no_other(run):
    names = {"teacher", "small-sft-s0", "small-word_kd-s0", "small-sft_private-s0"}
    found = {p.relative_to(run.path).parent.as_posix() for p in run.path.rglob("models/*/README.md")}
    assert found == {f"{part}models/{name}" for part in ("", "replicate1/") for name in names}


def test_the_hub_reads_it(run):
    data = ModelCard.load(run.model("small-word_kd-s0") / "README.md").data
    rates = Tables(run.tables).rates
    rates = rates[(rates["model"] == "small-word_kd-s0") & (rates["target"] == "secret")]
    found = {r.metric_name: r.metric_value for r in data.eval_results if r.metric_name.startswith("secret")}
    assert sorted(found.values()) == pytest.approx(sorted(rates["rate"]), abs=1e-4) and len(found) == 3
    assert data.library_name == "transformers" and data.license == "unknown" and "word_kd" in data.tags


def test_it_says_how_the_model_was_trained(run):
    text = card(run, "small-word_kd-s0", "replicate1")
    for row in ("| seed | 1000 |", "| replicate | 1 |", "| cross-entropy share | 0.5 |", "| optimizer steps | 80 |"):
        assert row in text
    assert "epsilon 8.00 at delta 0.004" in card(run, "small-sft_private-s0")


def test_deleted_weights_leave_a_card_that_says_so(run):
    assert "weights are no longer in this folder" in card(run, "teacher")
    (run.model("teacher") / "model.safetensors").write_bytes(b"")
    write_model_cards(run)
    assert "weights are no longer" not in card(run, "teacher")
    (run.model("teacher") / "model.safetensors").unlink()


def test_no_text_of_the_data_stands_in_it(run):
    texts = pd.concat([load_records(part)[["instruction", "response"]] for part in run.replicates()]).stack()
    held = {
        word for text in texts for word in (text, *text.split()) if any(c.isdigit() for c in word) and len(word) > 5
    }
    assert len(held) > 200
    written = "".join(p.read_text(encoding="utf-8") for p in run.path.rglob("models/*/README.md"))
    assert [word for word in held if word in written] == []


def test_tables_come_first(run, tmp_path):
    with pytest.raises(InputError, match="tables is not finished"):
        write_model_cards(open_run(run.study, tmp_path))


@pytest.mark.parametrize(
    ("source", "shown"),
    [("owner/letters:en@v2", "`owner/letters:en@v2`"), ("{}/private/s0.jsonl", "`s0.jsonl`"), ("{}/private/s*.jsonl", "`s*.jsonl`"),
     ("{}/private", "`private`"), ("/gone/private/s.jsonl", "`s.jsonl`")],
)  # fmt: skip
def test_where_data_lies_is_nobodys_business(source, shown, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "s0.jsonl").write_text("{}")
    assert _named(source.format(tmp_path), None) == shown
