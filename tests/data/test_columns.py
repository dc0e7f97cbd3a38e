"""Columns are told by their names, or refused with what there is."""

import pytest

from palimpsest.data.columns import guess_columns, passed_over
from palimpsest.errors import InputError


@pytest.mark.parametrize(
    ("names", "given_", "wanted"),
    [
        (
            ["instruction", "input", "output", "text"],
            {},
            {"instruction": "instruction", "context": "input", "response": "output"},
        ),
        (["Question", "Answer"], {}, {"instruction": "Question", "response": "Answer"}),
        (["prompt", "completion", "id"], {}, {"instruction": "prompt", "response": "completion"}),
        (["text", "answer"], {}, {"text": "text"}),
        (["messages", "prompt", "prompt_id"], {}, {"messages": "messages"}),
        (["conversations", "system"], {}, {"messages": "conversations", "system": "system"}),
        (
            ["prompt", "completion", "system"],
            {},
            {"instruction": "prompt", "response": "completion", "system": "system"},
        ),
        (["input", "output"], {}, {"instruction": "input", "response": "output"}),
        (["prompt", "input", "output"], {}, {"instruction": "prompt", "response": "output", "context": "input"}),
        (["source", "text"], {}, {"text": "text"}),
        (["source", "target"], {}, {"instruction": "source", "response": "target"}),
        (["source", "target", "text"], {}, {"text": "text"}),
        (["source", "prompt", "answer"], {}, {"instruction": "prompt", "response": "answer"}),
        (
            ["id", "source", "chosen"],
            {"instruction": "id", "response": "chosen"},
            {"instruction": "id", "response": "chosen"},
        ),
        (["turns", "text"], {"messages": "turns"}, {"messages": "turns"}),
        (["body"], {"text": "body"}, {"text": "body"}),
        (["instruction", "response", "story"], {"text": "story"}, {"text": "story"}),
        (["a", "b"], {"instruction": "a", "response": "b"}, {"instruction": "a", "response": "b"}),
    ],
)
def test_columns_are_guessed_from_their_names(names, given_, wanted):
    assert guess_columns(names, given_, "f") == wanted


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["prompt", "instruction", "response"], ["instruction is taken for the instruction, not prompt"]),
        (["prompt", "completion", "text"], ["prompt with completion is taken, not text"]),
        (
            ["text", "prompt", "completion", "messages"],
            ["messages is taken, not prompt with completion", "messages is taken, not text"],
        ),
        (["prompt", "completion", "source", "id"], []),
    ],
)
def test_where_two_columns_fit_it_is_said_which_is_taken(names, said):
    assert passed_over(names, guess_columns(names, {}, "f")) == said


@pytest.mark.parametrize(
    "names",
    [["prompt", "chosen", "rejected"], ["source", "id"], ["answer"], ["question", "answers"], ["x" * 900, "y"]],
)
def test_nothing_is_guessed_from_a_name_that_says_something_else(names):
    with pytest.raises(InputError, match="cannot be told from their names. Map them") as refused:
        guess_columns(names, {}, "f")
    assert len(str(refused.value)) < 500


def test_unknown_columns_are_listed():
    with pytest.raises(InputError, match="f has the columns a, b: .*--prompt-column and --response-column"):
        guess_columns(["a", "b"], {}, "f")
    with pytest.raises(
        InputError, match="give either --prompt-column with --response-column or --text-column, not both"
    ):
        guess_columns(["a", "b"], {"text": "a", "response": "b"}, "f")
    with pytest.raises(InputError, match="f has no column 'c'; it has a, b"):
        guess_columns(["a", "b"], {"text": "c"}, "f")
