"""A run that is finished but for its pages, made once; tests that change it copy it first."""

import pytest
from written_runs import finished_run

from palimpsest.study import Run


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Run:
    return finished_run(tmp_path_factory.mktemp("finished"), methods=["sft", "word_kd", "sft_private"], replicates=2)
