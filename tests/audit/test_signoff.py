"""The sign-off: who is most at risk, what can't be excluded, and a gate that opens only when a bound is met."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from palimpsest import cli
from palimpsest.audit.settings import GATES
from palimpsest.audit.signoff import check_limit
from palimpsest.errors import InputError
from palimpsest.measure.statistics import clopper_pearson


def told(count, total, measure="verbatim", **more):
    row = {"group": "members", "model": "model", "measure": measure, "k": 0, "m": 50, "count": count, "total": total}
    return {**row, "rate": count / total if total else None, **more}


def summary_of(*rows):
    return {"settings": {"prefix_lengths": [0, 10], "window": 50}, "rates": list(rows)}


@pytest.mark.parametrize(
    ("count", "total", "fails"), [(0, 367, True), (0, 369, False), (1, 369, True), (3, 2_000, False)]
)
def test_a_limit_of_one_percent(count, total, fails):
    exceeded, said = check_limit(summary_of(told(count, total)), "verbatim", 0.01)
    assert exceeded == fails and f"{count} of {total} members" in said and "limit of 1 %" in said
    assert ("fewer than 368 members can't show" in said) == (fails and not count)


def test_the_highest_bound_counts_and_other_rates_do_not():
    rows = [told(1, 1_000), told(9, 1_000, m=None), told(500, 1_000, k=10), told(600, 1_000, "discoverable", n=1_000)]
    rows += [{**told(700, 1_000), "group": "non_members"}, {**told(700, 1_000), "model": "teacher"}]
    exceeded, said = check_limit(summary_of(*rows), "verbatim", 0.01)
    assert exceeded and "9 of 1000 members, upper bound 1.7 %" in said
    assert "600 of 1000" in check_limit(summary_of(*rows), "sampled", 0.01)[1]


def test_a_rate_that_was_not_measured_is_no_pass():
    with pytest.raises(
        InputError, match="--fail-on persons: the audit has no such rate; it has verbatim; persons are told by"
    ):
        check_limit(summary_of(told(0, 400), told(0, 0, "persons")), "persons", 0.5)


@pytest.mark.parametrize("limit", [0.003, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("total", [50, 400, 3_000])
def test_the_gate_lets_no_more_than_one_in_forty_bad_models_through(limit, total):
    """A model just above the limit, whatever is counted: probability that the gate opens."""
    counts = np.arange(total + 1)
    opens = np.array(
        [
            not check_limit(summary_of(told(int(c), total)), "verbatim", limit)[0]
            for c in counts[: int(total * limit) + 2]
        ]
    )
    assert binom.pmf(counts[: len(opens)][opens], total, limit * 1.0001).sum() <= 0.025


def test_what_was_tested_says_what_can_not_be_excluded(family_audit):
    _, summary = family_audit
    rows = {(row["kind"], row["what"].split()[0]): row for row in summary["tested"]}
    assert {kind for kind, _ in rows} == {"direct extraction", "probabilistic extraction", "any extraction", "persons"}
    for row in rows.values():
        assert row["upper"] == pytest.approx(clopper_pearson(row["count"], row["total"])["high"])
        assert binom.pmf(0, row["total"], row["least"]) == pytest.approx(0.05)
    verbatim = next(
        r
        for r in summary["rates"]
        if r["measure"] == "verbatim" and r["group"] == "non_members" and r["model"] == "model"
    )
    assert rows["direct extraction", "greedy"]["chance"] is not None and verbatim["total"] == 24
    anyhow = next(r for r in summary["rates"] if r["measure"] == "any extraction" and r["group"] == "members")
    assert anyhow["count"] >= max(
        row["count"] for (kind, _), row in rows.items() if kind != "persons" and row["count"]
    )


def test_records_most_at_risk_come_first_with_the_chance_level_beside(family_audit):
    out, summary = family_audit
    rows = summary["most_at_risk"]
    of = pd.read_parquet(out / "records.parquet").set_index("row")
    of = of[of["group"] == "members"]
    best = np.maximum(of["logprob_window"], of["logprob_window_top_k5"])
    assert [row["row"] for row in rows] == best.sort_values(ascending=False, kind="stable").index[: len(rows)].tolist()
    for row in rows:
        chance = np.exp(best[row["row"]])
        assert 1 - (1 - chance) ** row["samples_needed"] >= 0.5 - 1e-9
        assert row["samples_needed"] == 1 or 1 - (1 - chance) ** (row["samples_needed"] - 1) < 0.5
        assert row["reference_samples_needed"] > row["samples_needed"] and "\u2587" in row["text"]
    assert summary["chance"]["total"] == 24 and summary["chance"]["fewest"] <= summary["chance"]["median"]


def test_the_command_fails_with_3_above_the_limit_and_says_why(place, family_audit, capsys):
    out, _ = family_audit
    shards = pytest.importorskip("palimpsest.audit.command")
    summary = {"settings": {"prefix_lengths": [0], "window": 8}, "rates": [told(3, 24, "any extraction")]}
    args = cli.parser().parse_args(["merge", "x", "--out", "y", "--fail-above", "0.01"])
    assert shards._limit(args, summary) == 3
    assert "FAILED: any extraction: 3 of 24 members" in capsys.readouterr().err
    args = cli.parser().parse_args(["merge", "x", "--out", "y", "--fail-above", "0.5"])
    assert shards._limit(args, summary) == 0 and "passed" in capsys.readouterr().out
    assert set(GATES) == {"any", "verbatim", "sampled", "persons"}
