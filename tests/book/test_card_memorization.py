"""What a card says of memorization: the tables' rates with counts and intervals, no all-clear, and what was not tested."""

import shutil

import pytest

from palimpsest.book.card_memorization import memorization_section
from palimpsest.study import open_run, write_table
from palimpsest.study.tables import Tables


def card(run, name, replicate=0) -> str:
    """The section about a model."""
    part = run.replicates()[replicate]
    return "\n".join(memorization_section(part, part.study.arm(name), Tables(run.tables)))


@pytest.fixture(scope="module")
def run(finished):
    return finished


def test_its_rates_are_the_tables_with_counts_and_intervals(run):
    text = card(run, "small-word_kd-s0")
    for section in ("### At equal quality", "### What was not tested"):
        assert section in text
    rates = Tables(run.tables).rates
    for _, row in rates[(rates["model"] == "small-word_kd-s0") & (rates["total"] > 0)].iterrows():
        shown = f"{row['count']:.0f} of {row['total']:.0f}: {100 * row['rate']:.1f} % ({100 * row['low']:.1f} to "
        assert shown + f"{100 * row['high']:.1f})" in text
    assert "we cannot tell: fewer than five replicates" in text
    assert "Members are told from non-members with an AUC of 1.00" in text


def test_nothing_found_is_no_all_clear(run, tmp_path):
    copy = open_run(run.study, shutil.copytree(run.path, tmp_path / "copy"))
    write_table(Tables(copy.tables).by_dose.assign(recited=0.0), copy.tables / "by_dose.csv")
    line = "- It recites 0 of 10 secrets of members that stand once in its training text: 0.0 % (0.0 to 27.8). Up to 27.8 % cannot"
    assert line in card(copy, "small-sft-s0")


def test_other_replicates_say_what_was_measured_of_the_first_alone(run):
    text = card(run, "small-word_kd-s0", replicate=1)
    assert "Attacks were rated on the models of the first replicate" in text
    assert "Membership attacks on this model: they were rated on the first replicate." in text
    assert "### By copies in the training text" in text
