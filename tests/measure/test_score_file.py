"""Records longer than the context, in windows that label every token once."""

from hypothesis import given
from hypothesis import strategies as st

from palimpsest.data.examples import Example
from palimpsest.measure.score_file import windows


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
