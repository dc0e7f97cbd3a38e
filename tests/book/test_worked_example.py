"""The worked example in the methods: its numbers are what the estimator makes of its table."""

import re

import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from palimpsest.measure.comparison import QUALITIES, Question, compare_methods
from palimpsest.study.files import root

TEXT = (root() / "book" / "methods.md").read_text().split("(sec-example)=")[1].split("### How often it is right")[0]
PROSE = " ".join(TEXT.split())


def test_one_replicate_gives_the_difference_that_is_told():
    numbers = [[float(n) for n in line.split("|")[2:-1]] for line in TEXT.splitlines() if re.match(r"\|.*\d \|", line)]
    losses, shares = numbers[::2], numbers[1::2]
    rows = []
    for method, loss, recited in zip(("sft", "fkl"), losses, shares, strict=True):
        for epoch, (quality, share) in enumerate(zip(loss, recited, strict=True)):
            point = {"size": "small", "method": method, "replicate": 0, "seed": 0, "epoch": epoch, "tokens": epoch}
            rows.append(
                {**point, "validation_loss_calibrated": quality, "rouge_l": 1 - quality / 10, "recited": share}
            )
    asked = [Question("f", "c", "fkl", "sft", "recited", at) for at in ("equal", "end")]
    found = compare_methods(pd.DataFrame(rows), asked).set_index("quality")["estimate"]
    assert f"over that range is {found['validation_loss_calibrated']:.1f} points" in PROSE
    assert f"At the end it would be {found['none']:.0f} points" in PROSE
    best, margin = max(min(loss) for loss in losses), QUALITIES["validation_loss_calibrated"].margin
    assert f"best loss is {best:.2f} and the margin {margin:g}" in PROSE
    assert f"read from {min(loss[0] for loss in losses):.2f} to {best + margin:.2f}" in PROSE


def test_five_replicates_give_the_interval_that_is_told():
    told = re.search(r"replicates give (.*?) points", PROSE)[1].replace(" and", ",")
    test = ttest_1samp([float(n) for n in told.split(",")], 0)
    low, high = test.confidence_interval()
    mean = (low + high) / 2
    assert f"mean is {mean:.1f} points (95 % interval {low:.1f} to {high:.1f}), with $p$ = {test.pvalue:.4f}" in PROSE
    assert f"make that {4 * test.pvalue:.4f}" in PROSE
    assert mean == pytest.approx(-3.28)
