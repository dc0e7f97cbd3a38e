"""Executing a notebook: unknown parameters are refused, and a failed one stays readable and costs nothing else."""

import errno

import nbformat
import pytest

from palimpsest.book import launch


@pytest.fixture
def notebook(tmp_path):
    cells = [
        nbformat.v4.new_code_cell("value: int = 1  # a number", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("print('value', value)"),
        nbformat.v4.new_code_cell("1 / (value - 7)"),
    ]
    nb = nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    nbformat.write(nb, tmp_path / "n.ipynb")
    return tmp_path


def run(folder, *parameters):
    flags = [x for pair in parameters for x in ("-p", *pair)]
    return launch.main(
        [
            "notebook",
            str(folder / "n.ipynb"),
            str(folder / "out" / "n.ipynb"),
            "--log",
            str(folder / "logs" / "n.ipynb"),
            *flags,
        ]
    )


def test_a_notebook_is_executed_with_its_parameters(notebook):
    assert run(notebook, ("value", "3")) == 0
    cells = nbformat.read(notebook / "out" / "n.ipynb", as_version=4).cells
    assert any("value 3" in o.get("text", "") for c in cells for o in c.get("outputs", []))
    assert not (notebook / "logs" / "n.ipynb").exists()


def test_unknown_parameters_are_refused(notebook, capsys):
    assert run(notebook, ("vlaue", "3")) == 2
    assert "has no parameter 'vlaue' (did you mean 'value'?); it has value" in capsys.readouterr().err
    assert not (notebook / "out").exists()


def test_a_failed_notebook_stays_readable(notebook, capsys):
    assert run(notebook, ("value", "7")) == 1
    assert f"executed up to the failing cell: {notebook / 'logs' / 'n.ipynb'}" in capsys.readouterr().err
    assert not (notebook / "out" / "n.ipynb").exists()
    cells = nbformat.read(notebook / "logs" / "n.ipynb", as_version=4).cells
    assert any("value 7" in o.get("text", "") for c in cells for o in c.get("outputs", []))


def test_bad_input_in_a_plain_stage_is_one_line(tmp_path, capsys):
    assert (
        launch.main(["base", "--study", str(tmp_path / "none.yaml"), "--run-dir", str(tmp_path), "--size", "small"])
        == 2
    )
    assert "no study file" in capsys.readouterr().err


def test_a_full_disk_is_no_traceback_and_says_what_to_do(tmp_path, capsys, monkeypatch):
    def full(given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(launch, "run_stage", full)
    assert launch.main(["data", "--study", "any.yaml", "--run-dir", str(tmp_path)]) == 2
    assert "No space left on device" in (said := capsys.readouterr().err) and "give the same command again" in said
