"""What repetition does: rates by copies, with the spread of replicates."""

import pytest
from trained_by_hand import SECRETS, made_by_hand

from palimpsest.chapters import repetition, tradeoffs
from palimpsest.measure.statistics import rate_of


def test_doses_are_those_of_letters_with_the_spread_of_replicates(tmp_path):
    for replicates in (1, 3):
        (folder := tmp_path / str(replicates)).mkdir()
        by_dose = tradeoffs.tables(made_by_hand(folder, replicates=replicates))["by_dose"]
        assert set(by_dose["when"]) == {"best", "end"} and set(by_dose["kind"]) == {"letter", "canary"}
        rows = repetition.doses_of_letters(by_dose)
        (row,) = rows[
            (rows["size"] == "small") & (rows["method"] == "sft") & (rows["copies"] == 16) & (rows["when"] == "best")
        ].to_dict("records")
        assert row["rate"] == pytest.approx(0.4, abs=0.02)
        one = rate_of(round(row["rate"] * SECRETS), SECRETS)
        if replicates == 1:
            assert (row["low"], row["high"]) == (one["low"], one["high"])
        else:
            assert one["low"] < row["low"] < row["rate"] < row["high"] < one["high"]
        shown = repetition.show_baseline_doses(by_dose)
        assert list(shown.index) == [1, 4, 16] and shown["small", "at its best"][16].startswith(("39", "40", "41"))
        (line,) = repetition.say_baseline_doses(by_dose, "secrets")
        assert "of secrets with 1 copy." in line and "Of those with 16 copies: 4" in line
    silent = repetition.say_baseline_doses(by_dose.assign(recited=0.0), "secrets")
    assert "No dose lies between 20 and 80 %" in silent[1]
