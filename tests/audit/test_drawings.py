"""The drawn ROC curve: its corners are the whole one's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.audit.drawings import roc_points
from palimpsest.measure import membership_inference


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_the_drawn_roc_curve_is_the_whole_one(members, others):
    members, others = np.array(members, float), np.array(others, float)
    fpr, tpr = roc_points(members, others)
    whole_ = membership_inference.operating_points(members, others)
    assert np.trapezoid(tpr, fpr) == pytest.approx(np.trapezoid(whole_["tpr"], whole_["fpr"]))
    corners = {(round(a, 9), round(b, 9)) for a, b in whole_[["fpr", "tpr"]].to_numpy()}
    few = roc_points(members, others, most=3)
    assert {(round(a, 9), round(b, 9)) for a, b in zip(*few, strict=True)} <= corners
