"""Which tokens end a text, and where each was found."""

import pytest
from memorizers import untrained, words

from palimpsest.errors import InputError
from palimpsest.measure.ends import end_tokens


def test_ends_come_from_template_tokenizer_and_generation_configuration():
    model, tokenizer = untrained("llama"), words()
    model.generation_config.eos_token_id = None
    assert end_tokens(model, tokenizer) == {0: "tokenizer"}
    model.generation_config.eos_token_id = [0, 7]
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} w9 {% endfor %}"
    found = end_tokens(model, tokenizer)
    assert found == {9: "chat template", 0: "tokenizer, generation configuration", 7: "generation configuration"}
    assert list(end_tokens(model, tokenizer, given="w5").items())[0] == (5, "as given")
    assert end_tokens(model, tokenizer, given="w9")[9] == "as given, chat template"
    with pytest.raises(InputError, match="'w1 w2' is 1 token.s. .* wanted one"):
        end_tokens(model, tokenizer, given="w1 w2")
