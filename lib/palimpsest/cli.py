"""The `palimpsest` command: one function per subcommand, heavy imports inside them so that `--help` is instant."""

import argparse
import errno
import os
import sys
import textwrap
import traceback

from palimpsest.errors import InputError

DONE, FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
REMEDY = {  # operating-system refusals that the user can mend, and how
    errno.ENOSPC: "the disk is full: free some space, then run the same command again; finished parts are not redone",
    errno.EDQUOT: "your disk quota is used up: free some space, then run the same command again",
    errno.EFBIG: "the file grew past a size limit (see `ulimit -f`): raise it, then run the same command again",
    errno.EACCES: "no permission: check that you may read the input and write to the output, or choose other places",
    errno.EPERM: "not permitted: check that you may read the input and write to the output, or choose other places",
    errno.EROFS: "the file system is read-only: choose another --out",
    errno.ENOENT: "no such file or folder: check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder: check the path",
    errno.EISDIR: "a folder stands where a file was wanted: check the path",
    errno.EEXIST: "a file stands where a folder was wanted: check the path",
}

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
input files:
  FILE is JSON lines, a JSON list, CSV, Parquet, or a hub data set id. A record is a prompt with a response, of which
  the response is measured, or a plain text, which is measured from its first token. Columns not mapped by a flag are
  guessed from their names (instruction, prompt, question, ...; context, input; response, output, answer, ...;
  text, content, ...) and the guess is printed. A JSON list of strings is taken as plain texts.

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
  the same record more than once    kept once; counted
  member and non-member files share a record    refused, and the overlap is shown

exit status:
  0  the audit is complete
  2  bad input: the message names what was found, what was wanted and what to do
  1  a fault in the program

examples:
  palimpsest audit --model ./my-model --data members.jsonl --out audit
  palimpsest audit --model ./my-model --reference gpt2 --data members.csv --non-members held_out.csv \\
      --prompt-column question --response-column answer --out audit
  palimpsest audit --model ./my-model --data corpus.parquet --text-column body --long window --dtype bf16 \\
      --sampling top_k=40 --sampling temperature=0.7,top_p=0.9 --out audit
"""


def parser() -> argparse.ArgumentParser:
    """The argument parser of the whole command."""
    top = argparse.ArgumentParser(
        prog="palimpsest",
        description="How much of a teacher's private text a distilled student still gives away.",
        epilog="`palimpsest COMMAND --help` explains a command.",
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _audit_parser(commands)
    check = commands.add_parser("check", help="validate a study file, without torch or data")
    check.add_argument("study", help="a YAML file such as studies/smoke.yaml")
    check.set_defaults(run=run_check)
    return top


def _audit_parser(commands) -> None:
    audit = commands.add_parser(
        "audit",
        help="measure what any causal language model has memorized of a file, with no training",
        description=textwrap.dedent(AUDIT_DESCRIPTION),
        epilog=AUDIT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.set_defaults(run=run_audit)
    what = audit.add_argument_group("what to audit")
    what.add_argument("--model", required=True, metavar="M", help="folder or hub id of a decoder-only language model")
    what.add_argument("--data", required=True, metavar="FILE", help="the records whose memorization is measured")
    what.add_argument("--out", required=True, metavar="DIR", help="folder for the results; made if missing")
    what.add_argument("--non-members", metavar="FILE", help="records of the same kind that M was not trained on")
    what.add_argument("--reference", metavar="M0", help="M before fine-tuning: calibrates the attacks")
    what.add_argument("--tokenizer", metavar="T", help="folder or hub id of the tokenizer (default: the model's own)")
    what.add_argument("--trust-remote-code", action="store_true", help="run Python code that comes with the model")
    rows = audit.add_argument_group("how to read the records")
    rows.add_argument("--text-column", metavar="NAME", help="column of plain texts")
    rows.add_argument("--prompt-column", metavar="NAME", help="column of prompts or instructions")
    rows.add_argument("--context-column", metavar="NAME", help="column of contexts that belong to the prompt")
    rows.add_argument("--response-column", metavar="NAME", help="column of responses")
    rows.add_argument("--limit", type=_positive, metavar="N", help="read the first N records only")
    rows.add_argument(
        "--template",
        default="auto",
        metavar="NAME",
        help="how prompt and context were laid out in training: auto (default; alpaca where the prompt column is called "
        "instruction, else none), none (the prompt as it stands), alpaca, plain, or a YAML file with the keys with_context "
        "and without_context, whose texts hold {instruction} and {context}",
    )
    rows.add_argument(
        "--long",
        choices=("refuse", "window", "skip"),
        default="refuse",
        help="records longer than the context: refuse the file (default); window: score every token once, given at "
        "least half a context of the tokens before it; skip: leave them out, counted",
    )
    rows.add_argument(
        "--empty", choices=("refuse", "skip"), default="refuse", help="records without text: default refuse"
    )
    measures = audit.add_argument_group("what to measure")
    measures.add_argument(
        "--prefix-lengths",
        type=_lengths,
        default=[0, 10, 25, 50],
        metavar="K,K,...",
        help="tokens of the response given as prefix, for the rates in the summary (default 0,10,25,50); "
        "the curve in the report has every length",
    )
    measures.add_argument(
        "--window", type=_positive, default=50, metavar="M", help="tokens to be recited (default 50)"
    )
    measures.add_argument(
        "--sampling",
        action="append",
        default=[],
        type=_sampling,
        metavar="RULE",
        help="also compute (n, p)-discoverable extraction under this decoding rule, e.g. top_k=40 or "
        "temperature=0.7,top_p=0.9; may be repeated",
    )
    measures.add_argument(
        "--no-approximate",
        action="store_true",
        help="skip ROUGE-L, edit similarity and common substring (no decoding)",
    )
    measures.add_argument(
        "--no-lowercase",
        action="store_true",
        help="with --non-members, skip the lowercase attack (a second forward pass)",
    )
    machine = audit.add_argument_group("how to run")
    machine.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, mps")
    machine.add_argument(
        "--dtype",
        choices=("fp32", "bf16", "auto"),
        default="fp32",
        help="arithmetic of the model (default fp32); auto is bf16 where the device multiplies it natively. bf16 is "
        "faster and flips about one verdict in a hundred, so it is reported, with the number of near-ties",
    )
    machine.add_argument(
        "--batch-tokens", type=_positive, metavar="N", help="padded tokens per batch (default: sized to the memory)"
    )
    machine.add_argument("--quiet", action="store_true", help="no progress bars")
    report = audit.add_argument_group("what to show")
    report.add_argument("--show-secrets", action="store_true", help="show text of the data unmasked in the report")


def run_audit(args: argparse.Namespace) -> int:
    """`palimpsest audit`"""
    if args.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from transformers.utils import logging  # torch and transformers take seconds to import

    from palimpsest.audit import audit

    logging.set_verbosity_error()

    columns = {
        ours: given
        for ours, given in (
            ("text", args.text_column),
            ("instruction", args.prompt_column),
            ("context", args.context_column),
            ("response", args.response_column),
        )
        if given
    }
    summary = audit(
        args.model,
        args.data,
        args.out,
        non_members=args.non_members,
        reference=args.reference,
        tokenizer=args.tokenizer,
        trust_remote_code=args.trust_remote_code,
        columns=columns,
        limit=args.limit,
        template=args.template,
        long=args.long,
        empty=args.empty,
        prefix_lengths=args.prefix_lengths,
        window=args.window,
        sampling={"_".join(f"{k}{v:g}" for k, v in rule.items()): rule for rule in args.sampling},
        approximate=not args.no_approximate,
        lowercase=not args.no_lowercase,
        device=None if args.device == "auto" else args.device,
        dtype=args.dtype,
        batch_tokens=args.batch_tokens,
        show_secrets=args.show_secrets,
        progress=not args.quiet,
    )
    print("\n".join([*summary["headline"], *(f"note: {line}" for line in summary["warnings"])]))
    print(
        f"{os.path.join(args.out, 'report.html')}: the report; {os.path.join(args.out, 'summary.json')}: every number"
    )
    return DONE


def run_check(args: argparse.Namespace) -> int:
    """`palimpsest check`"""
    from palimpsest.study import load_study

    study = load_study(args.study)
    print(f"{args.study}: study {study.name!r} is valid, {len(study.arms())} arms")
    return DONE


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"wanted a whole number of at least 1, found {text!r}")
    return int(text)


def _lengths(text: str) -> list[int]:
    parts = [p.strip() for p in text.split(",")]
    if not all(p.isdigit() for p in parts):
        raise argparse.ArgumentTypeError(f"wanted whole numbers separated by commas, such as 0,25,50, found {text!r}")
    return sorted({int(p) for p in parts})


def _sampling(text: str) -> dict[str, float]:
    rule: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        try:
            rule[name] = {"top_k": int, "top_p": float, "temperature": float}[name](value)
        except (KeyError, ValueError):
            raise argparse.ArgumentTypeError(
                f"wanted settings among temperature=T, top_k=K, top_p=P separated by commas, found {text!r}"
            ) from None
    if rule.get("top_k", 1) < 1 or not 0 < rule.get("top_p", 1) <= 1 or rule.get("temperature", 1) <= 0:
        raise argparse.ArgumentTypeError(f"wanted temperature > 0, top_k >= 1 and 0 < top_p <= 1, found {text!r}")
    return rule


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 2 bad input, 1 a fault, 130 interrupted."""
    args = parser().parse_args(argv)
    try:
        return args.run(args)
    except InputError as error:
        print(f"palimpsest: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("palimpsest: interrupted; the same command resumes where it stopped", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if error.errno in REMEDY:
            print(f"palimpsest: {error}\n{REMEDY[error.errno]}", file=sys.stderr)
            return BAD_INPUT
        traceback.print_exc()
        return FAULT
    except Exception:
        traceback.print_exc()
        print("palimpsest: this is a fault in the program, not in your input", file=sys.stderr)
        return FAULT


if __name__ == "__main__":
    sys.exit(main())
