"""Equal held-out loss, contrasts over seeds, and published tables, on trajectories written by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.book import published
from palimpsest.chapters import comparisons, tradeoffs
from palimpsest.errors import InputError
from palimpsest.measure.statistics import newcombe
from palimpsest.study import load_study
from palimpsest.study.runs import root

RECORDS, SECRETS = 40, 60


def write_model(run, name, losses, shares, seed=0):
    """A finished model whose held-out loss and share of recited secrets are given per epoch."""
    draw, rows, points = np.random.default_rng(seed), [], []
    order = draw.permutation(SECRETS)
    for epoch, (loss, share) in enumerate(zip(losses, shares, strict=True)):
        recited = np.isin(np.arange(SECRETS), order[: round(share * SECRETS)])
        for split, level in (("member", loss - 0.5), ("non_member", loss)):
            tokens = np.full(RECORDS, 10)
            rows.append(
                {
                    "epoch": float(epoch),
                    "step": epoch,
                    "split": split,
                    "id": [f"{split}{i}" for i in range(RECORDS)],
                    "tokens": list(tokens),
                    "logprob": list(-level * tokens.astype(float)),
                    "verbatim": [False] * RECORDS,
                    "secret_id": [f"{split}{i % RECORDS}" for i in range(SECRETS)],
                    "recited": list(recited if split == "member" else np.zeros(SECRETS, bool)),
                }
            )
            point = {"epoch": float(epoch), "step": epoch, "split": split, "loss": level, "records": RECORDS}
            point |= {f"verbatim{end}": 0.0 for end in ("", "_low", "_high")} | {"secrets": SECRETS}
            points.append(point | {f"recited{end}": share for end in ("", "_low", "_high")})
    folder, scores = run / "models" / name, run / "scores" / name
    folder.mkdir(parents=True)
    scores.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(folder / "trajectory.parquet")
    pd.DataFrame(points).to_csv(folder / "trajectory.csv", index=False)
    for place in (folder, scores):
        (place / "run.json").write_text(json.dumps({"commit": "abc1234-dirty"}))


@pytest.fixture
def made(tmp_path):
    """A study of one size and two seeds; SFT overfits, forward KL does so more slowly, reverse KL never gets good."""
    text = f"extends: {root() / 'studies' / 'demo.yaml'}\nname: hand\nseeds: [0, 1]\nmethods: [sft, fkl, rkl, sft_goldfish]\n"
    text += "models:\n  teacher: {scratch: {layers: 1, width: 32, heads: 2}}\n"
    text += "  students:\n    small: {scratch: {layers: 1, width: 16, heads: 2}}\n"
    (tmp_path / "hand.yaml").write_text(text)
    run = tmp_path / "run"
    for seed in (0, 1):
        write_model(run, f"small-sft-s{seed}", [5, 3, 2, 2.5], [0, 0.2, 0.4, 0.6 + 0.1 * seed], seed)
        write_model(run, f"small-fkl-s{seed}", [5, 3.5, 2.5, 2.6], [0, 0.1, 0.2, 0.3], seed)
        write_model(run, f"small-rkl-s{seed}", [5, 4.5, 4.2, 4.1], [0, 0, 0, 0], seed)
        write_model(run, f"small-sft_goldfish-s{seed}", [5, 4, 2.2, 2.3], [0, 0, 0, 0.1], seed)
    return load_study(tmp_path / "hand.yaml"), run


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=12, unique=True), st.floats(0, 1))
def test_weights_interpolate_at_the_first_crossing(losses, share):
    losses = np.array(losses)
    target = losses.min() + share * (losses.max() - losses.min())
    found = tradeoffs.weights(losses, target)
    assert found.sum() == pytest.approx(1) and (found >= 0).all() and np.count_nonzero(found) <= 2
    first = np.flatnonzero(losses <= target)[0]
    assert not found[first + 1 :].any() and not found[: max(0, first - 1)].any()
    if first:
        assert found @ losses == pytest.approx(target)


def test_weights_at_the_end_and_stopped():
    losses = np.array([3.0, 1.0, 2.0])
    assert list(tradeoffs.weights(losses, "end")) == [0, 0, 1]
    assert list(tradeoffs.weights(losses, "stopped")) == [0, 1, 0]
    with pytest.raises(InputError, match=r"lowest held-out loss is 1\.0000; wanted one that reaches 0\.5000"):
        tradeoffs.weights(losses, 0.5)


def test_an_effect_at_the_end_is_the_difference_of_means(made):
    curves = tradeoffs.Curves(*made)
    found = tradeoffs.effect(curves, "small", ["fkl"], ["sft"], "end")
    assert found["difference"] == pytest.approx(0.3 - 0.65) and found["total"] == SECRETS and found["seeds"] == 2
    assert found["low"] < found["difference"] < found["high"] < 0
    assert (found["seed_least"], found["seed_most"]) == pytest.approx((-0.4, -0.3))
    assert found["held_out_loss_difference"] == pytest.approx(0.1)


def test_equal_loss_is_the_lowest_that_both_reach(made):
    curves = tradeoffs.Curves(*made)
    found = tradeoffs.effect(curves, "small", ["fkl"], ["sft"], "equal")
    assert found["held_out_loss"] == pytest.approx(2.5) and found["held_out_loss_difference"] == pytest.approx(0)
    # fkl at its best epoch: 0.2; sft half way between its second and third: 0.3
    assert found["first_rate"] == pytest.approx(0.2) and found["second_rate"] == pytest.approx(0.3)
    assert found["member_loss_difference"] == pytest.approx(0)


def test_where_nothing_is_recited_the_interval_is_newcombes(made):
    curves = tradeoffs.Curves(*made)
    found = tradeoffs.effect(curves, "small", ["rkl"], ["sft_goldfish"], "equal")
    assert found["difference"] == 0
    assert (found["low"], found["high"]) == pytest.approx(newcombe(0, SECRETS, 0, SECRETS))


def test_secrets_of_one_record_are_resampled_together(made):
    study, run = made
    curves = tradeoffs.Curves(study, run)
    alone = tradeoffs.effect(curves, "small", ["fkl"], ["sft"], "end")
    for seed in study.seeds:  # all secrets now belong to three records
        path = curves.of("small", "sft", seed)
        path["unit_of"] = np.arange(SECRETS) % 3
        curves.of("small", "fkl", seed)["unit_of"] = path["unit_of"]
    together = tradeoffs.effect(curves, "small", ["fkl"], ["sft"], "end")
    assert together["difference"] == pytest.approx(alone["difference"])
    assert (together["low"], together["high"]) != (alone["low"], alone["high"])


def test_matched_has_a_row_per_size_and_method(made):
    table = tradeoffs.matched(*made)
    assert list(table["method"]) == ["fkl", "rkl", "sft_goldfish"]
    assert list(table["role"]) == ["student", "student", "mitigated"]
    assert table["low"].le(table["difference"]).all() and table["high"].ge(table["difference"]).all()


def test_contrasts_of_the_methods_at_hand(made):
    found = comparisons.effects(*made)
    assert set(found["question"]) == {
        "early stopping",
        "distilling",
        "divergence",
        "mitigation",
        "distilling or masking",
    }
    one = found.set_index(["first", "second", "when"])
    assert one.loc[("rkl", "fkl", "end"), "verdict"] == "less"
    assert one.loc[("fkl", "sft", "end"), "verdict"] == "less"
    assert one.loc[("fkl", "sft_goldfish", "end"), "verdict"] == "more"
    stopped = one.loc[("sft", "sft", "stopped")]
    assert stopped["first_rate"] == pytest.approx(0.4) and stopped["second_rate"] == pytest.approx(0.65)
    lines = comparisons.told(found, "divergence")
    assert "recited: **less** with reverse KL vs. forward KL (small -30.0 points)" in lines[0]
    assert (
        lines[1] == "- At equal held-out loss, recited: **less** with reverse KL vs. forward KL (small -6.0 points)."
    )
    assert "fit to the members (difference of their loss in nats): **undecided**" in lines[2]
    (quiet,) = (
        line
        for line in comparisons.told(found.assign(first_rate=0, second_rate=0), "text", "mitigation")
        if "end" in line
    )
    assert quiet == "- At the end of training, neither side recites anything in 1 of 1 comparisons."
    assert any("instead of 65.0 %" in line for line in comparisons.summary(found))


def test_the_papers_findings_are_told_contradictions_first():
    rows = {"paper": True, "size": "small", "when": "end", "difference": 0.1, "member_loss_difference": -0.2}
    found = pd.DataFrame(
        [{**rows, "contrast": c, "verdict": v} for c, v in (("a", "less"), ("b", "more"), ("c", "undecided"))]
        + [{**rows, "when": "equal", "contrast": "d", "verdict": "undecided", "fit": "closer"}]
    )
    lines = comparisons.paper_told(found)
    assert [line.split("**")[1] for line in lines] == ["Contradicts the paper", "Not shown", "Agrees with the paper"]
    assert "2 of 4 comparisons; at the end of training, secrets recited: b (small +10.0 points)" in lines[0]
    assert "members' loss in nats: d (small -0.20)" in lines[0]


def test_a_study_with_one_seed_shows_what_is_published(made, tmp_path):
    study, run = made
    (run / "data").mkdir()
    (run / "data" / "run.json").write_text("{}")
    pd.DataFrame({"id": ["a"], "kind": ["letter"], "secrets": [[]]}).to_parquet(run / "data" / "records.parquet")
    own = published.choose(study, run, tmp_path / "none")
    assert "seeds 0, 1" in own.source and len(own.effects)
    folder = tmp_path / "published"
    folder.mkdir()
    DOSES.to_csv(folder / "doses.csv", index=False)
    own.effects.assign(seeds=3).to_csv(folder / "effects.csv", index=False)
    tradeoffs.paths(study, run)[published.PATH].to_csv(folder / "trajectories.csv", index=False)
    made_by = {"study": "x", "seeds": [0, 1, 2], "models": 9, "command": "make x", "commit": "abc", "device": "cpu"}
    (folder / "made.json").write_text(json.dumps({**made_by, "training_seconds": 120}))
    single = study.model_copy(update={"seeds": [0]})
    shown = published.choose(single, run, folder)
    assert (shown.effects["seeds"] == 3).all() and "2 minutes" in shown.source and len(shown.doses) == len(DOSES)
    assert set(comparisons.mean_paths(shown.paths)["method"]) == {"sft", "fkl", "rkl", "sft_goldfish"}


def dose(method, role, copies, exposure, only=False):
    row = {"size": "small", "method": method, "role": role, "copies": copies, "teacher_only": only, "canaries": 4}
    ends = {"exposure_low": exposure - 0.5, "exposure_high": exposure + 0.5}
    return {**row, "exposure": exposure, **ends, "chance": 1.4, "ceiling": 5.0}


DOSES = pd.DataFrame(
    [dose("none", "base", n, 1.4) for n in (1, 4, 16)]
    + [dose("sft", "baseline", n, bits) for n, bits in ((1, 2.0), (4, 3.0), (16, 4.5))]
    + [dose("sft_dedup", "mitigated", n, bits) for n, bits in ((1, 2.0), (4, 2.1), (16, 2.2))]
    + [dose("fkl", "student", 16, 4.0), dose("fkl", "student", 8, 3.0, only=True)]
)


def test_repeated_canaries_are_told_by_their_intervals():
    (line,) = comparisons.dose_told(DOSES)
    assert "16 copies have 4.5 bits" in line and line.endswith("below it: de-duplicated SFT (2.2).")
    wide = comparisons.dose_table(DOSES)
    assert wide.loc["SFT", ("small", "16 copies")] == "4.5 (4.0 to 5.0)" and "4 copies" not in wide.columns.levels[1]
    assert wide.loc["before fine-tuning", ("small", "1 copy")] == "1.4 (0.9 to 1.9)"
    found = pd.DataFrame(
        [{"when": "end", "first": "fkl", "second": "sft", "size": "small", "first_rate": 0.0, "total": 9}]
    )
    assert "No method" in comparisons.hidden_told(found, DOSES)
    assert "forward KL (small)" in comparisons.hidden_told(found, DOSES.replace({"exposure": 4.0}, 5.0))
    assert comparisons.dose_told(DOSES[DOSES["role"] == "base"]) == ["This study has no canaries."]


def test_a_run_of_uncommitted_code_is_not_published(made, tmp_path):
    with pytest.raises(InputError, match="abc1234-dirty; wanted one commit without local changes"):
        published.write(*made, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", sorted((root() / "book" / "published").iterdir()), ids=lambda p: p.name)
def test_published_tables_make_the_chapter(folder):
    made = json.loads((folder / "made.json").read_text())
    study = load_study(f"studies/{made['study']}.yaml")
    assert made["seeds"] == study.seeds and "dirty" not in made["commit"] + made["tables_commit"]
    shown = published.choose(study.model_copy(update={"seeds": [0]}), "nowhere", folder)
    found = shown.effects
    assert made["commit"] in shown.source and set(found["size"]) == set(study.models.students)
    assert {c.name for c in comparisons.CONTRASTS} == set(found["contrast"])
    assert found["seeds"].eq(len(study.seeds)).all() and found["low"].le(found["high"]).all()
    assert (
        len(comparisons.table(found, "distilling")) == 18
        and len(comparisons.dose_table(shown.doses)) == len(study.methods) + 1
    )
    assert len(shown.paths["seed"].dropna().unique()) == len(study.seeds)
    for fit, moments in ((False, 2), (True, 1)):
        drawn = comparisons.figure(found, fit).axes[0].containers
        assert len(drawn) == moments * 23 + (not fit)


def test_the_readme_quotes_the_published_tables():
    readme = " ".join((root() / "README.md").read_text().split())
    found = pd.read_csv(root() / "book" / "published" / "demo-seeds" / "effects.csv")
    rows = {(r.contrast, r.when): r for r in found[found["size"] == "medium"].itertuples()}
    word, seq, stop = (
        rows["Word-KD vs. SFT", "end"],
        rows["Seq-KD vs. SFT", "end"],
        rows["SFT, stopped vs. to the end", "stopped"],
    )
    assert f"recites {100 * word.second_rate:.1f} % of the secrets" in readme and f"{word.total} secrets" in readme
    assert f"{-100 * word.difference:.1f} points fewer ({-100 * word.high:.1f} to {-100 * word.low:.1f})" in readme
    assert f"({100 * seq.difference:+.1f} points, {100 * seq.low:+.1f} to {100 * seq.high:+.1f})" in readme
    assert f"recites {100 * stop.first_rate:.1f} % instead of {100 * stop.second_rate:.1f} %" in readme
    gain = [-stop.held_out_loss_difference, -stop.held_out_loss_high, -stop.held_out_loss_low]
    assert "by {:.2f} nats per token ({:.2f} to {:.2f})".format(*gain) in readme
    equal = found[found["when"] == "equal"].set_index("contrast")
    assert (equal[["first_rate", "second_rate"]] < 0.01).all(axis=None)
    for contrast, fit in (
        ("forward KL vs. SFT", "less close"),
        ("reverse KL vs. SFT", "closer"),
        ("RKLD vs. SFT", "closer"),
    ):
        assert (equal.loc[contrast, "fit"] == fit).all()
    assert (equal.loc["own text vs. references, mean", "fit"] == "less close").all()
