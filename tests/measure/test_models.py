"""Models are loaded from where the study says: a folder, a revision of a hub id, code of their own when it is trusted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.errors import InputError
from palimpsest.measure.finished import load_trained
from palimpsest.measure.layers import keep_layers
from palimpsest.measure.models import (
    CannotLoadError,
    context_length,
    load_config,
    load_model,
    load_tokenizer,
    train_tokenizer,
)
from palimpsest.study.files import write_json

TOKENIZER = train_tokenizer(["one text and another"] * 9, 280)
SHAPE = {
    **{"vocab_size": len(TOKENIZER), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4},
    **{"num_attention_heads": 2, "bos_token_id": 0, "eos_token_id": 0},
}


def save(folder, context: int):
    torch.manual_seed(context)
    LlamaForCausalLM(LlamaConfig(**SHAPE, max_position_embeddings=context)).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)


LOADS = """
import json, sys
from palimpsest.measure.models import context_length, load_config, load_model, load_tokenizer
out = {}
for revision in (None, "main", "before"):
    model = load_model("me/tiny", revision=revision)
    out[str(revision)] = [context_length(model), context_length(load_config("me/tiny", revision=revision)),
                          len(load_tokenizer("me/tiny", revision=revision))]
try:
    load_model("me/tiny", revision="never")
except Exception as error:
    out["never"] = [type(error).__name__, str(error)]
print(json.dumps(out))
"""


def test_a_revision_of_a_hub_id_is_loaded(tmp_path):
    """From the hub's own cache, laid out as a download leaves it; another process, which reads where the cache is at its start."""
    cache = tmp_path / "hub" / "models--me--tiny"
    for revision, commit, context in (("main", "a" * 40, 64), ("before", "b" * 40, 32)):
        save(cache / "snapshots" / commit, context)
        (cache / "refs").mkdir(exist_ok=True)
        (cache / "refs" / revision).write_text(commit)
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    env.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", LOADS], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["None"] == found["main"] == [64, 64, len(TOKENIZER)] and found["before"] == [32, 32, len(TOKENIZER)]
    assert found["never"][0] == "CannotLoadError" and "cannot load 'me/tiny'" in found["never"][1]


CODE = """
from tiny import tiny
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_models_own_code_is_run_only_when_it_is_trusted(tmp_path):
    folder = tmp_path / "own"
    save(folder, 64)
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    (folder / "own_code.py").write_text(CODE)
    for load in (load_config, load_model):
        with pytest.raises(CannotLoadError, match="cannot load"):
            load(folder)
    assert context_length(load_config(folder, trust_remote_code=True)) == 64
    model = load_model(folder, trust_remote_code=True)
    assert type(model).__name__ == "OwnModel"
    run = tiny(tmp_path, "sft")  # saved by a run, it is loaded again as the study allowed
    folder = run.model("base-small")
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    stage = {"fingerprint": run.fingerprints["models/base-small"]}
    write_json(folder / "run.json", {**stage, "trust_remote_code": True})
    assert type(load_trained(run, "base-small")[0]).__name__ == "OwnModel"
    write_json(folder / "run.json", stage)
    with pytest.raises(CannotLoadError, match="cannot load"):
        load_trained(run, "base-small")
    assert keep_layers(model, [0, 1]).config.num_hidden_layers == 2


def test_the_numbers_in_ones_own_code_as_the_how_to_page_says(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "book" / "use_your_own.md").read_text()
    code = page.split("## Read the numbers in your own code")[1].split("```python\n")[1].split("```")[0]
    save(tmp_path / "gpt2", 64)
    (tmp_path / "members.jsonl").write_text('{"instruction": "Ask", "response": "one text and another"}\n' * 3)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code.replace('"gpt2"', f'"{tmp_path / "gpt2"}"').replace('"members', f'"{tmp_path}/members'), names)
    assert len(names["scores"]) == 3 and names["scores"]["length"].gt(1).all()


def test_what_is_no_decoder_or_has_no_limit():
    with pytest.raises(CannotLoadError, match="cannot load 'nowhere/nothing'"):
        load_tokenizer("nowhere/nothing")
    assert context_length(LlamaConfig(**SHAPE, max_position_embeddings=48)) == 48
    assert issubclass(CannotLoadError, InputError)
