"""Contrasts of methods over seeds, on trajectories written by hand, and what is said of them and of repeated canaries."""

import pandas as pd
import pytest
from trained_by_hand import made_by_hand

from palimpsest.chapters import comparisons, tradeoffs
from palimpsest.measure.equal_loss import Curves
from palimpsest.study import METHODS, write_table
from palimpsest.study.tables import read_table


def effects_of(run) -> pd.DataFrame:
    return read_table(write_table(comparisons.tables(run)["effects"], run.tables / "effects.csv"))


def dose(method, role, copies, exposure, only=False):
    row = {"size": "small", "method": method, "role": role, "copies": copies, "teacher_only": only, "canaries": 4}
    ends = {"exposure_low": exposure - 0.5, "exposure_high": exposure + 0.5}
    counts = {"rate": 0.25, "count": 1, "total": 4, "low": 0.0, "high": 0.7}
    return {**row, "exposure": exposure, **ends, "chance": 1.4, "ceiling": 5.0, **counts}


DOSES = pd.DataFrame(
    [dose("none", "base", n, 1.4) for n in (1, 4, 16)]
    + [dose("sft", "baseline", n, bits) for n, bits in ((1, 2.0), (4, 3.0), (16, 4.5))]
    + [dose("sft_dedup", "mitigated", n, bits) for n, bits in ((1, 2.0), (4, 2.1), (16, 2.2))]
    + [dose("fkl", "student", 16, 4.0), dose("fkl", "student", 8, 3.0, only=True)]
)


def said(effects: pd.DataFrame, doses: pd.DataFrame) -> list[str]:
    """Every sentence of the chapter."""
    questions = [[], *([q] for q in dict.fromkeys(c.question for c in comparisons.CONTRASTS))]
    lines = [line for asked in questions for line in comparisons.say_effects(effects, *asked)]
    lines += [*comparisons.say_paper(effects), comparisons.say_spread(effects)]
    return [*lines, *comparisons.say_repeated(doses), comparisons.say_hidden(effects, doses)]


def test_contrasts_of_the_methods_at_hand(tmp_path):
    effects = effects_of(made_by_hand(tmp_path))
    asked = {"early stopping", "distilling", "divergence", "mitigation", "distilling or masking"}
    assert set(effects["question"]) == asked
    one = effects.set_index(["first", "second", "when"])
    assert one.loc[("rkl", "fkl", "end"), "verdict"] == "less"
    assert one.loc[("fkl", "sft", "end"), "verdict"] == "less"
    assert one.loc[("fkl", "sft_goldfish", "end"), "verdict"] == "more"
    stopped = one.loc[("sft", "sft", "stopped")]
    assert stopped["first_rate"] == pytest.approx(0.4) and stopped["second_rate"] == pytest.approx(0.65)
    end, equal, fit = comparisons.say_effects(effects, "divergence")
    assert "less in 1 of 1 comparisons" in end and "reverse KL vs. forward KL, small (-30.0 points)" in end
    assert "less in 1 of 1 comparisons" in equal and "(-6.0 points)" in equal
    assert "closer in 0 of 1 comparisons, less closely in 0; for 1 we cannot tell" in fit
    silent = comparisons.say_effects(effects.assign(first_rate=0.0, second_rate=0.0), "mitigation")
    assert "neither side recites anything in 1 of 1 comparisons" in silent[0]
    assert "40.0 % of 60 secrets instead of 65.0 %" in comparisons.say_effects(effects, "early stopping")[0]


def test_no_bootstrap_runs_twice(tmp_path):
    before = Curves.effect.cache_info()
    found = comparisons.tables(made_by_hand(tmp_path))
    after = Curves.effect.cache_info()
    assert after.misses - before.misses == len(found["effects"])
    assert after.hits - before.hits == len(found["equal_quality"]) == 3


@pytest.mark.parametrize("method", [m for m in METHODS if m != "sft"])
def test_every_method_is_held_against_plain_fine_tuning_or_what_it_is_made_from(method):
    against = {c.second for c in comparisons.CONTRASTS if c.first == (method,)}
    rule = METHODS[method]
    assert ((rule.leave_out,) if rule.distilled and rule.leave_out else ("sft",)) in against


def test_the_papers_findings_are_shown_contradictions_first():
    rows = {"paper": True, "size": "small"}
    told = [("a", "less", "less close"), ("b", "more", "undecided"), ("c", "undecided", "closer")]
    effects = pd.DataFrame(
        [{**rows, "contrast": c, "when": "end", "verdict": v, "fit": "closer"} for c, v, _ in told]
        + [{**rows, "contrast": c, "when": "equal", "verdict": "less", "fit": f} for c, _, f in told]
    )
    shown = comparisons.show_paper(effects)
    assert [name for name, _ in shown.index] == ["c", "b", "a"]
    assert shown.loc[("b", "small")].to_list() == ["contradicts", "not shown"]
    lines = comparisons.say_paper(effects)
    assert [line.split("**")[1] for line in lines] == ["Contradicts", "Not shown", "Agrees"]
    assert all("1 of 3 at the end of training; 1 of 3 at equal" in line for line in lines)


def test_repeated_canaries_are_told_by_their_intervals():
    start, rest = comparisons.say_repeated(DOSES)
    assert "16 copies have 4.5 bits" in start and "1 of 2 other methods lie wholly below" in rest and "(2.2)" in rest
    wide = comparisons.show_repeated(DOSES)
    assert wide.loc["SFT", ("small", "16 copies")] == "4.5 (4.0 to 5.0)" and "4 copies" not in wide.columns.levels[1]
    assert wide.loc["before fine-tuning", ("small", "1 copy")] == "1.4 (0.9 to 1.9)"
    silent = {"when": "end", "first": "fkl", "second": "sft", "size": "small", "first_rate": 0.0, "total": 9.0}
    found = pd.DataFrame([{**silent, "unit": "secrets"}])
    assert comparisons.say_hidden(found, DOSES).startswith("No student")
    told = comparisons.say_hidden(found, DOSES.replace({"exposure": 4.0}, 5.0))
    assert "none of 9 secrets" in told and "unseen twins: 1." in told and "recite 25 to 25 %" in told


@pytest.mark.parametrize("methods", [("sft",), ("sft", "fkl"), ("sft", "fkl", "rkl", "sft_goldfish")])
@pytest.mark.parametrize("secrets", [True, False])
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_the_chapter_reads_right_for_any_study(tmp_path, methods, secrets, seeds):
    effects, doses = effects_of(made_by_hand(tmp_path, methods, seeds, secrets)), DOSES[DOSES["role"] == "none"]
    lines = said(effects, doses)
    assert [s for line in lines for s in line.strip("- ").split(". ") if len(s.split()) > 25] == []
    text = " ".join(lines)
    assert "letter" not in text and "nan" not in text and "demo" not in text and "ε" not in text
    assert "There are no canaries." in lines and comparisons.show_repeated(doses) is None
    assert ("secrets instead of" in text, "records instead of" in text) == (secrets, not secrets)
    assert ("other records only" in text) == (len(seeds) == 1)
    alone = methods == ("sft",)
    assert (comparisons.show_effects(effects, "distilling") is None) == alone
    assert (comparisons.plot_effects(effects, fit=True) is None) == alone
    drawn = comparisons.plot_effects(effects).axes[0].containers
    assert len(drawn) == len(effects)


def test_trajectories_are_averaged_over_seeds(tmp_path):
    paths = tradeoffs.tables(made_by_hand(tmp_path))["trajectories"]
    mean = comparisons.mean_trajectories(paths).set_index(["method", "epoch"])["memorized"]
    assert mean["sft", 3.0] == pytest.approx(0.65) and len(mean) == 4 * 4
