"""`palimpsest audit` on the command line: its manual page, its options, and the call they make."""

import argparse
import os
import textwrap

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
  text, content, ...) and the guess is printed. A JSON list of strings is taken as plain texts. Records are read,
  scored and counted some thousand at a time, so a file may be larger than the memory; a JSON list alone is read whole.

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
  missing weights of the model      refused: they would be random numbers
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


def add_parser(commands) -> None:
    """Add the parser of `palimpsest audit` to those of the other commands."""
    audit = commands.add_parser(
        "audit",
        help="measure what any causal language model has memorized of a file, with no training",
        description=textwrap.dedent(AUDIT_DESCRIPTION),
        epilog=AUDIT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.set_defaults(run=run)
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
        "--left-truncated",
        nargs="+",
        type=_positive,
        default=[],
        metavar="K",
        help="also measure a fixed target, the last M tokens of each record (M as in --window; of a response, its "
        "end-of-text is the last), given the K tokens before it and nothing else; one more pass for each K. Only records "
        "with M tokens and the largest K before them count, the same ones for every K (default: not measured)",
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


def run(args: argparse.Namespace) -> int:
    """`palimpsest audit`"""
    if args.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    from transformers.utils import logging  # torch and transformers take seconds to import

    from palimpsest.audit.auditing import audit

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
        left_truncated=args.left_truncated,
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
    return 0


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
