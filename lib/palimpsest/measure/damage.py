"""Whether a model's files are whole, one by one, and what to say of errors that other libraries raise on them."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from palimpsest.errors import InputError
from palimpsest.measure.memory import is_out_of_memory
from palimpsest.study.files import locate

POINTER = b"version https://git-lfs"


class CannotLoadError(InputError):
    """A model or tokenizer that can't be had: no such folder, a broken one, or a hub id out of reach."""


def refusal(name: str, error: Exception, doing: str = "load") -> Exception:
    """What to raise for an error met inside another library while it loads, or else runs, the model `name`.

    The operating system's refusals (a full disk, no permission) are returned as they are.
    """
    said = " ".join(str(error).split())[:600] or type(error).__name__
    if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno):
        return error
    if is_out_of_memory(error):
        return InputError(
            f"{name!r} does not fit in memory: {said}. Use --dtype bf16, another --device, or a machine with more memory"
        )
    if "trust_remote_code" in said or "does not recognize this architecture" in said:
        return CannotLoadError(
            f"cannot load {name!r}: it comes with Python code of its own, or the installed transformers does not know its "
            f"architecture. If you trust its code, give --trust-remote-code. ({said})"
        )
    if isinstance(error, ImportError) or "pip install" in said or " installed" in said:
        return CannotLoadError(f"{name!r} needs a package that is not installed: {said}")
    kind = "" if type(error) in (OSError, ValueError) else f"{type(error).__name__}: "
    remedy = (
        "neither a local folder with a usable model nor a hub id that can be had now; check the name and the network"
    )
    if doing != "load":
        remedy = "try it with transformers alone; another --device or --dtype may do"
    elif locate(name).exists():
        version = metadata.version("transformers")
        remedy = f"transformers {version} makes no model of these files; copy them again, all from one place, or convert them"
    return CannotLoadError(f"cannot {doing} {name!r}: {kind}{said} ({remedy})")


def check_file(path: Path) -> None:
    """Refuse a file of a model that isn't what its ending says.

    Raises:
        InputError: it is empty, a pointer of git LFS, cut short, or no JSON.
    """
    with path.open("rb") as file:
        start = file.read(len(POINTER))
    if start == POINTER:
        raise CannotLoadError(f"{path} is a pointer of git LFS and not the file: fetch it with git lfs pull")
    if not start:
        raise CannotLoadError(f"{path} is empty: copy or download it again")
    if path.suffix == ".json":
        read_json(path)
    elif path.suffix == ".safetensors":
        size, wanted = path.stat().st_size, _size_by_header(path)
        if size != wanted:
            raise CannotLoadError(
                f"{path} has {size:,} bytes; its header asks for {wanted:,}: it was cut short, copy or download it again"
            )
    elif path.suffix == ".gguf" and start[:4] != b"GGUF":
        raise CannotLoadError(f"{path} is no GGUF file (it begins with {start[:4]!r}): download it again")


def _size_by_header(path: Path) -> int:
    """The bytes that a safetensors file should have, by the tensors that it names."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, path.stat().st_size)))
            header.pop("__metadata__", None)
            return 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise CannotLoadError(
                f"{path} ({path.stat().st_size:,} bytes) is no whole safetensors file, its header can't be read: copy or "
                "download it again"
            ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model.

    Raises:
        InputError: it holds none.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CannotLoadError(f"{path} is damaged, it is no JSON ({error}): copy or download it again") from None
    if not isinstance(value, dict):
        raise CannotLoadError(
            f"{path} holds a {type(value).__name__}; wanted a JSON object: copy or download it again"
        )
    return value
