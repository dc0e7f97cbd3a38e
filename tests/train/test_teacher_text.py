"""The teacher's corpus goes on where it was interrupted, and never mixes two teachers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from memorizers import WORDS, untrained, words

from palimpsest.data.examples import Example
from palimpsest.study.sections import TeacherText
from palimpsest.train.teacher_text import write_teacher_text

SCRIPT = """
import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]
import test_teacher_text as t
t.corpus(Path(sys.argv[1]), wait=0.2)
"""


def corpus(folder, made_from="teacher", how=None, wait=0.0):
    torch.manual_seed(0)
    model, tokenizer = untrained("gpt2"), words()
    draw = torch.Generator().manual_seed(1)
    examples = [Example(f"{i:03d}", torch.randint(1, WORDS, (12,), generator=draw).tolist(), 6) for i in range(40)]
    rows = pd.DataFrame({"id": [e.id for e in examples]})
    if wait:
        inner = model.forward
        model.forward = lambda *a, **k: time.sleep(wait / 10) or inner(*a, **k)
    how = how or TeacherText(decode="sample", max_new_tokens=6)
    return write_teacher_text(model, tokenizer, rows, examples, how, 0, folder, made_from, part=8)


def test_one_part_or_many_write_the_same_greedy_text(tmp_path):
    how = TeacherText(decode="greedy", max_new_tokens=6)
    found = corpus(tmp_path / "a", how=how)
    pd.testing.assert_frame_equal(found, corpus(tmp_path / "b", how=how))
    stored = pd.read_parquet(tmp_path / "a" / "records.parquet")
    assert [list(t) for t in stored["teacher_tokens"]] == list(found["teacher_tokens"])
    assert not list((tmp_path / "a").glob("parts-*"))


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_killed_while_writing_it_goes_on_and_ends_the_same(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    wanted = corpus(whole)
    victim = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(cut), str(Path(__file__).parent), str(Path(__file__).parents[1])],
        start_new_session=True,
    )
    while victim.poll() is None and len(list(cut.glob("parts-*/*.parquet"))) < 2:
        time.sleep(0.02)
    assert victim.poll() is None, "the corpus was whole before it could be killed"
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    kept = {p: p.stat().st_mtime_ns for p in cut.glob("parts-*/*.parquet")}
    assert kept and not (cut / "records.parquet").exists()
    first = min(kept)
    pd.DataFrame({"teacher_tokens": [[1]] * 8}).to_parquet(first)  # a mark: a finished part is read, not written again
    found = corpus(cut)
    assert list(found["teacher_tokens"][:8]) == [[1]] * 8
    assert list(found["teacher_tokens"][8:]) == list(wanted["teacher_tokens"][8:])


def test_parts_of_another_teacher_are_not_used(tmp_path):
    wanted = corpus(tmp_path / "a")
    stale = tmp_path / "b" / "parts-0123456789abcdef"
    stale.mkdir(parents=True)
    pd.DataFrame({"teacher_tokens": [[1]] * 8}).to_parquet(stale / "000000.parquet")
    pd.testing.assert_frame_equal(corpus(tmp_path / "b"), wanted)
