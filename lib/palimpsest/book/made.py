"""By what a run was made: commits, versions, machines, times and models, from the `run.json` of its finished stages."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palimpsest.data.markup import markdown_table
from palimpsest.study import Run
from palimpsest.study.fingerprints import models_of


@dataclass(frozen=True)
class Made:
    """Of all finished stages of a run, its replicates and other parts.

    Attributes:
        stages: how many there are.
        commits: commit -> stages that it made; `-dirty` says that files differed from it.
        versions: package -> its version, or several with commas.
        pythons, platforms, devices: those that were used.
        began, ended: ISO times of the first and the last stage; None where a stage does not say when it began, or none when it ended.
        models: trained ones.
        training_seconds: theirs together, whatever ran side by side.
        core_seconds: processor time of all stages, measuring among them; of one that doesn't say, its seconds times its threads.
        peak_memory_bytes: the most that any stage took; 0 where none says.
    """

    stages: int
    commits: dict[str, int]
    versions: dict[str, str]
    pythons: list[str]
    platforms: list[str]
    devices: list[str]
    began: str | None
    ended: str | None
    models: int
    training_seconds: float
    core_seconds: float
    peak_memory_bytes: int


def how_made(run: Run) -> Made:
    """Read the `run.json` of every stage that is finished."""
    facts = [
        (stage, found)
        for part in (run, *run.parts().values())
        for stage in part.fingerprints
        if (found := part.finished(stage))
    ]
    every = [found for _, found in facts]
    trained = [found for stage, found in facts if stage.startswith("models/") and "train_seconds" in found]
    names = dict.fromkeys(name for found in every for name in found.get("versions", {}))
    versions = {name: ", ".join(_all(found.get("versions", {}).get(name) for found in every)) for name in names}
    return Made(
        stages=len(every),
        commits=dict(Counter(found["commit"] for found in every if "commit" in found).most_common()),
        versions={name: version for name, version in versions.items() if version},
        pythons=_all(found.get("python") for found in every),
        platforms=_all(found.get("platform") or found.get("machine") for found in every),
        devices=_all(found.get("device") for found in every),
        began=min(found["began"] for found in every) if every and all(found.get("began") for found in every) else None,
        ended=max(_all(found.get("ended") for found in every), default=None),
        models=len(trained),
        training_seconds=sum(found["train_seconds"] for found in trained),
        core_seconds=sum(
            found.get("processor_seconds", found.get("seconds", 0.0) * found.get("threads", 1)) for found in every
        ),
        peak_memory_bytes=max((found.get("peak_memory_bytes", 0) for found in every), default=0),
    )


def models_made(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The `run.json` of every model of the run, its replicates and shadows; and of those of the tuning.

    Raises:
        InputError: one is not finished.
    """
    found, tuned = [], []
    for name, part in {"": run, **run.parts()}.items():
        models = [model for arm in part.study.everyone() for model in models_of(part.study, arm)]
        (tuned if name == "tuning" else found).extend(part.require(f"models/{model}") for model in models)
    return found, tuned


def published_facts(folder: Path) -> dict[str, Any]:
    """The `made.json` of a published folder (`published.facts_of`); empty where nothing is published yet."""
    file = folder / "made.json"
    return json.loads(file.read_text()) if file.exists() else {}


def facts_listed(run: Run) -> str:
    """What the page on reproducibility says of this run, as a table in Markdown."""
    study, made = run.study, how_made(run)
    kinds = {"tuning": study.tuning, "shadow models": study.shadows}
    clean = "all files as committed" if not any(c.endswith("-dirty") for c in made.commits) else "**files differed**"
    rows = {
        "study": f"`{study.name}`, {study.title}",
        "command": f"`make book STUDY=studies/{study.name}.yaml`",
        "data": f"fingerprint `{run.fingerprints['data']}`",
        "commits": f"{_counted(made.commits)}; {clean}" if made.commits else "",
        "replicates": f"{study.replicates}{''.join(f', and {name}' for name, there in kinds.items() if there)}",
        "seeds": f"{', '.join(map(str, study.seeds))} of the students, plus 1,000 for each replicate; {study.data.seed} of the data",
        "models trained": str(made.models),
        "training time": f"{made.training_seconds / 3600:.2f} hours, added up over models",
        "all stages": f"{made.core_seconds / 3600:.2f} hours of a core",
        "peak memory": f"{made.peak_memory_bytes / 1e9:.1f} GB, of one stage" if made.peak_memory_bytes else "",
        "from, to": f"{made.began}, {made.ended}" if made.began else "",
        "Python": ", ".join(made.pythons),
        "packages": ", ".join(f"{name} {version}" for name, version in made.versions.items()),
        "machine": ", ".join(made.platforms),
        "device": ", ".join(made.devices),
    }
    known = [(name, value or "not known before a stage is finished") for name, value in rows.items()]
    return markdown_table(["what", "this run"], known)


def _all(values: Any) -> list[str]:
    return sorted({value for value in values if value})


def _counted(commits: dict[str, int]) -> str:
    return ", ".join(f"`{commit}` ({count} stages)" for commit, count in commits.items())
