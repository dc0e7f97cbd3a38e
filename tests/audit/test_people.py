"""Persons: one record recited is enough, a text that two share counts for both, and no name is written down."""

import pandas as pd
import pytest
from audits import people

from palimpsest.audit.inputs import name_of_person


def test_persons_by_hand(family_audit):
    out, summary = family_audit
    records = pd.read_parquet(out / "records.parquet")
    recited = records[records["group"] == "members"].set_index("row")["verbatim_0"].astype(bool)
    customer = {row: (row - 1) % 9 for row in range(1, 25)} | {6: "nobody"}
    persons = {}
    for row, name in customer.items():
        persons.setdefault(name, []).append(recited[row])
    persons[777] = [recited[3]]  # row 25 repeats the text of row 3
    row = next(
        r for r in summary["rates"] if r["measure"] == "persons" and r["group"] == "members" and r["model"] == "model"
    )
    assert (row["count"], row["total"]) == (sum(map(any, persons.values())), 11)
    assert {r["model"] for r in summary["rates"] if r["measure"] == "persons"} == {
        "model",
        "teacher",
        "baseline",
        "reference",
    }
    assert any("1 rows name nobody" in line for line in summary["warnings"])


def test_each_person_has_their_worst_record_and_the_first_person_the_worst_of_all(family_audit):
    out, summary = family_audit
    records = pd.read_parquet(out / "records.parquet")
    of = records[records["group"] == "members"].set_index("row")
    likely = of[[name for name in of if name.startswith("logprob_window")]].max(axis=1)
    listed = summary["persons_at_risk"]
    assert listed[0]["row"] == likely.idxmax() == summary["most_at_risk"][0]["row"]
    needed = [row["samples_needed"] for row in listed]
    assert needed == sorted(needed)
    for row in listed:
        theirs = (
            [r for r in of.index if (r - 1) % 9 == (row["person"] - 1) % 9 and r != 6] if row["person"] < 25 else [3]
        )
        if row["person"] != 6:
            assert row["row"] == likely[theirs].idxmax() and row["records"] == len(theirs)


def test_no_name_of_a_person_is_written_down(family_audit):
    out, _ = family_audit
    for path in out.iterdir():
        if path.is_file():
            assert b"C-0000" not in path.read_bytes() and b"C-00777" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("value", "name"), [(17, "17"), (17.0, "17"), (" a ", "a"), (None, ""), (float("nan"), ""), (1.5, "1.5")]
)
def test_a_person_is_one_whatever_the_column_type(value, name):
    assert name_of_person(value) == name


def test_group_by_a_column_that_is_not_there(place, tmp_path):
    from audits import audited, write

    from palimpsest.errors import InputError

    with pytest.raises(InputError, match="has no column 'customer', by which --group-by would tell persons"):
        audited(place / "tuned", write(tmp_path / "m.jsonl", people(3, 1)), tmp_path / "out", group_by="customer")
