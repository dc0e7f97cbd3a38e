"""The wheel alone, with no package beside those it asks for, audits a model."""

import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from audits import write
from ggufs import write_gguf
from packaging.requirements import Requirement
from transformers import LlamaConfig, LlamaForCausalLM

from palimpsest.measure.models import train_tokenizer

ROOT = Path(__file__).parents[1]
EXTRAS = (
    "trl",
    "opacus",
    "snakemake",
    "jupyterlab",
    "jupytext",
    "papermill",
    "jupyter_book",
    "seaborn",
    "rocrate",
    "tensorboard",
    "gguf",
    "IPython",
)


def needed(lines, seen):
    """The distributions, and theirs, that requirements without extras ask for on this machine."""
    for one in map(Requirement, lines):
        name = re.sub("[-_.]+", "-", one.name).lower()
        if name in seen or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            seen[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of an extra, or for another system
            continue
        needed([line for e in ("", *one.extras) for line in wanted(name, e)], seen)
    return seen


def wanted(name, extra):
    lines = metadata.requires(name) or []
    return [
        line.split(";")[0] for line in lines if not (m := Requirement(line).marker) or m.evaluate({"extra": extra})
    ]


def lean(folder, wheel):
    """A folder of packages: the wheel's, and links to those of this environment that the wheel needs."""
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, wheel], check=True)
    [facts] = folder.glob("palimpsest-*.dist-info")
    lines = [line[15:] for line in (facts / "METADATA").read_text().splitlines() if line.startswith("Requires-Dist: ")]
    for one in needed([line for line in lines if "extra ==" not in line], {}).values():
        for top in {file.parts[0] for file in one.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (folder / top).exists():
                (folder / top).symlink_to(one.locate_file(top))
    return folder


@pytest.mark.slow
def test_the_wheel_audits_a_model_with_nothing_but_what_it_needs(tmp_path):
    source = tmp_path / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source.mkdir(exist_ok=True) or source / name)
    shutil.copytree(ROOT / "lib", source / "lib", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(pip, check=True)
    [wheel] = tmp_path.glob("palimpsest-*.whl")
    place = lean(tmp_path / "site", wheel)
    assert not [name for name in EXTRAS if (place / name).exists()]

    words, model = train_tokenizer(["Who has it? Ann has it."] * 9, 280), tmp_path / "m"
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    net = LlamaForCausalLM(LlamaConfig(vocab_size=len(words), tie_word_embeddings=True, **sizes))
    net.save_pretrained(model)
    words.save_pretrained(model)
    write_gguf(tmp_path / "tiny.gguf", net, words)
    write(tmp_path / "d.jsonl", [{"question": f"Who has {i}?", "answer": "Ann has it."} for i in range(3)])

    def audit(name):
        code = "import sys; from palimpsest.cli import main; sys.exit(main())"
        given = [
            "audit",
            "--model",
            str(name),
            "--data",
            str(tmp_path / "d.jsonl"),
            "--out",
            str(tmp_path / "out"),
            "--quiet",
        ]
        env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONPATH": str(place)}
        return subprocess.run(
            [sys.executable, "-S", "-s", "-c", code, *given], env=env, capture_output=True, text=True, cwd=tmp_path
        )

    done = audit(model)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "out" / "report.html").exists() and "recites" in done.stdout
    done = audit(tmp_path / "tiny.gguf")
    assert done.returncode == 2 and "pip install 'palimpsest[gguf]'" in done.stderr, done.stderr[-3000:]
