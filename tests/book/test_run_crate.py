"""The run folder's description: an RO-Crate that loads again, about files that are there, with no text of the data in it."""

import hashlib
import json
import re
import shutil

import pandas as pd
import pytest
from rocrate.rocrate import ROCrate

from palimpsest.book.model_cards import write_model_cards
from palimpsest.book.run_crate import PROFILE, write_crate
from palimpsest.data.splits import load_records
from palimpsest.errors import InputError
from palimpsest.study import Run, fingerprint, load_study, open_run
from palimpsest.study.files import write_json


def as_if_made_from(finished, folder, **data) -> Run:
    """A copy of the finished run in `folder` whose study has this data section, every stage of it finished."""
    study = finished.study.model_copy(update={"data": finished.study.data.model_copy(update=data)})
    run = open_run(study, shutil.copytree(finished.path, folder / "run"))
    for part, old in zip((run, *run.parts().values()), (finished, *finished.parts().values()), strict=True):
        for stage in (s for s in part.fingerprints if old.finished(s)):
            facts = {"fingerprint": part.fingerprints[stage], "began": "2026-01-01T00:00:00+00:00"}
            write_json(part.path / stage / "run.json", {**old.finished(stage), **facts})
    return run


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("crate")
    (folder / "d.jsonl").write_text('{"instruction": "Whose?", "response": "Ada Elby\'s, 555-0101."}\n')
    run = as_if_made_from(finished, folder, source=str(folder / "d.jsonl"))
    for name in ("html", "notebooks"):
        (run.path / name).mkdir()
    write_model_cards(run)
    write_crate(run)
    return run


@pytest.fixture(scope="module")
def crate(run):
    return ROCrate(run.path)


def graph(run) -> dict[str, dict]:
    entities = json.loads((run.path / "ro-crate-metadata.json").read_text(encoding="utf-8"))["@graph"]
    assert len({e["@id"] for e in entities}) == len(entities)
    return {e["@id"]: e for e in entities}


def references(value) -> list[str]:
    if isinstance(value, dict):
        return [value["@id"]] if set(value) == {"@id"} else []
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


def test_it_has_what_the_standard_demands(run):
    entities = graph(run)
    assert entities["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    assert entities["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert {"name", "description", "datePublished", "license", "hasPart"} <= set(entities["./"])
    known = {*entities, "https://w3id.org/ro/crate/1.1"}
    for entity in entities.values():
        assert [r for value in entity.values() for r in references(value) if r not in known] == [], entity["@id"]


def test_every_part_is_there_and_is_what_its_hash_says(run, crate):
    parts = {e.id for e in crate.data_entities}
    assert parts == {part["@id"] for part in graph(run)["./"]["hasPart"]}
    assert {"written.yaml", "tables/rates.csv", "models/small-sft-s0/README.md", "html/", "notebooks/"} <= parts
    for entity in crate.data_entities:
        path = run.path / entity.id
        assert path.exists(), entity.id
        if path.is_file():
            assert entity["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert entity["contentSize"] == str(path.stat().st_size)


def test_the_run_is_an_action_from_inputs_to_outputs(run, crate):
    assert crate.root_dataset["conformsTo"].id == PROFILE
    action = crate.root_dataset["mentions"]
    assert action.type == "CreateAction" and action["startTime"] == "2026-01-01T00:00:00+00:00"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", action["endTime"])
    [palimpsest] = action["instrument"] if isinstance(action["instrument"], list) else [action["instrument"]]
    assert palimpsest["name"] == "Palimpsest" and run.require("data")["commit"] in palimpsest["version"]
    needed = palimpsest["softwareRequirements"]
    assert {"Python", "torch", "transformers"} <= {e["name"] for e in needed}
    assert [e["name"] for e in needed if not e["version"] or not e["url"].startswith("https://")] == []
    inputs = {e.id: e for e in action["object"]}
    content = (run.path.parent / "d.jsonl").read_bytes()
    assert inputs["#data/d.jsonl"]["sha256"] == hashlib.sha256(content).hexdigest()
    assert {"written.yaml", "#model-teacher", "#model-small"} <= set(inputs)
    assert {"tables/rates.csv", "html/"} <= {e.id for e in action["result"]}


def test_the_study_beside_it_is_the_one_that_was_run(run):
    assert fingerprint(load_study(run.path / "written.yaml")) == fingerprint(run.study)


def test_a_second_time_only_the_time_differs(run, tmp_path):
    def plain():
        text = (run.path / "ro-crate-metadata.json").read_text(encoding="utf-8")
        return re.sub(r'"(datePublished|endTime)": "[^"]+"', "", text)

    before = plain()
    write_crate(run)
    assert plain() == before


def test_no_text_of_the_data_and_no_place_of_it_stands_in_it(run):
    written = (run.path / "ro-crate-metadata.json").read_text(encoding="utf-8")
    texts = load_records(run)[["instruction", "response"]].stack()
    held = {word for text in texts for word in text.split() if any(c.isdigit() for c in word) and len(word) > 5}
    assert len(held) > 100 and [word for word in held if word in written] == []
    assert "Ada Elby" not in written and str(run.path.parent) not in written
    assert not any(name in written for name in ("records.parquet", "safetensors"))


def test_a_hub_data_set_is_named_with_its_revision(finished, tmp_path):
    hub = as_if_made_from(finished, tmp_path, source="owner/letters", revision="v2")
    write_crate(hub)
    [found] = [e for e in ROCrate(hub.path).dereference("#run")["object"] if e.id == "#data"]
    assert (found["name"], found["version"], found.type) == ("owner/letters", "v2", "CreativeWork")


def test_tables_are_wanted_first(run, tmp_path):
    with pytest.raises(InputError, match="tables is not finished"):
        write_crate(open_run(run.study, tmp_path))


def test_descriptions_of_tables_are_their_columns(run):
    found = graph(run)["tables/rates.csv"]["description"]
    assert found.removeprefix("columns: ").split(", ") == list(pd.read_csv(run.tables / "rates.csv"))


@pytest.mark.slow
@pytest.mark.xdist_group("smoke")
def test_the_smoke_run_describes_itself(smoke_run):
    crate = ROCrate(smoke_run)
    assert [e.id for e in crate.data_entities if not (smoke_run / e.id).exists()] == []
    assert {"html/", "notebooks/", "smoke.yaml", "#data/records.jsonl"} <= {e.id for e in crate.get_entities()}
    assert len(list(smoke_run.rglob("models/*/README.md"))) == 2 * 5
    assert crate.root_dataset["mentions"]["startTime"] < crate.root_dataset["mentions"]["endTime"]
