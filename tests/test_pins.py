"""One list of exact versions, within the ranges the code is known to fit, and installed."""

import os
import tomllib
from importlib.metadata import metadata, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WRITTEN = [*PROJECT["dependencies"], *(r for name, some in EXTRAS.items() if name != "all" for r in some)]
RANGES = [Requirement(r) for r in WRITTEN]
LINES = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
PINS = {canonicalize_name(r.name): r for r in map(Requirement, filter(None, LINES))}


def pinned(requirement: Requirement) -> Version:
    [exact] = requirement.specifier
    assert exact.operator == "==" and "*" not in exact.version, f"{requirement} is not exact"
    return Version(exact.version)


def test_every_line_is_exact_and_names_no_place():
    assert all(pinned(r) and r.url is None for r in PINS.values())
    assert not any(line.startswith("-") or "://" in line for line in LINES)


def test_conda_takes_its_versions_from_the_same_list():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [pip] = [d["pip"] for d in conda if isinstance(d, dict)]
    assert pip == ["-r requirements.txt", "-e ."]
    assert [d for d in conda if isinstance(d, str) and "=" in d] == ["python=3.11"]


def test_all_is_every_extra_but_the_tests():
    [whole] = map(Requirement, EXTRAS["all"])
    assert whole.name == PROJECT["name"] and whole.extras == set(EXTRAS) - {"all", "test"}


def test_each_dependency_is_pinned_within_its_range():
    outside = [f"{r} has no pin" for r in RANGES if canonicalize_name(r.name) not in PINS]
    outside += [
        f"{PINS[canonicalize_name(r.name)]} is outside {r}"
        for r in RANGES
        if canonicalize_name(r.name) in PINS and pinned(PINS[canonicalize_name(r.name)]) not in r.specifier
    ]
    assert outside == []


@pytest.mark.parametrize(("name", "there"), [("torch", "2.11.0"), ("transformers", "5.17.0"), ("python", "3.12.3")])
def test_ranges_admit_a_gpu_box_with_its_own_versions(name, there):
    ranges = {r.name: r.specifier for r in RANGES} | {
        "python": Requirement(f"x{PROJECT['requires-python']}").specifier
    }
    assert there in ranges[name]


def test_the_list_installs_on_the_python_of_debian_12():
    wanted = {name: metadata(name)["Requires-Python"] or "" for name in PINS}
    assert {name: spec for name, spec in wanted.items() if "3.11.2" not in SpecifierSet(spec)} == {}


@pytest.mark.skipif("PALIMPSEST_ANY_VERSIONS" in os.environ, reason="PALIMPSEST_ANY_VERSIONS is set")
def test_installed_versions_are_the_pinned_ones():
    found = {name: Version(version(name)) for name in PINS}
    differ = [f"{n}: {v} installed, {PINS[n]} wanted" for n, v in found.items() if v not in PINS[n].specifier]
    assert differ == [], "run `make test`, or set PALIMPSEST_ANY_VERSIONS=1 to test other versions"
