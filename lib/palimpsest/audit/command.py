"""`palimpsest audit` on the command line: its manual page, its options (made of `Settings`), and the call they make."""

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from palimpsest.audit.settings import GATES, INPUT, Settings, share
from palimpsest.errors import InputError
from palimpsest.starting import first_import

LIMIT_EXCEEDED = 3
WORKFLOW = Path(__file__).with_name("shards.smk")

AUDIT_DESCRIPTION = """
Measure how much of FILE the causal language model M has memorized. Nothing is trained. One forward pass over the
records decides, for every prefix length at once, whether greedy decoding would recite the record (verbatim
extraction), and gives extraction strength, (n, p)-discoverable extraction and the membership scores; text is decoded
only for approximate memorization, and only from each record's first miss onward.

With --non-members (records of the same kind that M was not trained on) every rate is shown beside its chance level
and membership attacks are evaluated. Without them the rates have no control: boilerplate that any model of the
language would complete counts as memorized. With --reference (M before it was fine-tuned) the attacks calibrated on a
reference are added, and so is what the reference itself recites.
"""

AUDIT_EPILOG = """
models:
  M is a folder with config.json and safetensors, the folder of an adapter (LoRA and its kin), a .gguf file or a folder
  with one, or a hub id: owner/name, owner/name@revision, owner/name:file.gguf. package:NAME is a model among the files
  of an installed Python package. An adapter is measured on its base, which is also the reference. GGUF is turned into
  plain numbers (pip install 'palimpsest[gguf]'). Quantized checkpoints run where their own packages run.

input files:
  FILE is JSON lines, JSON, CSV (any separator) or Parquet, also compressed (.gz, .bz2, .xz, .zst); a folder or a
  pattern ('data/train-*.parquet') of such files; a folder that datasets.save_to_disk wrote; or a hub data set
  owner/name:config:split@revision, of which all but the name may be left out (the split is then train).
  A record is a conversation (messages, or ShareGPT's conversations), of which each assistant turn is measured,
  given the turns before it; a prompt with a response, of which the response is measured; or a plain text, which
  is measured from its first token. Columns not mapped by a flag are guessed from their names (messages;
  instruction, prompt, question, ...; context, input; response, output, answer, ...; text, content, ...) and the
  guess is printed. An input or context that is missing, null, empty or NaN is none. Records are read, scored and
  counted some thousand at a time, so a file may be larger than the memory; a JSON list alone is read whole.

what is written to DIR:
  summary.json     every rate with count and 95 % interval, settings, dtype, versions and hashes
  records.parquet  one row per record: every score, and the lists per token behind them
  figures/*.png    the figures of the report
  report.html      the report, one page that loads nothing from elsewhere; text of the data is masked in it
  DIR/partial      finished shards while the audit runs; a killed audit started again resumes there. Removed at the
                   end, so DIR/summary.json, which is written last, means complete.

how bad input is handled:
  longer than the model's context   refused, or --long window, or --long skip; counted, and never silently cut
  empty text                        refused, or --empty skip; counted
  a turn that calls a tool, shows a picture or has an unknown role    likewise
  a number, a list, ... where text is wanted    refused, naming type and place
  a CSV row with more or fewer fields than the header    refused, naming the line
  the same record more than once    kept once; counted
  missing weights of the model      refused: they would be random numbers
  truncated or damaged model files  refused, with the file's name
  a tokenizer with more tokens than the model   refused if a record uses one that the model lacks
  member and non-member files share a record    refused, and the overlap is shown

exit status:
  0  the audit is complete (and, with --fail-above, the limit holds)
  3  the audit is complete, and the upper bound of the rate exceeds --fail-above
  2  bad input: the message names what was found, what was wanted and what to do
  1  a fault in the program

examples:
  palimpsest audit --model ./my-model --data members.jsonl --out audit
  palimpsest audit --model ./my-model --reference gpt2 --data members.csv --non-members held_out.csv \\
      --prompt-column question --response-column answer --out audit
  palimpsest audit --model ./my-model --data corpus.parquet --text-column body --long window --dtype bf16 \\
      --sampling top_k=40 --sampling temperature=0.7,top_p=0.9 --out audit
  palimpsest audit --model ./student --teacher ./teacher --baseline ./fine-tuned --reference gpt2 --data members.jsonl \\
      --non-members held_out.jsonl --group-by customer_id --fail-above 0.01 --out audit
"""


def add_parser(commands) -> None:
    """Add the parser of `palimpsest audit` to those of the other commands."""
    audit = commands.add_parser(
        "audit",
        help="measure what any causal language model has memorized of a file, with no training",
        description=AUDIT_DESCRIPTION,
        epilog=AUDIT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.set_defaults(run=run_audit)
    groups = {INPUT: audit.add_argument_group(INPUT)}
    what = groups[INPUT]
    what.add_argument("--model", required=True, metavar="M", help="a decoder-only language model: see below")
    what.add_argument("--data", required=True, metavar="FILE", help="the records whose memorization is measured")
    what.add_argument("--out", required=True, metavar="DIR", help="folder for the results; made if missing")
    for one in fields(Settings):
        argument = dict(one.metadata)
        heading, flag = argument.pop("group"), argument.pop("flag", "--" + one.name.replace("_", "-"))
        group = groups.get(heading) or groups.setdefault(heading, audit.add_argument_group(heading))
        default = list(one.default) if isinstance(one.default, tuple) else one.default  # argparse appends to it
        group.add_argument(flag, dest=one.name, default=default, **argument)
    _add_limit(audit)
    merge = commands.add_parser("merge", help="put the shards of one audit together (palimpsest audit --shard I/N)")
    merge.set_defaults(run=run_merge)
    merge.add_argument("shards", nargs="+", metavar="DIR", help="the --out folders of all shards, in any order")
    merge.add_argument("--out", required=True, metavar="DIR", help="folder for the results; made if missing")
    merge.add_argument(
        "--workflow", action="version", version=str(WORKFLOW), help="print the path of a Snakefile that does all of it"
    )
    _add_limit(merge)
    compare = commands.add_parser("compare", help="two finished audits of the same records: whose verdicts differ?")
    compare.set_defaults(run=run_compare)
    compare.add_argument("audits", nargs=2, metavar="DIR", help="the --out folders of two audits")
    compare.add_argument(
        "--out", metavar="FILE", help="write the comparison to this file too: a page if it ends in .html, else JSON"
    )


def _add_limit(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("when to fail")
    group.add_argument(
        "--fail-above",
        type=share,
        metavar="RATE",
        help="exit with status 3 if the upper bound (exact 95 %% interval) of a rate of the members exceeds this share, such as 0.01",
    )
    group.add_argument(
        "--fail-on",
        default="any",
        choices=GATES,
        help="which rate: records extracted in any way that is tested (any, the default); recited by greedy decoding from the "
        "prompt alone (verbatim); expected in 1,000 samples (sampled); persons with a record recited (persons)",
    )


def _limit(args: argparse.Namespace, summary: Mapping[str, Any]) -> int:
    if args.fail_above is None:
        return 0
    from palimpsest.audit import signoff

    exceeded, said = signoff.check_limit(summary, args.fail_on, args.fail_above)
    print(f"{'FAILED' if exceeded else 'passed'}: {said}", file=sys.stderr if exceeded else sys.stdout)
    return LIMIT_EXCEEDED if exceeded else 0


def run_merge(args: argparse.Namespace) -> int:
    """`palimpsest merge`"""
    with first_import():
        from palimpsest.audit import shards

    return _told(args, shards.merge(args.shards, args.out))


def run_compare(args: argparse.Namespace) -> int:
    """`palimpsest compare`"""
    with first_import():
        from palimpsest.audit import compare

    print(compare.show_compared(compare.compare_audits(*args.audits, args.out)))
    return 0


def run_audit(args: argparse.Namespace) -> int:
    """`palimpsest audit`"""
    if args.fail_above is not None and args.fail_on == "persons" and not args.group_by:
        raise InputError("--fail-on persons needs --group-by COLUMN, the column that tells persons apart")
    if args.fail_above is not None and args.shard:
        raise InputError("a shard alone meets no limit: give --fail-above to `palimpsest merge`")
    if not args.progress:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    with first_import():  # torch and transformers take seconds
        from transformers.utils import logging

        from palimpsest.audit import auditing

    logging.set_verbosity_error()
    settings = Settings(**{one.name: getattr(args, one.name) for one in fields(Settings)})
    summary = auditing.run(args.model, args.data, args.out, settings)
    if args.shard:
        print(f"{args.out}: shard {args.shard[0]} of {args.shard[1]}; put all together with `palimpsest merge`")
        return 0
    return _told(args, summary)


def _told(args: argparse.Namespace, summary: Mapping[str, Any]) -> int:
    """Print what an audit says and where it is; the exit status by its limit."""
    print("\n".join([*summary["headline"], *(f"note: {line}" for line in summary["warnings"])]))
    report, numbers = (os.path.join(args.out, name) for name in ("report.html", "summary.json"))
    print(f"{report}: the report; {numbers}: every number")
    return _limit(args, summary)
