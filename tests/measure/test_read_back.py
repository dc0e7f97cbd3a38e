"""Who is asked for under another's name; that scores are read back as written is tested with what writes them (`test_finished`)."""

import pandas as pd

from palimpsest.measure import read_back


def test_one_that_has_nobody_to_change_with_is_left_out():
    rows = [
        ("a", "member", 1),
        ("b", "member", 1),
        ("c", "member", 16),
        ("d", "teacher_only", 1),
        ("e", "twin", 0),
        ("f", "twin", 0),
    ]
    records = pd.DataFrame(rows, columns=["id", "split", "copies"]).assign(kind="canary", context="")
    records["instruction"] = records["id"].str.upper()
    asked = read_back.under_other_names(records).set_index("id")["instruction"]
    assert asked.to_dict() == {"a": "B", "b": "A", "e": "F", "f": "E"}
    assert read_back.under_other_names(records.assign(kind="letter")).empty
