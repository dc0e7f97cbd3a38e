"""Small tables of a finished run, kept with the project so that the book can show them without the run.

`python -m palimpsest.book.published STUDY RUN OUT` writes them, with the command and the commit that made the run.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from palimpsest.errors import InputError
from palimpsest.study import Run, load_tables, locate, open_run
from palimpsest.study.files import write_json
from palimpsest.study.tables import Tables

FOLDER = "book/published/demo-seeds"  # what the chapter on comparisons shows where a run has one seed
KEPT = ("effects", "trajectories", "doses", "rates")


def publish(run: Run, out: str | Path) -> Path:
    """Copy the run's tables `KEPT` to `out`, and write there in `made.json` what made them.

    Raises:
        InputError: a model of the study or its tables are not finished, or they were not all made by one clean commit each.
    """
    tables_commit = run.require("tables")["commit"]
    facts = [run.facts(arm) for arm in run.study.everyone()]
    commits = sorted({f["commit"] for f in facts})
    if len(commits) > 1 or any(c.endswith("-dirty") or c == "unknown" for c in (*commits, tables_commit)):
        raise InputError(
            f"the run's models were made by {', '.join(commits)}, its tables by {tables_commit}; wanted one commit without local "
            "changes, so that anyone can make them again: run the study in a clean clone"
        )
    out = locate(out)
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copyfile(run.tables / f"{name}.csv", out / f"{name}.csv")
    made = {
        "study": run.study.name,
        "command": f"make book STUDY=studies/{run.study.name}.yaml",
        "commit": commits[0],
        "seeds": run.study.seeds,
        "models": len(facts),
        "training_seconds": round(sum(f.get("train_seconds", 0.0) for f in facts)),
        "device": facts[0]["device"],
        "versions": facts[0]["versions"],
        "tables_commit": tables_commit,
    }
    write_json(out / "made.json", made)
    return out


def choose(run: Run, folder: str | Path) -> tuple[Tables, str]:
    """The tables that the chapter on comparisons shows, and a sentence that says which.

    The run's own if it has several seeds or nothing is published in `folder`, else the published ones.
    """
    tables, folder, study = load_tables(run), locate(folder), run.study
    if len(study.seeds) > 1 or not (folder / "made.json").exists():
        return tables, f"Shown is this study, *{study.title}*: seeds {', '.join(map(str, study.seeds))}."
    made = json.loads((folder / "made.json").read_text())
    return Tables(folder), (
        f"This study has one seed, so shown are the published tables of study `{made['study']}`: seeds "
        f"{', '.join(map(str, made['seeds']))}, {made['models']} models, commit `{made['commit']}`."
    )


def main() -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(description="Keep the small tables of a finished run.")
    for name in ("study", "run", "out"):
        parser.add_argument(name)
    args = parser.parse_args()
    try:
        print(publish(open_run(args.study, args.run), args.out))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
