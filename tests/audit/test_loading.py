"""The models of an audit: an adapter's base is its reference, unless the records use what the base lacks."""

import pytest
from audits import audited, write
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from palimpsest.audit import loading
from palimpsest.audit.settings import Settings


def adapter(place, folder, added=()):
    """An untrained adapter on the audit's base, with tokens of its own."""
    model, words = AutoModelForCausalLM.from_pretrained(place / "base"), AutoTokenizer.from_pretrained(place / "base")
    if words.add_tokens(list(added)):
        model.resize_token_embeddings(len(words))
    get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def loss(summary):
    return next(row["mean"] for row in summary["means"] if row["measure"] == "loss")


def test_an_adapter_is_audited_with_its_base_as_reference(place, tmp_path):
    folder = adapter(place, tmp_path / "adapter")
    found, others = loading.find(folder, Settings())
    assert others == {"reference": found.base} and found.base.place == str(place / "base")
    assert loading.find(folder, Settings(reference=place / "tuned"))[1]["reference"].place == str(place / "tuned")
    summary = audited(folder, place / "members.jsonl", tmp_path / "out", approximate=False)
    assert summary["model"]["model"] == "adapter" and summary["model"]["base"] == str(place / "base")
    assert summary["others"]["reference"]["model"] == "base" and {r["model"] for r in summary["rates"]} == {
        "model",
        "reference",
    }
    assert any("is an adapter, measured on" in line for line in summary["warnings"])
    alone = audited(place / "base", place / "members.jsonl", tmp_path / "alone", approximate=False)
    assert loss(alone) == pytest.approx(loss(summary), abs=1e-5)  # an untrained adapter changes nothing


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft, of the added token
def test_a_base_that_lacks_tokens_of_the_records_is_no_reference(place, tmp_path):
    folder = adapter(place, tmp_path / "adapter", ["<|new|>"])
    write(tmp_path / "d.jsonl", [{"question": "Who?", "answer": f"<|new|> Ann {i}"} for i in range(3)])
    summary = audited(folder, tmp_path / "d.jsonl", tmp_path / "out", approximate=False)
    assert summary["others"] == {}
    assert any("records use tokens that" in line and "lacks" in line for line in summary["warnings"])
