"""The command: instant help, and an exit status that says whose fault it was."""

import errno
import subprocess
import sys

import pytest

from palimpsest import cli
from palimpsest.errors import InputError

GOOD = ["audit", "--model", "m", "--data", "d.jsonl", "--out", "o"]


def run_with(monkeypatch, error):
    def fail(args):
        raise error

    monkeypatch.setattr("palimpsest.audit.command.run_audit", fail)
    return cli.main(GOOD)


def test_help_reads_like_a_manual_and_imports_no_torch():
    code = (
        "import sys; from palimpsest.cli import main\n"
        "try:\n    main(['audit', '--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for part in ("input files:", "what is written to DIR:", "how bad input is handled:", "exit status:", "examples:"):
        assert f"\n{part}\n" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_every_option_of_the_audit_is_explained():
    audit = next(a for a in cli.parser()._actions if a.dest == "run" or a.choices).choices["audit"]
    assert [a.dest for a in audit._actions if not a.help] == []


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("found 3 apples, wanted 4"), 2, "palimpsest: found 3 apples, wanted 4"),
        (OSError(errno.ENOSPC, "No space left on device", "o/x"), 2, "the disk is full"),
        (PermissionError(errno.EACCES, "Permission denied", "o"), 2, "no permission"),
        (FileExistsError(errno.EEXIST, "File exists", "o"), 2, "a file stands where a folder was wanted"),
        (OSError(errno.EIO, "Input/output error"), 1, "Input/output error"),
        (ZeroDivisionError("division by zero"), 1, "this is a fault in the program"),
        (KeyboardInterrupt(), 130, "resumes where it stopped"),
    ],
)
def test_exit_status(monkeypatch, capsys, error, status, said):
    assert run_with(monkeypatch, error) == status
    err = capsys.readouterr().err
    assert said in err
    assert ("Traceback" in err) == (status == 1)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--limit", "0"], "wanted a whole number of at least 1, found '0'"),
        (["--prefix-lengths", "0,ten"], "wanted whole numbers separated by commas, such as 0,25,50, found '0,ten'"),
        (["--sampling", "top_q=3"], "wanted settings among temperature=T, top_k=K, top_p=P"),
        (["--sampling", "temperature=0"], "wanted temperature > 0"),
        (["--left-truncated", "0"], "wanted a whole number of at least 1, found '0'"),
        (["--long", "cut"], "invalid choice: 'cut'"),
    ],
)
def test_arguments_are_checked_before_anything_is_loaded(capsys, more, said):
    with pytest.raises(SystemExit) as stop:
        cli.main([*GOOD, *more])
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_arguments_reach_the_audit(monkeypatch):
    from palimpsest.audit import auditing

    seen = []

    def note(*arguments):
        seen.extend(arguments)
        return {"headline": ["said"], "warnings": ["warned"]}

    monkeypatch.setattr(auditing, "run", note)
    more = "--prompt-column q --response-column a --sampling temperature=0.7,top_p=0.9 --sampling top_k=5 --limit 5"
    more = f"{more} --left-truncated 10 50 --prefix-lengths 50,0,50 --no-approximate --quiet"
    assert cli.main([*GOOD, *more.split()]) == 0
    *places, settings = seen
    assert places == ["m", "d.jsonl", "o"]
    assert settings.columns == {"instruction": "q", "response": "a"} and settings.prefix_lengths == [0, 50]
    rules = {"temperature0.7_top_p0.9": {"temperature": 0.7, "top_p": 0.9}, "top_k5": {"top_k": 5}}
    assert settings.rules == rules and settings.left_truncated == [10, 50]
    assert (settings.limit, settings.approximate, settings.progress, settings.device) == (5, False, False, "auto")


def test_the_command_without_options_is_the_default_settings(monkeypatch):
    from palimpsest.audit import Settings, auditing

    seen = []
    monkeypatch.setattr(auditing, "run", lambda *a: seen.append(a[-1]) or {"headline": [], "warnings": []})
    for _ in range(2):
        assert cli.main(GOOD) == 0 and cli.main([*GOOD, "--sampling", "top_k=5"]) == 0
    for name, default in vars(Settings()).items():
        value = getattr(seen[-2], name)
        assert (tuple(value) if isinstance(value, list) else value) == default


@pytest.mark.parametrize("content", ["[" * 3_000, "\x00", "- 1", "", "a: [1"])
def test_no_file_given_to_check_ends_in_a_traceback(tmp_path, capsys, content):
    (tmp_path / "s.yaml").write_text(content)
    for given in (tmp_path / "s.yaml", tmp_path, tmp_path / "absent.yaml", "x" * 300):
        assert cli.main(["check", str(given)]) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_check_accepts_a_study_and_lists_faults(tmp_path, capsys):
    study = tmp_path / "s.yaml"
    study.write_text(
        "name: s\ntitle: S\ndata: {source: d.jsonl, members: 1, non_members: 1, test: 1}\n"
        "models: {teacher: {path: t}, students: {small: {path: s}}}\nmethods: [sft, fkl]\n"
        "teacher: {epochs: 1, batch_size: 1, learning_rate: 0.1}\nstudent: {epochs: 1, batch_size: 1, learning_rate: 0.1}\n"
    )
    assert cli.main(["check", str(study)]) == 0
    assert "study 's' is valid, 2 arms" in capsys.readouterr().out
    study.write_text(study.read_text() + "methodz: [sft]\n")
    assert cli.main(["check", str(study)]) == 2
    assert "unknown key 'methodz' (did you mean 'methods'?)" in capsys.readouterr().err
