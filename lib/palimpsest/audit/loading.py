"""The models of an audit: where they are, how they are loaded, and whether they fit the records."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from palimpsest.audit.settings import Settings
from palimpsest.errors import InputError
from palimpsest.measure.checkpoints import Checkpoint, check_files, find_checkpoint
from palimpsest.measure.damage import refusal
from palimpsest.measure.forward import check_causal, check_ids, vocabulary_size
from palimpsest.measure.models import load_model, load_tokenizer


def find(model: str | Path, settings: Settings) -> tuple[Checkpoint, dict[str, Checkpoint]]:
    """Where the model is, and by their roles the others it is audited beside (of an adapter its base is the reference, unless
    another is given); the files of all are looked at.

    Raises:
        InputError: there is no such model, or its files are damaged.
    """
    found = find_checkpoint(model, settings.revision, settings.base)
    if settings.base and not found.base:
        raise InputError(
            f"{found.name!r} is a whole model and no adapter, so there is nothing that --base could belong to"
        )
    others = {role: find_checkpoint(name) for role, name in settings.others.items()}
    if found.base and "reference" not in others:
        others = {"reference": found.base, **others}
    for one in (found, found.base, *others.values()):
        if one:
            check_files(one)
    return found, others


def load(found: Checkpoint, words: PreTrainedTokenizerBase, settings: Settings) -> PreTrainedModel:
    """The model on the device and in the precision of the settings, tried with a few tokens.

    Raises:
        InputError: there is no such device, or the model can't be loaded, can't be run, is not causal, or was trained with another
            tokenizer than `words`, with which the records are tokenized.
    """
    device = None if settings.device == "auto" else settings.device
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # torch says in many ways that there is none
        said = str(error).splitlines()[0]
        raise InputError(f"device {device!r} can't be used: {said}; wanted auto, cpu, cuda, cuda:1 or mps") from None
    net = load_model(found, dtype=settings.dtype, device=device, trust_remote_code=settings.trust_remote_code)
    try:
        check_causal(net)
    except Exception as error:  # what a model needs to run shows in its first pass
        raise refusal(found.name, error, "run") from error
    if settings.tokenizer is None:
        _refuse_other_tokenizer(found, words, settings)
    return net


def _refuse_other_tokenizer(found: Checkpoint, words: PreTrainedTokenizerBase, settings: Settings) -> None:
    """Records are tokenized once, for all models of an audit: token for token their verdicts are about the same text."""
    ours, theirs = ({**one.get_vocab()} for one in (words, load_tokenizer(found, settings.trust_remote_code)))
    if other := [word for word, number in ours.items() if theirs.get(word, number) != number]:
        raise InputError(
            f"the tokenizer of {found.name} is another one: it numbers {len(other)} of the {len(ours)} tokens otherwise (such as "
            f"{other[0]!r}); wanted the audited model's. Audit {found.name} alone and compare what `palimpsest audit` says of each"
        )
    if (missing := len(ours.keys() - theirs.keys()) - len(words.get_added_vocab())) > 0:
        raise InputError(
            f"the tokenizer of {found.name} lacks {missing} of the {len(ours)} tokens; wanted the audited model's"
        )


def origin(net: PreTrainedModel, found: Checkpoint) -> dict[str, Any]:
    """Where a model came from, and for how many tokens it has embeddings."""
    commit = getattr(net.config, "_commit_hash", None)
    return {**found.facts, **({"commit": commit} if commit else {}), "embeddings": vocabulary_size(net)}


def fit(
    summary: dict[str, Any], found: Checkpoint, others: dict[str, Checkpoint], settings: Settings
) -> tuple[list[str], dict[str, Checkpoint]]:
    """Notes on the models, and the others, less a reference that nobody asked for and that does not fit the records.

    Raises:
        InputError: a record uses a token that the model, or another that was asked for, has no embedding for.
    """
    used, notes = max(facts["highest_id"] for facts in summary["data"].values()), list(found.notes)
    model, known, kept = summary["model"], summary["others"], dict(others)
    check_ids(model["embeddings"], used, found.name)
    if more := max(0, model["vocabulary"] - model["embeddings"]):
        notes.append(f"The tokenizer has {more} more tokens than the model has embeddings; no record uses them.")
    for role, one in others.items():
        if role in settings.others:
            check_ids(known[role]["embeddings"], used, one.name)
        elif used >= known[role]["embeddings"]:
            del known[role], kept[role]
            notes.append(
                f"There is no reference: records use tokens that {one.name} lacks. Name one that has them (--reference)."
            )
    return notes, kept
