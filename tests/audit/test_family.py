"""A family of models: each one's verdicts as if audited alone, and what the student kept, dropped, and has through its teacher."""

import pandas as pd
import pytest
from audits import audited

from palimpsest.errors import InputError
from palimpsest.measure.models import load_model, train_tokenizer
from palimpsest.measure.statistics import compare_verdicts, holm


def test_every_model_recites_what_it_recites_alone(place, family_audit, tmp_path):
    records = pd.read_parquet(family_audit[0] / "records.parquet")
    for role, model in (("teacher_", "tuned"), ("baseline_", "base"), ("reference_", "base")):
        options = {"window": 8, "sampling": [{"top_k": 5}], "approximate": False}
        audited(place / model, place / "customers.jsonl", tmp_path / role, **options)
        alone = pd.read_parquet(tmp_path / role / "records.parquet")
        members = records[records["group"] == "members"].reset_index(drop=True)
        for name in ("verbatim_0", "verbatim_whole", "loss", "logprob_window", "logprob_window_top_k5"):
            assert members[role + name].tolist() == alone[name].tolist(), (role, name)


def test_kept_dropped_and_only_through_the_teacher_by_hand(family_audit):
    out, summary = family_audit
    records = pd.read_parquet(out / "records.parquet")
    records = records[records["group"] == "members"]
    teacher, student, baseline = (records[f"{role}verbatim_0"].astype(bool) for role in ("teacher_", "", "baseline_"))
    assert 0 < student.sum() < teacher.sum()
    found = {row["name"] or row["set"]: row for row in summary["family"]["sets"] if row["group"] == "members"}
    by_hand = {"kept": teacher & student, "dropped": teacher & ~student, "inherited": teacher & student & ~baseline}
    by_hand |= {"only through the teacher": by_hand["inherited"], "none": ~teacher & ~student & ~baseline}
    for name, wanted in by_hand.items():
        assert (found[name]["count"], found[name]["total"]) == (wanted.sum(), 24), name
    sides = {"teacher": teacher, "student": student, "baseline": baseline}
    rows = summary["family"]["comparisons"]
    assert [(row["first"], row["second"]) for row in rows] == [
        ("teacher", "student"),
        ("teacher", "baseline"),
        ("student", "baseline"),
    ]
    for row in rows:
        wanted = compare_verdicts(sides[row["first"]], sides[row["second"]])
        assert {key: row[key] for key in wanted} == pytest.approx(wanted)
    assert [row["p_holm"] for row in rows] == pytest.approx(list(holm([row["p"] for row in rows])))
    assert {row["row"] for row in summary["family"]["through_teacher"]} <= set(records["row"][by_hand["inherited"]])
    assert any("only through the teacher" in line for line in summary["headline"])


def test_a_teacher_with_another_tokenizer_is_refused(place, tmp_path):
    load_model(place / "tuned").save_pretrained(tmp_path / "teacher")
    train_tokenizer(["quite another text 12 34 56 zz " * 40], 290).save_pretrained(tmp_path / "teacher")
    with pytest.raises(InputError, match="the tokenizer of .*teacher.* (numbers .* otherwise|lacks .* of the)"):
        audited(place / "tuned", place / "members.jsonl", tmp_path / "out", teacher=tmp_path / "teacher")
