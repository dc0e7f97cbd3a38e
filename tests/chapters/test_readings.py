"""Sampling, near misses and less context: the chapter's tables against a plain count, and its sentences against the tables."""

import numpy as np
import pandas as pd
import pytest

from palimpsest.chapters import readings
from palimpsest.measure.statistics import wilson
from palimpsest.study import load_study
from palimpsest.study.runs import root, write_json

STUDY = """
extends: {smoke}
name: tiny
methods: [sft, fkl, rkl]
seeds: [0, 1]
measure: {{window: 4, sampling: {{cool: {{temperature: 0.5}}}}, approximate: {n}, left_truncated: {k}, left_target: 3}}
"""
NAMES = ["base-teacher", "base-small", "teacher", *(f"small-{m}-s{s}" for s in (0, 1) for m in ("sft", "fkl", "rkl"))]
LENGTH, RECORDS = 9, 20


def load(folder, n=6, k=(2, 5)):
    (folder / "tiny.yaml").write_text(STUDY.format(smoke=root() / "studies" / "smoke.yaml", n=n, k=list(k)))
    return load_study(folder / "tiny.yaml")


def scores(knows: float, rng) -> pd.DataFrame:
    """Tokens are hits, and likely, with probability `knows`; the margins of a third of the records hold a near-tie."""
    hit = rng.random((RECORDS, LENGTH)) < knows
    logprob = np.where(hit, -0.05, -3.0)
    margin = np.ones((RECORDS, LENGTH))
    margin[::3, 1] = 1e-4
    margin[1, 6] = 1e-4  # outside the window
    columns = {"hit": hit, "logprob": logprob, "logprob_cool": np.where(hit, -0.01, -6.0), "margin": margin}
    ids = [f"r{i:02d}" for i in range(RECORDS)]
    return pd.DataFrame({"id": ids, "length": LENGTH, **{name: list(values) for name, values in columns.items()}})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of 12 members and 8 non-members in which fine-tuned models know the members."""
    folder, rng = tmp_path_factory.mktemp("run"), np.random.default_rng(0)
    splits = ["member"] * 12 + ["non_member"] * 8
    records = pd.DataFrame({"id": [f"r{i:02d}" for i in range(RECORDS)], "split": splits, "kind": "letter"})
    (folder / "data").mkdir()
    write_json(folder / "data" / "run.json", {})
    canary = pd.DataFrame({"id": ["c"], "split": ["member"], "kind": ["canary"]})
    pd.concat([records, canary]).assign(secrets=[[]] * 21).to_parquet(folder / "data" / "records.parquet")
    for name in NAMES:
        knows = 0.05 if name.startswith("base") else 0.5 if "rkl" in name else 0.97
        table = pd.concat([scores(knows, rng).iloc[:12], scores(0.05, rng).iloc[12:]])
        here = folder / "scores" / name
        for place in (here, folder / "models" / name):
            place.mkdir(parents=True)
            write_json(place / "run.json", {"precision": "torch.bfloat16"})
        table.to_parquet(here / "records.parquet")
        near = np.where(rng.random(12) < knows, rng.choice([0.95, 1.0], 12), 0.3)
        texts = pd.DataFrame({"id": [*records["id"][:6], *records["id"][12:18]], "split": splits[6:18]})
        texts.assign(rouge_l=near / 2, edit_similarity=near).to_parquet(here / "approximate.parquet")
        cut = [(i, split, k, rng.random() < knows * k / 5) for k in (2, 5) for i, split in records.to_numpy()[1:, :2]]
        pd.DataFrame(cut, columns=["id", "split", "k", "verbatim"]).to_parquet(here / "left_truncated.parquet")
    return folder


def read(run, name, what="records"):
    return pd.read_parquet(run / "scores" / name / f"{what}.parquet")


def seeds_of(method):
    return [f"small-{method}-s{s}" for s in (0, 1)]


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return row


def test_precision_counts_members_with_a_near_tie_in_their_window(run, tmp_path):
    found = readings.precision(load(tmp_path), run)
    assert (found["near-ties"] == "4 of 12").all() and (found["data type"] == "bfloat16").all()
    assert list(found.index[-2:]) == ["small, forward KL", "small, reverse KL"] and found.index.is_unique


@pytest.mark.parametrize(
    ("rule", "column"), [("plain sampling", "logprob"), ("cool (temperature 0.5)", "logprob_cool")]
)
@pytest.mark.parametrize("split", ["member", "non_member"])
def test_discoverable_is_one_minus_all_samples_failing(run, tmp_path, rule, column, split):
    found = readings.discoverable(load(tmp_path), run)
    part = slice(0, 12) if split == "member" else slice(12, 20)
    for n in readings.SAMPLES:
        counts = []
        for name in seeds_of("rkl"):
            once = np.exp(np.stack(read(run, name)[column])[part, :4].sum(1))
            counts.append((1 - (1 - once) ** n >= 0.5).sum())
        row = one(found, method="rkl", split=split, sampling=rule, n=n)
        assert (row["count"], row["total"]) == (np.mean(counts), 12 if split == "member" else 8)
        assert (row["low"], row["high"]) == pytest.approx(wilson(np.mean(counts), row["total"]))


def test_discoverable_rises_with_n_and_is_told(run, tmp_path):
    found = readings.discoverable(load(tmp_path), run)
    drawn = found[found["sampling"] != "greedy"]
    assert (drawn.groupby(["size", "method", "split", "sampling"])["rate"].diff().dropna() >= 0).all()
    greedy = one(found, size="teacher", method="sft", split="member", sampling="greedy")
    assert greedy["count"] == np.stack(read(run, "teacher")["hit"])[:12, :4].all(1).sum()
    lines = readings.discoverable_told(found)
    assert len(lines) == 4 and lines[0].startswith("- **teacher**, fine-tuned: greedy decoding gives ")
    assert (
        "distilled, from" in lines[1] and "(reverse KL) to" in lines[1] and "Under cool (temperature 0.5)" in lines[2]
    )
    figure = readings.discoverable_figure(found)
    figure.canvas.draw()
    assert [ax.get_title() for ax in figure.axes] == ["teacher", "small", "", ""]


def test_nearness_is_a_mean_over_seeds_and_letters(run, tmp_path):
    found = readings.nearness(load(tmp_path), run)
    texts = pd.concat([read(run, name, "approximate") for name in seeds_of("sft")])
    texts = texts[texts["split"] == "member"]
    row = one(found, size="small", method="sft", split="member")
    assert row["rouge_l"] == pytest.approx(texts["rouge_l"].mean())
    assert row["rouge_l_low"] <= row["rouge_l"] <= row["rouge_l_high"]
    assert (row["count"], row["total"]) == ((texts["edit_similarity"] >= 0.9).sum() / 2, 6)
    assert row["near_only"] == (texts["edit_similarity"] == 0.95).sum() / 2
    table = readings.nearness_table(found)
    assert list(table.columns[:3]) == [(t, "members") for t in ("ROUGE-L", "edit similarity", "nearly verbatim")]
    assert table.loc[("small", "SFT"), ("ROUGE-L", "members")].startswith(f"{row['rouge_l']:.2f} (")
    assert [line[:11] for line in readings.nearness_told(found)] == ["- **teacher", "- **small**", "- Non-membe"]


def test_truncated_counts_both_designs(run, tmp_path):
    study = load(tmp_path)
    found = readings.truncated(study, run)
    cut, hits = read(run, "teacher", "left_truncated"), np.stack(read(run, "teacher")["hit"])[:12]
    for k in (2, 5):
        wanted = cut[(cut["k"] == k) & (cut["split"] == "member")]["verbatim"]
        row = one(found, size="teacher", method="sft", split="member", design="left-truncated", k=k)
        assert (row["count"], row["total"]) == (wanted.sum(), 11)
        row = one(found, size="teacher", method="sft", split="member", design="right-growing", k=k)
        assert (row["count"], row["total"]) == (hits[:, k : k + 3].all(1).sum(), 12)
    row = one(found, size="teacher", method="sft", split="member", design="left-truncated", k=np.inf)
    assert (row["count"], row["total"]) == (hits[1:, -3:].all(1).sum(), 11)
    lines = readings.truncated_told(found, study.measure.left_target)
    assert len(lines) == 2 and "the last 3 tokens follow for" in lines[0] and "only the 5 tokens before" in lines[0]
    readings.truncated_figure(found).canvas.draw()


def test_what_a_study_has_off_is_said(run, tmp_path):
    off = load(tmp_path, n=0, k=())
    near, cut = readings.nearness(off, run), readings.truncated(off, run)
    assert near.empty and cut.empty and readings.nearness_table(near).empty
    assert readings.nearness_told(near) == [readings.OFF_APPROXIMATE]
    assert readings.truncated_told(cut, 3) == [readings.OFF_TRUNCATED]
    readings.truncated_figure(cut).canvas.draw()


def test_a_single_k_is_enough(run, tmp_path):
    study = load(tmp_path, k=(5,))
    assert "only the 5 tokens before" in readings.truncated_told(readings.truncated(study, run), 3)[0]
