"""Attacks by shadow models and the privacy audit, on run folders whose score tables are written by hand."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from written_runs import COINS, POOL, sentences, write_run, written_tables

from palimpsest.chapters import shadows
from palimpsest.data.splits import load_records
from palimpsest.measure.privacy_audit import epsilon_lower_bound
from palimpsest.measure.read_back import load_scores

MODELS = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    methods = ("sft", "word_kd", "sft_private")
    return write_run(tmp_path_factory.mktemp("run"), methods=methods, replicates=2, shadows=MODELS)


@pytest.fixture(scope="module")
def tables(run):
    return written_tables(run, shadows)


def said(tables):
    return [*shadows.say_shadow_attacks(tables.shadow_attacks), *shadows.say_privacy_audit(tables.privacy_audit)]


def test_every_attack_is_made_on_the_same_targets(tables):
    rows = tables.shadow_attacks
    assert set(rows["attack"]) == set(shadows.SHOWN) and set(rows["method"]) == {"sft"}
    assert (
        rows.groupby(["split", "measure", "fpr"], dropna=False)[["members", "non_members", "models"]].nunique() == 1
    ).all(axis=None)
    areas = rows[rows["measure"] == "AUC"].set_index(["split", "attack"])
    assert (areas.loc["member", "rate"] > 0.99).all() and (areas["models"] == MODELS).all()
    assert areas.loc["teacher_only", "low"].lt(0.5).all() and areas.loc["teacher_only", "high"].gt(0.5).all()


def test_the_loss_attack_is_each_model_s_own_on_records_that_enough_others_read(run, tables):
    parts = [part for name, part in run.parts().items() if name.startswith("shadow")]
    splits = pd.DataFrame([load_records(part).set_index("id")["split"] for part in parts]).reset_index(drop=True)
    areas = []
    for target, part in enumerate(parts):
        loss = load_scores(part, "small-sft-s0").set_index("id")["logprob"].map(np.mean)
        others = splits.drop(index=target)
        enough = ((others == "teacher_only").sum() >= 2) & (others.isin(["non_member"]).sum() >= 2)
        asked = splits.columns[enough & splits.loc[target].isin(["teacher_only", "non_member"])]
        areas.append(roc_auc_score(splits.loc[target, asked] == "teacher_only", loss[asked]))
    rows = tables.shadow_attacks.set_index(["split", "attack", "measure"])
    assert rows.loc[("teacher_only", "loss", "AUC"), "rate"].item() == pytest.approx(np.mean(areas), abs=1e-5)


def test_what_is_said_and_shown_of_shadow_models(tables):
    rows = tables.shadow_attacks
    lines = shadows.say_shadow_attacks(rows)
    assert lines[0].startswith("- **SFT**, records the student read: ") and "LiRA has an AUC of 1.00" in lines[0]
    assert lines[1].startswith("- **SFT**, records the teacher alone read: ")
    text = "\n".join(lines)
    assert "For 1 in 1,000 we would need 1,000 non-members" in text and f"With {MODELS} models these are rough" in text
    shown = shadows.show_shadow_attacks(rows)
    assert list(shown.index) == [
        (f"SFT: {half}", attack) for half in shadows.ASKED.values() for attack in shadows.SHOWN.values()
    ]
    assert shown.iloc[0]["found at 0.1 % false positives"] == "not measurable" and "(" in shown.iloc[0]["AUC"]
    assert [ax.get_title() for ax in shadows.plot_shadow_attacks(rows).axes] == list(shadows.ASKED.values())
    enough = rows.assign(
        models=16, rate=rows["rate"].fillna(0.5), low=rows["low"].fillna(0.1), high=rows["high"].fillna(0.9), note=""
    )
    best = shadows.say_shadow_attacks(enough)
    assert len(best) == 2 and all(
        "Accusing 1 outsider in 100 wrongly, it finds 50.0 % (10.0 to 90.0)" in line for line in best
    )


@pytest.mark.parametrize("fewer", ["no common non-members", "models that read all alike"])
def test_an_attack_that_lacks_something_says_what(tmp_path, fewer):
    run = write_run(tmp_path, methods=("sft",), canaries=False, shadows=6)
    for number in range(6):
        path = run.path / f"shadow{number}" / "data" / "records.parquet"
        records = pd.read_parquet(path)
        if fewer == "no common non-members":
            records = records[(records["split"] != "test") | (np.arange(len(records)) < POOL + 9)]
        else:
            first = pd.read_parquet(run.path / "shadow0" / "data" / "records.parquet")
            records["split"] = first["split"]
        records.to_parquet(path)
    tables = written_tables(run, shadows)
    rows, text = tables.shadow_attacks, "\n".join(said(tables))
    areas = rows[rows["measure"] == "AUC"].groupby("attack")["rate"].agg(lambda rate: rate.notna().all())
    if fewer == "no common non-members":
        assert areas.to_dict() == {"lira": True, "loss": True, "reference": True, "rmia": False}
        parts = [load_records(part).set_index("id")["split"] for part in run.parts().values()]
        never = pd.DataFrame(parts).isin(["non_member", "test"]).all().sum()
        assert 9 <= never < 40 and f"RMIA is not measurable: {never} records that no model read, 100 needed." in text
    else:
        assert areas.to_dict() == {"lira": False} and shadows.plot_shadow_attacks(rows) is None
        assert "LiRA is not measurable: no record that two other models read and two did not." in text
    assert "nan" not in text


def test_the_audit_guesses_coins_and_stands_beside_what_was_promised(run, tables):
    rows = tables.privacy_audit.set_index(["model", "replicate"])
    assert (rows["coins"] == COINS).all() and set(rows.index.get_level_values("replicate")) == {0, 1}
    told = rows.loc[("small-sft-s0", 0)]
    assert told["correct"] == told["guesses"] == COINS
    assert told["epsilon_low"] == pytest.approx(
        epsilon_lower_bound(COINS, COINS, COINS, told["delta"], 1 - 0.05 / 3), abs=1e-4
    )
    private = rows.loc[("small-sft_private-s0", 0)]
    assert (
        private["epsilon_promised"] == 8 and private["epsilon_low"] == 0 and private["delta"] == told["delta"] == 0.004
    )
    assert rows["epsilon_promised"].notna().sum() == 2
    lines = shadows.say_privacy_audit(tables.privacy_audit)
    assert lines[0].startswith("- Something is proven of 3 of 4 models. Most of ") and lines[0].endswith(
        "over 2 trainings."
    )
    assert lines[1].startswith("- small, SFT, DP-SGD promises an ε of at most 8.0; nothing is proven.")
    shown = shadows.show_privacy_audit(tables.privacy_audit)
    first = shown.loc["small, SFT"]
    assert first["guesses"] == first["right"] == str(COINS) and first["ε promised"] == ""
    assert shown.loc["small, SFT, DP-SGD", "ε promised"] == "8.00"


def test_without_dp_sgd_delta_is_a_tenth_of_one_in_the_records(tmp_path):
    run = write_run(tmp_path, methods=("sft",))
    records = load_records(run)
    rows = written_tables(run, shadows).privacy_audit
    assert rows["delta"].tolist() == pytest.approx([0.1 / (records["split"] == "member").sum()] * 2, rel=1e-4)


def test_more_proven_than_promised_and_nothing_proven_are_said():
    row = {"label": "a", "epsilon_low": 9.0, "epsilon_promised": 8.0}
    rows = pd.DataFrame(
        [row, {**row, "epsilon_low": 1.0}, {"label": "b", "epsilon_low": 0.0, "epsilon_promised": np.nan}]
    )
    lines = shadows.say_privacy_audit(rows)
    assert lines[0] == "- Something is proven of 1 of 2 models. Most of a: ε is at least 1.0 to 9.0 over 2 trainings."
    assert lines[1].endswith("In 1 of 2 trainings that is more than promised.")
    assert shadows.say_privacy_audit(rows.tail(1)) == ["- Something is proven of 0 of 1 models."]
    assert "no bound on ε follows" in shadows.say_privacy_audit(rows.assign(epsilon_low=np.nan))[0]


@pytest.mark.parametrize(
    "options",
    [{}, {"seeds": (0, 1)}, {"secrets": False}, {"canaries": False}, {"halves": False}, {"methods": ("sft",)}],
    ids=str,
)
def test_the_page_reads_right_for_any_study(tmp_path, options):
    tables = written_tables(write_run(tmp_path, **options), shadows)
    lines = said(tables)
    text = "\n".join(lines)
    assert "letter" not in text and "nan" not in text and max(len(s.split()) for s in sentences(lines)) <= 25
    assert shadows.NO_SHADOWS in text and shadows.show_shadow_attacks(tables.shadow_attacks) is None
    assert shadows.plot_shadow_attacks(tables.shadow_attacks) is None and plt.get_fignums() == []
    none = not options.get("canaries", True)
    assert (shadows.NO_COINS in text) == none == (shadows.show_privacy_audit(tables.privacy_audit) is None)
    if not none:
        assert shadows.show_privacy_audit(tables.privacy_audit).index.is_unique
