"""What is read out of the figures on prefixes and contexts; `test_memorization` tries the rest on studies of every kind."""

import pandas as pd

from palimpsest.chapters import partly


def rows(role, split, k, rate, **more):
    return {
        "size": "small",
        "method": "sft",
        "role": role,
        "split": split,
        "k": k,
        "rate": rate,
        "total": 40,
        "low": rate,
        "high": rate,
        **more,
    }


def test_the_fine_tuned_models_first_and_last_prefix_are_read_out():
    frame = pd.DataFrame(
        [rows("baseline", "member", k, k / 100) for k in (0, 5, 30)] + [rows("baseline", "non_member", 0, 1.0)]
    )
    assert partly.say_by_prefix(frame) == [
        "- **small**: fine-tuned, it recites 0 % of the members from 0 tokens, 30 % from 30."
    ]
    few = pd.concat([frame, pd.DataFrame([rows("baseline", "member", 50, 1.0, total=3)])])
    assert partly.say_by_prefix(few) == partly.say_by_prefix(frame)  # too few records have a target there


def test_the_teachers_endings_are_read_out():
    frame = pd.DataFrame(
        [rows("teacher", "member", k, r, design="left-truncated") for k, r in ((10.0, 0.25), (float("inf"), 0.975))]
    )
    assert partly.say_context(frame) == [
        "Given all that precedes, the teacher completes the ending of 97.5 % (97.5 to 97.5) of 40 members. Given only 10 tokens: of "
        "25.0 % (25.0 to 25.0)."
    ]
    assert partly.say_context(frame.head(0)) == []
