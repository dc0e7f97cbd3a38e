"""Chapter 04: its tables against a plain count, and what it shows and says of any study."""

import json

import numpy as np
import pandas as pd
import pytest

from palimpsest.chapters import figures, memorization, partly
from palimpsest.data.splits import COMPARED
from palimpsest.measure import extraction
from palimpsest.measure.models import train_tokenizer
from palimpsest.measure.read_back import examples_of
from palimpsest.measure.statistics import newcombe, wilson
from palimpsest.study import load_tables, open_run, write_table
from palimpsest.study.files import root, write_json

STUDY = """
extends: {smoke}
name: tiny
title: Tiny
synthetic: false
methods: {methods}
seeds: {seeds}
measure: {{window: 4, sampling: {{cool: {{temperature: 0.5}}}}, approximate: {near}, left_truncated: {cut}, left_target: 3}}
"""
SPLITS = ["member"] * 12 + ["non_member"] * 8 + ["test"] * 4
IDS = [f"r{i:02d}" for i in range(24)]


def make(folder, methods=("sft", "fkl", "rkl"), seeds=(0, 1), marked=True, near=6, cut=(2, 5)):
    """A measured run of 12 members, 8 non-members and 4 test records, whose fine-tuned models know the members; and its tables."""
    text = {"smoke": root() / "studies" / "smoke.yaml", "methods": list(methods), "seeds": list(seeds)}
    (folder / "tiny.yaml").write_text(STUDY.format(**text, near=near, cut=list(cut)))
    run, rng = open_run(folder / "tiny.yaml", folder / "run"), np.random.default_rng(0)
    responses = [f"call me at {i} {i * 7919 % 1000} now" for i in range(24)]
    records = pd.DataFrame({"id": IDS, "split": SPLITS, "kind": "letter", "response": responses})
    records["copies"] = [1] * 8 + [4] * 4 + [0] * 12
    spans = [[{"start": 11, "end": len(r) - 4}] if marked else [] for r in responses]
    records = records.assign(secrets=spans, instruction=[f"Ask {i}" for i in range(24)], context="")
    tokenizer = train_tokenizer(responses, 280)
    lengths = [len(e.response_ids) for e in examples_of(run.study, records, tokenizer)]
    run.data.mkdir(parents=True)
    tokenizer.save_pretrained(run.data / "tokenizer")
    canary = records.head(1).assign(id="c", kind="canary")
    pd.concat([records, canary]).to_parquet(run.data / "records.parquet")
    target, unit = ("secret", "secrets") if marked else ("window", "records")
    write_json(run.data / "run.json", {"fingerprint": run.fingerprints["data"], "target": target, "unit": unit})
    for arm in run.study.everyone():
        here, stage = run.scores(arm.name), f"scores/{arm.name}"
        write_json(here / "run.json", {"fingerprint": run.fingerprints[stage], "precision": "bfloat16"})
        knows = 0.05 if arm.role == "base" else 0.6 if arm.method == "rkl" else 0.97
        scores(knows, lengths, rng).to_parquet(here / "records.parquet")
        similar = np.where(rng.random(2 * near) < knows, rng.choice([0.95, 1.0], 2 * near), 0.3)
        texts = pd.DataFrame(
            {"id": [*IDS[:near], *IDS[12 : 12 + near]], "split": near * ["member"] + near * ["non_member"]}
        )
        texts.assign(rouge_l=similar / 2, edit_similarity=similar).to_parquet(here / "near_misses.parquet")
        rows = [
            (i, s, k, rng.random() < knows * k / 5) for k in cut for i, s in zip(IDS[1:20], SPLITS[1:20], strict=True)
        ]
        pd.DataFrame(rows, columns=["id", "split", "k", "verbatim"]).to_parquet(here / "left_truncated.parquet")
        rouge = pd.DataFrame(rng.random((4, 3)), columns=["rouge1", "rouge2", "rougeL"])
        rouge.assign(id=IDS[20:]).to_parquet(here / "test.parquet")
    for name, table in memorization.tables(run).items():
        write_table(table, run.tables / f"{name}.csv")
    write_json(run.tables / "run.json", {"fingerprint": run.fingerprints["tables"]})
    return run, load_tables(run)


def scores(knows: float, lengths: list[int], rng) -> pd.DataFrame:
    """Members' tokens are hits, and likely, with probability `knows`; the margins of a third of the records hold a near-tie."""
    hits = [rng.random(n) < (knows if split == "member" else 0.05) for n, split in zip(lengths, SPLITS, strict=True)]
    margins = [np.where((np.arange(n) == 1) & (i % 3 == 0), 1e-4, 1.0) for i, n in enumerate(lengths)]
    margins[1][6] = 1e-4  # outside the window
    table = pd.DataFrame({"id": IDS, "length": lengths, "hit": hits, "margin": margins})
    logprob = [np.where(hit, -0.05, -3.0) for hit in hits]
    return table.assign(logprob=logprob, logprob_cool=[np.where(hit, -0.01, -6.0) for hit in hits])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return make(tmp_path_factory.mktemp("tiny"))


def read(run, name, file="records"):
    return pd.read_parquet(run.scores(name) / f"{file}.parquet")


def one(table, **where):
    for column, value in where.items():
        table = table[table[column] == value]
    (row,) = table.to_dict("records")
    return row


SIDES = {"member": slice(0, 12), "non_member": slice(12, 20)}
RATED = {"member": slice(0, 8), "repeated": slice(8, 12), "non_member": slice(12, 20)}  # members by their copies


@pytest.mark.parametrize("split", RATED)
def test_rates_count_what_is_hit_to_the_end_of_its_target(tiny, split):
    run, tables = tiny
    hits = list(read(run, "small-rkl-s1")["hit"])[RATED[split]]
    rates = tables.rates[(tables.rates["model"] == "small-rkl-s1") & (tables.rates["split"] == split)]
    counted = {"window": [h[:4].all() for h in hits], "whole": [h.all() for h in hits]}
    counted["next_window"] = [h[4:8].all() for h in hits if len(h) >= 8]
    for target, verdicts in counted.items():
        row = one(rates, target=target)
        assert (row["count"], row["total"]) == (sum(verdicts), len(verdicts))
    assert one(rates, target="secret")["total"] == len(hits)
    pd.testing.assert_frame_equal(
        memorization.rates_of(run, [run.study.arm("teacher")]).drop(columns="seed"),
        tables.rates[tables.rates["model"] == "teacher"].reset_index(drop=True).drop(columns="seed"),
        check_dtype=False,
        rtol=1e-5,
    )


def test_excess_is_the_difference_of_the_two_splits(tiny):
    _, tables = tiny
    row = one(tables.excess, label="small, reverse KL", target="window", split="member")
    sides = [memorization.arm_rates(tables.rates, "window", split) for split in COMPARED]
    member, other = (one(side, method="rkl") for side in sides)
    assert row["rate"] == pytest.approx(member["rate"] - other["rate"], abs=1e-5)
    limits = newcombe(member["count"], member["total"], other["count"], other["total"])
    assert (row["low"], row["high"]) == pytest.approx(limits, abs=1e-5)


def test_seeds_together_narrow_nothing(tiny):
    _, tables = tiny
    row = one(memorization.arm_rates(tables.rates, "window"), method="rkl")
    seeds = tables.rates[(tables.rates["method"] == "rkl") & (tables.rates["target"] == "window")]
    assert row["count"] == seeds.loc[seeds["split"] == "member", "count"].mean() and row["total"] == 8
    assert (row["low"], row["high"]) == pytest.approx(wilson(row["count"], 8))


def test_near_ties_count_members_with_one_in_their_window(tiny):
    _, tables = tiny
    assert (tables.near_ties["count"] == 4).all() and (tables.near_ties["dtype"] == "bfloat16").all()
    said = memorization.say_near_ties(tables.near_ties)
    assert "at most 4 of 12 verdicts" in said and said.endswith("Logits are in bfloat16.")
    assert "No verdict hangs" in memorization.say_near_ties(tables.near_ties.assign(count=0))


@pytest.mark.parametrize(
    ("rule", "column"), [("plain sampling", "logprob"), ("cool (temperature 0.5)", "logprob_cool")]
)
@pytest.mark.parametrize("split", COMPARED)
def test_discoverable_is_one_minus_all_samples_failing(tiny, rule, column, split):
    run, tables = tiny
    for n in extraction.SAMPLES:
        counts = []
        for seed in (0, 1):
            once = [np.exp(row[:4].sum()) for row in read(run, f"small-rkl-s{seed}")[column][SIDES[split]]]
            counts.append(sum(1 - (1 - np.array(once)) ** n >= 0.5))
        row = one(tables.discoverable, method="rkl", split=split, sampling=rule, n=n)
        assert (row["count"], row["total"]) == (np.mean(counts), 12 if split == "member" else 8)
        assert (row["low"], row["high"]) == pytest.approx(
            tuple(map(float, wilson(np.mean(counts), row["total"]))), abs=1e-5
        )


def test_discoverable_rises_with_n(tiny):
    drawn = tiny[1].discoverable.query("sampling != 'greedy'")
    assert (drawn.groupby(["size", "method", "split", "sampling"])["rate"].diff().dropna() >= 0).all()


def test_near_misses_are_means_over_seeds_and_records(tiny):
    run, tables = tiny
    texts = pd.concat([read(run, f"small-rkl-s{seed}", "near_misses") for seed in (0, 1)])
    texts = texts[texts["split"] == "member"]
    row = one(tables.near_misses, method="rkl", split="member")
    assert row["rouge_l"] == pytest.approx(texts["rouge_l"].mean(), abs=1e-5)
    assert row["rouge_l_low"] <= row["rouge_l"] <= row["rouge_l_high"]
    assert (row["count"], row["total"]) == ((texts["edit_similarity"] >= 0.9).sum() / 2, 6)
    assert row["near_only"] == (texts["edit_similarity"] == 0.95).sum() / 2
    shown = memorization.show_near_misses(tables.near_misses)
    assert shown.loc["small, reverse KL", "similarity: members"].startswith(f"{row['edit_similarity']:.2f} (")


def test_context_counts_both_designs(tiny):
    run, tables = tiny
    cut, hits = read(run, "teacher", "left_truncated"), list(read(run, "teacher")["hit"])[:12]
    teacher = tables.context[tables.context["role"] == "teacher"]
    for k in (2, 5):
        wanted = cut[(cut["k"] == k) & (cut["split"] == "member")]["verbatim"]
        row = one(teacher, split="member", design="left-truncated", k=k)
        assert (row["count"], row["total"]) == (wanted.sum(), 11)
        row, long = one(teacher, split="member", design="right-growing", k=k), [h for h in hits if len(h) >= k + 3]
        assert (row["count"], row["total"]) == (sum(h[k : k + 3].all() for h in long), len(long))
    row = one(teacher, split="member", design="left-truncated", k=np.inf)
    assert (row["count"], row["total"]) == (sum(h[-3:].all() for h in hits[1:]), 11)


def test_quality_is_a_loss_over_tokens_and_a_mean_with_its_interval(tiny):
    run, tables = tiny
    table, texts = read(run, "small-sft-s0").iloc[20:], read(run, "small-sft-s0", "test")
    row = one(tables.quality, model="small-sft-s0")
    assert row["test_loss"] == pytest.approx(-np.concatenate(list(table["logprob"])).mean(), abs=1e-4)
    shown = memorization.show_quality(tables.quality).loc["small, SFT, seed 0"]
    mean, error = texts["rougeL"].mean(), 1.96 * texts["rougeL"].std() / 2
    assert shown["ROUGE-L"] == f"{mean:.3f} ({mean - error:.3f} to {mean + error:.3f})"


def test_every_score_table_is_read_once(tiny, monkeypatch):
    asked, load = [], memorization.load_scores
    monkeypatch.setattr(memorization, "load_scores", lambda run, *what: asked.append(what) or load(run, *what))
    memorization.tables(tiny[0])
    assert len(asked) == len(set(asked)) == 4 * len(tiny[0].measured())


STUDIES = {
    "several seeds": {},
    "one seed": {"seeds": (0,)},
    "fine-tuning alone": {"methods": ("sft",)},
    "no student, one mitigation": {"methods": ("sft", "sft_goldfish"), "seeds": (0,)},
    "no marked secrets": {"marked": False, "seeds": (0,)},
    "nothing optional": {"near": 0, "cut": (), "seeds": (0,)},
    "a single prefix": {"cut": (5,), "seeds": (0,)},
}


@pytest.mark.parametrize("options", STUDIES.values(), ids=STUDIES)
def test_the_chapter_reads_right_for_any_study(tmp_path, options):
    run, tables = make(tmp_path, **options)
    data = json.loads((run.data / "run.json").read_text())
    target, unit = data["target"], data["unit"]
    said = [*memorization.say_rates(tables.rates, target, unit), *partly.say_discoverable(tables.discoverable)]
    said += [memorization.say_quality(tables.quality), memorization.say_near_ties(tables.near_ties)]
    said += [*partly.say_by_prefix(tables.by_prefix), *partly.say_context(tables.context)]
    plots = [partly.plot_by_prefix(tables.by_prefix), partly.plot_discoverable(tables.discoverable)]
    plots += [memorization.plot_rates(tables.rates, "window", memorization.PAPER)]
    assert memorization.show_targets(tables.rates).index.is_unique
    asked, splits = {"window", "secret"} if target == "secret" else {"window"}, set(tables.excess["split"])
    heads = {f"{t}, {split}" for t in asked for split in ("unrepeated", "repeated")} if len(splits) == 2 else asked
    assert set(memorization.show_excess(tables.excess)) == heads
    assert memorization.show_quality(tables.quality).index.is_unique
    assert "not measurable" not in memorization.show_rates(tables.rates, target).to_string()
    secrets = memorization.plot_rates(tables.rates, "secret")
    assert (secrets is not None) == (target == "secret")
    context = partly.plot_context(tables.context)
    if run.study.measure.left_truncated:
        plots.append(context)
        assert len(partly.show_context(tables.context))
    else:
        assert context is None and tables.context.empty
    if run.study.measure.approximate:
        said += memorization.say_near_misses(tables.near_misses)
    for figure in plots:
        figure.canvas.draw()
    assert ("Distilled" in " ".join(said)) == any(arm.role == "student" for arm in run.study.arms())
    for line in said:
        assert not {"letter", "nan", "ε"} & set(line.replace(",", " ").split())
        assert max(words(sentence) for sentence in line.split(". ")) <= 25, line


def words(sentence: str) -> int:
    return sum(any(c.isalnum() for c in word) for word in sentence.split())


def test_panels_have_a_column_per_size_and_a_row_per_setting(tiny):
    tables = tiny[1]
    titles = [ax.get_title() for ax in partly.plot_discoverable(tables.discoverable).axes]
    assert titles == ["teacher", "small", "", ""]
    ticks = [t.get_text() for t in partly.plot_context(tables.context).axes[-1].get_xticklabels()]
    assert ticks == ["2", "5", "all"]
    (small, paper) = (figure := memorization.plot_rates(tables.rates, "window", memorization.PAPER)).axes
    assert [t.get_text() for t in small.get_yticklabels()] == ["reverse KL", "forward KL", "SFT", "teacher"]
    assert [t.get_text() for t in figure.legends[0].get_texts()] == list(memorization.PAPER)
    assert figures.label_seeds(tables.quality)["label"].is_unique


def test_records_that_rouge_cannot_read_are_left_out_of_its_mean_alone():
    who = {"size": "small", "method": "sft", "role": "student", "split": "member", "model": "sft-small-0"}
    rows = [
        {**who, "id": f"{i}", "edit_similarity": 0.5 + i / 4, "rouge_l": r} for i, r in enumerate((0.4, None, 0.6))
    ]
    (found,) = memorization.nearly_verbatim(pd.DataFrame(rows)).to_dict("records")
    assert found["rouge_l"] == pytest.approx(0.5) and found["edit_similarity"] == pytest.approx(0.75)
    (none,) = memorization.nearly_verbatim(pd.DataFrame(rows).assign(rouge_l=float("nan"))).to_dict("records")
    assert np.isnan([none["rouge_l"], none["rouge_l_low"]]).all() and none["total"] == 3
