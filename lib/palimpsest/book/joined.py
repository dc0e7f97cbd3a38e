"""Replicates made elsewhere join the published tables of their study: on another machine, or when the first run's folder is gone.

A replicate has its own records, teacher and random numbers and needs nothing of another. So each can be made where there are hours for it::

    snakemake --cores 2 --config study=studies/smollm2.yaml -- runs/smollm2/replicate1/deep.done
    python -m palimpsest.book.published studies/smollm2.yaml runs/smollm2 book/published/smollm2 --join

Tables that have rows for every replicate get theirs; those of the first replicate alone stay as they are.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from palimpsest import chapters
from palimpsest.book.checks import folder_bytes
from palimpsest.book.made import how_made, models_made, published_facts
from palimpsest.book.partial import FIRST, finished_part
from palimpsest.chapters.comparisons import claims_and_distances
from palimpsest.errors import InputError
from palimpsest.study import Run, locate, write_table
from palimpsest.study.files import write_json
from palimpsest.study.runs import changed_code, commit
from palimpsest.study.tables import TABLES, read_table


def join(run: Run, out: str | Path, finished_only: bool = False) -> list[int]:
    """Add to the published tables in `out` the replicates that are in the run's folder and not in them.

    Args:
        run: of the whole study; its first replicate need not be there.
        finished_only: of a replicate that is not finished, add what is.

    Returns:
        The numbers of the replicates that were added; the first is 0.

    Raises:
        InputError: nothing is published in `out`, or models trained or measured by other settings than the study has now; no further
            replicate is finished; it was made, or would be added, by code with local changes.
    """
    out = locate(out)
    made = _published_facts(run, out)
    there = set(read_table(out / "trajectories.csv")["replicate"])
    found = {number: part for number, part in enumerate(run.replicates()) if number not in there}
    found = {number: _finished(part) for number, part in found.items() if part.finished("models/teacher")}
    lacking = {f"replicate{number}": missing[FIRST] for number, (_, missing) in found.items() if missing}
    if not found or (lacking and not finished_only):
        raise InputError(
            f"{run.path} has {'unfinished' if lacking else 'no'} replicates to join the {len(there)} in {out}"
            f"{': ' + str(lacking) if lacking else ''}; wanted whole ones. Make them (snakemake -- {run.path}/replicate1/SIZE.done), or "
            "join what is finished (--finished-only)"
        )
    by = commit()  # before a table changes
    added = [by, *(facts["commit"] for part, _ in found.values() for facts in models_made(part)[0])]
    if odd := changed_code(added):
        raise InputError(
            f"a replicate was made, or would be joined, by {', '.join(odd)}; wanted commits without local changes, so that anyone can make "
            "it again: commit, or run it in a clean clone"
        )
    further = [_tables_of(part) for part, _ in found.values()]
    for path in (path for name in further[0] if (path := out / f"{name}.csv").exists()):
        rows = [read_table(path), *(tables[path.stem] for tables in further)]
        write_table(pd.concat(rows, ignore_index=True), path)
    _compare(out)
    for number, (part, _) in found.items():
        made = _with_replicate(made, part, number)
    write_json(out / "made.json", {**made, "missing": made["missing"] | lacking, "tables_commit": by})
    return list(found)


def compare_again(out: str | Path) -> None:
    """Write the comparisons in `out` anew from the trajectories there, by the code as it is now: the run need not be there.

    Raises:
        InputError: nothing is published in `out`, or the code has local changes.
    """
    out, by = locate(out), commit()
    made = _read_facts(out)
    if changed_code([by]):
        raise InputError(
            f"the comparisons would be made by {by}; wanted a commit without local changes: commit them first"
        )
    _compare(out)
    write_json(out / "made.json", {**made, "tables_commit": by})


def _compare(out: Path) -> None:
    for name, table in claims_and_distances(read_table(out / "trajectories.csv")).items():
        write_table(table, out / f"{name}.csv")


def _read_facts(out: Path) -> dict[str, Any]:
    if made := published_facts(out):
        return made
    raise InputError(
        f"nothing is published in {out}; wanted the tables of a first replicate: publish it without options"
    )


def _published_facts(run: Run, out: Path) -> dict[str, Any]:
    """`made.json`, of a publication of this study by the settings that it has now."""
    made = _read_facts(out)
    now = {name: run.fingerprints.get(f"scores/{name}") for name in made.get("fingerprints", {})}
    if made["study"] != run.study.name or not now or now != made["fingerprints"]:
        other = ", ".join(name for name in now if now[name] != made["fingerprints"][name]) or "nothing to compare"
        raise InputError(
            f"{out} holds the study {made['study']!r}, made by other settings or data than {run.study.name!r} has now ({other}); replicates "
            "of one study only can stand together: give the study file back its settings, or publish anew"
        )
    return made


def _finished(part: Run) -> tuple[Run, dict[str, list[str]]]:
    try:
        return finished_part(part)
    except InputError:
        return part, {FIRST: [arm.name for arm in part.study.everyone()]}


def _tables_of(part: Run) -> dict[str, pd.DataFrame]:
    """Those of a replicate's tables that have rows for every replicate."""
    found = [item for chapter in chapters.WITH_TABLES for item in chapter.tables(part).items()]
    return {name: table for name, table in found if "replicate" in TABLES[name]}


def _with_replicate(made: dict[str, Any], part: Run, number: int) -> dict[str, Any]:
    """`made.json` with one replicate more: counts and times are sums, the memory of a stage the most of any."""
    took, models = how_made(part), models_made(part)[0]
    commits = {*made["commit"].split(", "), *(facts["commit"] for facts in models)}
    devices = {*made["device"].split(", "), models[0]["device"]}
    versions = {
        name: {*made["versions"].get(name, version).split(", "), version}
        for name, version in models[0]["versions"].items()
    }
    return {
        **made,
        "commit": ", ".join(sorted(commits)),
        "replicates": made["replicates"] + 1,
        "models": made["models"] + len(models),
        "missing": {part: names for part, names in made["missing"].items() if part != f"replicate{number}"},
        "training_seconds": made["training_seconds"] + round(took.training_seconds),
        "core_seconds": made["core_seconds"] + round(took.core_seconds),
        "peak_memory_bytes": max(made["peak_memory_bytes"], took.peak_memory_bytes),
        "disk_bytes": made["disk_bytes"] + folder_bytes(part.path),
        "began": min(filter(None, (made["began"], took.began)), default=None),
        "ended": max(filter(None, (made["ended"], took.ended)), default=None),
        "device": ", ".join(sorted(devices)),
        "versions": {name: ", ".join(sorted(found)) for name, found in versions.items()},
    }
