"""From records to tokens: what is given, what is measured, and one start and one end."""

import json

import pandas as pd
import pytest
from tokenizers.processors import TemplateProcessing

from palimpsest.data import records
from palimpsest.data.chat import Chat
from palimpsest.data.encoding import Layout, encode
from palimpsest.errors import InputError
from palimpsest.measure.models import train_tokenizer

ROWS = [
    {"instruction": "Where is it?", "context": "", "response": "In Öland, at 4 Fern Road."},
    {"instruction": "Who has it?", "context": "The blue one.", "response": "Mina."},
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([r["response"] + r["instruction"] for r in ROWS] * 20, 300)


def test_no_records_make_no_examples(tokenizer):
    frame = pd.DataFrame(ROWS).head(0).assign(secrets=[], id=[])
    assert encode(frame, tokenizer, records.template("plain")) == []


def test_encoding_keeps_prompt_a_prefix_and_closes_the_response(tokenizer):
    frame = pd.DataFrame(ROWS).assign(secrets=[[{"start": 13, "end": 24, "kind": "address"}], []])
    frame["id"] = records.record_ids(frame)
    form = records.template("plain")
    first, second = encode(frame, tokenizer, form)
    assert tokenizer.decode(first.input_ids[: first.prompt_length]) == "Where is it?\n> "
    assert second.input_ids[: second.prompt_length] == tokenizer("Who has it?\nThe blue one.\n> ")["input_ids"]
    assert first.response_ids[-1] == tokenizer.eos_token_id and len(first.secret) == len(first.response_ids)
    assert (
        tokenizer.decode([t for t, s in zip(first.response_ids, first.secret, strict=True) if s]).strip(" .")
        == "4 Fern Road"
    )
    assert not first.secret[-1] and not any(second.secret)


def test_text_is_scored_whole_and_nothing_is_appended(tokenizer):
    frame = pd.DataFrame({"text": ["one two"], "id": ["x"]})
    (example,) = encode(frame, tokenizer)
    assert example.prompt_length == 1 and example.input_ids == tokenizer("one two")["input_ids"]


def test_a_tokenizer_that_closes_every_text(tokenizer):
    closing = train_tokenizer(["one two"] * 20, 270)
    own = TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", closing.eos_token_id)])
    closing.backend_tokenizer.post_processor = own
    (example,) = encode(pd.DataFrame({"text": ["one two"], "id": ["x"]}), closing)
    assert example.input_ids[-1] == closing.eos_token_id and example.closing == 1
    assert encode(pd.DataFrame({"text": ["one two"], "id": ["x"]}), tokenizer)[0].closing == 0


def test_too_long_for_the_model_is_refused_with_count(tokenizer):
    frame = pd.DataFrame(ROWS).assign(id=["a", "b"])
    with pytest.raises(InputError, match=r"2 of 2 records are longer than the model's context of 5 tokens"):
        encode(frame, tokenizer, records.template("plain"), 5)


CHATML = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|end|>\n{% endfor %}"
AS_IT_IS = records.Template("{instruction}{context}", "{instruction}")


def one(tokenizer, prompt, response, layout, form=AS_IT_IS, **columns):
    row = {"id": ["x"], "instruction": [prompt], "context": [""], "response": [response], **columns}
    (example,) = encode(pd.DataFrame(row), tokenizer, form, layout=layout)
    return example


def halves(tokenizer, example):
    return [tokenizer.decode(part) for part in (example.input_ids[: example.prompt_length], example.response_ids)]


@pytest.mark.parametrize(
    ("prompt", "response", "given", "measured"),
    [
        ("Who has it?\n> ", "Mina.", "Who has it?\n> ", "Mina."),  # no token reaches over the boundary here
        ("Where is ", "it", "Where is", " it"),  # one does: it belongs to the response
        ("Where is it?\n", "\nNo", "Where is it?\n", "\nNo"),
        ("In Ö", "land", "In", " Öland"),
    ],
)
def test_the_token_over_the_boundary_gives_nothing_away(prompt, response, given, measured):
    tokenizer = train_tokenizer(["Where is it?\n\nNo", "Where is it", "In Öland"] * 20, 300)
    example = one(tokenizer, prompt, response, Layout(joint=True))
    assert example.input_ids[:-1] == tokenizer(prompt + response)["input_ids"] and example.closing == 1
    assert halves(tokenizer, example) == [given, measured + tokenizer.eos_token]


def test_secrets_are_marked_alike_in_both_layouts(tokenizer):
    secret = [[{"start": 13, "end": 24, "kind": "address"}]]
    row = {"secrets": secret, "form": records.template("plain")}
    apart, joint = (one(tokenizer, "Where is it?", ROWS[0]["response"], Layout(joint=j), **row) for j in (False, True))
    for example in (apart, joint):
        marked = [t for t, s in zip(example.response_ids, example.secret, strict=True) if s]
        assert tokenizer.decode(marked).strip(" .") == "4 Fern Road" and len(example.secret) == len(
            example.response_ids
        )


@pytest.mark.parametrize("joint", [False, True])
def test_beginning_and_end_are_written_once(tokenizer, joint):
    start = "<s>"
    begun = train_tokenizer(["Who? Ann."] * 20, 280)
    begun.add_special_tokens({"bos_token": start})
    own = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, begun.bos_token_id)])
    begun.backend_tokenizer.post_processor = own
    for prompt in ("Who?", f"{start}Who?"):
        example = one(begun, prompt, f"Ann.{begun.eos_token}", Layout(joint=joint))
        assert example.input_ids.count(begun.bos_token_id) == example.input_ids.count(begun.eos_token_id) == 1
        assert example.input_ids[-1] == begun.eos_token_id and example.closing == 1
        assert len(example.secret) == len(example.response_ids)
    assert one(begun, "Who?", "Ann.", Layout(joint=joint, start=False)).input_ids.count(begun.bos_token_id) == 0


@pytest.mark.parametrize("joint", [False, True])
def test_conversations_are_closed_as_their_template_closes_them(joint):
    tokenizer = train_tokenizer(["Who? Ann."] * 20, 280)
    turns = [{"role": "user", "content": "Who?"}]
    row = {"messages": [json.dumps(turns)]}
    plain = one(tokenizer, "", "Ann.", Layout(joint=joint), Chat(CHATML), **row)
    end = tokenizer("<|end|>")["input_ids"]  # ordinary text to this tokenizer, with the line break behind it
    assert halves(tokenizer, plain) == ["[user]Who?<|end|>\n[assistant]", "Ann.<|end|>\n"]
    assert plain.closing >= len(end) > 1
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.chat_template = CHATML
    example = one(tokenizer, "", "Ann.", Layout(joint=joint), None, **row)
    assert halves(tokenizer, example) == ["[user]Who?<|end|>\n[assistant]", "Ann.<|end|>"] and example.closing == 1
    asked = one(tokenizer, "Who?", "Ann.", Layout(joint=joint), Chat())  # an instruction is one user's turn
    assert asked.input_ids == example.input_ids
    told = one(tokenizer, "Who?", "Ann.", Layout(joint=joint, end=(tokenizer.eos_token_id,)), Chat())
    assert told.input_ids[-1] == tokenizer.eos_token_id and told.closing == 1
