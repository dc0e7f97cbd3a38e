"""A model is found under every name it may be given: folder, file, hub id, package."""

import importlib
import sys

import pytest
import torch
from ggufs import write_gguf
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.errors import InputError
from palimpsest.measure.checkpoints import Checkpoint, find_checkpoint
from palimpsest.measure.models import load_config, load_model, load_tokenizer, train_tokenizer

TEXT = "one text and another, naïve – 12345\n\tdef f(x): return 'x'"
WORDS = train_tokenizer([TEXT] * 9, 300)


@pytest.fixture(scope="module")
def llama():
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_key_value_heads": 1}
    ends = {"bos_token_id": WORDS.eos_token_id, "eos_token_id": WORDS.eos_token_id}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=len(WORDS), num_attention_heads=2, tie_word_embeddings=True, **shape, **ends)
    ).eval()


def test_a_gguf_file_gives_the_model_and_the_tokens_that_were_written(tmp_path, llama):
    write_gguf(tmp_path / "tiny.gguf", llama, WORDS)
    ids = torch.tensor([WORDS(TEXT)["input_ids"]])
    for name in (tmp_path, tmp_path / "tiny.gguf", f"{tmp_path}:tiny.gguf"):
        found = find_checkpoint(name)
        assert found.place == str(tmp_path) and found.gguf == "tiny.gguf"
    assert "turned into plain numbers" in found.notes[0]
    model, words = load_model(found, device="cpu"), load_tokenizer(found)
    assert words(TEXT)["input_ids"] == ids[0].tolist() and words.eos_token_id == WORDS.eos_token_id
    assert torch.allclose(model(input_ids=ids).logits, llama(input_ids=ids).logits, atol=1e-5)
    assert load_config(found).hidden_size == 32 and model.dtype == torch.float32
    model.save_pretrained(tmp_path / "saved")  # as plain numbers, with no word of GGUF
    assert torch.equal(load_model(tmp_path / "saved", device="cpu").lm_head.weight, model.lm_head.weight)


def test_a_model_in_an_installed_package_is_found_without_importing_it(tmp_path, llama, monkeypatch):
    package, facts = tmp_path / "tiny_words", tmp_path / "tiny_words-1.0.dist-info"
    package.mkdir(), facts.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    write_gguf(package / "w.gguf", llama, WORDS)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n")
    (facts / "RECORD").write_text("tiny_words/__init__.py,,\ntiny_words/w.gguf,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name in ("package:tiny-words", "package:tiny_words", "package:tiny-words:w.gguf"):
        assert find_checkpoint(name) == Checkpoint(name, str(package.resolve()), gguf="w.gguf")
    assert "tiny_words" not in sys.modules
    with pytest.raises(InputError, match="wanted one model .* in the package, found tiny_words/w.gguf"):
        find_checkpoint("package:tiny-words:other.gguf")


def test_names_of_the_hub():
    """A file of a hub id needs no look at the hub to be known for one."""
    found = find_checkpoint("owner/name@v2:q4.gguf")
    assert (found.place, found.revision, found.gguf) == ("owner/name", "v2", "q4.gguf")
    assert find_checkpoint("owner/name:q4.gguf", revision="v2").facts == {"revision": "v2", "gguf": "q4.gguf"}
    with pytest.raises(InputError, match="asks for revision 'v2' and the setting for 'v3'"):
        find_checkpoint("owner/name@v2:q4.gguf", revision="v3")
