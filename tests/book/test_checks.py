"""What `palimpsest check` says of a study before it runs."""

import sys

import pytest
from tiny import tiny, write

from palimpsest.book import bases, checks
from palimpsest.cli import main
from palimpsest.errors import InputError
from palimpsest.measure.models import build_model, parameter_count, train_tokenizer
from palimpsest.study import open_run
from palimpsest.study.sections import Scratch


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize(("layers", "width", "context"), [(1, 16, 64), (3, 32, 128)])
def test_parameters_are_counted_as_the_model_has_them(architecture, layers, width, context):
    shape = Scratch(architecture=architecture, layers=layers, width=width, heads=2, context=context)
    tokenizer = train_tokenizer(["some text to learn from"] * 3, 280)
    model = build_model(shape, tokenizer, 0)
    assert checks.scratch_parameters(shape, len(tokenizer)) == parameter_count(model)


def test_disk_and_arms_are_said(tmp_path):
    run = tiny(tmp_path, "sft, fkl")
    (run.path / "models").mkdir(parents=True)
    (run.path / "models" / "old").write_bytes(b"x" * 3_000_000)
    first, last = checks.check_study(run)
    assert first == "study 'tiny' is valid, 2 arms"
    assert f"{run.path} holds 3 MB now" in last and "are free there" in last


def test_a_hub_models_size_is_not_known_before_it_is_there():
    lines = checks.check_study(open_run("studies/paper.yaml"))
    assert "not known before it is there" in lines[-1] and any("could not be checked" in line for line in lines)


def test_what_a_study_logs_to_must_be_installed(tmp_path, monkeypatch, capsys):
    path = write(tmp_path, "sft", "train: {log_to: [tensorboard]}\n")
    assert main(["check", str(path)]) == 0
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as where it is not installed
    assert main(["check", str(path)]) == 2
    assert "so nothing was started. Install it: pip install 'palimpsest[log]'" in capsys.readouterr().err
    run = open_run(path, tmp_path / "run")
    with pytest.raises(InputError, match="log_to asks for tensorboard, which is not installed"):
        bases.train_base(run, "teacher")
    assert not run.path.exists()
