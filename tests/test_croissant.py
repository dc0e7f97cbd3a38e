"""The help-desk data as machines read them: croissant.json is the script's, valid, complete and about this very file."""

import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import mlcroissant
import pytest

HOME = Path(__file__).parents[1] / "data" / "helpdesk"
ASKED = (  # what the tracks for data sets of the large conferences ask for
    "dataCollection dataBiases dataLimitations dataUseCases dataSocialImpact personalSensitiveInformation hasSyntheticData"
).split()


@pytest.fixture(scope="module")
def dataset():
    return mlcroissant.Dataset(HOME / "croissant.json")  # raises what is wrong


@pytest.fixture(scope="module")
def written():
    return json.loads((HOME / "croissant.json").read_text(encoding="utf-8"))


def test_the_script_writes_it(tmp_path):
    subprocess.run([sys.executable, HOME / "describe.py", "--out", tmp_path / "again.json"], check=True)
    assert (tmp_path / "again.json").read_bytes() == (HOME / "croissant.json").read_bytes()


def test_it_is_valid_without_a_warning(dataset):
    assert not dataset.metadata.ctx.issues.errors and not dataset.metadata.ctx.issues.warnings


def test_it_is_about_this_file(written):
    [file] = written["distribution"]
    content = (HOME / file["contentUrl"]).read_bytes()
    assert file["sha256"] == hashlib.sha256(content).hexdigest() and file["contentSize"] == f"{len(content)} B"


def test_the_responsible_ai_fields_are_filled(written):
    assert [name for name in ASKED if not written.get(f"rai:{name}")] == []
    assert "http://mlcommons.org/croissant/RAI/1.0" in written["conformsTo"]


def test_records_come_out_as_they_stand_in_the_file(dataset):
    lines = (HOME / "records.jsonl").read_text(encoding="utf-8").splitlines()
    for row, found in itertools.islice(zip(map(json.loads, lines), dataset.records("records")), 2500):  # noqa: B905
        spans = row.pop("secrets")
        assert {k: v.decode() for k, v in found.items() if k != "records/secrets"} == {
            f"records/{k}": v for k, v in row.items()
        }
        texts = [
            {k: v.decode() if isinstance(v, bytes) else v for k, v in s.items()} for s in found["records/secrets"]
        ]
        assert texts == [{f"records/secrets/{k}": v for k, v in span.items()} for span in spans]
    assert spans, "the last one looked at is private"
