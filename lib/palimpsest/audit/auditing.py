"""One audit from its input to its report: what is read, scored and written, in which order, and how it goes on after a kill."""

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from palimpsest.audit import inputs, loading, people, results, shards
from palimpsest.audit.inputs import Reading
from palimpsest.audit.layout import find_layout, say_layout
from palimpsest.audit.records import Records, as_examples, tokenize
from palimpsest.audit.self_check import self_check
from palimpsest.audit.settings import Settings
from palimpsest.audit.summary import plain
from palimpsest.data.examples import Example, without_closing
from palimpsest.errors import InputError
from palimpsest.measure.extraction import left_truncated_examples, without_end
from palimpsest.measure.membership_inference import lowercased
from palimpsest.measure.models import context_length, load_tokenizer, parameter_count
from palimpsest.measure.near_verbatim import near_misses
from palimpsest.measure.score_file import describe, join_windows, windows, write_scores
from palimpsest.measure.scoring import score
from palimpsest.study import fingerprint
from palimpsest.study.files import write_json, write_parquet

TIE = {"torch.float32": 1e-3}  # logits closer than this are nearly tied; bf16 and fp16 logits come in coarse steps


def run(model: str | Path, members: str | Path, out: str | Path, settings: Settings | None = None) -> dict[str, Any]:
    """Measure memorization of `members` by `model`; write `records.parquet`, `figures/`, `report.html`, `summary.json` to `out`.

    Nothing appears under these names before it is whole; `summary.json` comes last. Until then finished shards are kept in
    `out/partial`, and the same call made again resumes there; made again after its end, it does nothing. Memory does not
    grow with the number of records, but for less than 200 bytes each (hashes while reading, some columns while counting).

    Args:
        model: a causal language model, named as `measure.checkpoints.find_checkpoint` says.
        members: what `data.sources.chunks` reads: files, shards, a saved or hub data set.
        settings: everything else (None: `Settings()`).

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: whatever the user can correct; the message says how.
        OSError: `out` can't be written.
    """
    began, out, settings = time.perf_counter(), Path(out).expanduser(), settings or Settings()
    results.refuse_foreign_folder(out)
    found, others = loading.find(model, settings)
    reading = out / "partial" / "reading"
    shutil.rmtree(reading, ignore_errors=True)  # of a killed audit
    reading.mkdir(parents=True)
    with results.writing_audit(out, reading):
        read = _read(members, settings, reading)
        name, form = inputs.choose_template(settings.template, read["members"].facts["columns"])
        words = load_tokenizer(settings.tokenizer or found, settings.trust_remote_code)
        net, known, contexts = None, {}, []
        # The audited model last: one that doesn't fit is refused early, and never two are in memory.
        for role, one in {**others, "model": found}.items():
            del net
            net = loading.load(one, words, settings)
            known[role] = {**describe(net, settings.rules), **loading.origin(net, one)}
            contexts.append(context_length(net))
        context = min(contexts)
        encoded, tokens = find_layout(net, words, read["members"], form, context, settings)
        _say(settings, *say_layout(tokens))
        summary = {
            "model": {**known.pop("model"), "parameters": parameter_count(net), "vocabulary": len(words)},
            "others": known,
            "tokenizer": fingerprint(words.get_vocab()),
            "data": {group: one.facts for group, one in read.items()},
            "settings": {"template": name, **_said(settings, context, str(net.dtype))},
        }
        # The last digit of a loss may differ from one machine to another.
        chosen = {key: value for key, value in tokens.items() if key != "loss_per_character"}
        summary["fingerprint"] = fingerprint([summary, settings.long, form and vars(form), chosen])
        summary["settings"]["tokens"] = tokens
        if done := results.finished_audit(out, summary["fingerprint"]):
            return done
        if settings.shard and shards.is_there(out, summary["fingerprint"], settings.shard):
            return summary
        part = "-{}-of-{}".format(*settings.shard) if settings.shard else ""  # each shard has a folder of its own
        work = out / "partial" / f"{summary['fingerprint']}{part}"
        work.mkdir(exist_ok=True)
        groups = {}
        for group, one in read.items():
            _say(settings, f"tokenizing {one.facts['source']}")
            groups[group] = tokenize(one, encoded, context, settings.long, work / f"{group}.records", settings.shard)
            people.write_persons(one, work / f"{group}.people")
            summary["data"][group] |= groups[group].facts
        del read, one  # hashes, and a copy of the input
        shutil.rmtree(reading)
        summary["notes"], others = loading.fit(summary, found, others, settings)
        checked = work / "self_check.json"
        if not checked.exists():
            write_json(checked, plain(self_check(net, groups["members"], summary["settings"], settings.batch_tokens)))
        summary["self_check"] = json.loads(checked.read_text(encoding="utf-8"))
        _say(settings, *(f"note: {line}" for line in summary["self_check"]["warnings"]))
        for records in groups.values():
            _score(net, words, encoded, records, summary["settings"], settings)
        for role, one in others.items():
            del net
            net = loading.load(one, words, settings)
            for records in groups.values():
                for number, piece in _shown(records, f"scoring with the {role}", settings):
                    _pass(net, as_examples(piece), records.made(number, role), context, settings, settings.rules)
        if settings.shard:
            return shards.write_shard(summary, settings.shard, work, out)
        _say(settings, "writing the report")
        summary = results.finish(groups, summary, work, out, began)
    return summary


def _said(settings: Settings, context: int, dtype: str) -> dict[str, Any]:
    """The settings that numbers depend on, as the summary states them."""
    left = sorted(set(settings.left_truncated))
    if left and left[-1] + settings.window > context:
        raise InputError(
            f"left-truncated context of {left[-1]} tokens and a target of {settings.window} are longer than the "
            f"model's context of {context} tokens: ask for fewer tokens, or a smaller --window"
        )
    return {
        "context": context,
        "prefix_lengths": list(settings.prefix_lengths),
        "window": settings.window,
        "left_truncated": left,
        "tie": TIE.get(dtype, 0.125),
        "sampling": settings.rules,
        "approximate": settings.approximate,
        "lowercase": settings.lowercase and settings.non_members is not None,
        "group_by": settings.group_by,
        "secrets": settings.secrets,
        "show_secrets": settings.show_secrets,
    }


# ---------------------------------------------------------------- what is read


def _read(members, settings: Settings, folder: Path) -> dict[str, Reading]:
    read: dict[str, Reading] = {}
    for group, source in (("members", members), ("non_members", settings.non_members)):
        if source is None:
            continue
        path = folder / f"{group}.parquet"
        read[group] = inputs.read(source, settings, path)
        facts = read[group].facts
        pairs = (f"{ours} = {theirs}" for ours, theirs in facts["columns"].items())
        _say(settings, f"{source}: {facts['read']} records, columns {', '.join([*pairs, *facts['notes']])}")
    if settings.group_by and "person" not in read["members"].facts["columns"]:
        raise InputError(f"{members} has no column {settings.group_by!r}, by which --group-by would tell persons")
    if settings.marked and "marked" not in read["members"].facts["columns"]:
        raise InputError(
            f"{members} has no column 'secrets', in which --secrets {settings.secrets} would find what is marked"
        )
    if "non_members" in read:
        mine, theirs = (one.facts["measured"] for one in read.values())
        if mine != theirs:
            raise InputError(
                f"{members} holds {mine}s and {settings.non_members} {theirs}s; "
                "wanted both of the same kind: map their columns alike"
            )
        inputs.refuse_overlap(read["members"], read["non_members"], settings.show_secrets)
    return read


# ---------------------------------------------------------------- what is scored


def _score(net, words, encoded, records: Records, said: Mapping[str, Any], settings: Settings) -> None:
    """Every pass of the audited model, piece by piece; what is there already is not made again."""
    context, window = said["context"], said["window"]
    for number, piece in _shown(records, "scoring", settings):
        examples, path = as_examples(piece), records.made(number, "scores")
        _pass(net, examples, path, context, settings, settings.rules)
        near = records.made(number, "continuations")
        if said["approximate"] and not near.exists():  # a record longer than the context has no one continuation
            # A model that doesn't stop is no further from the text: what closes a response is left out.
            texts = without_closing(e for e in examples if len(e.input_ids) <= context)
            table = without_end(pd.read_parquet(path), piece["closing"])
            options = {"token_budget": settings.batch_tokens, "ends": [end["id"] for end in said["tokens"]["ends"]]}
            write_parquet(near_misses(net, words, texts, table, **options), near)
        if said["lowercase"]:
            lower = encoded(lowercased(piece[["id", *records.texts]]))
            _pass(net, lower, records.made(number, "lowercase"), context, settings)
        for k in said["left_truncated"]:  # every k on the same records: those with enough tokens for the largest
            long = [e for e in examples if len(e.input_ids) >= window + said["left_truncated"][-1]]
            cut = left_truncated_examples(long, k, window)
            _pass(net, cut, records.made(number, f"left{k}"), context, settings)


def _pass(net, examples: list[Example], path: Path, context: int, settings: Settings, rules=None) -> None:
    if not path.exists():
        cut = [window for example in examples for window in windows(example, context)]
        table = score(net, cut, sampling=rules, token_budget=settings.batch_tokens)
        write_scores(join_windows(table), path)


def _shown(records: Records, what: str, settings: Settings) -> Iterator[tuple[int, pd.DataFrame]]:
    """The pieces of the records, with a bar of how many records are done."""
    name = f"{what}: {records.path.stem.replace('_', '-')}"
    with tqdm(total=records.facts["records"], unit=" records", desc=name, disable=not settings.progress) as bar:
        for number, piece in records.pieces():
            yield number, piece
            bar.update(len(piece))


def _say(settings: Settings, *lines: str) -> None:
    if settings.progress and lines:
        print(*lines, sep="\n", file=sys.stderr)
