"""Records longer than the context, in windows that label every token once; score tables in few bytes."""

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.data.examples import Example
from palimpsest.measure import score_file
from palimpsest.measure.score_file import ROUNDED, windows, write_scores


@given(st.integers(2, 60), st.data())
def test_windows_label_every_token_once_with_half_a_context_before_it(length, data):
    context = data.draw(st.integers(2, 24))
    prompt = data.draw(st.integers(1, length))
    example = Example("r", list(range(length)), prompt, [t % 3 == 0 for t in range(length - prompt)])
    cut = list(windows(example, context))
    assert all(len(w.input_ids) <= context for w in cut)
    assert [t for w in cut for t in w.response_ids] == example.response_ids
    assert [s for w in cut for s in w.secret] == example.secret
    for w in cut:
        first = w.input_ids[w.prompt_length] if w.response_ids else length
        assert w.input_ids == list(range(w.input_ids[0], w.input_ids[0] + len(w.input_ids)))
        assert w.prompt_length >= min(first, context - max(1, context // 2))


def test_a_score_file_is_about_half_as_large_and_no_verdict_changes(tmp_path):
    rng, lengths = np.random.default_rng(0), [40, 0, 1, *[60] * 300]
    draws = {
        "token": lambda n: rng.zipf(1.3, n).clip(0, 49_000).astype(np.int32),
        "logprob": lambda n: -rng.exponential(1.5, n).astype(np.float32),
        "hit": lambda n: rng.random(n) < 0.5,
        "rank": lambda n: (rng.pareto(0.7, n)).clip(0, 49_000).astype(np.int32),
        "margin": lambda n: rng.exponential(2, n).astype(np.float32),
        "mean_logprob": lambda n: -rng.gamma(3, 1, n).astype(np.float32),
        "std_logprob": lambda n: rng.gamma(3, 0.8, n).astype(np.float32),
        "logprob_temperature0.7": lambda n: np.where(rng.random(n) < 0.1, -np.inf, -rng.exponential(1, n)).astype(
            np.float32
        ),
    }
    table = pd.DataFrame({"id": [f"{i:016x}" for i in range(len(lengths))], "length": lengths})
    table = table.assign(**{name: [draw(n) for n in lengths] for name, draw in draws.items()})
    table.to_parquet(tmp_path / "plain.parquet")
    write_scores(table, tmp_path / "small.parquet")
    assert (tmp_path / "small.parquet").stat().st_size < 0.55 * (tmp_path / "plain.parquet").stat().st_size
    back = pd.read_parquet(tmp_path / "small.parquet")
    pd.testing.assert_frame_equal(back.drop(columns=[*ROUNDED]), table.drop(columns=[*ROUNDED]), check_exact=True)
    for name in ROUNDED:
        one, other = (np.concatenate(list(side[name])) for side in (table, back))
        assert (np.abs(other) <= np.abs(one)).all() and np.allclose(one, other, rtol=1 / 32_000, atol=0)
    write_scores(back, tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "again.parquet"), back, check_exact=True)


def test_tables_are_gathered_in_order_until_they_are_large_enough(monkeypatch):
    tables = [pa.table({"n": [3 * i, 3 * i + 1, 3 * i + 2]}) for i in range(5)]
    monkeypatch.setattr(score_file, "ROWS", 6)
    assert [one["n"].to_pylist() for one in score_file.gathered(tables)] == [
        list(range(6)),
        list(range(6, 12)),
        [12, 13, 14],
    ]
    monkeypatch.setattr(score_file, "BYTES", 1)
    assert len(list(score_file.gathered(iter(tables)))) == 5 and not list(score_file.gathered([]))
