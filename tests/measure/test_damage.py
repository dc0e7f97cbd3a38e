"""Files that are not whole, and other libraries' errors, in words that say what to do."""

import errno

import pytest
import torch
from safetensors.torch import save_file

from palimpsest.errors import InputError
from palimpsest.measure.damage import CannotLoadError, check_file, read_json, refusal


def test_every_length_of_a_cut_file_is_noticed(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(4, 3), "b": torch.ones(2)}, path)
    check_file(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CannotLoadError, match="copy or download it again"):
            check_file(path)


def test_json_that_is_none(tmp_path):
    path = tmp_path / "config.json"
    for text, said in (("{", "is no JSON"), ("[1]", "holds a list; wanted a JSON object"), ("\xff", "is no JSON")):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(CannotLoadError, match=said):
            read_json(path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "'m' does not fit in memory: MemoryError. Use --dtype bf16"),
        (torch.OutOfMemoryError("CUDA out of memory"), "does not fit in memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "does not fit in memory"),
        (ValueError("no file called DefaultCPUAllocator: can't allocate memory"), "cannot load"),
        (ImportError("no module sentencepiece"), "needs a package that is not installed: no module sentencepiece"),
        (ValueError("set trust_remote_code=True"), "give --trust-remote-code"),
        (KeyError("x"), "cannot load 'm': KeyError: 'x' .neither a local folder"),
    ],
)
def test_errors_of_other_libraries(error, said):
    found = refusal("m", error)
    assert isinstance(found, InputError)
    with pytest.raises(InputError, match=said):
        raise found


def test_what_the_operating_system_refuses_is_left_to_say_itself():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert refusal("m", full) is full
