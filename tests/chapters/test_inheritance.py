"""The chapter on inheritance, on a run folder whose score tables are written by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from written_runs import MEMBERS, NON_MEMBERS, sentences, write_run, written_tables

from palimpsest.chapters import inheritance, published_claims
from palimpsest.measure import lineage, prediction
from palimpsest.study import Arm

SHOWN = ("origins", "paired", "predictions")
PLOTS = (("plot_origins", "origins"), ("plot_savings", "savings"))


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return written_tables(write_run(tmp_path_factory.mktemp("run")), inheritance)


def said(tables, target="secret"):
    """Everything the page says."""
    return [
        inheritance.say_verdicts(tables.origins, target, 50),
        *inheritance.say_origins(tables.origins),
        inheritance.say_paired(tables.paired),
        inheritance.say_paired(tables.paired, "teacher"),
        *inheritance.say_predictions(tables.predictions),
        *published_claims.say_published_claims(tables.published_claims),
    ]


def shown(tables):
    found = {name: getattr(inheritance, f"show_{name}")(getattr(tables, name)) for name in SHOWN}
    return found | {"claims": published_claims.show_published_claims(tables.published_claims)}


def test_sets_are_those_written_down(tables):
    counts = tables.origins_by_seed.set_index(["split", "method", "set"])["count"].sort_index()
    wanted = {**dict.fromkeys(lineage.SETS, 0), "easy": 16, "inherited": 4, "teacher_only": 12, "none": 8}
    assert counts["member", "word_kd"].to_dict() == wanted
    assert counts["member", "seq_kd", "shed"] == 8 and counts["member", "seq_kd", "inherited"] == 0
    assert counts["non_member", "word_kd", "none"] == NON_MEMBERS
    assert set(tables.paired["against"]) == {"baseline", "teacher"}


def test_what_is_recited_is_foretold_from_teacher_and_baseline(tables):
    found = tables.predictions.set_index("method")
    assert found.loc["word_kd", ["total", "records"]].tolist() == [20, 40] and found.loc["word_kd", "auc"] > 0.85
    assert found.loc["word_kd", "count"] <= 20
    curve = tables.savings[tables.savings["method"] == "word_kd"]
    assert len(curve) == MEMBERS and curve["share_avoided"].iloc[-1] == curve["share_left_out"].iloc[-1] == 1


def test_a_page_says_and_shows_what_the_tables_hold(tables):
    show = shown(tables)
    assert show["origins"].loc["small, Word-KD", "inherited"].startswith("10.0 % (")
    assert show["paired"].shape == (2, 4) and show["predictions"].loc["small, Word-KD", "recited"] == "20 of 40"
    lines = said(tables)
    assert lines[1].startswith("- **small** inherits most with Word-KD: 10.0 %") and "By 1 of 2 methods" in lines[1]
    assert lines[2].startswith("Recited by 2 distilled students, against their baseline: fewer records in 1, ")
    (line,) = published_claims.say_published_claims(tables.published_claims)
    assert line.startswith(f"- Of {len(tables.published_claims)} checks of published claims, ")
    for plot, name in PLOTS:
        assert isinstance(getattr(inheritance, plot)(getattr(tables, name)), plt.Figure)


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": (0, 1)},
        {"secrets": False},
        {"canaries": False, "halves": False},
        {"methods": ("sft",)},
        {"methods": ("sft",), "canaries": False, "secrets": False},
        {"methods": ("sft", "sft_dedup", "word_kd")},
    ],
    ids=str,
)
def test_the_page_reads_right_for_any_study(tmp_path, options):
    tables = written_tables(write_run(tmp_path, **options), inheritance)
    lines, show = said(tables, "secret" if options.get("secrets", True) else "window"), shown(tables)
    for plot, name in PLOTS:
        assert (getattr(inheritance, plot)(getattr(tables, name)) is None) == getattr(tables, name).empty
    text = "\n".join(lines)
    assert "letter" not in text and "nan" not in text and max(len(s.split()) for s in sentences(lines)) <= 25
    if options.get("methods") == ("sft",):
        assert (
            tables.origins.empty and show["origins"] is show["paired"] is show["predictions"] is show["claims"] is None
        )
        assert inheritance.ALONE in text
    else:
        assert tables.origins["seeds"].eq(len(options.get("seeds", (0,)))).all()
        assert set(tables.origins["method"]) <= {"word_kd", "seq_kd"}, "only distilled students inherit"


def test_a_record_on_which_a_model_has_no_verdict_is_left_out_for_all(tmp_path):
    run = write_run(tmp_path)
    path = run.data / "records.parquet"
    records = pd.read_parquet(path)
    records["secrets"] = [[] if i == 0 else list(s) for i, s in enumerate(records["secrets"])]
    records.to_parquet(path)
    found = inheritance.tables(run)["origins_by_seed"]
    assert set(found.loc[found["split"] == "member", "total"]) == {MEMBERS - 1}


# ---------------------------------------------------------------- published claims


@pytest.mark.parametrize(
    ("low", "high", "side", "wanted"),
    [
        (0.95, 0.97, +1, "agrees"),
        (0.97, 0.99, +1, "agrees"),
        (0.6, 0.9, +1, "weaker"),
        (0.4, 0.99, +1, "undecided"),
        (0.1, 0.4, +1, "disagrees"),
        (np.nan, np.nan, +1, "not measurable"),
    ],
)
def test_outcomes(low, high, side, wanted):
    assert published_claims.outcome(low, high, 0.96, 0.5, side) == wanted
    assert published_claims.outcome(1 - high, 1 - low, 0.04, 0.5, -side) == wanted


def test_claims_are_computed_from_the_sets():
    arms, rows = [Arm("small", m, 0) for m in ("sft", "fkl", "seq_kd")], np.arange(100)
    wide = pd.DataFrame(
        {
            "teacher": rows < 80,
            "small-sft-s0": rows < 40,
            "small-fkl-s0": (rows < 10) | np.isin(rows, [40, 41]),
            "small-seq_kd-s0": (rows < 10) | np.isin(rows, range(40, 44)),
        },
        index=[f"r{i}" for i in rows],
    )
    members = lineage.origins(wide, arms)
    paired = lineage.compare(members).assign(against="baseline")
    judged = pd.DataFrame({"probability": np.linspace(1, 0, 100), "memorized": wide["small-fkl-s0"].to_numpy()})
    known = {"size": "small", "method": "fkl", "note": "", "auc": 0.9, "auc_low": 0.8, "auc_high": 0.95}
    predictions = pd.DataFrame([{**known, **prediction.avoided(judged)}])
    found = published_claims.published_claims(members, paired, predictions).set_index(["claim", "method"])
    names = [claim for claim, *_ in published_claims.CLAIMS.values()]
    assert found.loc[(names[0], "fkl"), "ours"] == pytest.approx(12 / 40)
    assert found.loc[(names[0], "fkl"), "outcome"] == "agrees"
    assert found.loc[(names[1], "fkl"), "ours"] == pytest.approx(10 / 12)
    assert found.loc[(names[2], "fkl"), "ours"] == pytest.approx(2 / 40)
    assert found.loc[(names[3], "seq_kd"), "ours"] == pytest.approx(4 / 40)
    assert found.loc[(names[4], "seq_kd / fkl"), "ours"] == pytest.approx(2)
    assert found.loc[(names[5], "fkl"), "outcome"] == "weaker"
    assert found.loc[(names[6], "fkl"), "ours"] == 1 and found.loc[(names[6], "seq_kd"), "outcome"] == "not measurable"
