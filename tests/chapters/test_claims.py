"""Claims in words: what a row decides is said, what it leaves open is not."""

import pandas as pd
from claims_by_hand import NOTHING, SOME, claimed, claims_table

from palimpsest.chapters import claims

UNDECIDED = claims_table(claimed("distilling", "word_kd", "sft", "recited_repeated", "end", "undecided"))


def test_the_meanings_of_quality_are_one_comparison():
    found = claims.outcomes(SOME)
    assert len(found) == 9 and set(found["moment"]) == {"equal", "end"}
    rows = claims_table(claimed("distilling", "fkl", "sft", "auc", "equal", "less"))
    rows.loc[1, "estimate"] = -0.05
    (row,) = claims.outcomes(rows).to_dict("records")
    assert (row["estimate"], row["verdict"], row["because"]) == (-0.05, "less", "")
    reasons = ["p_holm 0.2", "the meanings of quality disagree: less under tokens", "fewer than five replicates"]
    rows = rows.assign(verdict="undecided", because=reasons)
    assert claims.outcomes(rows)["because"].to_list() == ["not decided under every meaning of quality"]
    assert claims.outcomes(rows.assign(because=reasons[2]))["because"].to_list() == reasons[2:]
    assert claims.outcomes(rows.assign(because=reasons[0]))["because"].to_list() == [
        "not significant among its family's questions"
    ]
    rows.loc[1, "estimate"] = float("nan")
    assert claims.outcomes(rows)["estimate"].to_list() == [-0.2]
    rows["estimate"] = float("nan")
    assert claims.outcomes(rows)["estimate"].isna().all() and claims.outcomes(NOTHING).empty


def test_the_papers_findings_come_contradictions_first():
    found = claims.paper_findings(SOME)
    assert found["outcome"].to_list() == ["contradicted", "undecided", "undecided", "confirmed", "confirmed"]
    reading, _, open_ = claims.say_paper(SOME)
    assert reading.startswith(
        "**At equal quality: contradicted in 1, undecided in 1; at the end: undecided in 1, confirmed in 2.**"
    )
    assert "We cannot tell in 2 of 5 comparisons: " in open_ and "the null is larger (1)" in open_
    assert claims.say_paper(UNDECIDED) == ["**None of 1 comparisons is decided**: its interval holds zero."]
    assert claims.say_paper(NOTHING) == ["There are none of the comparisons that the paper makes."]
    paper = claims.show_paper(SOME)
    assert list(paper.index)[0] == "Word-KD vs. SFT" and "Seq-KD vs. SFT" not in paper.index
    assert paper.loc["Word-KD vs. SFT"].to_list() == [
        "contradicted (small)",
        "confirmed (small, medium)",
    ]
    assert claims.show_paper(NOTHING) is None and claims.show_paper(UNDECIDED) is None


def test_questions_are_tallied_by_measure_and_moment():
    shown = claims.show_tally(SOME, "distilling")
    assert shown.loc["repeated text recited"].to_list() == [
        "more in 1, undecided in 1", "less in 2, undecided in 1", "Word-KD vs. SFT, small: -20 points",
    ]  # fmt: skip
    both = claims.show_tally(SOME, "distilling", "transferred")
    assert list(both.index.names) == ["question", "measure"]
    assert ("transferred", "transferred exposure, bits") in both.index
    reading, _, open_ = claims.say_tally(SOME, "distilling")
    assert reading == "**Decided: 1 of 2 comparisons at equal quality, 3 of 4 comparisons at the end.**"
    assert open_.startswith("We cannot tell in 2 of 6 comparisons")
    assert claims.show_tally(NOTHING, "text") is None
    assert claims.say_tally(NOTHING, "text") == ["This study has no two methods that differ in this."]
    assert claims.say_tally(UNDECIDED, "distilling") == claims.say_paper(UNDECIDED)


def test_a_difference_that_rounds_to_none_has_no_sign():
    assert [claims.amount("recited_repeated", v, False) for v in (-0.001, 0.001, -0.012)] == ["0", "0", "-1"]
    assert [claims.amount("auc", v) for v in (-0.001, 0.052)] == ["0.00", "+0.05"]
    assert claims.amount("exposure", -0.04) == "0.0 bits"


def test_reasons_are_counted():
    (line,) = claims.say_undecided(claims.outcomes(UNDECIDED))
    assert line == "**None of 1 comparisons is decided**: its interval holds zero."
    assert claims.say_undecided(pd.DataFrame({"verdict": ["less"]})) == []
