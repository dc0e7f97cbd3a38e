"""Conversations as a chat template writes them: prompt, response and closing put together are the whole, whatever the template."""

import pytest

from palimpsest.data.chat import end_of_turn, render
from palimpsest.errors import InputError
from palimpsest.measure.models import train_tokenizer

TURN = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
ASKED = TURN + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
STRIPPED = ASKED.replace("m['content']", "m['content'] | trim")
THINKING = ASKED.replace(
    "<|{{ m['role'] }}|>", "<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}<think></think>{% endif %}"
)
MARKED = TURN.replace("{{ m['content'] }}", "{% generation %}{{ m['content'] }}{% endgeneration %}")
LATE = "{% if messages[-1]['role'] == 'assistant' %}answered: {% endif %}" + ASKED
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + ASKED
)
SPLIT = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
CHAT = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "Ann."},
    {"role": "user", "content": "Where?"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["Who has it? Ann has it."] * 20, 280)


@pytest.mark.parametrize("template", [TURN, ASKED, STRIPPED, THINKING, MARKED])
def test_the_parts_are_the_whole(tokenizer, template):
    parts = render(tokenizer, CHAT, " At home.\n", template)
    turns = [*CHAT, {"role": "assistant", "content": " At home.\n"}]
    assert "".join(parts) == tokenizer.apply_chat_template(turns, tokenize=False, chat_template=template)
    assert parts[1] == ("At home." if template == STRIPPED else " At home.\n") and parts[2] == "<|end|>\n"
    assert parts[0].endswith("<think></think>" if template == THINKING else "<|assistant|>")


def test_the_tokenizers_own_template_and_its_end_of_turn(tokenizer):
    with pytest.raises(InputError, match="no chat template: give the one .* --template FILE"):
        render(tokenizer, CHAT, "x")
    assert end_of_turn(tokenizer) == ""
    tokenizer.chat_template = ASKED
    assert render(tokenizer, CHAT, "x") == render(tokenizer, CHAT, "x", ASKED) and end_of_turn(tokenizer) == "<|end|>"
    tokenizer.chat_template = None


def test_a_prompt_that_is_no_prefix_is_refused_with_both_strings_and_no_data(tokenizer):
    with pytest.raises(InputError, match="(?s)no prefix of the whole.*prompt: .*whole:  .answered: ") as error:
        render(tokenizer, CHAT, "a secret", LATE)
    assert "the response" in str(error.value) and "secret" not in str(error.value) and "Who?" not in str(error.value)


def test_a_system_turn_that_the_template_refuses(tokenizer):
    with pytest.raises(
        InputError, match="refuses the turns system, user .System role not supported.*takes no system turn"
    ):
        render(tokenizer, [{"role": "system", "content": "Be brief."}, CHAT[0]], "x", NO_SYSTEM)


def test_a_template_that_rewrites_the_response(tokenizer):
    with pytest.raises(InputError, match="does not write the response in one piece"):
        render(tokenizer, CHAT, "Ann.", SPLIT)
    with pytest.raises(InputError, match="refuses the turns user"):
        render(tokenizer, CHAT[:1], "Ann.", "{% for m in %}")
