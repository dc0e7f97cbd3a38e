"""What an audit may be told: every setting once, with its default, its meaning and how the command line reads it."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from palimpsest.errors import InputError

INPUT, RECORDS, MEASURES = "what to audit", "how to read the records", "what to measure"
# rates that --fail-on can name -> the measure
GATES = {"any": "any extraction", "verbatim": "verbatim", "sampled": "discoverable", "persons": "persons"}
MACHINE, SHOWN = "how to run", "what to show"


def positive(text: str) -> int:
    """A whole number of at least 1; counts are added up in 64 bits, so none of more than nine digits."""
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"wanted a whole number of at least 1, found {text!r} (at most 999,999,999)")
    return int(text)


def share(text: str) -> float:
    """A share of the records, above 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"wanted a share above 0 and below 1, such as 0.01 for 1 %; found {text!r}")
    return value


def lengths(text: str) -> list[int]:
    """Whole numbers, rising, each once."""
    parts = [p.strip() for p in text.split(",")]
    if not all(p.isdecimal() and int(p) < 10**9 for p in parts):
        raise argparse.ArgumentTypeError(f"wanted whole numbers separated by commas, such as 0,25,50, found {text!r}")
    return sorted({int(p) for p in parts})


def sampling_rule(text: str) -> dict[str, float]:
    """A decoding rule such as `temperature=0.7,top_p=0.9`."""
    rule: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            rule[name] = {"top_k": int, "top_p": float, "temperature": float}[name](value)
        except (KeyError, ValueError):
            raise argparse.ArgumentTypeError(
                f"wanted settings among temperature=T, top_k=K, top_p=P separated by commas, found {text!r}"
            ) from None
    fits = 1 <= rule.get("top_k", 1) < 10**9 and 0 < rule.get("top_p", 1) <= 1
    if not (fits and 0 < rule.get("temperature", 1) < float("inf")):
        raise argparse.ArgumentTypeError(f"wanted temperature > 0, top_k >= 1 and 0 < top_p <= 1, found {text!r}")
    return rule


def part_of(text: str) -> tuple[int, int]:
    """A part and the number of parts, such as `2/8`."""
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 0 < int(number) <= int(of) < 10**6):
        raise argparse.ArgumentTypeError(
            f"wanted a part and the number of parts, from 1/8 to 8/8, say; found {text!r}"
        )
    return int(number), int(of)


def which_secrets(text: str) -> str:
    """`marked`, `auto`, or both; `auto` also with countries: `marked,auto,US,DE`."""
    words = text.split(",")
    regions = words[words.index("auto") + 1 :] if "auto" in words else []
    first = words[: len(words) - len(regions)]
    known = first in (["auto"], ["marked"], ["marked", "auto"])
    if not known or not all(len(region) == 2 and region.isupper() for region in regions):
        raise argparse.ArgumentTypeError(
            f"wanted marked, auto, auto with countries such as auto,US,DE, or marked,auto; found {text!r}"
        )
    return text


def _setting(default: Any, group: str, meaning: str, **argument: Any) -> Any:
    return field(default=default, metadata={"group": group, "help": meaning, **argument})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of an audit; `palimpsest audit --help` is made of these fields and says what each means.

    Raises:
        InputError: a value that is none of a field's choices.
    """

    non_members: str | Path | None = _setting(
        None, INPUT, "records of the same kind that M was not trained on", metavar="FILE"
    )
    reference: str | Path | None = _setting(
        None, INPUT, "M before fine-tuning: calibrates the attacks (default: of an adapter, its base)", metavar="M0"
    )
    teacher: str | Path | None = _setting(
        None, INPUT, "the model that M was distilled from; its tokenizer must be M's", metavar="T"
    )
    baseline: str | Path | None = _setting(
        None, INPUT, "a model like M, fine-tuned on the same records without a teacher", metavar="B"
    )
    base: str | Path | None = _setting(
        None, INPUT, "the model that the adapter M belongs on (default: the one that M names)", metavar="BASE"
    )
    revision: str | None = _setting(
        None, INPUT, "branch, tag or commit of the hub id M; of others write owner/name@REVISION", metavar="R"
    )
    tokenizer: str | Path | None = _setting(
        None, INPUT, "folder or hub id of the tokenizer (default: the model's own)", metavar="NAME"
    )
    trust_remote_code: bool = _setting(False, INPUT, "run Python code that comes with the model", action="store_true")
    text_column: str | None = _setting(None, RECORDS, "column of plain texts", metavar="NAME")
    prompt_column: str | None = _setting(None, RECORDS, "column of prompts or instructions", metavar="NAME")
    context_column: str | None = _setting(
        None, RECORDS, "column of contexts that belong to the prompt", metavar="NAME"
    )
    response_column: str | None = _setting(None, RECORDS, "column of responses", metavar="NAME")
    group_by: str | None = _setting(
        None,
        RECORDS,
        "column that names the person (customer, patient, author) a record is about: rates are also given of persons. A record "
        "that names none counts as a person of its own; no name is written down, persons are known by their first row",
        metavar="NAME",
    )
    messages_column: str | None = _setting(None, RECORDS, "column of conversations", metavar="NAME")
    turns: str = _setting(
        "all",
        RECORDS,
        "of a conversation, each assistant turn is a record of its own (all, default), or the last only",
        choices=("all", "last"),
    )
    limit: int | None = _setting(None, RECORDS, "read the first N records only", type=positive, metavar="N")
    template: str = _setting(
        "auto",
        RECORDS,
        "how prompt and context were laid out in training: auto (default; chat for conversations, alpaca where the prompt "
        "column is called instruction, else none), chat (the tokenizer's chat template), none (the prompt as it stands), alpaca, plain, or a YAML file with the keys with_context "
        "and without_context, whose texts hold {instruction} and {context}",
        metavar="NAME",
    )
    tokenize: str = _setting(
        "auto",
        RECORDS,
        "prompt and response as one string (joint), each by itself (apart), or as the model knows a sample of them better "
        "(auto, default)",
        choices=("auto", "joint", "apart"),
    )
    end_token: str | None = _setting(
        None,
        RECORDS,
        "the token that closes a response (default: the chat template's end of turn, the tokenizer's end-of-text, or the one of "
        "the generation configuration that the model expects most)",
        metavar="TEXT",
    )
    long: str = _setting(
        "refuse",
        RECORDS,
        "records longer than the context: refuse the file (default); window: score every token once, given at "
        "least half a context of the tokens before it; skip: leave them out, counted",
        choices=("refuse", "window", "skip"),
    )
    empty: str = _setting(
        "refuse",
        RECORDS,
        "records without text, and conversations with turns that are no text: default refuse",
        choices=("refuse", "skip"),
    )
    prefix_lengths: Sequence[int] = _setting(
        (0, 10, 25, 50),
        MEASURES,
        "tokens of the response given as prefix, for the rates in the summary (default 0,10,25,50); "
        "the curve in the report has every length",
        type=lengths,
        metavar="K,K,...",
    )
    window: int = _setting(50, MEASURES, "tokens to be recited (default 50)", type=positive, metavar="M")
    left_truncated: Sequence[int] = _setting(
        (),
        MEASURES,
        "also measure a fixed target, the last M tokens of each record (M as in --window; of a response, its "
        "end-of-text is the last), given the K tokens before it and nothing else; one more pass for each K. Only records "
        "with M tokens and the largest K before them count, the same ones for every K (default: not measured)",
        nargs="+",
        type=positive,
        metavar="K",
    )
    sampling: Sequence[Mapping[str, float]] = _setting(
        (),
        MEASURES,
        "also compute (n, p)-discoverable extraction under this decoding rule, e.g. top_k=40 or "
        "temperature=0.7,top_p=0.9; may be repeated",
        action="append",
        type=sampling_rule,
        metavar="RULE",
    )
    secrets: str | None = _setting(
        None,
        MEASURES,
        "auto: find e-mail addresses, telephone and card numbers, IBANs, IP addresses and access keys in what is measured, and "
        "count which come out; auto,US,DE: also telephone numbers as dialled in these countries (needs "
        "pip install 'palimpsest[secrets]'). marked: what the records' own column `secrets` marks; marked,auto: both (default: not looked for)",
        type=which_secrets,
        metavar="auto",
    )
    approximate: bool = _setting(
        True,
        MEASURES,
        "skip ROUGE-L, edit similarity and common substring (no decoding)",
        flag="--no-approximate",
        action="store_false",
    )
    lowercase: bool = _setting(
        True,
        MEASURES,
        "with --non-members, skip the lowercase attack (a second forward pass)",
        flag="--no-lowercase",
        action="store_false",
    )
    device: str = _setting("auto", MACHINE, "auto (default), cpu, cuda, cuda:1, mps")
    dtype: str = _setting(
        "fp32",
        MACHINE,
        "arithmetic of the model (default fp32); auto is bf16 where the device multiplies it natively. bf16 is "
        "faster and flips about one verdict in a hundred, so it is reported, with the number of near-ties",
        choices=("fp32", "bf16", "auto"),
    )
    batch_tokens: int | None = _setting(
        None, MACHINE, "padded tokens per batch (default: sized to the memory)", type=positive, metavar="N"
    )
    shard: tuple[int, int] | None = _setting(
        None,
        MACHINE,
        "score only part I of N, for `palimpsest merge`; parts are made of pieces of 2,000 records, in turn",
        type=part_of,
        metavar="I/N",
    )
    progress: bool = _setting(True, MACHINE, "no progress bars", flag="--quiet", action="store_false")
    show_secrets: bool = _setting(False, SHOWN, "show text of the data unmasked in the report", action="store_true")

    def __post_init__(self):
        for one in fields(self):
            value, choices = getattr(self, one.name), one.metadata.get("choices")
            if choices and value not in choices:
                raise InputError(f"the setting {one.name} is {value!r}; wanted one of {', '.join(choices)}")
        try:
            _ = self.secrets is None or which_secrets(self.secrets)
        except argparse.ArgumentTypeError as error:
            raise InputError(f"the setting secrets: {error}") from None

    @property
    def columns(self) -> dict[str, str]:
        """Our column -> the file's, of those given."""
        named = {"text": self.text_column, "instruction": self.prompt_column}
        named |= {"context": self.context_column, "response": self.response_column}
        named |= {"messages": self.messages_column}
        return {ours: theirs for ours, theirs in named.items() if theirs}

    @property
    def others(self) -> dict[str, str | Path]:
        """Role -> model, of those that are given beside the audited one."""
        named = {"reference": self.reference, "teacher": self.teacher, "baseline": self.baseline}
        return {role: name for role, name in named.items() if name}

    @property
    def regions(self) -> list[str]:
        """The countries named in `secrets`."""
        return [word for word in (self.secrets or "").split(",") if word.isupper()]

    @property
    def marked(self) -> bool:
        """Whether the records' own marks are read."""
        return "marked" in (self.secrets or "").split(",")

    @property
    def rules(self) -> dict[str, dict[str, float]]:
        """The sampling rules by name, such as `top_k40`."""
        return {"_".join(f"{key}{value:g}" for key, value in rule.items()): dict(rule) for rule in self.sampling}
