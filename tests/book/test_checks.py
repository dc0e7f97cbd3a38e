"""What `palimpsest check` says of a study before it runs."""

import re
import sys
from types import SimpleNamespace

import pytest
from ggufs import write_gguf
from tiny import tiny, write

from palimpsest.book import bases, checks
from palimpsest.cli import main
from palimpsest.errors import InputError
from palimpsest.measure.models import build_model, parameter_count, train_tokenizer
from palimpsest.study import open_run
from palimpsest.study.sections import Scratch, Start


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


GB = 10**9


def machine(monkeypatch, tmp_path, memory=64 * GB, disk=200 * GB, limit="max", used=0):
    """This machine, as if it had so much free; `limit` and `used` are those of the control group."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {memory // 512} kB\nMemAvailable:   {memory // 1024} kB\n")
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    monkeypatch.setattr(checks, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(checks, "GROUP", tmp_path)
    monkeypatch.setattr(checks, "GPU", tmp_path / "none")
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=disk))


def large(run):
    """The run with a teacher of 1.3 billion parameters, a student half as wide, and two replicates."""
    study = run.study
    shapes = {
        "teacher": {"layers": 24, "width": 2048, "heads": 16},
        "small": {"layers": 24, "width": 1024, "heads": 16},
    }
    starts = {name: Start(scratch=shape) for name, shape in shapes.items()}
    models = study.models.model_copy(update={"teacher": starts["teacher"], "students": {"small": starts["small"]}})
    return type(run)(study.model_copy(update={"models": models, "replicates": 2}), run.path)


def test_too_little_memory_is_said_before_anything_starts(tmp_path, monkeypatch):
    run = large(tiny(tmp_path, "sft, fkl"))
    each = checks.memory_needed({size: checks.model_parameters(run, size) for size in ("teacher", "small")})
    assert 16 * 1.2e9 < each < 16 * 1.4e9 + GB
    machine(monkeypatch, tmp_path, memory=int(1.5 * each))
    checks.check_capacity(run, 1)
    with pytest.raises(
        InputError, match=r"20.0 GB of memory .* one stage and 39.9 GB for 2 at once; found 29.9 GB free.*CORES=1"
    ):
        checks.check_capacity(run, 2)
    machine(monkeypatch, tmp_path, memory=2 * GB)
    with pytest.raises(
        InputError, match="found 2.0 GB free. Nothing was started: end what else runs here, or use a sm"
    ) as error:
        checks.check_capacity(run, 2)
    assert "CORES=0" not in str(error.value)


def test_a_control_groups_limit_counts_as_the_machines(tmp_path, monkeypatch):
    run = large(tiny(tmp_path, "sft"))
    machine(monkeypatch, tmp_path, limit=20 * GB, used=12 * GB)
    assert checks.memory_free() == 8 * GB
    with pytest.raises(InputError, match="found 8.0 GB free"):
        checks.check_capacity(run)
    monkeypatch.setattr(checks, "MEMORY", tmp_path / "none")
    monkeypatch.setattr(checks, "GROUP", tmp_path / "none")
    assert checks.memory_free() is None
    checks.check_capacity(run)  # nobody says how much is free
    machine(monkeypatch, tmp_path, limit=20 * GB, used=12 * GB)
    monkeypatch.setattr(checks, "GPU", tmp_path)
    checks.check_capacity(run)  # the memory of a GPU is not this one


def test_too_little_disk_is_said_and_what_the_run_holds_already_counts(tmp_path, monkeypatch, capsys):
    run = large(tiny(tmp_path, "sft, fkl"))
    sizes = {size: checks.model_parameters(run, size) for size in ("teacher", "small")}
    models = (
        2 * 4 * (2 * sizes["teacher"] + 3 * sizes["small"])
    )  # base, teacher; a base and two students; two replicates
    assert (
        checks.disk_needed(run, sizes, 0) == models
        and checks.disk_needed(run, sizes, 1) == models + 16 * sizes["teacher"]
    )
    machine(monkeypatch, tmp_path, disk=GB)
    with pytest.raises(
        InputError, match=r"takes \d\d.\d GB of disk at least; found 1.0 GB free .*, which holds 0 MB now"
    ):
        checks.check_study(run)
    monkeypatch.setattr(checks, "folder_bytes", lambda path: 60 * GB)
    checks.check_study(run)
    assert not run.path.exists()


def test_a_method_that_the_tuning_leaves_out_takes_no_disk_there(tmp_path):
    run = tiny(tmp_path, "sft, fkl", "tuning: {learning_rates: [1.0e-3, 2.0e-3], leave_out: [fkl]}\n")
    bases, students, tried = 2 * 10 + 1, 2, 2  # of the teacher's size two, of the student's one
    assert checks.disk_needed(run, {"teacher": 10, "small": 1}, 0) == 4 * (2 * bases + students + tried)


def test_a_student_that_others_begin_from_takes_disk(tmp_path):
    cold, warm = (tiny(tmp_path, f"sft, {method}") for method in ("fkl", "rkl_student_warm"))
    one, other = (checks.disk_needed(run, {"teacher": 10, "small": 1}, 0) for run in (cold, warm))
    assert other - one == 4  # bytes a weight


def test_a_study_that_is_finished_asks_for_nothing(tmp_path, monkeypatch):
    run = large(tiny(tmp_path, "sft"))
    machine(monkeypatch, tmp_path, memory=GB, disk=GB)
    monkeypatch.setattr(type(run), "finished", lambda self, stage: {"fingerprint": ""})
    checks.check_capacity(run, 2)


def test_the_command_refuses_with_what_was_found_and_wanted(tmp_path, monkeypatch, capsys):
    machine(monkeypatch, tmp_path, memory=GB // 4)
    assert main(["check", str(write(tmp_path, "sft"))]) == 2
    assert "found 250 MB free. Nothing was started" in capsys.readouterr().err


def test_parameters_of_a_model_that_is_there_are_read_off_its_configuration(tmp_path):
    tokenizer = train_tokenizer(["some text to learn from"] * 3, 280)
    model = build_model(Scratch(layers=2, width=32, heads=2, context=64), tokenizer, 0)
    model.save_pretrained(tmp_path / "m")
    run = tiny(tmp_path, "sft")
    start = Start(path=str(tmp_path / "m"))
    models = run.study.models.model_copy(update={"teacher": start, "students": {"small": Start(keep=1)}})
    run = type(run)(run.study.model_copy(update={"models": models}), run.path)
    assert checks.model_parameters(run, "teacher") == parameter_count(model)
    assert str(run.path) in checks.disk(run) and "not known" not in checks.disk(run)


BAD_GGUF = {
    "of another architecture": ("nosuch", 1.0, "architecture nosuch is not supported"),
    "cut in its weights": ("llama", 0.9, "cannot load .*copy them again"),
    "cut in its header": ("llama", 0.1, "cannot load .*copy them again"),
}


@pytest.mark.parametrize(("architecture", "share", "message"), BAD_GGUF.values(), ids=BAD_GGUF)
def test_a_study_of_a_bad_gguf_file_is_refused(tmp_path, capsys, architecture, share, message):
    tokenizer = train_tokenizer(["some text to learn from"] * 3, 300)
    model = build_model(Scratch(architecture="llama", layers=2, width=32, heads=2, context=192), tokenizer, 0)
    file = write_gguf(tmp_path / "m.gguf", model, tokenizer, architecture=architecture)
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert main(["check", str(of_path(tmp_path, file))]) == 2
    said = capsys.readouterr().err
    assert re.search(message, said) and "the teacher could not be checked" in said and "Traceback" not in said


def test_a_study_of_a_package_that_is_missing_is_refused_with_the_command(tmp_path, capsys):
    path = of_path(tmp_path, "package:no-such-words")
    assert main(["check", str(path)]) == 2
    assert (
        "no package 'no-such-words' is installed here: pip install --no-deps no-such-words" in capsys.readouterr().err
    )
    with pytest.raises(InputError, match="pip install --no-deps no-such-words"):
        bases.prepare_data(open_run(path, tmp_path / "run"))


def of_path(folder, path):
    """A study whose teacher is at `path`, its student cut from it."""
    file = write(folder, "sft")
    model = "{scratch: {layers: 1, width: %d, heads: 2, context: 192}}"
    text = file.read_text().replace(model % 32, f'{{path: "{path}"}}').replace(model % 16, "{keep: 1}")
    file.write_text(text.replace("pretrain: {epochs: 1}", "tokenizer: {vocabulary: null}"))
    return file
