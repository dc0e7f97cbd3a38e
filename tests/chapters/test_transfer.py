"""What a student was never given, on run folders whose score tables are written by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_1samp
from sklearn.metrics import roc_auc_score
from written_runs import COINS, HALF, NON_MEMBERS, OWN, TWINS, sentences, write_run, written_tables

from palimpsest.chapters import transfer
from palimpsest.data.splits import load_records
from palimpsest.measure.read_back import load_scores


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def tables(run):
    return written_tables(run, transfer)


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    return written_tables(
        write_run(tmp_path_factory.mktemp("run"), methods=("sft", "word_kd"), replicates=3), transfer
    )


def said(tables):
    """Everything the page says."""
    found = [line for kind in transfer.KINDS for line in transfer.say_transferred(tables.transferred, kind)]
    return [*found, transfer.say_intervals(tables.transferred["replicate"].nunique())]


def test_only_the_teacher_and_the_student_that_was_told_know_the_other_half(tables):
    found = tables.transferred.set_index(["kind", "model"])
    models = ["teacher", "small-sft-s0", "small-word_kd-s0", "small-seq_kd-s0"]
    for kind, records, controls in (("canary", OWN, TWINS + COINS // 2), ("record", HALF, NON_MEMBERS)):
        rows = found.loc[kind]
        assert (
            list(rows.index) == models and (rows["records"] == records).all() and (rows["controls"] == controls).all()
        )
        assert (rows.loc[["teacher", "small-word_kd-s0"], "p"] < 1e-4).all() and rows.loc["small-sft-s0", "p"] > 0.02
    lines = transfer.say_transferred(tables.transferred)
    start = "whose interval for such canaries lies above one half:"
    assert (
        lines[1] == f"- Distilled students {start} 1 of 2 (most: small, Word-KD, 100 %). Of all 2, none recited any."
    )
    assert lines[2] == f"- Models without a teacher {start} 0 of 1. Of all 1, none recited any."
    shown = transfer.show_transferred(tables.transferred)["recited"]
    assert (
        shown["canaries that the teacher alone read"].tolist() == [f"0 of {OWN}"] * 4
        and shown["records that the teacher alone read"].tolist() == [f"0 of {HALF}"] * 4
    )


def test_what_a_half_s_records_gained_is_their_loss_less_the_base_s(run, tables):
    records = load_records(run)
    asked = records[(records["kind"] == "letter") & records["split"].isin(["teacher_only", "non_member"])]
    mean = {
        m: load_scores(run, m).set_index("id")["logprob"].map(np.mean)[asked["id"]]
        for m in ("small-seq_kd-s0", "base-small")
    }
    gain = mean["small-seq_kd-s0"] - mean["base-small"]
    rows = tables.transferred[
        (tables.transferred["kind"] == "record") & (tables.transferred["model"] == "small-seq_kd-s0")
    ]
    assert rows["auc"].item() == pytest.approx(roc_auc_score(asked["split"] == "teacher_only", gain), abs=1e-5)


def test_replicates_are_the_unit_of_an_interval_where_there_are_several(replicated):
    sft = replicated.transferred[
        (replicated.transferred["method"] == "sft") & (replicated.transferred["size"] == "small")
    ]
    each = sft[sft["kind"] == "record"]["auc"]
    found = transfer.gains(replicated.transferred, "record").set_index(["size", "method"]).loc[("small", "sft")]
    interval = ttest_1samp(each, 0).confidence_interval(0.95)
    assert len(each) == found["replicates"] == 3 and found["auc"] == pytest.approx(each.mean())
    assert (found["low"], found["high"]) == pytest.approx((max(0, interval.low), min(1, interval.high)))
    assert "over 3 replicates" in transfer.say_intervals(3) and "one replicate" in transfer.say_intervals(1)


def test_seeds_are_no_replicates_and_a_ceiling_keeps_the_interval_over_records():
    rows = pd.DataFrame({"size": "s", "replicate": [0, 0, 1, 1], "x": [1.0, 3, 5, 7], "low": 0.0, "high": 9.0})
    (found,) = transfer.over_replicates(rows, ["size"], "x", "low", "high").to_dict("records")
    assert found["x"] == 4 and found["low"] == pytest.approx(4 - t.ppf(0.975, 1) * 2) and found["replicates"] == 2
    (found,) = transfer.over_replicates(rows[:2], ["size"], "x", "low", "high").to_dict("records")
    assert (found["x"], found["low"], found["high"], found["replicates"]) == (2, 0, 9, 1)
    (found,) = transfer.over_replicates(rows.assign(x=5.0), ["size"], "x", "low", "high").to_dict("records")
    assert (found["low"], found["high"]) == (0, 9)


@pytest.mark.parametrize(
    "options",
    [{}, {"seeds": (0, 1)}, {"secrets": False}, {"canaries": False}, {"halves": False}, {"methods": ("sft",)}],
    ids=str,
)
def test_the_page_reads_right_for_any_study(tmp_path, options):
    tables = written_tables(write_run(tmp_path, **options), transfer)
    lines = said(tables)
    text = "\n".join(lines)
    assert "letter" not in text and "nan" not in text and max(len(s.split()) for s in sentences(lines)) <= 25
    halves = options.get("halves", True)
    canaries = halves and options.get("canaries", True)
    assert (transfer.NONE in text) == (not canaries)
    shown = transfer.show_transferred(tables.transferred)
    assert (shown is None) == (not halves)
    assert shown is None or set(shown.index.get_level_values("of")) == {
        f"{kind} that the teacher alone read" for kind in ("records", *(["canaries"] * canaries))
    }
    assert ("distilled" in text.lower()) == (halves and "methods" not in options)
    figure = transfer.plot_transferred(tables.transferred)
    assert (figure is None) == (not halves)
    if figure:
        assert len(figure.axes) == 1 + canaries and plt.get_fignums() == []


def test_too_few_canaries_to_compare(tmp_path):
    run = write_run(tmp_path)
    path = run.data / "records.parquet"
    records = pd.read_parquet(path)
    own = records[(records["split"] == "teacher_only") & (records["kind"] == "canary")].index
    records.drop(index=own[1:]).to_parquet(path)
    lines = transfer.say_transferred(written_tables(run, transfer).transferred)
    assert lines == [
        f"- Not measurable: 1 canaries and {TWINS + COINS // 2} unseen ones are too few to compare; two of each are needed."
    ]


def test_an_interval_over_the_records_of_one_training_is_told_from_one_over_trainings(replicated):
    rows = replicated.transferred
    alone = rows[(rows["role"] == "student") & (rows["replicate"] == 0)].assign(
        method="fkl", label="small, forward KL", model="small-fkl-s0"
    )
    line = transfer.say_transferred(pd.concat([rows, alone]))[1]
    assert "lies above one half: 2 of 2" in line and "; 1 of these were trained once." in line
    assert "trained once" not in transfer.say_transferred(rows)[1]
