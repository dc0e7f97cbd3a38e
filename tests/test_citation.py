"""CITATION.cff and .zenodo.json say the same, and what pyproject.toml says."""

import json
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
ZENODO = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Of the format's keys, those that it demands and those used here; an unknown one makes the file invalid.
DEMANDED = {"cff-version", "message", "title", "authors"}
KNOWN = DEMANDED | {"type", "version", "license", "references", "keywords", "abstract"}


def test_the_citation_has_what_its_format_demands():
    assert DEMANDED <= set(CITATION) <= KNOWN
    assert CITATION["cff-version"] == "1.2.0" and CITATION["type"] in ("software", "dataset")
    for entry in (CITATION, *CITATION["references"]):
        assert all(set(who) in ({"name"}, {"family-names", "given-names"}) for who in entry["authors"])
        assert entry["title"] and entry["type"]


def test_title_version_authors_and_licence_agree():
    assert CITATION["title"] == ZENODO["title"]
    assert CITATION["version"] == ZENODO["version"] == PROJECT["version"]
    assert CITATION["license"] == ZENODO["license"] == PROJECT["license"]
    assert [who["name"] for who in CITATION["authors"]] == [who["name"] for who in ZENODO["creators"]]


def test_both_name_the_paper():
    assert {r["doi"] for r in CITATION["references"]} == {r["identifier"] for r in ZENODO["related_identifiers"]}


def test_the_deposit_says_what_it_is():
    assert ZENODO["upload_type"] == "software" and ZENODO["access_right"] == "open"
    assert len(ZENODO["description"]) > 100 and ZENODO["keywords"]
