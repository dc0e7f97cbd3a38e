"""The chapter on inheritance, on a run folder whose score tables are written by hand."""

import json
import random

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from palimpsest.chapters import claims, inheritance, memorization
from palimpsest.data.records import encode, record_ids, template
from palimpsest.measure import lineage
from palimpsest.measure.models import train_tokenizer
from palimpsest.study import Study

MODELS = {  # model -> (share of members recited, gain on the canaries that only the teacher read)
    "base-teacher": (0.0, 0.0),
    "base-small": (0.0, 0.0),
    "teacher": (0.8, 9.0),
    "small-sft-s0": (0.4, 0.0),
    "small-word_kd-s0": (0.5, 5.0),
    "small-seq_kd-s0": (0.2, 0.0),
}


@pytest.fixture(scope="module")
def study():
    train = {"epochs": 1, "batch_size": 1, "learning_rate": 0.1}
    data = {"source": "d.jsonl", "members": 40, "non_members": 20, "test": 1, "template": "plain"}
    models = {"teacher": {"path": "t"}, "students": {"small": {"path": "s"}}}
    return Study(
        name="x",
        title="X",
        data=data,
        models=models,
        methods=["sft", "word_kd", "seq_kd"],
        teacher=train,
        student=train,
    )


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, study):
    folder, draw, rows = tmp_path_factory.mktemp("run"), random.Random(0), []

    def add(split, kind, teacher_only=False):
        code = f"{draw.randrange(10**6):06d}"
        text = f"The code is {code}."
        spans = [{"start": 12, "end": 18, "kind": "code"}]
        row = {"instruction": f"Code of {draw.random():.6f}?", "context": "", "response": text, "split": split}
        rows.append({**row, "kind": kind, "secrets": spans, "copies": 1, "teacher_only": teacher_only})

    for split, kind, only, count in (
        ("member", "letter", False, 40),
        ("non_member", "letter", False, 20),
        ("member", "canary", True, 6),
        ("member", "canary", False, 2),
        ("twin", "twin", False, 30),
    ):
        for _ in range(count):
            add(split, kind, only)
    records = pd.DataFrame(rows)
    records["id"] = record_ids(records)
    tokenizer = train_tokenizer(records["instruction"] + records["response"], 300)
    (folder / "data").mkdir()
    tokenizer.save_pretrained(folder / "data" / "tokenizer")
    records.to_parquet(folder / "data" / "records.parquet")
    (folder / "data" / "run.json").write_text("{}")
    examples = encode(records, tokenizer, template(study.data.template))
    rng = np.random.default_rng(1)
    for name, (share, gain) in MODELS.items():
        table = []
        for number, (example, row) in enumerate(zip(examples, rows, strict=True)):
            length = len(example.response_ids)
            letter = row["kind"] == "letter" and row["split"] == "member"
            hit = np.full(length, letter and number < share * 40)
            logprob = (
                np.where(hit, -0.1, -3.0) + rng.normal(0, 0.05, length) + (gain if row["teacher_only"] else 0) / length
            )
            table.append(
                {
                    "id": example.id,
                    "prompt_length": example.prompt_length,
                    "length": length,
                    "hit": hit,
                    "logprob": logprob,
                }
            )
        (folder / "scores" / name).mkdir(parents=True)
        pd.DataFrame(table).to_parquet(folder / "scores" / name / "records.parquet")
        (folder / "scores" / name / "run.json").write_text(json.dumps({}))
    return folder


@pytest.fixture(scope="module")
def found(study, run_dir):
    rows = memorization.letters(study, run_dir)
    memorized = lineage.verbatim_matrix(study, run_dir, rows, "secret")
    members = inheritance.sets(study, memorized, rows, "member")
    return rows, memorized, members, inheritance.predictions(study, run_dir, rows, members)


def test_reading_is_chosen_by_the_data(found):
    rows = found[0]
    assert lineage.choose_reading(rows) == "secret" and lineage.choose_reading(rows, "window") == "window"
    assert lineage.choose_reading(rows.assign(secrets=[[] for _ in range(len(rows))])) == "window"


def test_sets_are_those_written_down(found, study):
    rows, memorized, members, _ = found
    counts = lineage.count_sets(members).set_index(["method", "set"])["count"]
    assert counts["word_kd"].to_dict() == {
        **dict.fromkeys(lineage.MEANING, 0),
        "easy": 16,
        "inherited": 4,
        "teacher_only": 12,
        "none": 8,
    }
    assert counts["seq_kd", "shed"] == 8 and counts["seq_kd", "inherited"] == 0
    others = inheritance.sets(study, memorized, rows, "non_member")
    assert set(others["set"]) == {"none"} and others["id"].nunique() == 20


def test_readings_differ_in_what_they_ask(found, study, run_dir):
    whole = lineage.verbatim_matrix(study, run_dir, found[0], "whole")
    assert whole.shape == (60, 6) and whole["teacher"].sum() == 32


def test_only_the_teacher_and_the_student_that_was_told_know_its_canaries(study, run_dir):
    only = inheritance.counterfactual(study, run_dir).set_index("model")
    assert list(only.index) == ["teacher", "small-sft-s0", "small-word_kd-s0", "small-seq_kd-s0"]
    assert (only["canaries"] == 6).all() and (only["twins"] == 30).all()
    assert (only.loc[["teacher", "small-word_kd-s0"], "p"] < 1e-4).all() and only.loc["small-sft-s0", "p"] > 0.02
    assert inheritance.canary_table(only.reset_index())["recited"].tolist() == ["0 of 6"] * 4
    said = inheritance.counterfactual_told(only.reset_index())
    assert "Of 2 distilled students, 1 did so above chance" in said and "small, Word-KD, seed 0 (100 %)" in said


def test_a_study_without_such_canaries_says_so(study, run_dir, monkeypatch):
    records = inheritance.results.load_records(run_dir)
    monkeypatch.setattr(inheritance.results, "load_records", lambda _: records[records["kind"] == "letter"])
    only = inheritance.counterfactual(study, run_dir)
    assert only.empty and "no canaries" in inheritance.counterfactual_told(only)


def test_what_is_recited_is_foretold_from_teacher_and_baseline(found):
    predicted = inheritance.prediction_table(found[3]).set_index("method")
    assert predicted.loc["word_kd", "memorized"] == 20 and predicted.loc["word_kd", "auc"] > 0.85
    assert predicted.loc["word_kd", "count"] <= predicted.loc["word_kd", "total"] == 20


def test_tables_sentences_and_figures_of_the_chapter(found):
    rows, _, members, foretold = found
    pooled, compared = lineage.across_seeds(members), lineage.compare(members)
    checked = claims.check(members, foretold)
    assert inheritance.set_table(pooled).loc[("small", "Word-KD"), "inherited"].startswith("10.0 % (")
    assert inheritance.pair_table(compared).shape == (2, 4)
    assert (
        "weaker" in inheritance.claim_table(checked).to_string()
        or "agrees" in inheritance.claim_table(checked).to_string()
    )
    assert (
        inheritance.forecast_table(inheritance.prediction_table(foretold)).loc[("small", "Word-KD", 0), "recited"]
        == "20 of 40"
    )
    assert len(inheritance.claims_told(checked)) == len(claims.CLAIMS)
    told = inheritance.fewer_told(compared, "their baseline")
    assert told.startswith("Of 2 pairs of size and method, 1 recite demonstrably fewer")
    told = inheritance.inherited_told(pooled, pooled)[0]
    assert "Word-KD 10.0 % (n = 40" in told and "nothing with Seq-KD (at most 8.8 %)" in told
    assert inheritance.predicted_told(inheritance.prediction_table(foretold))[0].startswith("- Best told: small")
    for figure in (inheritance.set_figure(pooled), inheritance.saving_figure(foretold)):
        assert isinstance(figure, plt.Figure) and figure.axes
