"""Page 00: what it says follows from its tables, for any study, and it judges no method by one training."""

import re

import jupytext
import pandas as pd
import pytest
from claims_by_hand import NOTHING, SOME, claimed, claims_table

from palimpsest.chapters import front
from palimpsest.chapters.claims import NONE_YET
from palimpsest.study.files import root


def test_the_page_judges_by_claims_alone_and_withdraws():
    page = root() / "notebooks" / "00_intro.py"
    text = page.read_text()
    order = ["Withdrawn first", "say_answer", "show_decisions", "plot_rates"]
    assert order == sorted(order, key=text.index)
    prose = [cell.source for cell in jupytext.read(page).cells[1:] if cell.cell_type == "markdown"]
    judging = [
        part
        for cell in prose
        for part in re.split("\n\n|\n- ", cell)
        if re.search(r"\b(less|fewer|better|worse)\b", part)
    ]
    assert judging == []


TRAJECTORIES = pd.DataFrame(
    [
        {
            "size": size,
            "method": method,
            "replicate": 0,
            "model": f"{size}-{method}",
            "validation_loss_calibrated": loss,
        }
        for size in ("small", "medium")
        for method, loss in (
            ("sft", 2.5),
            ("word_kd", 2.4),
            ("seq_kd", 3.0),
            ("fkl", 2.6),
            ("sft_dedup", 2.4),
            ("sft_annealed_2", 2.7),
        )
    ]
)


def doses(recited: dict[tuple[str, int], float], secrets: int = 100) -> pd.DataFrame:
    """`by_dose` at the end of training: (method, copies) -> share recited, of the small size; "teacher" is the teacher."""
    rows = [
        {"label": method, "size": "teacher" if method == "teacher" else "small", "copies": copies, "recited": share}
        | {"method": "sft" if method == "teacher" else method, "replicate": 0, "secrets": secrets, "when": "end"}
        | {
            "role": {"teacher": "teacher", "sft": "baseline"}.get(method, "student"),
            "kind": "letter",
            "split": "member",
        }
        for (method, copies), share in recited.items()
    ]
    columns = ["label", "size", "method", "role", "copies", "recited", "replicate", "secrets", "when", "kind", "split"]
    return pd.DataFrame(rows, columns=columns)


SHARES = {("teacher", 16): 0.9, ("sft", 16): 0.6, ("word_kd", 16): 0.5, ("seq_kd", 16): 0.2, ("seq_kd", 1): 0.03}


def told(*rows, by_dose=None):
    """The points after the first, which tells of `by_dose`."""
    answer = front.say_answer(
        claims_table(*rows), TRAJECTORIES, doses(SHARES) if by_dose is None else by_dose, "secrets"
    )
    return answer if len(answer) < 2 else answer[1:]


def given_away(recited):
    rows = claims_table(asked("fkl", "equal", "undecided"))
    return front.say_answer(rows, TRAJECTORIES, doses(recited), "secrets")[0]


def test_what_is_given_away_is_told_first_from_least_to_most_beside_the_fine_tuned():
    first = given_away(SHARES)
    assert first.startswith(
        "**A distilled student can still give private text away.** Of 100 secrets that its training text repeats"
    )
    assert "it recites 20.0 % (13.3 to 28.9) to 50.0 % (40.4 to 59.6) when training ends" in first
    assert "A fine-tuned one recites up to 60.0 % (50.2 to 69.1), the teacher 90.0 % (82.6 to 94.5)." in first
    assert first.endswith("no distilled student recites more than 3.0 % (1.0 to 8.5).")


def test_a_real_model_is_told_of_beside_the_small_ones_and_its_training_counted():
    once = {("teacher", 1): 0.4, ("sft", 1): 0.6, ("fkl", 1): 0.2}
    (said,) = front.say_real(doses(once), "secrets", "Some model")
    assert "Some model: of 100 secrets that stand once, distilled students recite 20.0 % (13.3 to 28.9) when" in said
    assert (
        "up to 60.0 % (50.2 to 69.1), the teacher 40.0 %" in said
        and "one training each, which decides nothing between methods." in said
    )
    assert front.say_real(doses({}), "secrets", "Some model") == [] and "repeated ones" not in said
    repeated = doses({**once, ("fkl", 16): 1.0})
    early = doses({("teacher", 1): 0.04, ("sft", 1): 0.1}).assign(when="best")
    (said,) = front.say_real(pd.concat([repeated, early]), "secrets", "Some model")
    assert "Of 100 repeated ones, distilled students recite 100.0 % (96.3 to 100.0)." in said
    assert (
        "Stopped at its lowest calibrated validation loss, a fine-tuned one recites up to 10.0 % (5.5 to 17.4), the teacher 4.0 % (1.6 to 9.8) "
        "of what stands once." in said
    )
    both = pd.concat([doses(once), doses(once).assign(replicate=1)])
    assert "That is 2 trainings each, which decides" in front.say_real(both, "secrets", "Some model")[0]
    some = pd.concat([doses({**once, ("rkl", 1): 0.1}), *(doses(once).assign(replicate=i) for i in range(1, 5))])
    (said,) = front.say_real(some, "secrets", "Some model")
    assert "That is 1 to 5 trainings each." in said and "of up to 500 secrets that" in said


def test_what_may_have_been_missed_is_said_where_nothing_is_decided():
    """`claimed` writes 0.2 between 0.15 and 0.25 for every meaning of quality."""
    rows = [asked("word_kd", "equal", "undecided"), asked("word_kd", "end", "less")]
    assert "differences of up to 25 points may have been missed" in told(*rows)[0]
    assert "The other 1 had learned no less: *Word-KD*." in told(*rows, asked("seq_kd", "end", "less"))[0]
    assert "equal validation loss" not in told(*rows)[0]
    apart = [
        {**row, "estimate": float("nan")} if row["quality"] == "validation_loss_calibrated" else row for row in rows[0]
    ]
    assert (
        "may have been missed. 1 of these students could not be compared at equal validation loss."
        in told(apart, rows[1])[0]
    )


def test_how_rarely_a_student_knows_what_it_was_never_shown_is_said():
    asked_of = [asked("fkl_student", "equal", "more", measure="transferred_exposure")]
    asked_of += [asked(m, "equal", "undecided", measure="transferred_exposure") for m in ("fkl", "gkd")]
    asked_of += [asked("fkl", "end", "more", measure="transferred_exposure"), asked("fkl", "equal", "undecided")]
    assert "it was never shown**, in 1 of 3 comparisons. Distilled by *forward KL, own text*" in told(*asked_of)[1]


def test_nothing_recited_is_no_clean_bill():
    first = given_away({("fkl", 16): 0, ("sft", 16): 0.5})
    assert (
        first.startswith("**No distilled student recites any of the secrets")
        and "does not show that it knows none" in first
    )
    assert "0.0 % (0.0 to 3.7)" in first and "**" in given_away({})


def asked(first, moment, verdict, size="small", measure="recited_repeated", question="distilling"):
    return claimed(question, first, "sft", measure, moment, verdict, size)


def test_without_five_replicates_or_a_student_there_is_no_answer():
    assert (
        front.say_answer(NOTHING, TRAJECTORIES, doses(SHARES), "secrets")
        == [NONE_YET]
        == front.say_answer(SOME.assign(replicates=4), TRAJECTORIES, doses(SHARES), "secrets")
    )
    assert front.show_decisions(NOTHING, TRAJECTORIES) is None
    assert told(asked("sft_dedup", "end", "less", question="mitigation")) == [front.NO_STUDENT]


def test_an_undecided_answer_says_so_in_each_sentence():
    rows = [asked(m, moment, "undecided") for m in ("word_kd", "seq_kd") for moment in ("equal", "end")]
    first, second = told(*rows)
    assert first.startswith("**We cannot tell") and "none of 2 distilled students" in first
    assert "Nor can we tell at the end of training" in first and "was not asked" in second
    table = front.show_decisions(claims_table(*rows), TRAJECTORIES)
    assert table.loc["distil?"].to_list() == ["0 of 2", "0 of 2", "2.40 to 3.00 (2.50)", "we cannot tell"]


def test_a_difference_at_the_end_is_told_with_what_was_learned():
    rows = [
        asked(m, moment, "less" if moment == "end" else "undecided")
        for m in ("word_kd", "seq_kd")
        for moment in ("equal", "end")
    ]
    first, _ = told(*rows)
    assert first.startswith("**We cannot tell")
    assert "2 of 2 recite less, but 1 of these 2 had, on average, also learned less" in first
    assert front.show_decisions(claims_table(*rows), TRAJECTORIES)["so"].iloc[0].startswith("not for privacy alone")


def test_what_is_decided_at_equal_quality_is_told_both_ways():
    first, *_ = told(
        asked("word_kd", "equal", "less"), asked("seq_kd", "equal", "undecided"), asked("word_kd", "end", "less")
    )
    assert first.startswith("**Distilling can hide") and "1 of 2 distilled students recite less" in first
    rows = [asked("word_kd", "equal", "more"), asked("seq_kd", "equal", "less"), asked("word_kd", "end", "more")]
    first, _ = told(*rows)
    assert first.startswith("**Distilling does not hide") and "and 1 more" in first
    assert "0 of 1 recite less, and 1 more." in first
    assert front.show_decisions(claims_table(*rows), TRAJECTORIES)["so"].iloc[0] == "not for privacy: some recite more"


def test_a_measure_that_costs_nothing_is_advised_and_one_that_costs_is_weighed():
    rows = [asked(m, "end", "less", question="mitigation") for m in ("sft_dedup", "sft_annealed_2")]
    table = front.show_decisions(claims_table(*rows, asked("fkl", "end", "undecided")), TRAJECTORIES)
    assert table.loc["de-duplicate?", "so"].startswith("it helped, and no quality was lost, in the one student tried")
    assert table.loc["stop early?", "so"].startswith("not for privacy alone")
    assert table.loc["distil?", "so"] == "we cannot tell"
    some = [asked(m, "end", "less") for m in ("word_kd", "seq_kd", "fkl")]
    shown = front.show_decisions(claims_table(*some), TRAJECTORIES)
    assert shown.loc["distil?", "so"] == "not for privacy alone: 1 of 3 recite less and lost no quality; then audit"
    assert (
        front.advice(
            *(
                front.against_fine_tuning(claims_table(asked("fkl", m, "less")), TRAJECTORIES, ["fkl"])
                for m in ("equal", "end")
            )
        )
        == "yes, then audit"
    )


@pytest.mark.parametrize(
    ("moment", "said"), [("equal", "even when both are equally good"), ("end", "at the end of training")]
)
def test_what_was_never_shown(moment, said):
    known = asked("fkl_student", moment, "more", measure="transferred_exposure", question="transferred")
    *_, last = told(asked("fkl", "equal", "undecided"), known)
    assert said in last and "*forward KL, own text*" in last
    known = asked("fkl_student", moment, "undecided", measure="transferred_exposure", question="transferred")
    assert "is not decided** in any of 1 comparisons" in told(asked("fkl", "equal", "undecided"), known)[-1]


def test_readme_and_page_say_the_same():
    given = TRAJECTORIES, doses(SHARES), "secrets"
    real = ["Of a real one."]
    lines = front.in_markdown(SOME, *given, real)
    assert (
        lines[:3] == front.as_list(front.say_answer(SOME, *given))
        and lines[3:5] == ["", *real]
        and lines[6].startswith("| should you ... |")
    )
    assert front.in_markdown(NOTHING, *given, []) == [NONE_YET]
