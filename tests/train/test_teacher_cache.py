"""The teacher's states on disk: exact, small, made once, and made anew when anything differs."""

import logging
import threading

import pytest
import torch
from memorizers import END, texts, untrained

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.train import teacher_cache
from palimpsest.train.teacher_cache import open_cache


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
    cache = open_cache(tmp_path, teacher, examples, token_budget=budget)
    for chosen in ([examples[3]], [examples[7], examples[0], examples[7]], examples):
        found = cache.lookup([e.id for e in chosen])
        torch.testing.assert_close(found, torch.cat([alone(teacher, e) for e in chosen]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype, size", [(torch.float32, 4), (torch.bfloat16, 2)])
def test_a_token_takes_its_width_in_the_teachers_dtype(dtype, size, tmp_path):
    teacher, examples = untrained("gpt2").to(dtype), texts(6)
    cache = open_cache(tmp_path, teacher, examples)
    tokens = sum(len(e.response_ids) for e in examples)
    stored, names = size * teacher.config.n_embd * tokens, 100 * len(examples)  # a file's head names its entries
    assert stored < sum(p.stat().st_size for p in only_folder(tmp_path).iterdir()) < stored + names
    found = cache.lookup([examples[0].id])
    assert found.dtype == dtype
    torch.testing.assert_close(found, alone(teacher, examples[0]), rtol=2e-2, atol=2e-2)


def test_repeated_records_are_stored_once(tmp_path):
    examples = texts(4)
    open_cache(tmp_path / "twice", untrained("gpt2"), examples + examples[:2])
    once = open_cache(tmp_path / "once", untrained("gpt2"), examples)
    sizes = [sum(p.stat().st_size for p in only_folder(f).iterdir()) for f in (tmp_path / "twice", tmp_path / "once")]
    assert sizes[0] == sizes[1] and once.holds([e.id for e in examples])


def test_it_is_made_once_and_read_ever_after(tmp_path, monkeypatch):
    teacher, examples = untrained("gpt2"), texts(5)
    first = open_cache(tmp_path, teacher, examples)
    monkeypatch.setattr(teacher_cache, "labelled_states", lambda *_: pytest.fail("the teacher ran again"))
    again = open_cache(tmp_path, untrained("gpt2"), examples)  # another process has equal weights, not the object
    assert torch.equal(first.lookup([examples[1].id]), again.lookup([examples[1].id]))


@pytest.mark.parametrize("what", ["teacher", "dtype", "records", "prompt", "untrained"])
def test_anything_that_differs_makes_another_cache(what, tmp_path):
    teacher, examples = untrained("gpt2"), texts(5)
    open_cache(tmp_path, teacher, examples)
    old = only_folder(tmp_path)
    ids, given = examples[2].input_ids, examples[2].prompt_length
    if what == "teacher":
        teacher.transformer.h[0].mlp.c_fc.weight.data[0, 0] += 1e-3
    if what == "dtype":
        teacher.bfloat16()
    if what == "records":
        examples[2] = Example(examples[2].id, [*ids[:-2], 5, END], given)
    if what == "prompt":
        examples[2] = Example(examples[2].id, ids, given + 1)
    if what == "untrained":
        flags = [i == 1 for i in range(len(ids) - given)]
        examples[2] = Example(examples[2].id, ids, given, untrained=flags)
    cache = open_cache(tmp_path, teacher, examples)
    assert [p for p in tmp_path.iterdir() if p.is_dir() and p != old]
    wanted = alone(teacher, examples[2])
    if what == "untrained":
        wanted = torch.cat([wanted[:1], wanted[2:]])
    torch.testing.assert_close(
        cache.lookup([examples[2].id]), wanted, rtol=1e-2, atol=2e-2 if what == "dtype" else 1e-5
    )


@pytest.mark.parametrize("damage", ["truncated", "a file is gone", "overwritten"])
def test_a_damaged_cache_is_made_again_with_a_message(damage, tmp_path, caplog):
    teacher, examples = untrained("gpt2"), texts(5)
    wanted = open_cache(tmp_path, teacher, examples, token_budget=60).lookup([e.id for e in examples]).clone()
    file = sorted(only_folder(tmp_path).iterdir())[1]
    if damage == "truncated":
        with open(file, "r+b") as end:
            end.truncate(1000)
    elif damage == "overwritten":
        file.write_text("not a tensor")
    else:
        file.unlink()
    with caplog.at_level(logging.WARNING):
        found = open_cache(tmp_path, teacher, examples, token_budget=60).lookup([e.id for e in examples])
    assert torch.equal(found, wanted)
    assert "Making it again" in caplog.text


def test_an_interrupted_draft_is_not_taken_for_a_cache(tmp_path, monkeypatch):
    teacher, examples = untrained("gpt2"), texts(5)
    real, calls = teacher_cache.labelled_states, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(teacher_cache, "labelled_states", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path, teacher, examples, token_budget=1)
    cache = open_cache(tmp_path, teacher, examples)
    torch.testing.assert_close(cache.lookup([examples[0].id]), alone(teacher, examples[0]), rtol=1e-5, atol=1e-5)


def test_processes_that_want_the_same_cache_wait_for_one_to_make_it(tmp_path, monkeypatch):
    teacher, examples = untrained("gpt2"), texts(5)
    real, made, found = teacher_cache._write, [], []
    monkeypatch.setattr(teacher_cache, "_write", lambda *args: (made.append(1), real(*args)))
    threads = [
        threading.Thread(target=lambda: found.append(open_cache(tmp_path, teacher, examples))) for _ in range(4)
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
        open_cache(tmp_path, teacher, examples)
    assert not [p for p in tmp_path.iterdir() if p.is_dir() and p.suffix != ".part"]


def test_one_id_with_two_texts_is_refused(tmp_path):
    examples = texts(3)
    other = Example(examples[0].id, examples[1].input_ids, examples[1].prompt_length)
    with pytest.raises(InputError, match=f"Record {examples[0].id} occurs with two"):
        open_cache(tmp_path, untrained("gpt2"), [*examples, other])


def test_an_empty_response_has_no_states(tmp_path):
    examples = [*texts(2), Example("empty", [3, 4, 5], 3)]
    cache = open_cache(tmp_path, untrained("gpt2"), examples)
    assert cache.lookup(["empty"]).shape == (0, 48)
