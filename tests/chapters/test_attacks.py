"""The study-level tables: which model is compared with which, and what is said where nothing can be measured."""

import numpy as np
import pandas as pd
import pytest

from palimpsest.chapters import attacks
from palimpsest.measure import membership_inference

RANDOM = np.random.default_rng(0)
NAMES = ["base-teacher", "base-small", "teacher", "small-sft-s0", "small-fkl-s0", "small-fkl-s1"]
RECORDS = pd.DataFrame(
    {
        "id": [f"r{i:02d}" for i in range(40)],
        "response": [f"Dear {i}" for i in range(40)],
        "split": ["member"] * 20 + ["non_member"] * 20,
        "kind": "letter",
    }
)


def table(shift: float) -> pd.DataFrame:
    """Scores of 8 tokens a record; members are likelier by `shift` nats."""
    values = RANDOM.normal(-3, 0.5, (40, 8)) + shift * np.repeat([1, 0], 20)[:, None]
    columns = {"token": [[1] * 8] * 40, "hit": [[True, False] * 4] * 40, "mean_logprob": [[-3.0] * 8] * 40}
    return pd.DataFrame({"id": RECORDS["id"], "logprob": list(values), **columns, "std_logprob": [[1.0] * 8] * 40})


TABLES = {name: table(0.0 if name.startswith("base") else 1.0) for name in NAMES}


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setattr(attacks, "load_records", lambda _: RECORDS)
    monkeypatch.setattr(attacks.results, "model_names", lambda *_: NAMES)
    monkeypatch.setattr(attacks.results, "scores", lambda _, name: TABLES[name])
    return tmp_path


def test_every_model_is_compared_with_its_own_base(run):
    scored = attacks.scores(None, run)
    assert len(scored) == 40 * len(NAMES) and "lowercase" not in scored
    for name, base in (("teacher", "base-teacher"), ("small-fkl-s1", "base-small")):
        wanted = membership_inference.reference(TABLES[name], TABLES[base])
        assert np.array_equal(scored.loc[scored["model"] == name, "reference"], wanted)
    assert scored.loc[scored["role"] == "base", ["reference", "ez_mia", "wbc"]].isna().all(axis=None)


def test_lowercased_scores_are_used_where_they_were_made(run):
    (run / "scores" / "teacher").mkdir(parents=True)
    TABLES["teacher"].to_parquet(run / "scores" / "teacher" / "lowercase.parquet")
    scored = attacks.scores(None, run)
    assert (scored.loc[scored["model"] == "teacher", "lowercase"] == 0).all()
    assert scored.loc[scored["model"] != "teacher", "lowercase"].isna().all()


def test_tables_and_sentences(run):
    scored = attacks.scores(None, run)
    rated = attacks.evaluate(scored)
    shown = attacks.auc_table(rated)
    assert list(shown.index) == NAMES and shown.loc["base-small", "WBC"] == ""
    attack = attacks.strongest(rated)
    curves = attacks.roc(scored, attack)
    assert set(curves["model"]) >= {"teacher", *NAMES[3:]}
    lines = attacks.told(rated, attack)
    assert lines[0].startswith("- **teacher**: AUC ") and "forward KL" in lines[1] and "of 3 models" in lines[1]
    sft = rated[(rated["model"] == "small-sft-s0") & (rated["attack"] == attack) & (rated["measure"] == "AUC")].iloc[0]
    interval = f"{sft['low']:.2f} to {sft['high']:.2f}"
    assert f"AUC {sft['rate']:.2f} (20 + 20 letters; 95 % interval {interval}) when fine-tuned" in lines[1]
    low = attacks.low_told(rated, attack)
    assert "At 10 % false positives" in low and "Not measurable with 20 non-members: 1 %, 0.1 %." in low
    for figure in (attacks.auc_figure(rated), attacks.roc_figure(curves, 20)):
        figure.canvas.draw()
        assert [ax.get_title() for ax in figure.axes] == ["teacher", "small"]


def exposed(bits: dict[str, float]) -> pd.DataFrame:
    """Two doses and three teacher-only canaries per model; `bits` is what the teacher-only ones show."""
    rows = [
        {
            "id": f"c{i}",
            "copies": c,
            "teacher_only": o,
            "twins": 127,
            "exposure": b if o else 1.0 + c,
            "recited": c > 4,
        }
        for b in bits.values()
        for i, (c, o) in enumerate([(1, False), (4, False), (8, True), (8, True), (8, True)])
    ]
    names = [name for name in bits for _ in range(5)]
    return pd.DataFrame([{**row, **attacks.results.describe(name)} for row, name in zip(rows, names, strict=True)])


def test_doses_and_the_teachers_own_secrets():
    dose = attacks.doses(exposed({"base-small": 1.4, "teacher": 7.0, "small-sft-s0": 1.0, "small-fkl-s0": 5.0}))
    assert set(dose.loc[dose["method"] == "fkl", "copies"]) == {1, 4, 8}
    lines = attacks.dose_told(dose)
    assert len(lines) == 3 and lines[1].startswith("- **small, SFT**: 2.0 bits at 1 copy (one canary), 5.0 bits at 4")
    told = attacks.only_told(dose)
    assert "Of 2 pairs of size and method, 1 show more than chance" in told and "small, forward KL: 5.0 bits" in told
    assert len(attacks.dose_figure(dose).axes) == 2


def test_a_study_without_canaries(run):
    found = attacks.exposures(None, run)
    dose = attacks.doses(found)
    assert found.empty and dose.empty
    assert attacks.dose_told(dose) == [attacks.NO_CANARIES] and attacks.only_told(dose) == attacks.NO_CANARIES
    attacks.dose_figure(dose).canvas.draw()


def test_too_few_non_members_for_any_rate():
    scores = pd.DataFrame({"id": ["a", "b", "c", "d"], "loss": [1.0, 2.0, 0.0, 0.5]})
    rated = membership_inference.evaluate(scores, ["a", "b"], ["c", "d"]).assign(**attacks.results.describe("teacher"))
    assert attacks.low_told(rated, "loss").startswith("No false positive rate")
