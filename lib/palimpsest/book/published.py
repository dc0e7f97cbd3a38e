"""Small tables of a finished run, kept with the project so that the book can show them without the run.

`python -m palimpsest.book.published STUDY RUN OUT` writes them, with the command and the commit that made the run. Into `FOLDER` or
`REAL`, it also writes README's answer anew. Of a run whose hours ran out, `--finished-only` publishes what is finished: it writes the run's
tables again from those models alone (`partial.finished_part`, nothing is trained), and `made.json` lists what is missing::

    python -m palimpsest.book.published studies/smollm2.yaml runs/smollm2 book/published/smollm2 --finished-only

Where nothing is missing, that is the same as without it. Tables that an earlier version wrote are written again either way.
With `--join`, replicates made elsewhere are added to what is published; with `--again`, methods are compared anew from the published
trajectories, after the way of comparing was changed (both: `joined`).
"""

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from palimpsest.book.checks import folder_bytes
from palimpsest.book.joined import compare_again, join
from palimpsest.book.made import how_made, models_made, published_facts
from palimpsest.book.partial import finished_part
from palimpsest.chapters import write_tables
from palimpsest.chapters.claims import NONE_YET
from palimpsest.chapters.figures import set_theme
from palimpsest.chapters.front import in_markdown, plot_answer, say_real
from palimpsest.errors import InputError
from palimpsest.study import Run, load_tables, locate, open_run
from palimpsest.study.files import whole, write_json
from palimpsest.study.runs import changed_code
from palimpsest.study.tables import TABLES, Tables, read_table

PLACE = "book/published"  # a study's folder has its name
FOLDER = f"{PLACE}/demo-replicates"  # what the pages show where a run has one replicate
REAL = f"{PLACE}/smollm2"  # the same asked of a real language model
KEPT = (  # none of them holds text of the data; of a study, those that have rows
    "trajectories",
    "claims",
    "distances",
    "tuning",
    "by_dose",
    "transferred",
    "other_names",
    "shadow_attacks",
    "privacy_audit",
    "rates",
    "quality",
    "origins",
    "healing",
)
ANSWER = re.compile(r"(?<=<!-- answer -->\n).*?(?=<!-- end of answer -->)", re.DOTALL)  # their place in README


class Kept(Tables):
    """The tables in a published folder; one of `KEPT` that had no rows is not there and has none."""

    def __getattr__(self, name: str) -> pd.DataFrame:
        if name in KEPT and not (self.folder / f"{name}.csv").exists():
            return pd.DataFrame(columns=TABLES[name])
        return super().__getattr__(name)


def publish(run: Run, out: str | Path, missing: dict[str, list[str]] | None = None) -> Path:
    """Copy those of the run's tables `KEPT` that have rows to `out`, and write there in `made.json` what made them.

    Args:
        missing: what the run lacks of its study (`partial.finished_part`).

    Raises:
        InputError: a model of the study, of one of its replicates or other parts, or its tables are not finished; or they were not
            made by clean commits, all models by one; those of the tuning, whose choices that one holds, may be of earlier ones, and an
            unfinished run may name several.
    """
    made = facts_of(run, missing)
    commits = made["commit"].split(", ")
    models, tables = commits + made["tuning_commits"], made["tables_commit"]
    if (len(commits) > 1 and not missing) or changed_code([*models, tables]):
        raise InputError(
            f"the run's models were made by {', '.join(models)}, its tables by {tables}; wanted one commit without local "
            "changes, so that anyone can make them again: run the study in a clean clone"
        )
    out = locate(out)
    out.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        (out / f"{name}.csv").unlink(missing_ok=True)
        if len(read_table(run.tables / f"{name}.csv")):
            shutil.copyfile(run.tables / f"{name}.csv", out / f"{name}.csv")
    write_json(out / "made.json", made)
    return out


def facts_of(run: Run, missing: dict[str, list[str]] | None = None) -> dict[str, Any]:
    """What made a run's tables, as `made.json` has it: study, command, commits, device and versions; `replicates`, `seeds`, `models`,
    and those `missing`; `records` by split and what they are counted by (`unit`); what the teacher was begun from (`start`, `notes`);
    whether its learning rates are `tuned`; the `fingerprints` of what was measured in the first replicate; and what it took: training and
    core seconds, the most memory of a stage, the disk of the run folder, and when it `began` and `ended`.

    Raises:
        InputError: a model, or the tables, are not finished.
    """
    facts, tuned = models_made(run)
    took, data, base = how_made(run), run.require("data"), run.require("models/base-teacher")
    return {
        "study": run.study.name,
        "title": run.study.title,
        "command": f"make book STUDY=studies/{run.study.name}.yaml",
        "commit": ", ".join(sorted({f["commit"] for f in facts})),
        "replicates": run.study.replicates,
        "seeds": run.study.seeds,
        "models": len(facts + tuned),
        "missing": missing or {},
        "records": data.get("splits", {}),
        "target": data["target"],
        "unit": data["unit"],
        "start": base.get("start", ""),
        "notes": base.get("notes", []),
        "tuned": run.study.tuning is not None or bool(run.study.by_arm),
        "fingerprints": {arm.name: run.fingerprints[f"scores/{arm.name}"] for arm in run.study.everyone()},
        "training_seconds": round(sum(f.get("train_seconds", 0.0) for f in facts + tuned)),
        "core_seconds": round(took.core_seconds),
        "peak_memory_bytes": took.peak_memory_bytes,
        "disk_bytes": folder_bytes(run.path),
        "began": took.began,
        "ended": took.ended,
        "device": facts[0]["device"],
        "versions": facts[0]["versions"],
        "tuning_commits": sorted({f["commit"] for f in tuned}),
        "tables_commit": run.require("tables")["commit"],
    }


def choose(run: Run, folder: str | Path) -> tuple[Tables, str]:
    """The tables that the pages on many replicates show, and a sentence that says which.

    The run's own if it has several replicates or nothing is published in `folder`, else the published ones.
    """
    tables, folder, study = load_tables(run), locate(folder), run.study
    made = published_facts(folder)
    if study.replicates > 1 or not made:
        count = f"{study.replicates} replicate{'s' * (study.replicates > 1)}"
        return tables, f"Shown is this study, *{study.title}*: {count}."
    return Kept(folder), (
        f"This study has one replicate. What is said of methods comes from the published tables of `{made['study']}`: "
        f"{made['replicates']} replicates, {made['models']} models, commit `{made['commit']}`."
    )


def tables_of(run: Run, folder: str | Path) -> Tables:
    """The tables of the study that `folder` is named after: this run's own if it is that study, else the published ones, all without
    rows where nothing is published yet."""
    folder = locate(folder)
    return load_tables(run) if run.study.name == folder.name else Kept(folder)


def made_of(run: Run, folder: str | Path) -> dict[str, Any]:
    """The `facts_of` the tables that `tables_of` gives; empty where nothing is published yet."""
    folder = locate(folder)
    return facts_of(run) if run.study.name == folder.name else published_facts(folder)


def published_answer(folder: str | Path = FOLDER) -> list[str]:
    """What README answers, from the published tables; that there is no answer yet, where nothing is published."""
    tables = Tables(locate(folder))
    if not (tables.folder / "claims.csv").exists():
        return [NONE_YET]
    unit, real = published_facts(tables.folder).get("unit", "secrets"), Kept(locate(REAL))
    real = say_real(real.by_dose, unit, published_facts(real.folder).get("title", "nothing"))
    return in_markdown(tables.claims, tables.trajectories, tables.by_dose, unit, real)


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


def draw_answer(path: Path, folder: str | Path = FOLDER) -> None:
    """README's figure, that of the first page, as a picture: what students recite by copies in the training text."""
    tables = Tables(locate(folder))
    set_theme()
    figure = plot_answer(tables.by_dose, published_facts(tables.folder).get("unit", "secrets"))
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")


def main() -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(description="Keep the small tables of a finished run.")
    for name in ("study", "run", "out"):
        parser.add_argument(name)
    parser.add_argument("--finished-only", action="store_true", help="of an unfinished run, publish what is finished")
    parser.add_argument(
        "--join", action="store_true", help="add the run's further replicates to what is published in OUT"
    )
    parser.add_argument("--again", action="store_true", help="compare the methods in OUT anew, from its trajectories")
    args = parser.parse_args()
    try:
        run, missing, out = open_run(args.study, args.run), {}, locate(args.out)
        if args.join:
            added = join(run, out, args.finished_only)
            print(f"{out}: joined by replicate{'s' * (len(added) > 1)} {', '.join(map(str, added))}")
        elif args.again:
            compare_again(out)
            print(f"{out}: compared again")
        else:
            if args.finished_only:
                run, missing = finished_part(run)
            models_made(run)  # what is not finished is said before any table is written
            if not all((run.tables / f"{name}.csv").exists() for name in KEPT):  # an earlier version's
                (run.tables / "run.json").unlink(missing_ok=True)
            write_tables(run)
            print(publish(run, out, missing))
        if out in (locate(FOLDER), locate(REAL)):
            write_answer(locate("README.md"))
        if out == locate(FOLDER):
            draw_answer(locate("book/_static/answer.png"))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
