"""The run folder described for machines: `ro-crate-metadata.json`, an RO-Crate 1.1 that follows the Process Run Crate profile 0.5, which
builds on that version.

Inputs are named with their hashes, outputs listed, and the run is one action between them. What holds text of the data, such as
records, scores and weights, is not among the outputs; no text of it stands in the description.
"""

import mimetypes
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import yaml
from rocrate.model import ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from palimpsest.book.made import Made, how_made
from palimpsest.study import Run
from palimpsest.study.files import file_digest, files_of, public_name, whole, write_json
from palimpsest.study.tables import TABLES

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
KINDS = {
    ".jsonl": "application/jsonl",
    ".parquet": "application/vnd.apache.parquet",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
}
FOLDERS = {  # what a stage made of whole folders, and what it is
    "html/": "the book: open index.html",
    "notebooks/": "the executed notebooks that its pages are made from, with their figures",
}


def write_crate(run: Run) -> Path:
    """Describe a run whose book is built; also writes the study as it was carried out, `<name>.yaml`, beside it.

    Raises:
        InputError: the tables are not finished.
    """
    run.require("tables")
    now, made = datetime.now(UTC).isoformat(timespec="seconds"), how_made(run)
    crate = ROCrate(version="1.1")
    crate.metadata.extra_contexts.append(TERMS)
    profile = _add(crate, PROFILE, "CreativeWork", name="Process Run Crate", version="0.5")
    root, study = crate.root_dataset, run.study
    root["name"] = f"{study.title} (study {study.name})"
    root["description"] = (
        "A run of Palimpsest, which measures how much of a teacher's private text a distilled student still gives away: "
        f"{made.models} trained models, {study.replicates} replicate(s). The folder also holds the records, the scores and the "
        "weights, which can give the text away and are not listed here."
    )
    root["datePublished"] = now
    invented = study.synthetic and not any(study.start(size).path for size in ("teacher", *study.models.students))
    root["license"] = _licence(crate, invented)
    root["conformsTo"] = profile
    action = _add(crate, "#run", "CreateAction", name=f"Run of the study {study.name}")
    action["description"] = (
        f"make book STUDY=studies/{study.name}.yaml; {made.stages} stages, {made.training_seconds:.0f} seconds of training"
    )
    if made.began:
        action["startTime"] = made.began
    action["endTime"] = now
    action["actionStatus"] = "http://schema.org/CompletedActionStatus"
    action["instrument"] = _software(crate, made)
    action["object"] = [_study_file(crate, run), *_data(crate, run), *_models(crate, run)]
    action["result"] = list(_results(crate, run))
    root["mentions"] = action
    path = run.path / "ro-crate-metadata.json"
    write_json(path, crate.metadata.generate())
    return path


def _add(crate: ROCrate, identifier: str, kind: str, /, **properties: Any) -> Entity:
    return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))


def _licence(crate: ROCrate, invented: bool) -> Entity:
    if invented:
        what = "Use it for anything; no warranty."
        return _add(crate, "https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License", description=what)
    terms = "Not stated. What was made from data and models of others stands under the terms of these."
    return _add(crate, "#licence", "CreativeWork", name="Terms of the data and models", description=terms)


def _software(crate: ROCrate, made: Made) -> list[Entity]:
    """Palimpsest once for every commit that made a stage, and what it ran on."""
    needed = [("Python", version, "https://www.python.org") for version in made.pythons]
    needed += [(name, v, _home(name)) for name, v in made.versions.items() if name != "palimpsest"]
    environment = [
        _add(crate, f"#{name}-{v.replace(', ', '-')}", "SoftwareApplication", name=name, version=v, url=url)
        for name, v, url in needed
    ]
    return [
        _add(
            crate,
            f"#palimpsest-{commit}",
            "SoftwareApplication",
            name="Palimpsest",
            version=f"{made.versions.get('palimpsest', 'unknown')}+{commit}",
            description=f"commit {commit}, which made {count} of {made.stages} stages",
            operatingSystem=", ".join(made.platforms),
            processorRequirements=", ".join(made.devices),
            softwareRequirements=environment,
        )
        for commit, count in made.commits.items()
    ]


def _home(package: str) -> str:
    """The page that an installed package names as its own, which the standard demands of software."""
    try:
        found = metadata(package)
    except PackageNotFoundError:
        return ""
    urls = {
        label.strip().lower(): url.strip()
        for label, url in (u.split(",", 1) for u in found.get_all("Project-URL") or [])
    }
    return found["Home-page"] or urls.get("homepage") or next(iter(urls.values()), "")


def _study_file(crate: ROCrate, run: Run) -> Entity:
    """The study with all that it extends, as it was carried out; it can be run again."""
    name = f"{run.study.name}.yaml"
    with whole(run.path / name) as draft:
        text = yaml.safe_dump(run.study.model_dump(exclude_defaults=True), sort_keys=False, allow_unicode=True)
        draft.write_text(text, encoding="utf-8")
    return _file(crate, run, name, "the study file, with what it extends put in")


def _data(crate: ROCrate, run: Run) -> Iterable[Entity]:
    """The files that the records came from, by name, size and hash; they are not in this folder. Or an id on the hub."""
    source, revision = run.study.data.source, run.study.data.revision
    files = files_of(source)
    for name, path in files:
        why = "what the records were read from; not in this folder"
        yield _add(crate, f"#data/{name}", "CreativeWork", name=name, description=why, **_content(path))
    if not files:
        yield _add(
            crate, "#data", "CreativeWork", name=public_name(source), **({"version": revision} if revision else {})
        )


def _models(crate: ROCrate, run: Run) -> Iterable[Entity]:
    """The models that were loaded, not made here: ids of the hub, or the last names of folders."""
    for size in ("teacher", *run.study.models.students):
        start = run.study.start(size)
        if start.path:
            about = {"name": public_name(start.path), "description": f"start of the {size}"}
            more = {"version": start.revision} if start.revision else {}
            yield _add(crate, f"#model-{size}", "CreativeWork", **about, **more)


def _results(crate: ROCrate, run: Run) -> Iterable[Entity]:
    for path in sorted(run.tables.glob("*.csv")):
        yield _file(crate, run, f"tables/{path.name}", f"columns: {', '.join(TABLES[path.stem])}")
    for part in run.replicates():
        for arm in part.study.everyone():
            card = part.model(arm.name) / "README.md"
            if card.exists():
                yield _file(crate, run, card.relative_to(run.path).as_posix(), f"model card of {arm.label}")
    for name, what in FOLDERS.items():
        if (run.path / name).is_dir():
            yield crate.add_dataset(dest_path=name, properties={"name": name, "description": what})


def _file(crate: ROCrate, run: Run, name: str, what: str) -> Entity:
    properties = {"name": name, "description": what, **_content(run.path / name)}
    return crate.add_file(dest_path=name, properties=properties)


def _content(path: Path) -> dict[str, str]:
    kind = KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"contentSize": str(path.stat().st_size), "sha256": file_digest(path), "encodingFormat": kind}
