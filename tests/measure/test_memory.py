"""Running out of memory is told from every other error, and costs nothing but smaller batches."""

import pytest
import torch

from palimpsest.measure.memory import free_memory, is_out_of_memory, run_batches


def failing(do) -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011  which one it is, is the question
        do()
    return error.value


def test_what_running_out_of_memory_is():
    assert is_out_of_memory(failing(lambda: torch.empty(1 << 50)))  # the CPU allocator's own words
    assert is_out_of_memory(failing(lambda: bytearray(1 << 60)))
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert not is_out_of_memory(failing(lambda: torch.zeros(2) + torch.zeros(3)))
    assert not is_out_of_memory(failing(lambda: torch.load("no DefaultCPUAllocator: can't allocate memory")))


def test_batches_are_halved_from_there_on_and_every_row_is_run_once():
    def run(rows):
        if len(rows) > 2:
            torch.empty(1 << 50)
        return [10 * i for i in rows]

    with pytest.warns(UserWarning, match="out of memory") as said:
        done = list(run_batches([[0], [1, 2, 3, 4, 5], [6, 7, 8]], run, [3] * 9, list("abcdefghi")))
    assert [i for rows, _ in done for i in rows] == list(range(9))
    assert all(result == [10 * i for i in rows] for rows, result in done)
    assert f"at most {5 * 3 // 2} tokens" in str(said[0].message) and max(len(rows) for rows, _ in done) <= 2


def test_another_error_goes_through():
    with pytest.raises(ZeroDivisionError):
        list(run_batches([[0, 1]], lambda rows: 1 // 0, [1, 1], ["a", "b"]))


def test_free_memory_is_some():
    assert 1 << 20 < free_memory(torch.device("cpu")) < 1 << 50
