"""Page 00: what it says follows from its tables, for any study, and it judges no method by one training."""

import re

import jupytext
import pandas as pd
import pytest
from claims_by_hand import NOTHING, SOME, claimed, claims_table
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.chapters import front
from palimpsest.chapters.claims import NONE_YET
from palimpsest.chapters.memorization import arm_rates, say_rates
from palimpsest.measure.statistics import newcombe, rate_of
from palimpsest.study import Arm, load_study
from palimpsest.study.files import root

TOTAL = 50
COUNTS = st.fixed_dictionaries({m: st.integers(0, TOTAL) for m in ("sft", "fkl", "rkl", "seq_kd")})
VERDICT = re.compile(r"\b(less|more|fewer|better|worse|closer)\b")


def table(counts: dict[str, int], seeds=(0,), chance=1) -> pd.DataFrame:
    """Rates of one size, the same in every seed; nothing but `chance` of the non-members; a teacher that recites all."""
    arms, rows = [Arm("teacher", "sft"), *(Arm("small", m, s) for s in seeds for m in counts)], []
    for arm in arms:
        members = TOTAL if arm.role == "teacher" else counts[arm.method]
        for target in ("secret", "window"):
            for split, count in (("member", members), ("non_member", chance)):
                rows.append({**arm.columns(), "split": split, "target": target, **rate_of(count, TOTAL)})
    return pd.DataFrame(rows)


@settings(max_examples=25)
@given(COUNTS)
def test_seeds_that_agree_narrow_nothing(counts):
    one, three = (front.against_baseline(table(counts, seeds), "secret") for seeds in ((0,), (0, 1, 2)))
    pd.testing.assert_frame_equal(one, three)


@settings(max_examples=25)
@given(COUNTS)
def test_differences_have_intervals_and_no_verdict(counts):
    found = front.against_baseline(table(counts), "secret").set_index("method")
    assert set(found.index) == set(counts) - {"sft"} and "verdict" not in found
    for method, row in found.iterrows():
        ends = newcombe(counts[method], TOTAL, counts["sft"], TOTAL)
        assert (row["low"], row["high"]) == pytest.approx(ends)
        assert row["difference"] == pytest.approx((counts[method] - counts["sft"]) / TOTAL)
    largest = 2 * max((counts[m] - counts["sft"] for m in counts), key=abs)
    assert f"{largest:+.1f} (" in front.say_comparison(table(counts), "secret").replace("-0.0", "+0.0")


@settings(max_examples=25)
@given(COUNTS)
def test_the_least_and_the_most_of_the_distilled_are_named(counts):
    rates = table(counts)
    shares = [100 * counts[m] / TOTAL for m in counts if m != "sft"]
    (line,) = [line for line in say_rates(rates, "secret", "secrets") if "small" in line]
    assert ("by every method" in line) == (min(shares) == max(shares))
    for share in (min(shares), max(shares)):
        assert f"{share:.1f} % (" in line.split("Distilled, ")[1]
    answer = front.say_run(rates, "secret", "secrets")
    assert f"distilled, {min(shares):.0f} % to {max(shares):.0f} % by method" in answer[0]


def test_the_answer_gives_the_baseline_and_the_largest_difference():
    answer = front.say_run(table({"sft": 30, "fkl": 3, "rkl": 29}), "window", "records")
    assert "60.0 % (46.2 to 72.4) of the members' 50 records" in answer[0]
    assert "*forward KL*" in answer[1] and "-54.0 (" in answer[1]


def test_a_study_with_fine_tuning_alone():
    rates = table({"sft": 30})
    assert front.against_baseline(rates, "secret").empty
    answer = front.say_run(rates, "secret", "secrets")
    assert len(answer) == 2 and "distilled" not in answer[0] and answer[1].endswith(front.NO_STUDENT)


def test_rates_together_have_a_row_per_size_and_method():
    rates = table({"sft": 30, "fkl": 3}, seeds=(0, 1))
    rates.loc[rates["model"] == "small-fkl-s1", "count"] = 7
    found = arm_rates(rates, "secret").set_index("method")
    assert found.index.is_unique and found.loc["fkl", "rate"] == 5 / TOTAL


@pytest.mark.parametrize("name", ["smoke", "dolly", "demo-replicates"])
def test_only_invented_data_is_called_so(name):
    study = load_study(f"studies/{name}.yaml")
    told = " ".join(front.say_study(study, {"member": 3, "non_member": 2}))
    assert ("invented" in told) == study.synthetic and study.title in told and "3 member, 2 non-member" in told
    assert f"{len(study.arms())} students in each replicate" in told and f"Replicates: {study.replicates}." in told
    assert ("DP-SGD (small alone)" in told) == (name == "demo-replicates")


@settings(max_examples=25)
@given(COUNTS)
def test_sentences_are_short_and_judge_nobody(counts):
    for line in front.say_run(table(counts), "secret", "secrets"):
        assert not VERDICT.search(line)
        for sentence in line.split(". "):
            assert sum(any(c.isalnum() for c in word) for word in sentence.split()) <= 25, sentence


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
    assert table.loc["de-duplicate?", "so"].startswith("yes: less recited, no loss of quality seen")
    assert table.loc["stop early?", "so"].startswith("not for privacy alone")
    assert table.loc["distil?", "so"] == "we cannot tell"
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
    lines = front.in_markdown(SOME, *given)
    assert lines[:3] == front.as_list(front.say_answer(SOME, *given)) and lines[4].startswith("| should you ... |")
    assert front.in_markdown(NOTHING, *given) == [NONE_YET]


def test_repeated_members_are_told_of_first_and_apart():
    """A rate of what stands once, near zero, must not speak for what is repeated."""
    rates = table({"sft": 0, "fkl": 0})
    often = [
        {**row, "split": "repeated", **rate_of(40 if row["method"] == "sft" else 10, TOTAL)}
        for row in rates[rates["split"] == "member"].to_dict("records")
    ]
    answer = front.say_run(pd.concat([rates, pd.DataFrame(often)]), "secret", "secrets")
    assert "80.0 %" in answer[0] and "repeated in the training text" in answer[0]
    assert "0.0 %" in answer[1] and "stand there once" in answer[1] and "-60.0 (" in answer[2]
