"""Whatever is wrong with a model, an audit ends with status 2 and says what was found and what to do about it."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from audits import write
from ggufs import write_gguf
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest import cli
from palimpsest.measure.models import load_model, train_tokenizer

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
WORDS = train_tokenizer(["Who has the key? Ann has it."] * 9, 280)
WEIGHTS, CONFIG, TOKENS = "model.safetensors", "config.json", "tokenizer.json"
ADAPTER = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj"]}
QUANTIZED = {
    "bnb": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "gptq": {"quant_method": "gptq", "bits": 4},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    "other": {"quant_method": "no-such-method"},
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with a whole model `m`, the same as `tiny.gguf`, and a file of records."""
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), tie_word_embeddings=True, **shape))
    model.save_pretrained(folder / "m")
    WORDS.save_pretrained(folder / "m")
    write_gguf(folder / "tiny.gguf", model, WORDS)
    (folder / "none").mkdir()
    write(folder / "d.jsonl", [{"instruction": f"Who has key {i}?", "response": "Ann has it."} for i in range(3)])
    return folder


def cut(path, keep=0.6):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def without(path, key):
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))


def only(folder, *names):
    for path in folder.iterdir():
        if path.name not in names:
            path.unlink()


def adapter(folder, base="m", **config):
    only(folder)
    (folder / "adapter_config.json").write_text(json.dumps({**ADAPTER, "base_model_name_or_path": base, **config}))


def sharded(folder):
    index = {
        "metadata": {},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def pickled(folder):
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def narrow(folder):
    weights = load_file(folder / WEIGHTS)
    save_file(
        {k: v[:, :16].contiguous() if v.ndim == 2 else v for k, v in weights.items()},
        folder / WEIGHTS,
        {"format": "pt"},
    )


def end_of_text(folder):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            without(folder / name, "eos_token")


def gguf(folder, file="tiny.gguf"):
    only(folder)
    shutil.copy(folder.parent / "tiny.gguf", folder / file)
    return folder / file


def strange(folder):
    model = LlamaForCausalLM.from_pretrained(folder)
    only(folder)
    write_gguf(folder / "x.gguf", model, WORDS, architecture="nosuch")


FOLDERS = {
    "empty folder": (only, "the folder is empty; wanted a folder with config.json"),
    "no weights": (
        lambda f: (f / WEIGHTS).unlink(),
        r"has a configuration and no weights: \*\.safetensors is missing",
    ),
    "no config": (lambda f: (f / CONFIG).unlink(), "config.json is missing beside the weights"),
    "weights are a pointer": (lambda f: (f / WEIGHTS).write_text(POINTER), "is a pointer of git LFS .* git lfs pull"),
    "config is a pointer": (lambda f: (f / CONFIG).write_text(POINTER), "config.json is a pointer of git LFS"),
    "tokens are a pointer": (lambda f: (f / TOKENS).write_text(POINTER), "tokenizer.json is a pointer of git LFS"),
    "weights cut": (lambda f: cut(f / WEIGHTS), r"has [\d,]+ bytes; its header asks for [\d,]+: it was cut short"),
    "weights cut in the header": (lambda f: cut(f / WEIGHTS, 0.002), "is no whole safetensors file, its header"),
    "weights empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "model.safetensors is empty"),
    "weights are noise": (lambda f: (f / WEIGHTS).write_bytes(b"\xff" * 999), "is no whole safetensors file"),
    "weights are a web page": (
        lambda f: (f / WEIGHTS).write_text("<!DOCTYPE html>" * 9),
        "is no whole safetensors file",
    ),
    "shard missing": (sharded, "lacks 1 of the 2 files of its weights .first model-00002-of-00002.safetensors"),
    "pickled": (pickled, "as pytorch_model.bin, a pickle, which can run code .* convert it: python -c"),
    "config damaged": (lambda f: cut(f / CONFIG), "config.json is damaged, it is no JSON"),
    "config is a list": (lambda f: (f / CONFIG).write_text("[]"), "config.json holds a list; wanted a JSON object"),
    "config is not text": (lambda f: (f / CONFIG).write_bytes(b"\xff\xfe\x00"), "config.json is damaged"),
    "weights of another shape": (narrow, "weights have another shape than its config.json says"),
    "other width": (lambda f: edit(f / CONFIG, hidden_size=64), "weights have another shape|cannot load"),
    "more layers": (lambda f: edit(f / CONFIG, num_hidden_layers=3), "lacks .* of the weights of a LlamaForCausalLM"),
    "unknown architecture": (lambda f: edit(f / CONFIG, model_type="nosuch"), "cannot load .*nosuch"),
    "no model type": (lambda f: without(f / CONFIG, "model_type"), "cannot load .*model_type"),
    "picture model": (lambda f: (f / CONFIG).write_text('{"model_type": "vit"}'), "cannot load .*ViTConfig"),
    "heads that divide nothing": (
        lambda f: edit(f / CONFIG, num_attention_heads=3, head_dim=None),
        "cannot load|can't",
    ),
    "width of words": (lambda f: edit(f / CONFIG, hidden_size="wide"), "cannot load"),
    "no tokenizer": (lambda f: only(f, CONFIG, WEIGHTS), "holds no tokenizer .* --tokenizer"),
    "tokens cut": (lambda f: cut(f / TOKENS), "tokenizer.json is damaged, it is no JSON"),
    "tokens of nothing": (lambda f: (f / TOKENS).write_text("{}"), "cannot load"),
    "no end of text": (end_of_text, "the tokenizer has no end-of-text token"),
    "sentencepiece alone": (
        lambda f: (only(f, CONFIG, WEIGHTS), (f / "tokenizer.model").write_bytes(b"x")),
        "needs a package that is not installed|cannot load",
    ),
    "checkpoints inside": (
        lambda f: shutil.copytree(f.parent / "m", only(f) or f / "checkpoint-9"),
        "give one, as .*checkpoint-9",
    ),
    "adapter without base": (
        lambda f: adapter(f, None),
        "is an adapter that names no base model: say which with --base",
    ),
    "base missing": (
        lambda f: adapter(f, "/nowhere/base"),
        "is an adapter on '/nowhere/base', which can't be had .* --base",
    ),
    "adapter without weights": (lambda f: adapter(f, str(f.parent / "m")), "adapter_model.safetensors is missing"),
    "weights of another program": (
        lambda f: (pickled(f), (f / "pytorch_model.bin").rename(f / "model.pt")),
        "as model.pt, a pickle.* Load it with the code that wrote it",
    ),
    "adapter pickled": (
        lambda f: (adapter(f, str(f.parent / "m")), torch.save({}, f / "adapter_model.bin")),
        "as adapter_model.bin, a pickle.* convert it: python -c",
    ),
    "adapter damaged": (lambda f: (adapter(f), cut(f / "adapter_config.json")), "adapter_config.json is damaged"),
    "adapter of a kind unknown": (
        lambda f: (
            adapter(f, str(f.parent / "m"), peft_type="NOSUCH"),
            save_file({"a": torch.ones(1)}, f / "adapter_model.safetensors"),
        ),
        "cannot load .*NOSUCH",
    ),
    "gguf is something else": (lambda f: gguf(f).write_bytes(b"GGML" * 99), "is no GGUF file .it begins with b'GGML'"),
    "gguf cut in the header": (lambda f: cut(gguf(f), 0.1), "cannot load"),
    "gguf cut in the weights": (lambda f: cut(gguf(f), 0.9), "cannot load"),
    "gguf of unknown architecture": (strange, "cannot load .*nosuch"),
    "two ggufs": (
        lambda f: (gguf(f), shutil.copy(f / "tiny.gguf", f / "b.gguf")),
        "holds 2 GGUF files: name one, such as .*b.gguf",
    ),
    "part of a gguf": (
        lambda f: gguf(f, file="a-00001-of-00002.gguf"),
        "is one part of a split GGUF model: join the parts",
    ),
    **{
        f"quantized {name}": (lambda f, how=how: edit(f / CONFIG, quantization_config=how), said)
        for (name, how), said in zip(
            QUANTIZED.items(),
            ["needs a package .*bitsandbytes", "needs a package|gptq", "needs a package|awq", "no-such-method"],
            strict=True,
        )
    },
}


def audit(good, model, out, *more):
    return cli.main(
        ["audit", "--model", str(model), "--data", str(good / "d.jsonl"), "--out", str(out), "--quiet", *more]
    )


def refused(capsys, status, said):
    err = capsys.readouterr().err
    assert status == 2, err
    assert re.search(said, err.replace("\n", " ")) and "Traceback" not in err, err


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", FOLDERS)
def test_folders(good, tmp_path, capsys, case):
    spoil, said = FOLDERS[case]
    for name in ("m", "bad"):
        shutil.copytree(good / "m", tmp_path / name)
    shutil.copy(good / "tiny.gguf", tmp_path / "tiny.gguf")
    spoil(tmp_path / "bad")
    refused(capsys, audit(good, tmp_path / "bad", tmp_path / "out"), said)
    assert not (tmp_path / "out" / "summary.json").exists()


def pickled_adapter(folder):
    """Weights of a LoRA adapter on the model beside it, as a pickle."""
    adapter(folder, str(folder.parent / "m"))
    kept = get_peft_model(
        load_model(folder.parent / "m"), LoraConfig(**{k: v for k, v in ADAPTER.items() if k != "peft_type"})
    )
    torch.save(get_peft_model_state_dict(kept), folder / "adapter_model.bin")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("spoil", [pickled, pickled_adapter])
def test_the_command_that_a_message_names_mends_a_pickle(good, tmp_path, capsys, spoil):
    for name in ("m", "bad"):
        shutil.copytree(good / "m", tmp_path / name)
    spoil(tmp_path / "bad")
    assert audit(good, tmp_path / "bad", tmp_path / "out") == 2
    [program] = re.findall(r'convert it: python -c "(.*)"', capsys.readouterr().err)
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert audit(good, tmp_path / "bad", tmp_path / "out") == 0


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("./nowhere", [], "there is no such file or folder; wanted a folder"),
        ("/nowhere/at/all", [], "there is no such file or folder"),
        ("{good}/nowhere", [], "there is no such file or folder"),
        ("a/b/c", [], "there is no such file or folder"),
        ("{good}/d.jsonl", [], "it is a file; wanted a folder"),
        ("{good}/m/model.safetensors", [], "it is a file; wanted a folder"),
        ("{good}/m:other.gguf", [], "names other.gguf, and there is no such file"),
        ("package:no-such-package-here", [], "no package 'no-such-package-here' is installed here: pip install"),
        ("package:tqdm", [], "wanted one model .* in the package, found none"),
        ("{good}/m", ["--revision", "v2"], "is a local folder, which has no revision 'v2'"),
        ("{good}/m", ["--base", "{good}/m"], "is a whole model and no adapter"),
        ("{good}/m", ["--device", "cuda:77"], "device 'cuda:77' can't be used: .*; wanted auto, cpu, cuda"),
        ("{good}/m", ["--device", "gpu"], "device 'gpu' can't be used"),
        ("{good}/m", ["--device", "meta"], "device 'meta' can't be used"),
        ("{good}/m", ["--reference", "{good}/nowhere"], "nowhere': there is no such file or folder"),
        ("{good}/m", ["--tokenizer", "{good}/none"], "holds no tokenizer"),
    ],
)
def test_names_and_settings(good, tmp_path, capsys, model, more, said):
    more = [one.format(good=good) for one in more]
    refused(capsys, audit(good, model.format(good=good), tmp_path / "out", *more), said)


def test_another_process_says_the_same(good, tmp_path):
    command = [
        sys.executable,
        "-m",
        "palimpsest.cli",
        "audit",
        "--model",
        str(tmp_path),
        "--data",
        str(good / "d.jsonl"),
    ]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 2 and "the folder is empty" in done.stderr, done.stderr


def test_tokens_that_the_model_lacks_matter_where_a_record_uses_them(good, tmp_path, capsys):
    shutil.copytree(good / "m", tmp_path / "m")
    words = type(WORDS).from_pretrained(good / "m")
    words.add_tokens(["<|never|>"])
    words.save_pretrained(tmp_path / "m")
    assert audit(good, tmp_path / "m", tmp_path / "out") == 0
    assert (
        "The tokenizer has 1 more tokens than the model has embeddings; no record uses them."
        in capsys.readouterr().out
    )
    write(tmp_path / "d.jsonl", [{"instruction": "Who?", "response": "<|never|>"}])
    refused(capsys, audit(tmp_path, tmp_path / "m", tmp_path / "out"), f"has token id {len(WORDS)}, and the model has")
