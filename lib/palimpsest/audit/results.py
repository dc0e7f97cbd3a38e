"""The folder of an audit's results: put together from what was scored, whole or absent, and never in place of another's files."""

import errno
import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palimpsest.audit import page
from palimpsest.audit import summary as audit_summary
from palimpsest.audit.records import Records
from palimpsest.errors import InputError
from palimpsest.study.files import write_json
from palimpsest.study.runs import provenance

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # the operating system will not take what is written
RESULTS = ("records.parquet", "figures", "report.html", "summary.json")  # in the order of appearance


def finish(groups: Mapping[str, Records], summary: Mapping[str, Any], work: Path, out: Path, began: float) -> dict:
    """Count what was scored, write the results into `work`, and move them to `out` when all are there.

    Args:
        groups: "members" (and "non_members") -> their scored records.
        summary: what is known before counting.
        began: when the audit began, by `time.perf_counter`.

    Returns:
        The whole summary, as in `summary.json`.
    """
    said = {**summary, **audit_summary.combine(groups, work / "records.parquet", summary)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    said |= {"seconds": round(time.perf_counter() - began, 1), "peak_memory_bytes": peak, **provenance()}
    said = audit_summary.plain(said)
    write_json(work / "summary.json", said)
    page.report(work)
    publish_results(work, out)
    return said


def summary_in(folder: Path, name: str = "summary.json") -> dict | None:
    """The summary of an audit, or of a shard, in a folder, if there is one."""
    try:
        summary = json.loads((folder / name).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return summary if isinstance(summary, dict) and "fingerprint" in summary else None


def refuse_foreign_folder(out: Path) -> None:
    """An audit replaces what it wrote, and nothing else that bears the names of its results."""
    there = [name for name in RESULTS if (out / name).exists()]
    if there and summary_in(out) is None and not (out / "partial").exists():
        raise InputError(
            f"{out} holds {', '.join(there)}, not written by an audit, which would replace them: choose another --out, or "
            "move them away"
        )


def finished_audit(out: Path, print_: str) -> dict | None:
    """The summary of an audit of the same model, records and settings that is complete."""
    summary = summary_in(out)
    if not summary or summary["fingerprint"] != print_ or not all((out / name).exists() for name in RESULTS):
        return None
    print(f"{out} already holds this audit, complete", file=sys.stderr)
    return summary


def publish_results(work: Path, out: Path) -> None:
    """Move finished results into place: a former summary goes first, the new one comes last."""
    (out / "summary.json").unlink(missing_ok=True)
    for name in RESULTS:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        (work / name).replace(out / name)
    shutil.rmtree(work)


@contextmanager
def writing_audit(out: Path, reading: Path) -> Iterator[None]:
    """However it ends, the copy of the input goes; a disk that takes no more the user can free, whatever it refused."""
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
