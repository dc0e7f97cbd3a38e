"""Audit: what does any causal language model recite of a file? No training, one folder of results.

from palimpsest.audit import audit
summary = audit("my-model", "members.jsonl", "audit", non_members="held_out.jsonl")
"""

import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import pandas as pd

from palimpsest import approximate as near
from palimpsest import audit_input, audit_report, audit_summary
from palimpsest.audit_scores import chunks
from palimpsest.batches import Example
from palimpsest.errors import InputError
from palimpsest.forward import check_causal
from palimpsest.models import context_length, load_model, load_tokenizer, parameter_count
from palimpsest.runs import provenance, write_json
from palimpsest.score import score_to_parquet
from palimpsest.shards import describe
from palimpsest.study import fingerprint

TIE = {"torch.float32": 1e-3}  # logits closer than this are nearly tied; bf16 and fp16 logits come in coarse steps
RESULTS = ("records.parquet", "figures", "report.html", "summary.json")  # in the order of appearance


def audit(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    non_members: str | Path | None = None,
    reference: str | Path | None = None,
    tokenizer: str | Path | None = None,
    trust_remote_code: bool = False,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    template: str = "auto",
    long: str = "refuse",
    empty: str = "refuse",
    prefix_lengths: Sequence[int] = (0, 10, 25, 50),
    window: int = 50,
    sampling: Mapping[str, Mapping[str, float]] | None = None,
    approximate: bool = True,
    lowercase: bool = True,
    device: str | None = None,
    dtype: str = "fp32",
    batch_tokens: int | None = None,
    show_secrets: bool = False,
    progress: bool = False,
) -> dict:
    """Measure memorization of `data` by `model`; write `records.parquet`, `figures/`, `report.html`, `summary.json` to `out`.

    Nothing appears under these names before it is whole; `summary.json` comes last. Until then finished shards are kept in
    `out/partial`, and the same call made again resumes there; made again after its end, it does nothing.

    Args:
        model, reference: folder or hub id of a causal language model, and of what it was before fine-tuning.
        data, non_members: a file (JSONL, JSON, CSV, Parquet) or hub id.
        columns: our name -> the file's, for `instruction`, `context`, `response`, `text`; others are guessed.
        template: "auto", "none", a name in `records.TEMPLATES`, or a YAML file (see `audit_input.choose_template`).
        long: records longer than the context: "refuse", "window" or "skip".
        empty: records without text: "refuse" or "skip".
        sampling: name -> some of `temperature`, `top_k`, `top_p`: (n, p)-discoverable extraction under these rules as well.
        lowercase: with `non_members`, also score every record in lower case, for the attack of that name.
        dtype: "fp32", "bf16" or "auto".
        batch_tokens: padded tokens per batch; None: sized to the memory.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: whatever the user can mend; the message says how.
        OSError: `out` can't be written.
    """
    began, out, sampling = time.perf_counter(), Path(out).expanduser(), dict(sampling or {})
    (out / "partial").mkdir(parents=True, exist_ok=True)
    groups, facts = _read(data, non_members, columns or {}, limit, empty, show_secrets, progress)
    name, form = audit_input.choose_template(template, facts["members"]["columns"])
    words = load_tokenizer(tokenizer or model, trust_remote_code)
    options = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    net, before = _load(reference or model, words, options), None
    context = context_length(net)
    if (
        reference
    ):  # looked at first, so that one that doesn't fit is refused early; scored last, never beside the other
        before, net = describe(net, {}), _load(model, words, options)
        context = min(context, context_length(net))
    for group, frame in groups.items():
        groups[group], found = audit_input.survey(frame, words, form, context, long, facts[group]["source"])
        facts[group] |= found
    settings = {
        "template": name,
        "context": context,
        "prefix_lengths": list(prefix_lengths),
        "window": window,
        "tie": TIE.get(str(net.dtype), 0.125),
        "sampling": sampling,
        "approximate": approximate,
        "lowercase": lowercase and non_members is not None,
        "show_secrets": show_secrets,
    }
    summary = {
        "model": {**describe(net, sampling), "parameters": parameter_count(net), "vocabulary": len(words)},
        "reference": before,
        "tokenizer": fingerprint(words.get_vocab()),
        "data": facts,
        "settings": settings,
    }
    summary["fingerprint"] = fingerprint([summary, form and [form.with_context, form.without_context]])
    if done := _finished(out, summary["fingerprint"]):
        return done
    work = out / "partial" / summary["fingerprint"]
    work.mkdir(exist_ok=True)

    def score(what: str, frame: pd.DataFrame, rules: Mapping | None = None) -> None:
        _say(progress, f"scoring {what.replace('_', ' ')}: {len(frame)} records")
        examples = _examples(frame, words, form, context)
        path = work / f"{what}.parquet"
        score_to_parquet(net, examples, path, sampling=rules, token_budget=batch_tokens, progress=progress)

    for group, frame in groups.items():
        score(group, frame, sampling)
        if approximate:
            _compare_texts(net, words, frame, form, context, work / f"{group}.parquet", batch_tokens, progress)
        if settings["lowercase"]:
            score(f"{group}_lowercase", _lowered(frame))
    if reference:
        del net
        net = _load(reference, words, options)
        for group, frame in groups.items():
            score(f"{group}_reference", frame)
    _say(progress, "writing the report")
    summary |= audit_summary.combine(groups, work, summary)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    summary |= {"seconds": round(time.perf_counter() - began, 1), "peak_memory_bytes": peak, **provenance()}
    summary = audit_summary.plain(summary)
    write_json(work / "summary.json", summary)
    audit_report.build(work)
    _publish(work, out)
    return summary


def _read(
    data, non_members, columns, limit, empty, show_secrets, progress
) -> tuple[dict[str, pd.DataFrame], dict[str, dict]]:
    groups, facts = {}, {}
    for group, source in (("members", data), ("non_members", non_members)):
        if source is not None:
            groups[group], facts[group] = audit_input.read(source, columns, limit, empty)
            pairs = (f"{ours} = {theirs}" for ours, theirs in facts[group]["columns"].items())
            _say(progress, f"{source}: {facts[group]['read']} records, columns {', '.join(pairs)}")
    if non_members is not None:
        if facts["members"]["measured"] != facts["non_members"]["measured"]:
            raise InputError(
                f"{data} holds {facts['members']['measured']}s and {non_members} {facts['non_members']['measured']}s; "
                "wanted both of the same kind: map their columns alike"
            )
        audit_input.refuse_overlap(groups["members"], groups["non_members"], show_secrets)
    return groups, facts


def _load(name, words, options):
    net = load_model(name, **options)
    audit_input.check_fits(net, words, name)
    check_causal(net)
    return net


def _examples(frame: pd.DataFrame, words, form, context: int) -> Iterator[Example]:
    for example in audit_input.encoded(frame, words, form):
        yield from audit_input.windows(example, context)


def _lowered(frame: pd.DataFrame) -> pd.DataFrame:
    measured = "response" if "response" in frame else "text"
    return frame.assign(**{measured: frame[measured].str.lower()})


def _compare_texts(
    net, words, frame, form, context: int, scores: Path, batch_tokens: int | None, progress: bool
) -> None:
    """Approximate memorization, one part per shard of `scores`; records longer than the context have no one continuation."""
    folder = scores.with_suffix(".continuations")
    folder.mkdir(exist_ok=True)
    stream = audit_input.encoded(frame, words, form)
    for number, table in enumerate(chunks(scores)):
        examples = list(islice(stream, len(table)))
        part = folder / f"{number:06d}.parquet"
        if not part.exists():
            fitting = [e for e in examples if len(e.input_ids) <= context]
            found = pd.DataFrame({name: [] for name in ("id", "first_miss", "continuation", *near.SIMILARITIES)})
            if fitting:
                found = near.approximate(net, words, fitting, table, token_budget=batch_tokens, progress=progress)
            found.to_parquet(part.with_suffix(".unfinished"))
            part.with_suffix(".unfinished").replace(part)


def _say(progress: bool, line: str) -> None:
    if progress:
        print(line, file=sys.stderr)


def _finished(out: Path, print_: str) -> dict | None:
    """The summary of an audit of the same model, records and settings that is complete."""
    if not all((out / name).exists() for name in RESULTS):
        return None
    summary = json.loads((out / "summary.json").read_text())
    if summary.get("fingerprint") != print_:
        return None
    print(f"{out} already holds this audit, complete", file=sys.stderr)
    return summary


def _publish(work: Path, out: Path) -> None:
    """Move finished results into place: a former summary goes first, the new one comes last."""
    (out / "summary.json").unlink(missing_ok=True)
    for name in RESULTS:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        (work / name).replace(out / name)
    shutil.rmtree(work)
    if not any((out / "partial").iterdir()):
        (out / "partial").rmdir()
