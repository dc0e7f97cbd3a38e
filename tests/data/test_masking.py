"""Masked text gives away a length class and nothing else; data text is inert in HTML."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tags import Tags

from palimpsest.data import masking


@pytest.mark.parametrize(
    ("length", "name"), [(0, "0"), (1, "1-5"), (5, "1-5"), (6, "6-10"), (1000, "501-1000"), (1001, "over 1000")]
)
def test_length_classes_meet_without_gaps(length, name):
    assert masking.length_class(length) == name


def test_masks_of_one_class_are_equal():
    assert masking.mask("123456") == masking.mask("abcdefghij")
    assert masking.mask("12345") != masking.mask("123456")


def test_first_character_only_when_told_and_never_all_of_it():
    assert "Q" not in masking.mask("Quartz-7731")
    shown = masking.mask("Quartz-7731", first=True)
    assert shown.startswith("Q") and "u" not in shown
    assert "Q" not in masking.mask("Q", first=True)


@given(st.text(min_size=1))
def test_a_mask_tells_nothing_but_the_length_class(text):
    assert masking.mask(text) == masking.mask("x" * len(text))


@given(st.text())
def test_escaped_text_holds_no_tag(text):
    parser = Tags()
    parser.feed(masking.escape(f"<script>{text}</script>"))
    assert parser.seen == []


def test_direction_changes_are_spelled_out():
    assert "\u202e" not in masking.escape("invoice\u202eexe.pdf")
    assert masking.escape("two\nlines") == "two\nlines"
