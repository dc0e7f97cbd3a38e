"""How records become tokens: what a sample decides, and what is shown of it."""

import pandas as pd
from audits import audited, people, write
from reciters import CHATML, END, ROWS, START, TURN, learned, plain, tokenizer_of

from palimpsest.audit.layout import choose_layout, first_tokens, say_layout
from palimpsest.data.encoding import Layout, encode
from palimpsest.data.examples import Example
from palimpsest.measure.ends import end_tokens
from palimpsest.measure.extraction import verbatim
from palimpsest.measure.models import load_model
from palimpsest.measure.scoring import score


def test_conversations_are_tried_without_the_tokenizers_beginning(tmp_path):
    """The template writes no beginning-of-text and training added none, but the tokenizer does, to any text."""
    tokenizer = tokenizer_of(begins=True)
    tokenizer.chat_template = CHATML
    chats = pd.DataFrame({"id": [str(i) for i in range(24)], "response": [r["answer"] for r in ROWS]})
    chats["messages"] = [[{"role": "user", "content": r["question"]}] for r in ROWS]
    prompts = [tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in chats["messages"]]
    turn = tokenizer.convert_tokens_to_ids(TURN)
    pairs = zip(prompts, chats["response"], strict=True)
    rows = [(plain(tokenizer, prompt), [*plain(tokenizer, answer), turn]) for prompt, answer in pairs]
    model = load_model(learned(tmp_path, tokenizer, rows))
    layout, said = choose_layout(model, tokenizer, chats, None, "auto", end_tokens(model, tokenizer), 128)
    assert layout == Layout(start=False) and said["end_token"] == TURN
    assert said["differ"] == 24 and said["tokenize"] == "apart, without beginning-of-text"
    assert min(said["loss_per_character"], key=said["loss_per_character"].get) == said["tokenize"]
    ends, way = say_layout({**said, "ends": [{"token": TURN, "from": "chat template"}]})
    assert f"ends with {TURN} (chat template); {TURN} closes" in ends
    assert "tokenized apart, without beginning-of-text: of 24 records looked at, 24 differ" in way
    assert verbatim(score(model, encode(chats, tokenizer, layout=layout))).all()
    told, asked = choose_layout(model, tokenizer, chats, None, "joint", end_tokens(model, tokenizer, given=END), 128)
    assert told == Layout(joint=True, end=(tokenizer.eos_token_id,)) and asked["loss_per_character"] == {}


def test_the_first_tokens_of_a_record_are_shown_and_its_text_is_not():
    tokenizer = tokenizer_of()
    example = Example("x", [tokenizer.bos_token_id, *plain(tokenizer, "Who has key 12?")], 3)
    hidden, shown = (first_tokens(example, tokenizer, show) for show in (False, True))
    assert hidden["ids"] == [tokenizer.bos_token_id] + [None] * (len(shown["ids"]) - 1)
    assert hidden["texts"][0] == START and not any("Who" in text for text in hidden["texts"])
    assert "".join(shown["texts"]).startswith(f"{START}Who") and len(shown["ids"]) <= 8


def test_plain_texts_have_no_boundary(place, tmp_path):
    texts = write(tmp_path / "texts.jsonl", [{"text": r["answer"]} for r in people(4, 1)])
    summary = audited(place / "tuned", texts, tmp_path / "out", approximate=False)
    said = summary["settings"]["tokens"]
    assert said["tokenize"] == "whole texts" and said["end_token"] is None and said["differ"] == 0
    assert {r["end_token"] for r in summary["rates"] if r["measure"] == "verbatim"} == {"not required"}
