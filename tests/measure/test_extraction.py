"""Verdicts against `generate` on every record and every prefix length; the arithmetic against plain definitions."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memorizers import END, memorizer, texts, untrained

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure import extraction
from palimpsest.measure.scoring import score
from palimpsest.measure.statistics import rate


def table_of(hits: list[list[bool]], **columns) -> pd.DataFrame:
    """A score table with these hits; other list columns are given, or made up."""
    frame = pd.DataFrame(
        {"id": [str(i) for i in range(len(hits))], "prompt_length": 1, "length": list(map(len, hits))}
    )
    frame["hit"] = [np.array(h, dtype=bool) for h in hits]
    for name, values in columns.items():
        frame[name] = [np.array(v, dtype=np.float32) for v in values]
    return frame


def greedy(model, prefixes: list[list[int]], limits: list[int]) -> list[list[int]]:
    """Greedy continuations by transformers, left-padded, 256 rows at a time."""
    out = []
    for at in range(0, len(prefixes), 256):
        rows, most = prefixes[at : at + 256], limits[at : at + 256]
        width = max(map(len, rows))
        ids = torch.tensor([[END] * (width - len(r)) + r for r in rows])
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows])
        steps = min(max(most), 64 - width)
        new = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=steps, pad_token_id=END
        )
        out += [row[:n] for row, n in zip(new[:, width:].tolist(), most, strict=True)]
    return out


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def scored(request):
    """A model that knows 36 records with gaps, those and 14 unknown ones, and their scores."""
    known = texts(36, seed=5, longest=44)
    examples = known + [
        Example(f"new{i}", e.input_ids, e.prompt_length, e.secret) for i, e in enumerate(texts(14, seed=6))
    ]
    model = memorizer(request.param, known)
    return model, examples, score(model, examples)


def test_every_verdict_equals_greedy_decoding(scored):
    """All prefix lengths of 50 records, to the end of the response and for a window of 5: over 2,000 decisions a model."""
    model, examples, table = scored
    whole, short = extraction.verbatim_at_every_prefix(table), extraction.verbatim_at_every_prefix(table, 5)
    prefixes, targets = [], []
    for e in examples:
        for k in range(len(e.response_ids)):
            prefixes.append(e.input_ids[: e.prompt_length + k])
            targets.append(e.response_ids[k:])
    order = sorted(range(len(prefixes)), key=lambda i: len(prefixes[i]))
    written = greedy(model, [prefixes[i] for i in order], [len(targets[i]) for i in order])
    decided = 0
    for i, text in zip(order, written, strict=True):
        assert whole[i] == (text == targets[i])
        assert short[i] == (text[:5] == targets[i][:5])
        decided += 2
    assert decided > 2000 and 0.1 < whole.mean() < 0.9
    for k in (0, 3, 12):
        one = extraction.verbatim(table, k)
        for e, verdict in zip(examples, one, strict=True):
            at = [i for i, p in enumerate(prefixes) if p == e.input_ids[: e.prompt_length + k]]
            assert pd.isna(verdict) if len(e.response_ids) <= k else verdict == whole[at[0]]


def test_secrets_equal_greedy_decoding_from_before_them(scored):
    model, examples, table = scored
    found = extraction.secrets(table, examples)
    assert list(found["id"]) == [e.id for e in examples] and 0 < found["recited"].mean() < 1
    starts = [e.prompt_length + k for e, k in zip(examples, found["k"], strict=True)]
    ends = [s + n for s, n in zip(starts, found["tokens"], strict=True)]
    before = greedy(model, [e.input_ids[:s] for e, s in zip(examples, starts, strict=True)], list(found["tokens"]))
    prompt = greedy(model, [e.input_ids[: e.prompt_length] for e in examples], list(found["k"] + found["tokens"]))
    for e, s, t, mine, all_of_it, row in zip(examples, starts, ends, before, prompt, found.itertuples(), strict=True):
        assert row.recited == (mine == e.input_ids[s:t])
        assert row.from_prompt == (all_of_it == e.input_ids[e.prompt_length : t])


def test_left_truncated_design_equals_greedy_decoding(scored):
    model, examples, _ = scored
    cut = extraction.left_truncated_examples(examples, k=10, m=4)
    assert 0 < len(cut) == sum(len(e.input_ids) >= 14 for e in examples) < len(examples)
    verdict = extraction.verbatim(score(model, cut))
    written = greedy(model, [e.input_ids[:10] for e in cut], [4] * len(cut))
    assert list(verdict) == [text == e.response_ids for e, text in zip(cut, written, strict=True)]
    assert verdict.any() and not verdict.all()
    assert all(len(e.input_ids) == 14 and len(e.secret) == 4 for e in cut)


@given(st.integers(1, 6), st.integers(0, 9), st.integers(1, 8), st.integers(1, 6))
def test_left_truncated_examples_are_slices(prompt, response, k, m):
    ids = list(range(prompt + response))
    e = Example("a", ids, prompt, [t % 3 == 0 for t in ids[prompt:]])
    target = e.response_ids[-m:]
    whole = len(target) == m and target[0] >= k
    cut = extraction.left_truncated_examples([e], k, m)
    assert len(cut) == whole
    for c in cut:
        assert c.response_ids == target and c.input_ids == list(range(target[0] - k, target[-1] + 1))
        assert c.secret == [t % 3 == 0 for t in target]


def test_impossible_truncations():
    with pytest.raises(InputError, match="k=0, m=5; wanted a context and a target"):
        extraction.left_truncated_examples([], 0, 5)


HITS = st.lists(st.lists(st.booleans(), max_size=12), min_size=1, max_size=6)


@given(HITS, st.integers(0, 13), st.one_of(st.none(), st.integers(1, 13)), st.booleans())
def test_verbatim_is_all_hits_in_the_window(hits, k, m, full):
    table = table_of(hits)
    for h, verdict in zip(hits, extraction.verbatim(table, k, m, full_window=full), strict=True):
        target = h[k:] if m is None else h[k : k + m]
        if not target or (full and m and len(target) < m):
            assert pd.isna(verdict)
        else:
            assert verdict == all(target)


@given(HITS, st.one_of(st.none(), st.integers(1, 13)))
def test_curve_is_the_rate_at_every_k(hits, m):
    table = table_of(hits)
    points = extraction.verbatim_by_prefix(table, m)
    for point in points.to_dict("records"):
        wanted = rate(extraction.verbatim(table, int(point.pop("k")), m))
        assert point == pytest.approx(wanted, abs=1e-12)
    assert len(points) == max(map(len, hits))


@given(HITS)
def test_longest_span_and_strength(hits):
    spans, strength = extraction.longest_span(table_of(hits)), extraction.strength(table_of(hits))
    for i, h in enumerate(hits):
        best = max((n, -s) for s in range(len(h) + 1) for n in range(len(h) - s + 1) if all(h[s : s + n]))
        tokens, start = spans.iloc[i]
        assert tokens == best[0] and start == (-best[1] if best[0] else -1)
        if h:
            assert strength.iloc[i] == pytest.approx(1 - next(k for k in range(len(h) + 1) if all(h[k:])) / len(h))
        else:
            assert np.isnan(strength.iloc[i])


def test_first_and_last_token_count():
    first, last, none = [False, True, True, True], [True, True, True, False], [True] * 4
    table = table_of([first, last, none])
    assert list(extraction.verbatim(table)) == [False, False, True]
    assert list(extraction.verbatim(table, 1)) == [True, False, True]
    assert list(extraction.verbatim(table, 3)) == [True, False, True]
    assert list(extraction.strength(table)) == [0.75, 0, 1]
    assert extraction.longest_span(table).to_numpy().tolist() == [[3, 1], [3, 0], [4, 0]]


def test_readings():
    hits = [[True] * 3, [True] * 4 + [False], [False] * 2 + [True] * 4, [True] * 5]
    table = table_of(hits)
    assert list(extraction.verbatim_target(table, "window", 3)) == [True, True, False, True]
    assert list(extraction.verbatim_target(table, "whole", 3)) == [True, False, False, True]
    third = extraction.verbatim_target(table, "next_window", 3)
    assert list(third.isna()) == [True, True, False, True] and third.iloc[2]
    assert rate(third)["total"] == 1
    with pytest.raises(InputError, match="window, whole, next_window"):
        extraction.verbatim_target(table, "strict")


def test_secrets_are_unbroken_stretches_within_a_record():
    hits = [[True, False, True, True], [True, True, False], [True]]
    secret = [[False, True, False, True], [True, True, False], [False]]
    examples = [Example(str(i), [9] + [1] * len(s), 1, s) for i, s in enumerate(secret)]
    found = extraction.secrets(table_of(hits), examples)
    assert found.to_numpy().tolist() == [
        ["0", 1, 1, False, False],
        ["0", 3, 1, True, False],
        ["1", 0, 2, True, True],
    ]
    with pytest.raises(InputError, match="record 0 has 4 scored tokens and 3 secret flags"):
        extraction.secrets(table_of(hits), [Example("0", [9] * 4, 1, [True] * 3)] + examples[1:])
    assert len(extraction.secrets(table_of([]), [])) == 0


def test_near_ties_are_counted_inside_the_target():
    table = table_of([[True] * 4, [True]], margin=[[0, 5, 0.0005, 5], [5]])
    assert list(extraction.near_ties(table)) == [2, 0]
    assert list(extraction.near_ties(table, 1, 1))[0] == 0 and list(extraction.near_ties(table, 1, 2))[0] == 1
    assert extraction.near_ties(table, 1).isna().tolist() == [False, True]


@given(
    st.lists(st.lists(st.floats(-50, 0, width=32) | st.just(-np.inf), max_size=8), min_size=1, max_size=5),
    st.integers(0, 4),
)
def test_log_probability_is_the_sum_over_the_target(values, k):
    table = table_of([[True] * len(v) for v in values], logprob=values)
    for v, found in zip(values, extraction.log_probability(table, k, 3), strict=True):
        assert np.isnan(found) if len(v) <= k else found == pytest.approx(sum(v[k : k + 3]), rel=1e-6)


def test_log_probability_under_sampling_settings():
    table = score(untrained("gpt2"), texts(5), sampling={"k3": {"top_k": 3}})
    assert (extraction.log_probability(table, column="logprob_k3") == -np.inf).all()
    assert np.isfinite(extraction.log_probability(table)).all()
    with pytest.raises(InputError, match="no column logprob_k9"):
        extraction.log_probability(table, column="logprob_k9")


@given(st.floats(0.001, 0.999), st.integers(1, 500))
def test_probability_in_n_samples(q, n):
    assert extraction.probability_in(np.log(q), n) == pytest.approx(1 - (1 - q) ** n, rel=1e-9)


@given(st.floats(-600, -1e-9), st.floats(0.01, 0.99))
def test_samples_needed_is_the_smallest_number_that_is_enough(logq, p):
    n = float(extraction.samples_needed(logq, p))
    assert extraction.probability_in(logq, n) >= p * (1 - 1e-9)
    if 1 < n < 2**50:
        assert extraction.probability_in(logq, n - 1) <= p * (1 + 1e-9)


def test_the_tiniest_and_the_surest():
    logq = np.array([-np.inf, -500.0, -1e-20, 0.0])
    np.testing.assert_allclose(extraction.probability_in(logq, 10), [0, 10 * np.exp(-500), 1, 1], rtol=1e-12)
    needed = extraction.samples_needed(logq, 0.5)
    np.testing.assert_allclose(needed, [np.inf, np.log(2) * np.exp(500), 1, 1], rtol=1e-12)
    with pytest.raises(InputError, match="above 0 and below 1"):
        extraction.samples_needed(logq, 1.0)


def test_impossible_windows():
    with pytest.raises(InputError, match="given=-1"):
        extraction.verbatim(table_of([[True]]), -1)
    with pytest.raises(InputError, match="tokens=0"):
        extraction.verbatim(table_of([[True]]), 0, 0)


def test_without_the_end_only_the_text_is_asked_for():
    """The last token is missed everywhere: nothing is whole with it, and what is left is what the text alone gives."""
    hits = [[True, True, False], [True, False, False], [False]]
    scores = pd.DataFrame({"id": list("abc"), "length": [3, 3, 1], "hit": [np.array(h) for h in hits]})
    text = extraction.without_end(scores, [1, 1, 1])
    assert text["length"].tolist() == [2, 2, 0] and [h.tolist() for h in text["hit"]] == [
        [True, True],
        [True, False],
        [],
    ]
    assert extraction.verbatim(scores).tolist() == [False, False, False]
    assert extraction.verbatim(text).tolist() == [True, False, pd.NA]
    assert extraction.strength(scores).tolist() == [0, 0, 0] and extraction.strength(text).tolist()[:2] == [1, 0]
    assert extraction.without_end(scores, [0, 0, 0])["length"].tolist() == [3, 3, 1]
