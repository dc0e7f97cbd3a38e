"""Small tables of a finished run, kept with the project so that the book can show them without the run.

`python -m palimpsest.book.published STUDY RUN OUT` writes them, with the command and the commit that made the run.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from palimpsest.chapters import attacks, comparisons, memorization, tradeoffs
from palimpsest.errors import InputError
from palimpsest.measure import results
from palimpsest.study import Study, load_study
from palimpsest.study.runs import locate, provenance, write_json, write_table

PATH = ["size", "method", "role", "seed", "epoch", "held_out_loss", "member_loss", "memorized", "counted", "unit"]
RATES = ["size", "method", "role", "seed", "split", "reading", "rate", "count", "total", "low", "high"]


def write(study: Study, run_dir: str | Path, out: str | Path) -> Path:
    """Write `effects.csv` (`comparisons.effects`), `trajectories.csv` (every epoch of every model), `doses.csv` (exposure of repeated
    canaries), `memorization.csv` (every reading at the end) and `made.json` to `out`.

    Raises:
        InputError: an arm of the study is not finished, or its stages were not all made by one clean commit.
    """
    missing = [a.name for a in study.arms() if not (locate(run_dir) / "scores" / a.name / "run.json").exists()]
    if missing:
        raise InputError(
            f"{run_dir} lacks {len(missing)} of {len(study.arms())} arms ({missing[0]}, ...): finish the run"
        )
    facts = {name: results.run_facts(run_dir, name) for name in results.model_names(study, run_dir)}
    commits = {f["commit"] for f in facts.values()}
    if len(commits) > 1 or any(c.endswith("-dirty") or c == "unknown" for c in commits):
        raise InputError(
            f"the run's models were made by {', '.join(sorted(commits))}; wanted one commit without local changes, so that "
            "anyone can make them again: run the study in a clean clone"
        )
    out = locate(out)
    write_table(comparisons.effects(study, run_dir), out / "effects.csv")
    write_table(tradeoffs.paths(study, run_dir)[PATH], out / "trajectories.csv")
    write_table(attacks.doses(attacks.exposures(study, run_dir)), out / "doses.csv")
    write_table(memorization.rates(study, run_dir)[RATES], out / "memorization.csv")
    first = next(iter(facts.values()))
    write_json(
        out / "made.json",
        {
            "study": study.name,
            "command": f"make book STUDY=studies/{study.name}.yaml",
            "commit": commits.pop(),
            "seeds": study.seeds,
            "models": len(facts),
            "training_seconds": round(sum(f.get("train_seconds", 0.0) for f in facts.values())),
            "device": first["device"],
            "versions": first["versions"],
            "tables_commit": provenance()["commit"],
        },
    )
    return out


@dataclass(frozen=True)
class Tables:
    """What the chapter on the grid is made of, and a sentence that says where it is from."""

    effects: pd.DataFrame
    paths: pd.DataFrame
    doses: pd.DataFrame
    source: str


def choose(study: Study, run_dir: str | Path, folder: str | Path) -> Tables:
    """The tables of this study if it has several seeds (or nothing is published in `folder`), else the published ones."""
    folder, one = locate(folder), len(study.seeds) == 1
    if not one or not (folder / "made.json").exists():
        source = f"This study, *{study.title}*: seeds {', '.join(map(str, study.seeds))}."
        source += " With one seed, the intervals cover other records only, not other seeds." if one else ""
        paths, doses = tradeoffs.paths(study, run_dir)[PATH], attacks.doses(attacks.exposures(study, run_dir))
        return Tables(comparisons.effects(study, run_dir), paths, doses, source)
    made = json.loads((folder / "made.json").read_text())
    source = (
        f"This study has one seed, which tells nothing of other seeds. Shown instead are the published tables of "
        f"`{made['study']}` (seeds {', '.join(map(str, made['seeds']))}; {made['models']} models, made by `{made['command']}` at commit "
        f"`{made['commit']}` in {made['training_seconds'] / 60:.0f} minutes of training on {made['device']})."
    )
    return Tables(*(pd.read_csv(folder / f"{name}.csv") for name in ("effects", "trajectories", "doses")), source)


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep the small tables of a finished run.")
    for name in ("study", "run", "out"):
        parser.add_argument(name)
    args = parser.parse_args()
    try:
        print(write(load_study(args.study), args.run, args.out))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
