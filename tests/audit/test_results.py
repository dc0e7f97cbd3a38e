"""Results are whole or absent: full disks, limits, places that cannot be written, and another's files."""

import errno
import resource

import pyarrow.parquet as pq
import pytest
from audits import audited, whole

from palimpsest import cli
from palimpsest.audit.results import RESULTS
from palimpsest.errors import InputError


def test_a_full_disk_leaves_nothing_whole_and_the_next_run_goes_on(place, tmp_path, monkeypatch):
    real = pq.ParquetWriter.write_table

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(InputError, match="No space left on device.*free space"):
        audited(place / "tuned", place / "members.jsonl", tmp_path / "out")
    assert whole(tmp_path / "out") == []
    monkeypatch.setattr(pq.ParquetWriter, "write_table", real)
    audited(place / "tuned", place / "members.jsonl", tmp_path / "out")
    assert whole(tmp_path / "out") == list(RESULTS)


def test_a_file_size_limit_stops_the_command_with_status_2(place, tmp_path, capsys):
    """A real refusal by the operating system, at the real write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    command = ["audit", "--model", str(place / "tuned"), "--data", str(place / "members.jsonl"), "--quiet"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        status = cli.main([*command, "--out", str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert status == 2 and "File too large" in said and "Traceback" not in said, said
    assert whole(tmp_path / "out") == []


def test_a_place_that_cannot_be_written(place, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for where in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(OSError):
            audited(place / "tuned", place / "members.jsonl", where)
    assert (tmp_path / "file").read_text() == "in the way"


def test_what_no_audit_wrote_is_not_replaced(place, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.png").touch()
    with pytest.raises(InputError, match="holds figures, not written by an audit"):
        audited(place / "tuned", place / "members.jsonl", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["figures", "mine.png"]
