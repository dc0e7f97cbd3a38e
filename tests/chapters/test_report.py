"""Sentences computed from the tables: what they compare, and what they say at the edges."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.chapters import memorization, report
from palimpsest.measure import results
from palimpsest.measure.statistics import newcombe, rate_of

TOTAL = 50
COUNTS = st.fixed_dictionaries({m: st.integers(0, TOTAL) for m in ("sft", "fkl", "rkl", "seq_kd")})


def table(counts: dict[str, int], seeds=(0,), chance=1, total=TOTAL) -> pd.DataFrame:
    """Rates of secrets for one size, the same in every seed; nothing but `chance` of the non-members."""
    names = ["teacher", *(f"small-{m}-s{s}" for s in seeds for m in counts)]
    rows = []
    for name in names:
        who = results.describe(name)
        members = counts.get(who["method"], 0) if who["role"] != "teacher" else total
        for reading in ("secret", "window"):
            for split, count in (("member", members), ("non_member", chance)):
                rows.append({**who, "split": split, "reading": reading, **rate_of(count, total)})
    return pd.DataFrame(rows)


@settings(max_examples=25)
@given(COUNTS)
def test_seeds_that_agree_narrow_nothing(counts):
    one, three = (report.arms(table(counts, seeds), "secret") for seeds in ((0,), (0, 1, 2)))
    pd.testing.assert_frame_equal(one, three)
    assert one.set_index("method")["count"].to_dict() == counts


@settings(max_examples=25)
@given(COUNTS)
def test_verdicts_follow_the_interval_of_the_difference(counts):
    found = report.less_than_baseline(table(counts)).set_index("method")
    assert set(found.index) == set(counts) - {"sft"}
    for method, row in found.iterrows():
        low, high = newcombe(counts[method], TOTAL, counts["sft"], TOTAL)
        assert (row["low"], row["high"]) == pytest.approx((low, high))
        assert row["verdict"] == ("less" if high < 0 else "more" if low > 0 else "undecided")


@settings(max_examples=25)
@given(COUNTS)
def test_headline_names_the_least_and_the_most(counts):
    line = report.headline(table(counts))[0]
    least, most = (f(counts[m] for m in counts if m != "sft") for f in (min, max))
    told = line.split("; distilled, ")[1]
    if least == most:
        assert told.endswith("by every method.") and told.startswith(f"{2 * least:.1f} % (n = {TOTAL}")
    else:
        assert told.startswith(f"from {2 * least:.1f} % (n = {TOTAL}") and f" to {2 * most:.1f} % (n = {TOTAL}" in told


def test_tables_of_several_seeds_have_a_row_per_arm():
    rates = table({"sft": 30, "fkl": 3}, seeds=(0, 1))
    rates.loc[rates["model"] == "small-fkl-s1", "count"] = 7
    found = memorization.seeds_together(rates).set_index(["label", "split", "reading"])
    assert found.index.is_unique and found.loc[("small, forward KL", "member", "secret"), "rate"] == 5 / TOTAL
    assert found.loc[("small, SFT", "member", "secret"), "low"] == rate_of(30, TOTAL)["low"]


@settings(max_examples=25)
@given(COUNTS)
def test_excess_is_the_difference_of_the_two_splits(counts):
    found = memorization.excess(table(counts, chance=2)).set_index(["label", "reading"])
    row = found.loc[("small, Seq-KD", "window")]
    assert row["rate"] == pytest.approx((counts["seq_kd"] - 2) / TOTAL)
    assert (row["low"], row["high"]) == pytest.approx(newcombe(counts["seq_kd"], TOTAL, 2, TOTAL))
    assert len(found) == 2 * (1 + len(counts))


def test_a_study_with_fine_tuning_alone():
    lines = report.headline(table({"sft": 30}))
    assert "distilled" not in lines[0] and lines[1].startswith("- On non-members no student exceeds 2.0 % (n = 50;")


def test_data_without_marked_secrets_is_told_by_records():
    rates = table({"sft": 30, "fkl": 3})
    secret = rates["reading"] == "secret"
    rates.loc[secret, "total"] = 0
    assert report.reading_of(rates) == ("window", "records")
    assert "recites 60.0 % (n = 50; 95 % interval 46.2 to 72.4) of the members' records" in report.headline(rates)[0]


def test_quality_is_shown_with_its_intervals():
    rows = {"label": ["small, SFT"], "test_loss": [2.345], "records": [24]}
    rows |= {f"rouge{k}{end}": [v] for k in "12L" for end, v in (("", 0.1234), ("_error", 0.0111))}
    shown = memorization.quality_table(pd.DataFrame(rows)).loc["small, SFT"]
    assert shown["ROUGE-L"] == "0.123 ± 0.011" and shown["records"] == 24 and shown["test loss"] in (2.34, 2.35)


def test_summary_names_the_teacher_and_the_best_student():
    rates = table({"sft": 30, "fkl": 3, "rkl": 29})
    quality = rates[rates["role"] != "teacher"].drop_duplicates("model").assign(test_loss=[2.5, 2.0, 3.0])
    lines = report.summary(rates, quality)
    assert "recites 100.0 % (n = 50; 95 % interval 92.9 to 100.0) of the members' secrets" in lines[0]
    assert "less than plain fine-tuning of the same size with forward KL (small)" in lines[1]
    assert "neither demonstrably less nor more than" in lines[1] and "reverse KL (small)" in lines[1]
    assert lines[2].endswith("small, forward KL, 2.00 nats per token.")
