"""What a real model is held against: only a difference with an interval, beyond the null, agrees or disagrees."""

import numpy as np
import pandas as pd
import pytest
from claims_by_hand import NOTHING, SOME, claimed, claims_table

from palimpsest.chapters import memorization, real_beside
from palimpsest.measure.statistics import rate_of
from palimpsest.study import Arm
from palimpsest.study.tables import TABLES

SMALL = claims_table(
    claimed("distilling", "fkl", "sft", "recited_repeated", "end", "less"),
    claimed("distilling", "fkl", "sft", "recited_repeated", "end", "undecided", "medium"),
    claimed("distilling", "seq_kd", "sft", "recited_repeated", "end", "less"),
    claimed("distilling", "word_kd", "sft", "recited_repeated", "end", "less"),
    claimed("distilling", "rkl", "sft", "recited_repeated", "end", "less"),
    claimed(
        "distilling", "rkl", "sft", "recited_repeated", "end", "more", "medium"
    ),  # the sizes contradict each other
    claimed("divergence", "rkl", "fkl", "exposure", "equal", "less"),
    claimed("transferred", "fkl_student", "sft", "transferred_exposure", "equal", "more"),
)


def three(*rows):
    """What three replicates say: the same intervals, and no verdict."""
    return claims_table(*rows).assign(
        replicates=3, verdict="undecided", because="fewer than five replicates", size="deep"
    )


REAL = three(
    claimed("distilling", "fkl", "sft", "recited_repeated", "end", "less"),
    claimed("distilling", "seq_kd", "sft", "recited_repeated", "end", "more"),
    claimed(
        "distilling", "word_kd", "sft", "recited_repeated", "end", "less", estimate=0.04
    ),  # its interval holds zero
    claimed("divergence", "rkl", "fkl", "exposure", "equal", "less"),
)


def outcome_of(small, real, first, moment="end"):
    found = real_beside.foretold(small, real)
    return found[(found["first"] == first) & (found["moment"] == moment)]["outcome"].item()


def test_a_direction_agrees_is_opposite_or_can_not_be_told():
    assert outcome_of(SMALL, REAL, "fkl") == "agrees"
    assert outcome_of(SMALL, REAL, "seq_kd") == "opposite"
    assert outcome_of(SMALL, REAL, "word_kd") == "cannot tell"
    assert outcome_of(SMALL, REAL, "fkl_student", "equal") == "not asked"


def test_sizes_that_contradict_each_other_foretell_nothing():
    found = real_beside.foretold(SMALL, REAL)
    assert not ((found["first"] == "rkl") & (found["second"] == "sft")).any() and len(found) == 5
    row = found[found["first"] == "fkl"].iloc[0]
    assert (row["decided"], row["sizes"], row["size"], row["replicates"]) == (1, 2, "deep", 3)


def test_what_is_within_a_methods_difference_from_itself_can_not_be_told():
    assert outcome_of(SMALL, REAL.assign(null_largest=0.5), "fkl") == "cannot tell"


def test_one_replicate_has_no_interval_and_can_never_tell():
    alone = REAL.assign(replicates=1, low=np.nan, high=np.nan, null_largest=np.nan)
    assert {outcome_of(SMALL, alone, m) for m in ("fkl", "seq_kd", "word_kd")} == {"cannot tell"}
    both = pd.concat([alone.assign(size="shallow"), REAL], ignore_index=True)
    assert outcome_of(SMALL, both, "fkl") == "agrees"  # by the size with most replicates


def test_at_equal_quality_every_meaning_of_it_must_point_the_same_way():
    assert outcome_of(SMALL, REAL, "rkl", "equal") == "agrees"
    other = REAL.copy()
    at = other.index[(other["first"] == "rkl")][0]
    other.loc[at, ["estimate", "low", "high"]] = [0.2, 0.15, 0.25]
    assert outcome_of(SMALL, other, "rkl", "equal") == "cannot tell"


def test_the_page_shows_the_front_pages_statements_and_counts_the_others():
    shown = real_beside.show_foretold(SMALL, REAL)
    assert list(shown["so it"]) == ["agrees", "opposite", "cannot tell"] and len(shown.reset_index().columns) <= 6
    assert (
        shown["real model"].iloc[0] == "-20 points (-25 to -15)" and shown["small models"].iloc[0] == "less in 1 of 2"
    )
    told = real_beside.say_foretold(SMALL, REAL)
    assert told == [
        "Of these 3 comparisons: agrees in 1, opposite in 1, cannot tell in 1.",
        "Of all 5 comparisons that the small models decide, the real model was asked 4: agrees in 2, opposite in 1, cannot tell in 1.",
        "Fewer than 5 replicates show a *direction* alone, and decide nothing; here are 3 at most.",
    ]
    alone = pd.concat([REAL, REAL[REAL["first"] == "fkl"].assign(replicates=1)]).tail(1)
    assert "was asked 1, all at the end, 1 in one replicate: " in real_beside.say_foretold(SMALL, alone)[1]
    late = claims_table(claimed("transferred", "fkl", "sft", "transferred_exposure", "end", "more"))
    assert real_beside.show_foretold(late, late.assign(replicates=3)) is None  # the front page does not rest on it
    wide = real_beside.show_foretold(SMALL, REAL.assign(low=-3.0, high=2.0))
    assert wide["real model"].iloc[0] == "-20 points (-100 to +100)"


def test_of_nothing_nothing_is_told():
    for small, real in ((NOTHING, NOTHING), (NOTHING, REAL), (SMALL, NOTHING)):
        assert real_beside.show_foretold(small, real) is None
        assert "was asked none of them" in real_beside.say_foretold(small, real)[0]
    nothing = pd.DataFrame(columns=TABLES["rates"])
    assert real_beside.show_beside_paper(nothing, nothing) is None is real_beside.show_next_window(nothing)
    assert real_beside.say_beside_paper(nothing) == [] and "No record" in real_beside.say_next_window(nothing)[0]
    assert len(real_beside.foretold(SOME, SOME))
    assert real_beside.foretold(SMALL, REAL.head(0))["outcome"].eq("not asked").all()  # its columns have types


def rates(counts, total=40):
    """Rates of a teacher and students of one size, in the window and in the next one; non-members recite nothing."""
    rows = []
    for arm in [Arm("teacher", "sft"), *(Arm("deep", m, 0) for m in counts if m != "teacher")]:
        for split, of in (("member", total), ("repeated", 10), ("non_member", total)):
            for target in ("window", "next_window"):
                count = 0 if split == "non_member" else counts["teacher" if arm.role == "teacher" else arm.method]
                rows.append({**arm.columns(), "split": split, "target": target, **rate_of(count, of)})
    return pd.DataFrame(rows)


def test_our_rates_stand_beside_the_papers():
    natural, letters = rates({"teacher": 8, "sft": 6, "seq_kd": 2}), rates({"teacher": 8, "sft": 4, "fkl": 2})
    shown = real_beside.show_beside_paper(natural, letters)
    assert shown.loc["SFT", "paper, 120M"] == f"{100 * memorization.PAPER.loc['sft', '120M']:.1f} %" == "33.0 %"
    assert shown.loc["SFT", "Dolly, here"].startswith("15.0 %") and shown.loc["SFT", "letters, here"].startswith(
        "10.0 %"
    )
    assert (
        shown.loc["teacher", "Dolly, here"].startswith("20.0 %")
        and shown.loc["teacher", "paper, 760M"] == "65.4 % (1.5B)"
    )
    assert shown.loc["Word-KD", "Dolly, here"] == "" == shown.loc["forward KL", "paper, 760M"]
    assert (
        len(shown.reset_index().columns) <= 6
        and list(real_beside.show_beside_paper(natural, letters.head(0)))[-1] == "Dolly, here"
    )
    smaller = letters[letters["method"] == "fkl"].assign(size="shallow", method="rkl")
    shown_of = real_beside.show_beside_paper(natural, pd.concat([letters, smaller]))["letters, here"]
    assert shown_of["reverse KL"].endswith(" shallow") and not shown_of["forward KL"].endswith("w")
    (line,) = real_beside.say_beside_paper(natural)
    assert "15.0 % (7.1 to 29.1) of 40 members that stand once; the paper's smallest 33.0 %" in line


def test_the_next_window_is_told_with_counts_and_chance():
    found = rates({"teacher": 4, "sft": 2, "fkl": 1})
    shown = real_beside.show_next_window(found)
    assert list(shown) == ["members, once", "members, repeated", "non-members"] and len(shown) == 3
    repeated, once, chance = real_beside.say_next_window(found)
    assert "Of 10 repeated members, the teacher recites the next 50 tokens in 40.0 %" in repeated
    assert "students in 10.0 % (1.8 to 40.4) (forward KL) to 20.0 % (5.7 to 51.0) (SFT)" in repeated
    assert "Of 40 members that stand once" in once and "of 40 non-members no model recites more than 0.0 %" in chance
    tied = real_beside.say_next_window(rates({"teacher": 4, "sft": 2, "fkl": 1, "seq_kd": 1}))[0]
    assert "(forward KL, Seq-KD) to" in tied or "(Seq-KD, forward KL) to" in tied
    three = real_beside.say_next_window(rates({"teacher": 4, "sft": 2, "fkl": 1, "seq_kd": 1, "rkl": 1}))[0]
    assert "(3 methods) to" in three
    assert "by every method" in real_beside.say_next_window(rates({"teacher": 4, "sft": 2, "fkl": 2}))[0]
    assert real_beside.show_next_window(found.assign(total=0)) is None


@pytest.mark.parametrize("split", ["member", "repeated"])
def test_one_missing_group_is_left_out(split):
    found = rates({"teacher": 4, "sft": 2})
    assert len(real_beside.say_next_window(found[found["split"] != split])) == 2
