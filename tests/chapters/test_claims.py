"""Claims in words: what a row decides is said, what it leaves open is not."""

import re

import pandas as pd
import pytest
from claims_by_hand import NOTHING, SOME, claimed, claims_table

from palimpsest.chapters import claims
from palimpsest.study import METHODS

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


def test_a_decided_comparison_is_a_sentence_with_its_sizes():
    lines = claims.say_decided(claims.outcomes(SOME))
    assert (
        lines[0]
        == "- At the end, *Word-KD* recites less repeated text than plain fine-tuning. By size: small -20 points, medium -10 points."
    )
    assert lines[-1].endswith(
        "knows more of secrets only its teacher read than plain fine-tuning. By size: small +4.2 bits."
    )
    assert len(lines) == 5 and not any("Seq-KD" in line for line in lines)


@pytest.mark.parametrize("measure", claims.PHRASES)
@pytest.mark.parametrize("method", METHODS)
def test_no_sentence_is_long(measure, method):
    rows = [
        claimed("q", method, other, measure, "equal", "more", size)
        for other in ("sft", "rkl_student")
        for size in ("small", "medium")
    ]
    for line in claims.say_decided(claims.outcomes(claims_table(*rows))):
        for sentence in line.split(". "):
            assert len([w for w in sentence.split() if any(c.isalnum() for c in w)]) <= 25, sentence


def test_the_papers_findings_come_contradictions_first():
    found = claims.paper_findings(SOME)
    assert found["outcome"].to_list() == ["contradicts", "undecided", "undecided", "agrees", "agrees"]
    _, against, agrees, open_ = re.split(r"\*\*\w.*\*\*", "\n".join(claims.say_paper(SOME)))
    assert "At equal quality, *Word-KD* recites more" in against and "less" not in against
    assert "At the end, *Word-KD* recites less" in agrees and "more" not in agrees
    assert "At equal quality, 1 of these comparisons is decided." in agrees
    assert "We cannot tell in 2 of 5 comparisons: " in open_ and "the null is larger (1)" in open_
    assert claims.say_paper(NOTHING) == ["There are none of the comparisons that the paper makes."]


def test_the_headline_makes_no_claim_that_is_not_decided():
    for rows in (NOTHING, SOME.assign(replicates=4)):
        assert claims.say_headline(rows) == [claims.NONE_YET]
    assert claims.say_headline(UNDECIDED) == ["No claim about methods is made: of 1 comparisons none is decided."]
    text = "\n".join(claims.say_headline(SOME))
    assert "forward KL, own text* knows more of secrets only its teacher read" in text
    assert "exposure" not in text and "*reverse KL* knows" not in text  # not among the headline's questions
    every = {line for line in claims.say_headline(SOME) if " less " in line or " more " in line}
    assert every <= set(claims.say_decided(claims.outcomes(SOME)))


def test_reasons_are_counted():
    (line,) = claims.say_undecided(claims.outcomes(UNDECIDED))
    assert line == "- We cannot tell in 1 of 1 comparisons: its interval holds zero (1)."
    assert claims.say_undecided(pd.DataFrame({"verdict": ["less"]})) == []
