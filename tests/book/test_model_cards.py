"""A card for every fine-tuned model: what it says is in the tables, the hub reads it, and it holds no text of the data."""

import shutil

import pandas as pd
import pytest
from huggingface_hub import ModelCard

from palimpsest.book.model_cards import write_model_cards
from palimpsest.data.splits import load_records
from palimpsest.errors import InputError
from palimpsest.study import open_run, write_table
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


def test_its_rates_are_the_tables_with_counts_and_intervals(run):
    text = card(run, "small-word_kd-s0")
    for section in ("## Memorization", "### At equal quality", "### What was not tested"):
        assert section in text
    rates = Tables(run.tables).rates
    for _, row in rates[(rates["model"] == "small-word_kd-s0") & (rates["total"] > 0)].iterrows():
        shown = f"{row['count']:.0f} of {row['total']:.0f}: {100 * row['rate']:.1f} % ({100 * row['low']:.1f} to "
        assert shown + f"{100 * row['high']:.1f})" in text
    assert "we cannot tell: fewer than five replicates" in text
    assert "Members are told from non-members with an AUC of 1.00" in text
    assert "epsilon 8.00 at delta 0.004" in card(run, "small-sft_private-s0")


def test_nothing_found_is_no_all_clear(run, tmp_path):
    copy = open_run(run.study, shutil.copytree(run.path, tmp_path / "copy"))
    write_table(Tables(copy.tables).by_dose.assign(recited=0.0), copy.tables / "by_dose.csv")
    write_model_cards(copy)
    line = "- It recites 0 of 10 secrets of members that stand once in its training text: 0.0 % (0.0 to 27.8). Up to 27.8 % cannot"
    assert line in card(copy, "small-sft-s0")


def test_other_replicates_say_what_was_measured_of_the_first_alone(run):
    text = card(run, "small-word_kd-s0", "replicate1")
    assert "Attacks were rated on the models of the first replicate" in text
    assert "Membership attacks on this model: they were rated on the first replicate." in text
    assert "### By copies in the training text" in text


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
