"""The teacher's states on disk: exact, small, made once, and refused when anything differs."""

import json
import logging
import threading

import pytest
import torch
from memorizers import END, texts, untrained, words

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.train import teacher_cache
from palimpsest.train.teacher_cache import TeacherCache, open_cache


def alone(teacher, example: Example) -> torch.Tensor:
    """States at the labelled positions from a forward pass over one unpadded record."""
    with torch.no_grad():
        out = teacher(input_ids=torch.tensor([example.input_ids]), output_hidden_states=True)
    return out.hidden_states[-1][0, example.prompt_length - 1 : -1]


def only_folder(path):
    return next(p for p in path.iterdir() if p.is_dir())


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("budget", [1, 100, 10_000])
def test_states_are_those_of_an_unpadded_forward_pass(kind, budget, tmp_path):
    teacher, examples = untrained(kind), texts(12)
    cache = open_cache(tmp_path, teacher, words(), examples, token_budget=budget)
    for chosen in ([examples[3]], [examples[7], examples[0], examples[7]], examples):
        found = cache.lookup([e.id for e in chosen])
        torch.testing.assert_close(found, torch.cat([alone(teacher, e) for e in chosen]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype, size", [(torch.float32, 4), (torch.bfloat16, 2)])
def test_a_token_takes_its_width_in_the_teachers_dtype(dtype, size, tmp_path):
    teacher, examples = untrained("gpt2").to(dtype), texts(6)
    cache = open_cache(tmp_path, teacher, words(), examples)
    tokens = sum(len(e.response_ids) for e in examples)
    assert (only_folder(tmp_path) / "states.bin").stat().st_size == size * teacher.config.n_embd * tokens
    found = cache.lookup([examples[0].id])
    assert found.dtype == dtype
    torch.testing.assert_close(found, alone(teacher, examples[0]), rtol=2e-2, atol=2e-2)


def test_a_stored_dtype_can_be_asked_for(tmp_path):
    cache = open_cache(tmp_path, untrained("gpt2"), words(), texts(3), dtype=torch.bfloat16)
    assert cache.lookup([texts(3)[0].id]).dtype == torch.bfloat16


def test_repeated_records_are_stored_once(tmp_path):
    examples = texts(4)
    open_cache(tmp_path, untrained("gpt2"), words(), examples + examples[:2])
    assert json.loads((only_folder(tmp_path) / "cache.json").read_text())["ids"].count(examples[0].id) == 1


def test_it_is_made_once_and_read_ever_after(tmp_path, monkeypatch):
    teacher, examples = untrained("gpt2"), texts(5)
    first = open_cache(tmp_path, teacher, words(), examples)
    monkeypatch.setattr(teacher_cache, "body_states", lambda *_: pytest.fail("the teacher ran again"))
    again = open_cache(
        tmp_path, untrained("gpt2"), words(), examples
    )  # another process has equal weights, not the object
    assert torch.equal(first.lookup([examples[1].id]), again.lookup([examples[1].id]))


@pytest.mark.parametrize("what", ["teacher", "tokenizer", "records", "dtype", "prompt"])
def test_anything_that_differs_makes_another_cache_and_refuses_this_one(what, tmp_path):
    teacher, tokenizer, examples = untrained("gpt2"), words(), texts(5)
    open_cache(tmp_path, teacher, tokenizer, examples)
    old = only_folder(tmp_path)
    if what == "teacher":
        teacher.transformer.h[0].mlp.c_fc.weight.data[0, 0] += 1e-3
    if what == "tokenizer":
        tokenizer.add_tokens(["new"])
    if what == "records":
        examples[2] = Example(examples[2].id, [*examples[2].input_ids[:-2], 5, END], examples[2].prompt_length)
    if what == "prompt":
        examples[2] = Example(examples[2].id, examples[2].input_ids, examples[2].prompt_length + 1)
    open_cache(tmp_path, teacher, tokenizer, examples, dtype=torch.bfloat16 if what == "dtype" else None)
    new = next(p for p in tmp_path.iterdir() if p.is_dir() and p != old)
    made_from = json.loads((new / "cache.json").read_text())["made_from"]
    name = "records" if what == "prompt" else what
    with pytest.raises(InputError, match=f"made with another {name};.*Delete the folder"):
        TeacherCache(old, made_from)


def test_a_renamed_stale_folder_is_refused_and_kept(tmp_path):
    teacher, examples = untrained("gpt2"), texts(5)
    open_cache(tmp_path, teacher, words(), examples)
    folder = only_folder(tmp_path)
    meta = json.loads((folder / "cache.json").read_text())
    meta["made_from"]["teacher"] = "someone else"
    (folder / "cache.json").write_text(json.dumps(meta))
    with pytest.raises(InputError, match="made with another teacher"):
        open_cache(tmp_path, teacher, words(), examples)
    assert (folder / "states.bin").exists()


@pytest.mark.parametrize("damage", ["truncated", "no metadata", "half-written metadata"])
def test_a_damaged_cache_is_made_again_with_a_message(damage, tmp_path, caplog):
    teacher, examples = untrained("gpt2"), texts(5)
    wanted = open_cache(tmp_path, teacher, words(), examples).lookup([e.id for e in examples]).clone()
    folder = only_folder(tmp_path)
    made_from = json.loads((folder / "cache.json").read_text())["made_from"]
    if damage == "truncated":
        with open(folder / "states.bin", "r+b") as file:
            file.truncate(1000)
    elif damage == "no metadata":
        (folder / "cache.json").unlink()
    else:
        (folder / "cache.json").write_text((folder / "cache.json").read_text()[:50])
    with pytest.raises(InputError, match="truncated|isn't a finished"):
        TeacherCache(folder, made_from)
    with caplog.at_level(logging.WARNING):
        found = open_cache(tmp_path, teacher, words(), examples).lookup([e.id for e in examples])
    assert torch.equal(found, wanted)
    assert "Making it again" in caplog.text


def test_an_interrupted_draft_is_not_taken_for_a_cache(tmp_path, monkeypatch):
    teacher, examples = untrained("gpt2"), texts(5)
    real, calls = teacher_cache.body_states, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(teacher_cache, "body_states", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path, teacher, words(), examples, token_budget=1)
    cache = open_cache(tmp_path, teacher, words(), examples)
    torch.testing.assert_close(cache.lookup([examples[0].id]), alone(teacher, examples[0]), rtol=1e-5, atol=1e-5)


def test_processes_that_want_the_same_cache_wait_for_one_to_make_it(tmp_path, monkeypatch):
    teacher, examples = untrained("gpt2"), texts(5)
    real, made, found = teacher_cache._write, [], []
    monkeypatch.setattr(teacher_cache, "_write", lambda *args: (made.append(1), real(*args)))
    threads = [
        threading.Thread(target=lambda: found.append(open_cache(tmp_path, teacher, words(), examples)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(made) == 1


def test_a_teacher_that_gives_nan_is_refused_by_record(tmp_path):
    teacher, examples = untrained("gpt2"), texts(5)
    token = 7
    examples = [Example(e.id, [t if t != token else 8 for t in e.input_ids], e.prompt_length) for e in examples]
    examples[3].input_ids[-2] = token
    teacher.transformer.wte.weight.data[token] = float("nan")
    with pytest.raises(InputError, match=f"aren't finite for record {examples[3].id}"):
        open_cache(tmp_path, teacher, words(), examples)
    assert not [p for p in tmp_path.iterdir() if p.is_dir() and p.suffix != ".part"]


def test_one_id_with_two_texts_is_refused(tmp_path):
    examples = texts(3)
    other = Example(examples[0].id, examples[1].input_ids, examples[1].prompt_length)
    with pytest.raises(InputError, match=f"Record {examples[0].id} occurs with two"):
        open_cache(tmp_path, untrained("gpt2"), words(), [*examples, other])


def test_an_empty_response_has_no_states(tmp_path):
    examples = [*texts(2), Example("empty", [3, 4, 5], 3)]
    cache = open_cache(tmp_path, untrained("gpt2"), words(), examples)
    assert cache.lookup(["empty"]).shape == (0, 48)
