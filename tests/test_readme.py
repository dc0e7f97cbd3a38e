"""What the README says of the published tables is what they say."""

from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
README = " ".join((ROOT / "README.md").read_text().split())
PUBLISHED = ROOT / "book" / "published" / "demo-seeds"


def test_rates_of_unrepeated_secrets():
    rates = pd.read_csv(PUBLISHED / "rates.csv")
    rows = rates[(rates["target"] == "secret") & (rates["split"] == "member") & (rates["size"] == "medium")]
    share = rows.groupby("method")["rate"].mean().map("{:.1%}".format).str.replace("%", " %")
    assert f"recites {share['sft']} of {rows['total'].iloc[0]:.0f} secrets that stand in the data once" in README
    assert f"with Word-KD {share['word_kd']}, with Seq-KD {share['seq_kd']}" in README
    assert f"(RKLD) {share['rkl_student']}" in README


def test_repeated_secrets():
    doses = pd.read_csv(PUBLISHED / "doses.csv")
    rows = doses[(doses["size"] == "medium") & (doses["copies"] == 16) & ~doses["teacher_only"].astype(bool)]
    count = rows.set_index("method")["count"]
    assert (
        f"Of {rows['total'].max()} secrets repeated 16 times the fine-tuned student recites {count['sft']}" in README
    )
    assert f"the Seq-KD student {count['seq_kd']}, the RKLD student {count['rkl_student']}." in README


@pytest.mark.parametrize("size", ["medium", "small"])
def test_secrets_only_the_teacher_has_read(size):
    doses = pd.read_csv(PUBLISHED / "doses.csv")
    rows = doses[(doses["size"] == size) & doses["teacher_only"].astype(bool)].set_index("method")
    own = rows.loc["fkl_student"]
    assert (
        own["canaries"] == 6 and own["exposure_low"] == pytest.approx(own["ceiling"], abs=1e-4) and own["count"] == 0
    )
    given = rows.loc[["sft", "word_kd", "fkl", "seq_kd"]]
    assert (given["exposure_low"] < given["chance"]).all()
    assert rows.loc["rkl", "exposure_low"] < rows.loc["rkl", "chance"]
