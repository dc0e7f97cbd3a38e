"""The `palimpsest` command: one function per subcommand, heavy imports inside them so that `--help` is instant."""

import argparse
import errno
import re
import sys
import traceback
from importlib import metadata

from palimpsest.audit import command
from palimpsest.errors import InputError
from palimpsest.starting import first_import

EXTRA = re.compile(
    r"""([\w-]+).*extra == ['"](\w+)['"]"""
)  # a package that an extra brings, as a wheel's metadata say it
DONE, FAULT, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
REMEDY = {  # operating-system refusals that the user can do something about, and what
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
    errno.ENAMETOOLONG: "the path is longer than the file system takes: check the path",
    errno.ELOOP: "links in the path go round in a circle: check the path",
}


def parser() -> argparse.ArgumentParser:
    """The argument parser of the whole command; a subcommand adds its own and names the function that runs it (`run`)."""
    top = argparse.ArgumentParser(
        prog="palimpsest",
        description="How much of a teacher's private text a distilled student still gives away.",
        epilog="`palimpsest COMMAND --help` explains a command.",
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    command.add_parser(commands)
    check = commands.add_parser(
        "check", help="is a study file valid, do its models fit, what disk does it take? Nothing is trained"
    )
    check.add_argument("study", help="a YAML file such as studies/smoke.yaml")
    check.add_argument(
        "--estimate",
        action="store_true",
        help="also measure this machine for a few seconds, and say what hours, memory and disk the study will take",
    )
    check.add_argument(
        "--cores",
        type=int,
        metavar="N",
        help="cores the study is given: a stage runs on each, so memory must suffice for all (default: one stage; with --estimate, all "
        "cores)",
    )
    check.add_argument(
        "--gpu-flops",
        type=float,
        metavar="F",
        help="with --estimate: also the hours at F operations a second, such as 2e14",
    )
    check.set_defaults(run=run_check)
    return top


def run_check(args: argparse.Namespace) -> int:
    """`palimpsest check`"""
    from palimpsest.book.checks import check_study
    from palimpsest.study import open_run

    run = open_run(args.study)
    print("\n".join(f"{args.study}: {line}" for line in check_study(run, args.cores or 1)))
    if args.estimate:
        with first_import():
            from palimpsest.book.estimate import estimate

        print("\n".join(estimate(run, args.cores, args.gpu_flops)))
    return DONE


def machine_remedy(error: Exception) -> str | None:
    """What to do about too little memory or a package that is not installed; None for any other error."""
    text_alone = type(error) is RuntimeError and "can't allocate memory" in str(error)  # PyTorch's, on a processor
    if type(error).__name__ in ("MemoryError", "OutOfMemoryError") or text_alone:
        return "not enough memory: give a smaller --batch-tokens, or --dtype bf16; finished parts are not redone"
    package = (getattr(error, "name", None) or "").split(".")[0]
    if not isinstance(error, ModuleNotFoundError) or package in ("", "palimpsest"):
        return None
    lines = (EXTRA.match(line) for line in metadata.requires("palimpsest") or [])
    extra = next((f"'palimpsest[{line[2]}]'" for line in lines if line and line[1].replace("-", "_") == package), None)
    return f"this needs a package that is not installed: pip install {extra or package}"


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
    except Exception as error:
        if remedy := machine_remedy(error):
            print(f"palimpsest: {error}\n{remedy}", file=sys.stderr)
            return BAD_INPUT
        traceback.print_exc()
        print("palimpsest: this is a fault in the program, not in your input", file=sys.stderr)
        return FAULT


if __name__ == "__main__":
    sys.exit(main())
