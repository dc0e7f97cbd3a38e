"""A program's start looks for no garbage; afterwards, and in a process that somebody else began, it is looked for as ever."""

import gc
import subprocess
import sys

from palimpsest.starting import first_import

SCRIPT = """
import gc
from palimpsest.starting import first_import
try:
    with first_import():
        assert not gc.isenabled()
        {}
except ImportError:
    print("not there")
assert gc.isenabled() and gc.get_freeze_count() > 0
"""


def start(line):
    return subprocess.run([sys.executable, "-c", SCRIPT.format(line)], capture_output=True, text=True)


def test_a_program_that_imports_finds_the_collector_on_afterwards():
    done = start("import numpy")
    assert (done.returncode, done.stderr) == (0, "")


def test_also_where_the_import_fails():
    done = start("import no_such_module")
    assert (done.returncode, done.stdout) == (0, "not there\n")


def test_where_torch_is_there_nothing_is_kept_for_good():
    import torch  # noqa: F401

    before = gc.get_freeze_count()
    with first_import():
        assert gc.isenabled()
    assert gc.get_freeze_count() == before
