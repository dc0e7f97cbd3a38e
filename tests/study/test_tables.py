"""Tables are declared once: what is written is what was declared, and what is read back is what was written."""

import numpy as np
import pandas as pd
import pytest

from palimpsest.errors import InputError
from palimpsest.study import open_run, write_table
from palimpsest.study.columns import COLUMNS
from palimpsest.study.tables import TABLES, Tables, load_tables, read_table

EXCESS = pd.DataFrame(
    {
        "target": ["secret", ""],
        "label": ["NA", "b"],
        "split": ["member", "repeated"],
        "rate": [1 / 3, np.nan],
        "low": [0.0, np.nan],
        "high": [1, np.nan],
    }
)


def test_what_is_written_is_read_back(tmp_path):
    write_table(EXCESS, tmp_path / "excess.csv")
    found = read_table(tmp_path / "excess.csv")
    wanted = EXCESS[TABLES["excess"]].assign(rate=[0.333333, np.nan], high=[1.0, np.nan])
    pd.testing.assert_frame_equal(found, wanted)
    pd.testing.assert_frame_equal(Tables(tmp_path).excess, wanted)


def test_a_table_without_rows_keeps_its_columns(tmp_path):
    write_table(pd.DataFrame(), tmp_path / "roc.csv")
    found = read_table(tmp_path / "roc.csv")
    assert found.empty and list(found) == TABLES["roc"]


def test_flags_and_missing_seeds_come_back(tmp_path):
    row = {name: {"str": "x", "float": 0.5, "int": 2, "bool": True}[COLUMNS[name][0]] for name in TABLES["exposure"]}
    table = pd.DataFrame([row, {**row, "teacher_only": False, "seed": np.nan}])
    found = read_table(write_table(table, tmp_path / "exposure.csv"))
    assert list(found["teacher_only"]) == [True, False] and found["teacher_only"].dtype == bool
    assert np.isnan(found["seed"][1]) and found["copies"].dtype.kind == "i"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (EXCESS.drop(columns="low"), "excess.csv: the columns low are missing or not declared"),
        (EXCESS.assign(extra=1), "the columns extra are missing or not declared"),
        (EXCESS.assign(rate="high"), "high"),
    ],
)
def test_a_table_that_is_not_as_declared_is_not_written(tmp_path, table, message):
    with pytest.raises(ValueError, match=message):
        write_table(table, tmp_path / "excess.csv")
    assert list(tmp_path.glob("*.csv")) == []


def test_a_table_of_another_version_is_refused(tmp_path):
    (tmp_path / "excess.csv").write_text("label,reading,rate,low,high\n")
    with pytest.raises(
        InputError, match="the columns reading, split, target are missing or unknown; write the tables again"
    ):
        read_table(tmp_path / "excess.csv")
    with pytest.raises(InputError, match="run the tables stage first"):
        read_table(tmp_path / "roc.csv")
    with pytest.raises(AttributeError, match="no table 'curve'"):
        Tables(tmp_path).curve  # noqa: B018


def test_tables_of_an_unfinished_run_are_refused(tmp_path):
    with pytest.raises(InputError, match="tables is not finished .*make book STUDY=studies/smoke.yaml"):
        load_tables(open_run("studies/smoke.yaml", tmp_path))
