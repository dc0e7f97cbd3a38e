"""Small tables of a finished run, kept with the project so that the book can show them without the run.

`python -m palimpsest.book.published STUDY RUN OUT` writes them, with the command and the commit that made the run. Into `FOLDER`, it
also writes README's answer anew.
"""

import argparse
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from palimpsest.chapters.claims import NONE_YET
from palimpsest.chapters.front import in_markdown
from palimpsest.errors import InputError
from palimpsest.study import Run, load_tables, locate, open_run
from palimpsest.study.files import whole, write_json
from palimpsest.study.fingerprints import tuned_name
from palimpsest.study.parts import rates_tried
from palimpsest.study.tables import Tables

FOLDER = "book/published/demo-replicates"  # what the pages show where a run has one replicate
KEPT = (
    "trajectories",
    "claims",
    "distances",
    "tuning",
    "by_dose",
    "transferred",
    "other_names",
    "shadow_attacks",
    "privacy_audit",
)
ANSWER = re.compile(r"(?<=<!-- answer -->\n).*?(?=<!-- end of answer -->)", re.DOTALL)  # their place in README


def publish(run: Run, out: str | Path) -> Path:
    """Copy the run's tables `KEPT` to `out`, and write there in `made.json` what made them.

    Raises:
        InputError: a model of the study, of one of its replicates or other parts, or its tables are not finished; or they were not
            made by clean commits, all models by one; those of the tuning, whose choices that one holds, may be of earlier ones.
    """
    tables_commit = run.require("tables")["commit"]
    facts, tuned = models_made(run)
    commits, tuning_commits = (sorted({f["commit"] for f in found}) for found in (facts, tuned))
    every = (*commits, *tuning_commits, tables_commit)
    if len(commits) > 1 or any(c.endswith("-dirty") or c == "unknown" for c in every):
        raise InputError(
            f"the run's models were made by {', '.join(commits + tuning_commits)}, its tables by {tables_commit}; wanted one commit without local "
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
        "replicates": run.study.replicates,
        "seeds": run.study.seeds,
        "models": len(facts + tuned),
        "training_seconds": round(sum(f.get("train_seconds", 0.0) for f in facts + tuned)),
        "device": facts[0]["device"],
        "versions": facts[0]["versions"],
        "tuning_commits": tuning_commits,
        "tables_commit": tables_commit,
    }
    write_json(out / "made.json", made)
    return out


def models_made(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The `run.json` of every model of the run, its replicates and shadows; and of those of the tuning.

    Raises:
        InputError: one is not finished.
    """
    found, tuned = [], []
    for name, part in {"": run, **run.parts()}.items():
        arms = part.study.everyone()
        names = [arm.name for arm in arms if arm.seed is None or name != "tuning"]
        if name == "tuning":
            names += [tuned_name(arm, rate) for arm in part.study.arms() for rate in rates_tried(part.study, arm)]
        (tuned if name == "tuning" else found).extend(part.require(f"models/{model}") for model in names)
    return found, tuned


def choose(run: Run, folder: str | Path) -> tuple[Tables, str]:
    """The tables that the pages on many replicates show, and a sentence that says which.

    The run's own if it has several replicates or nothing is published in `folder`, else the published ones.
    """
    tables, folder, study = load_tables(run), locate(folder), run.study
    if study.replicates > 1 or not (folder / "made.json").exists():
        count = f"{study.replicates} replicate{'s' * (study.replicates > 1)}"
        return tables, f"Shown is this study, *{study.title}*: {count}."
    made = json.loads((folder / "made.json").read_text())
    return Tables(folder), (
        f"This study has one replicate. What is said of methods comes from the published tables of `{made['study']}`: "
        f"{made['replicates']} replicates, {made['models']} models, commit `{made['commit']}`."
    )


def published_answer(folder: str | Path = FOLDER) -> list[str]:
    """What README answers, from the published tables; that there is no answer yet, where nothing is published."""
    tables = Tables(locate(folder))
    return in_markdown(tables.claims, tables.trajectories) if (tables.folder / "claims.csv").exists() else [NONE_YET]


def write_answer(readme: Path, folder: str | Path = FOLDER) -> None:
    """Put `published_answer` between README's two marks.

    Raises:
        InputError: the marks are not there.
    """
    text = readme.read_text(encoding="utf-8")
    if not ANSWER.search(text):
        raise InputError(
            f"{readme} has no lines '<!-- answer -->' and '<!-- end of answer -->', between which its answer is written: put them "
            "where the answer shall stand"
        )
    lines = "\n".join(published_answer(folder))
    with whole(readme) as draft:
        draft.write_text(ANSWER.sub(lambda _: f"\n{lines}\n\n", text), encoding="utf-8")


def main() -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(description="Keep the small tables of a finished run.")
    for name in ("study", "run", "out"):
        parser.add_argument(name)
    args = parser.parse_args()
    try:
        out = publish(open_run(args.study, args.run), args.out)
        print(out)
        if out == locate(FOLDER):
            write_answer(locate("README.md"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
