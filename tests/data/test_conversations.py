"""Conversations: every assistant's turn a response to the turns before it; what is no text is named."""

import json

import numpy as np
import pytest

from palimpsest.data.conversations import UnreadableTurn, earlier_turns, read_turns, responses

USER, REPLY = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}


def plain(turns):
    return [(turn["role"], turn["content"]) for turn in turns]


@pytest.mark.parametrize(
    "value",
    [
        [USER, REPLY],
        np.array([USER, REPLY]),
        json.dumps([USER, REPLY]),
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}],
        [{"from": "user", "value": "a"}, {"from": "Assistant", "value": "b"}],
        [{"role": None, "from": "human", "content": None, "value": "a"}, REPLY],
        [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {**REPLY, "tool_calls": None, "weight": 1}],
        [
            {"role": "user", "content": np.array([{"type": "text", "text": "a"}, {"text": ""}])},
            {**REPLY, "tool_calls": []},
        ],
    ],
)
def test_turns_in_every_dress(value):
    assert plain(read_turns(value)) == [("user", "a"), ("assistant", "b")]


def test_a_text_is_one_turn_where_a_speaker_is_known():
    assert plain(read_turns("[{hello", "user")) == [("user", "[{hello")]
    with pytest.raises(UnreadableTurn, match="a text, where a list of turns is wanted"):
        read_turns("hello", "")


@pytest.mark.parametrize(
    ("value", "message", "usual"),
    [
        ([USER, {"role": "tool", "content": "x"}], "the unknown role 'tool' in turn 2", True),
        ([{"role": None, "content": "x"}], "the unknown role None in turn 1", True),
        ([{"content": "x"}], "the unknown role None in turn 1", True),
        ([USER, {**REPLY, "content": None, "tool_calls": [{"id": 1}]}], "tool_calls in turn 2", True),
        ([USER, {**REPLY, "function_call": {"name": "f"}}], "function_call in turn 2", True),
        ([USER, {**REPLY, "reasoning_content": "hm"}], "reasoning_content in turn 2", True),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            "a part of the type 'image_url' in turn 1",
            True,
        ),
        ([{"role": "user", "content": [7]}], "a number in turn 1", True),
        ([USER, {"role": "assistant", "content": 7}], "a number as content of turn 2", False),
        ([USER, {"role": "assistant", "content": {"text": "x"}}], "an object as content of turn 2", False),
        ([USER, "b"], "a text as turn 2", False),
        ([None], "null as turn 1", False),
        (7, "a number, where a list of turns is wanted", False),
        ({"role": "user"}, "an object, where a list of turns is wanted", False),
    ],
)
def test_what_is_no_text_is_named_with_its_place(value, message, usual):
    with pytest.raises(UnreadableTurn, match=message) as refused:
        read_turns(value, "")
    assert refused.value.usual == usual


def test_responses_all_or_the_last_and_none_that_training_left_out():
    turns = read_turns([USER, REPLY, {**USER, "content": "c"}, {**REPLY, "content": "d"}, USER], "")
    found = list(responses(turns, 0, False))
    assert [(place, text) for place, _, text in found] == [(1, "b"), (3, "d")]
    assert plain(found[1][1]) == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert (
        [place for place, _, _ in responses(turns, 0, True)]
        == [place for place, _, _ in responses(turns, 2, False)]
        == [3]
    )
    turns[1]["weight"] = 0
    ((place, before, _),) = responses(turns, 0, False)
    assert place == 3 and plain(before)[1] == ("assistant", "b") and set(before[1]) == {"role", "content"}


def test_a_system_prompt_and_a_history_come_before():
    assert plain(earlier_turns("s", [["a", "b"]])) == [("system", "s"), ("user", "a"), ("assistant", "b")]
    assert earlier_turns(None, None) == earlier_turns("", []) == earlier_turns(float("nan"), float("nan")) == []
    for system, history, message in (
        (7, None, "a number as system"),
        (None, [["a"]], "a history that is no list of pairs"),
        (None, [1, 2], "a history that is no list of pairs"),
        (None, "what was said before", "a text as history"),
        (None, '"what was said before"', "a text as history"),
        (None, {"user": "a"}, "an object as history"),
    ):
        with pytest.raises(UnreadableTurn, match=message):
            earlier_turns(system, history)
