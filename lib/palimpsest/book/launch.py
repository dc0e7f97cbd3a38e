"""How the runner starts a stage: a notebook through papermill, or a plain command for a stage without a page.

Unknown notebook parameters are refused; an executed copy is moved into place only on success.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from palimpsest.book.progress import say_progress
from palimpsest.errors import InputError
from palimpsest.starting import first_import
from palimpsest.study import Run, locate, near, open_run

# By default Python looks for garbage at every 700 new objects: a third of the time of a notebook's imports.
RARELY = "import gc; gc.set_threshold(10_000, 20, 20)"


def run_notebook(source: Path, out: Path, log: Path, parameters: dict) -> None:
    """Execute `source` into `log`, cell by cell, then move it to `out`.

    A failed notebook stays readable at `log` up to and including the cell that failed; `out` is never half-written.

    Raises:
        InputError: a parameter the notebook does not have (papermill itself would only print a line).
        papermill.PapermillExecutionError: a cell failed.
    """
    import papermill

    known = papermill.inspect_notebook(str(source))
    for name in parameters:
        if name not in known:
            raise InputError(f"{source} has no parameter {name!r}{near(name, known)}; it has {', '.join(known)}")
    log.parent.mkdir(parents=True, exist_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        str(source),
        str(log),
        parameters,
        progress_bar=False,
        stdout_file=sys.stdout,
        log_output=True,
        extra_arguments=[f"--IPKernelApp.exec_lines={RARELY}"],
        shutdown_kernel="immediate",  # what its cells wrote is written; taking all it imported apart takes two seconds
    )
    shutil.move(log, out)


STAGES = {
    "data": "draw the records",
    "base": "make and measure a model before fine-tuning",
    "teacher-text": "let the teacher write",
    "part": "carry out a part of a study: another replicate, the tuning, a shadow model",
    "tables": "write everything that the chapters read",
    "pages": "put the sources of the book together",
    "progress": "say what is done and how long the rest will take",
    "describe": "write the model cards, and the run folder's description",
}


def main(arguments: list[str] | None = None) -> int:
    """`python -m palimpsest.book.launch notebook | data | base | teacher-text | part | tables | pages | describe | progress ...`; exit code 2 for bad input, 1 for a
    failed cell."""
    parser = argparse.ArgumentParser(prog="palimpsest.book.launch", description="Run one stage of a study.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    notebook = kinds.add_parser("notebook", help="execute a notebook")
    notebook.add_argument("source", type=Path)
    notebook.add_argument("out", type=Path)
    notebook.add_argument("--log", type=Path, required=True, help="where the copy being executed is kept")
    notebook.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    for name, text in STAGES.items():
        stage = kinds.add_parser(name, help=text)
        stage.add_argument("--study", required=True)
        stage.add_argument("--run-dir", required=True)
        if name == "base":
            stage.add_argument("--size", required=True)
        if name == "part":
            stage.add_argument("--part", required=True, help="replicate1, ..., tuning, shadow0, ...")
            stage.add_argument("--what", required=True, help="teacher, or a student size")
        if name == "progress":
            stage.add_argument("--cores", type=int, required=True)
        if name == "pages":
            stage.add_argument("--out", type=Path, required=True, help="folder to write; emptied first")
    given = parser.parse_args(arguments)
    try:
        if given.kind == "notebook":
            run_notebook(given.source, given.out, given.log, {k: yaml.safe_load(v) for k, v in given.parameters})
        else:
            run_stage(given)
        return 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno is None:  # not the system's
            raise
        remedy = "what is finished is kept: make room or allow it, then give the same command again"
        print(f"error: {error}\n{remedy}", file=sys.stderr)
        return 2
    except Exception as error:  # a cell may raise anything; the executed copy says where
        if given.kind != "notebook":
            raise
        print(f"{error}\nerror: {given.source} failed; executed up to the failing cell: {given.log}", file=sys.stderr)
        return 1


def run_stage(given: argparse.Namespace) -> None:
    """One of `STAGES`."""
    run = open_run(given.study, given.run_dir)
    if given.kind == "progress":  # apart, for the rest takes seconds to import
        print(say_progress(run, given.cores))
        return
    with first_import():
        stage = _stage_of(given, run)
    stage()


def _stage_of(given: argparse.Namespace, run: Run) -> Callable[[], Any]:
    """One of `STAGES` but the first, with no more imported than it needs."""
    if given.kind == "tables":
        from palimpsest import chapters

        return lambda: chapters.write_tables(run)
    if given.kind == "pages":
        from palimpsest.book import assembly

        return lambda: print(f"{given.out}: {len(assembly.assemble(run, locate('book'), given.out))} pages")
    if given.kind == "describe":
        from palimpsest.book import model_cards, run_crate

        return lambda: print(f"{len(model_cards.write_model_cards(run))} model cards, {run_crate.write_crate(run)}")
    from palimpsest import measure, train
    from palimpsest.book import bases, stages

    _ = measure.check_models, measure.score, train.fine_tune  # now, not on first use
    return {
        "data": lambda: bases.prepare_data(run),
        "base": lambda: bases.train_base(run, given.size),
        "teacher-text": lambda: stages.prepare_teacher_text(run),
        "part": lambda: stages.carry_out(run, given.part, given.what),
    }[given.kind]


if __name__ == "__main__":
    sys.exit(main())
