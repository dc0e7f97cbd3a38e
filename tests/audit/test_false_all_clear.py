"""Four common situations in which an audit said 0 % (the fourth 75 %) of a model that recites every record.

Each is rebuilt with a tiny model trained until the library's `generate` gives all 24 records, and the audit's headline must say 24
of 24. Before an audit asked how training tokenized, ended and began a record, the first three gave 0 of 24, the fourth fewer
than 24.
"""

from audits import audited, rate_of, write
from reciters import CHATML, END, ROWS, START, TURN, learned, plain, tokenizer_of

from palimpsest.audit.findings import finds_more


def found(model, rows, folder, **settings):
    """The audit, and its headline rate: the one of the window that finds more."""
    summary = audited(model, write(folder / "members.jsonl", rows), folder / "out", approximate=False, **settings)
    rates = [r for r in summary["rates"] if r["measure"] == "verbatim" and r["k"] == 0 and r["m"] == 50]
    assert summary["self_check"]["mismatches"] == 0 and summary["self_check"]["records"] == 8
    return summary, finds_more(rates)


def test_a_model_that_never_learned_to_stop(tmp_path):
    """Its end token was masked in training, as padding is. Every target ended with it: 0 of 24, of every measure."""
    tokenizer = tokenizer_of()
    rows = [(plain(tokenizer, r["question"]), plain(tokenizer, r["answer"])) for r in ROWS]
    model = learned(tmp_path / "model", tokenizer, rows)
    options = {"window": 50, "left_truncated": [3]}
    summary, best = found(model, ROWS, tmp_path, **options)
    assert (best["count"], best["total"], best["end_token"]) == (24, 24, "not required")
    assert "not counting the end token" in summary["headline"][0] and "100.0 %" in summary["headline"][0]
    asked = rate_of(summary, "verbatim", k=0, m=None, end_token="required")
    assert asked["count"] == 0 and rate_of(summary, "verbatim", k=0, m=None, end_token="not required")["count"] == 24
    assert rate_of(summary, "discoverable", n=10, end_token="not required")["count"] == 24
    assert next(m["mean"] for m in summary["means"] if m["measure"] == "extraction_strength_no_end") == 1
    (finding,) = summary["findings"]
    assert (finding["count"], finding["total"]) == (24, 24) and "the end is missed in 100.0 %" in finding["text"]
    assert finding["text"] in summary["warnings"]


def conversations(tokenizer):
    """Prompts as a chat template writes them, beside the answers."""
    out = []
    for row in ROWS:
        turn = [{"role": "user", "content": row["question"]}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        out.append({"prompt": text, "completion": row["answer"]})
    return out


def test_a_turn_that_ends_with_another_token_than_end_of_text(tmp_path):
    """The audit appended `</s>`, which the model never writes, where it writes `<|im_end|>`: 0 of 24."""
    tokenizer = tokenizer_of()
    tokenizer.chat_template = CHATML
    turn, data = tokenizer.convert_tokens_to_ids(TURN), conversations(tokenizer)
    rows = [(plain(tokenizer, r["prompt"]), [*plain(tokenizer, r["completion"]), turn]) for r in data]
    model = learned(tmp_path / "model", tokenizer, rows, ends=[tokenizer.eos_token_id, turn])
    summary, best = found(model, data, tmp_path)
    assert (best["count"], best["total"]) == (24, 24) and summary["settings"]["tokens"]["end_token"] == TURN
    assert rate_of(summary, "verbatim", k=0, m=None, end_token="required")["count"] == 24  # with its own end, too
    assert not summary["findings"]
    where = {end["token"]: end["from"] for end in summary["settings"]["tokens"]["ends"]}
    assert where == {TURN: "chat template, generation configuration", END: "tokenizer, generation configuration"}
    (tmp_path / "told").mkdir()
    wrong, best = found(model, data, tmp_path / "told", end_token=END)
    assert best["count"] == wrong["findings"][0]["count"] == 24  # told the wrong one, it says that none is met


def test_a_tokenizer_that_puts_a_space_before_a_text(tmp_path):
    """Trained on one string; the response tokenized by itself begins with a space that was never there: 0 of 24."""
    tokenizer, rows = tokenizer_of(space_first=True), []
    for r in ROWS:
        prompt, whole = plain(tokenizer, r["question"]), plain(tokenizer, r["question"] + r["answer"])
        assert whole[: len(prompt)] == prompt
        rows.append((prompt, [*whole[len(prompt) :], tokenizer.eos_token_id]))
    model = learned(tmp_path / "model", tokenizer, rows)
    summary, best = found(model, ROWS, tmp_path)
    said = summary["settings"]["tokens"]
    assert (best["count"], best["total"], said["tokenize"], said["differ"]) == (24, 24, "joint", 24)
    assert said["loss_per_character"]["joint"] < said["loss_per_character"]["apart"]
    (tmp_path / "apart").mkdir()
    assert found(model, ROWS, tmp_path / "apart", tokenize="apart")[1]["count"] < 24


def test_a_prompt_that_begins_with_beginning_of_text_already(tmp_path):
    """The tokenizer put a second one before it: fewer than 24 of 24."""
    tokenizer = tokenizer_of(begins=True)
    data = [{"prompt": START + r["question"], "completion": r["answer"]} for r in ROWS]
    rows = [
        (plain(tokenizer, r["prompt"]), [*plain(tokenizer, r["completion"]), tokenizer.eos_token_id]) for r in data
    ]
    assert rows[0][0][0] == tokenizer.bos_token_id != rows[0][0][1]
    model = learned(tmp_path / "model", tokenizer, rows)
    summary, best = found(model, data, tmp_path)
    assert (best["count"], best["total"]) == (24, 24)
    first = summary["settings"]["tokens"]["first_tokens"]
    assert first["ids"][0] == tokenizer.bos_token_id and first["texts"][0] == START and first["ids"][1] is None
