"""Audit: what does any causal language model recite of a file? No training, one folder of results.

from palimpsest.audit.auditing import audit
summary = audit("my-model", "members.jsonl", "audit", non_members="held_out.jsonl")
"""

import errno
import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from palimpsest.audit import inputs, report
from palimpsest.audit import records as audit_records
from palimpsest.audit import summary as audit_summary
from palimpsest.audit.records import Reading, Records
from palimpsest.audit.scores import chunks
from palimpsest.data.examples import Example
from palimpsest.data.records import encode
from palimpsest.errors import InputError
from palimpsest.measure import near_verbatim as near
from palimpsest.measure.forward import check_causal
from palimpsest.measure.membership_inference import lowercased
from palimpsest.measure.models import context_length, load_model, load_tokenizer, parameter_count
from palimpsest.measure.score_file import describe
from palimpsest.measure.scoring import score_to_parquet
from palimpsest.study import fingerprint
from palimpsest.study.runs import provenance, write_json, write_parquet

TIE = {"torch.float32": 1e-3}  # logits closer than this are nearly tied; bf16 and fp16 logits come in coarse steps
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # the operating system will not take what is written
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
    left_truncated: Sequence[int] = (),
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
    `out/partial`, and the same call made again resumes there; made again after its end, it does nothing. Memory does not
    grow with the number of records, but for some tens of bytes each (hashes while reading, one score while ranking).

    Args:
        model, reference: folder or hub id of a causal language model, and of what it was before fine-tuning.
        data, non_members: a file (JSONL, JSON, CSV, Parquet) or hub id.
        columns: our name -> the file's, for `instruction`, `context`, `response`, `text`; others are guessed.
        template: "auto", "none", a name in `records.TEMPLATES`, or a YAML file (see `inputs.choose_template`).
        long: records longer than the context: "refuse", "window" or "skip".
        empty: records without text: "refuse" or "skip".
        left_truncated: numbers of tokens k: also measure the last `window` tokens of each record given the k tokens before
            them alone (see `inputs.left_truncated`), one more pass for each.
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
    reading = out / "partial" / "reading"
    shutil.rmtree(reading, ignore_errors=True)  # of a killed audit
    reading.mkdir(parents=True)
    with _writing(out, reading):
        read = _read(data, non_members, columns or {}, limit, empty, show_secrets, reading, progress)
        facts = {group: one.facts for group, one in read.items()}
        name, form = inputs.choose_template(template, facts["members"]["columns"])
        words = load_tokenizer(tokenizer or model, trust_remote_code)
        options = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
        net, before = _load(reference or model, words, options), None
        context = context_length(net)
        if (
            reference
        ):  # looked at first, so that one that doesn't fit is refused early; scored last, never beside the other
            before, net = describe(net, {}), _load(model, words, options)
            context = min(context, context_length(net))
        if left_truncated and max(left_truncated) + window > context:
            raise InputError(
                f"left-truncated context of {max(left_truncated)} tokens and a target of {window} are longer than the "
                f"model's context of {context} tokens: ask for fewer tokens, or a smaller --window"
            )
        settings = {
            "template": name,
            "context": context,
            "prefix_lengths": list(prefix_lengths),
            "window": window,
            "left_truncated": sorted(set(left_truncated)),
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
        summary["fingerprint"] = fingerprint([summary, long, form and [form.with_context, form.without_context]])
        if done := _finished(out, summary["fingerprint"]):
            return done
        work = out / "partial" / summary["fingerprint"]
        work.mkdir(exist_ok=True)
        groups = {}
        for group, one in read.items():
            _say(progress, f"tokenizing {one.facts['source']}")
            groups[group] = audit_records.tokenize(one, words, form, context, long, work / f"{group}.records")
            facts[group] |= groups[group].facts
        del read, one  # hashes, and a copy of the input
        shutil.rmtree(reading)

        def score(group: str, what: str, examples: Iterator[Example], rules: Mapping | None = None) -> None:
            count = facts[group]["records"]
            _say(progress, f"scoring {group.replace('_', '-')}{what.replace('_', ' ')}: {count} records")
            path = work / f"{group}{what}.parquet"
            score_to_parquet(net, examples, path, sampling=rules, token_budget=batch_tokens, progress=progress)

        for group, records in groups.items():
            score(group, "", _cut(records.examples(), context), sampling)
            if approximate:
                _compare_texts(net, words, records, context, work / f"{group}.parquet", batch_tokens, progress)
            if settings["lowercase"]:
                score(group, "_lowercase", _cut(_lowered(records, words, form), context))
            for k in settings["left_truncated"]:
                most = settings["left_truncated"][-1]
                cut = (e for r in records.examples() for e in inputs.left_truncated(r, k, most, window))
                score(group, f"_left{k}", cut)
        if reference:
            del net
            net = _load(reference, words, options)
            for group, records in groups.items():
                score(group, "_reference", _cut(records.examples(), context))
        _say(progress, "writing the report")
        summary |= audit_summary.combine(groups, work, summary)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        summary |= {"seconds": round(time.perf_counter() - began, 1), "peak_memory_bytes": peak, **provenance()}
        summary = audit_summary.plain(summary)
        write_json(work / "summary.json", summary)
        report.build(work)
        _publish(work, out)
    return summary


def _read(data, non_members, columns, limit, empty, show_secrets, folder: Path, progress) -> dict[str, Reading]:
    read: dict[str, Reading] = {}
    for group, source in (("members", data), ("non_members", non_members)):
        if source is not None:
            read[group] = audit_records.read(source, columns, limit, empty, folder / f"{group}.parquet")
            facts = read[group].facts
            pairs = (f"{ours} = {theirs}" for ours, theirs in facts["columns"].items())
            _say(progress, f"{source}: {facts['read']} records, columns {', '.join(pairs)}")
    if non_members is not None:
        if read["members"].measured != read["non_members"].measured:
            raise InputError(
                f"{data} holds {read['members'].measured}s and {non_members} {read['non_members'].measured}s; "
                "wanted both of the same kind: map their columns alike"
            )
        audit_records.refuse_overlap(read["members"], read["non_members"], show_secrets)
    return read


def _load(name, words, options):
    net = load_model(name, **options)
    inputs.check_fits(net, words, name)
    check_causal(net)
    return net


def _cut(examples: Iterator[Example], context: int) -> Iterator[Example]:
    for example in examples:
        yield from inputs.windows(example, context)


def _lowered(records: Records, words, form) -> Iterator[Example]:
    for frame in records.frames(["id", *records.texts()]):
        yield from encode(lowercased(frame), words, form)


def _compare_texts(
    net, words, records: Records, context: int, scores: Path, batch_tokens: int | None, progress: bool
) -> None:
    """Approximate memorization, one part per shard of `scores`; records longer than the context have no one continuation."""
    folder = scores.with_suffix(".continuations")
    folder.mkdir(exist_ok=True)
    stream = records.examples()
    for number, table in enumerate(chunks(scores)):
        examples = list(islice(stream, len(table)))
        part = folder / f"{number:06d}.parquet"
        if not part.exists():
            fitting = [e for e in examples if len(e.input_ids) <= context]
            found = near.near_misses(net, words, fitting, table, token_budget=batch_tokens, progress=progress)
            write_parquet(found, part)


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


@contextmanager
def _writing(out: Path, reading: Path) -> Iterator[None]:
    """However it ends, the copy of the input goes; a disk that takes no more can be mended by the user, whatever it refused."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(
            f"{out} can't be written: {error}. Finished parts are kept in {out / 'partial'}: free space, then run the same "
            "again."
        ) from error
    finally:
        shutil.rmtree(reading, ignore_errors=True)
        if not any((out / "partial").iterdir()):
            (out / "partial").rmdir()
