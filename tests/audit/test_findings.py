"""What an audit warns of beside its rates."""

import pandas as pd
import pytest

from palimpsest.audit.findings import findings, finds_more


def written(path, **columns):
    count = len(next(iter(columns.values())))
    frame = pd.DataFrame({"group": ["members"] * count, **columns})
    for name in frame.columns[frame.columns.str.startswith("verbatim")]:
        frame[name] = frame[name].astype("boolean")
    frame.to_parquet(path)
    return path


def test_ends_that_are_missed(tmp_path):
    columns = {"verbatim_whole": [True, False, False, False], "verbatim_whole_no_end": [True, True, True, False]}
    (row,) = findings(written(tmp_path / "r.parquet", **columns), "members")
    assert (row["finding"], row["count"], row["total"]) == ("end missed", 2, 3) and "66.7 %" in row["text"]
    columns["verbatim_whole_no_end"] = columns["verbatim_whole"]
    assert findings(written(tmp_path / "r.parquet", **columns), "members") == []


@pytest.mark.parametrize(("exact", "expected"), [(False, ["no ROUGE", "nearly, never exactly"]), (True, ["no ROUGE"])])
def test_nearly_and_never_exactly_is_strange(tmp_path, exact, expected):
    columns = dict.fromkeys(("verbatim_whole", "verbatim_whole_no_end"), [exact, False, False])
    columns |= {"edit_similarity": [0.95, 0.2, None]}
    path = written(tmp_path / "r.parquet", **columns, rouge_l=[None, 0.1, None])
    rows = findings(path, "members")
    assert [row["finding"] for row in rows] == expected and (rows[0]["count"], rows[0]["total"]) == (1, 2)


def test_the_higher_of_two_rates_is_reported():
    rows = [{"rate": 0.2, "end_token": "required"}, {"rate": 0.4, "end_token": "not required"}]
    assert finds_more(rows)["rate"] == 0.4
    assert finds_more([rows[0], {"rate": float("nan")}])["rate"] == 0.2
