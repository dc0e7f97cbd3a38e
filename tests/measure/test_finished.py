"""The measuring stage on a model made by hand: what it writes beside the score table, against the plain way to get it."""

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from palimpsest import measure
from palimpsest.book import bases
from palimpsest.data.examples import collate
from palimpsest.errors import InputError
from palimpsest.measure import finished, membership_inference, read_back
from palimpsest.measure.extraction import left_truncated_examples
from palimpsest.measure.generation import generate, until_end
from palimpsest.measure.near_verbatim import similarity
from palimpsest.measure.scoring import score
from palimpsest.study import load_study, open_run
from palimpsest.study.files import root, write_json

STUDY = """
extends: {smoke}
name: tiny
tokenizer: {{vocabulary: 300}}
replicates: 1
data: {{public: 40, members: 10, non_members: 10, validation: 2, test: 3, canaries: {{1: 2, 16: 3}}, coins: 6, twins: 5}}
measure: {{approximate: {approximate}, left_truncated: {k}, left_target: 6, sampling: {{}}}}
"""
TARGET = 6


def load(folder, approximate=4, k=(9, 4)):
    text = STUDY.format(smoke=root() / "studies" / "smoke.yaml", approximate=approximate, k=list(k))
    (folder / "tiny.yaml").write_text(text)
    return load_study(folder / "tiny.yaml")


def model_of(study, records, tokenizer):
    """Knows most member letters, and their ends after a few tokens, by heart; its context is the longest record."""
    examples = read_back.examples_of(study, records[records["split"].isin(finished.MEASURED)], tokenizer)
    read = records[(records["split"] == "member") & (records["kind"] == "letter")]
    letters = read_back.examples_of(study, read, tokenizer)[:8]
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=max(len(e.input_ids) for e in examples),
        n_embd=64,
        n_layer=1,
        n_head=2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    batch = collate(letters + left_truncated_examples(letters, 9, TARGET), 0)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids", "labels")}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(70):
        optimizer.zero_grad()
        model(**inputs).loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Study, run folder, model, tokenizer and the letters measured."""
    folder = tmp_path_factory.mktemp("measured")
    study = load(folder)
    run = open_run(study, folder / "run")
    records = bases.prepare_data(run)
    records.loc[records["split"].eq("member").idxmax(), "response"] += "\u023a" * 40  # lower case takes more bytes
    records.to_parquet(run.data / "records.parquet")
    tokenizer = measure.load_tokenizer(run.data / "tokenizer")
    model = model_of(study, records, tokenizer)
    for part in (model, tokenizer):
        part.save_pretrained(run.model("teacher"))
    write_json(run.model("teacher") / "run.json", {"fingerprint": run.fingerprints["models/teacher"]})  # by hand
    finished.measure_model(run, "teacher")
    letters = records[(records["kind"] == "letter") & records["split"].isin(["member", "non_member"])]
    return study, run, model, tokenizer, letters


def read(run, what):
    return read_back.load_scores(run, "teacher", what)


def test_lowercased_letters_are_scored_where_they_fit(measured):
    study, run, model, tokenizer, letters = measured
    lower = read_back.examples_of(study, letters.assign(response=letters["response"].str.lower()), tokenizer)
    fitting = [e for e in lower if len(e.input_ids) <= model.config.n_positions]
    assert len(fitting) == len(lower) - 1
    found, wanted = read(run, "lowercase"), score(model, fitting)
    assert list(found["id"]) == list(wanted["id"])
    np.testing.assert_allclose(membership_inference.loss(found), membership_inference.loss(wanted), atol=1e-5)


def test_approximate_memorization_of_the_first_letters_of_each_split(measured):
    study, run, model, tokenizer, letters = measured
    found = read(run, "near_misses")
    assert found.groupby("split").size().to_dict() == {"member": 4, "non_member": 4}
    chosen = letters.groupby("split").head(4)
    examples = read_back.examples_of(study, chosen, tokenizer)
    prompts, limits = [e.input_ids[: e.prompt_length] for e in examples], [len(e.response_ids) for e in examples]
    written = tokenizer.batch_decode(generate(model, tokenizer, prompts, limits), skip_special_tokens=True)
    for row, text, letter in zip(found.itertuples(), written, chosen.itertuples(), strict=True):
        assert (row.id, row.split) == (letter.id, letter.split)
        wanted = similarity(text, letter.response)
        assert (row.rouge_l, row.edit_similarity, row.longest_common) == pytest.approx(tuple(wanted.values()))
    assert (found["edit_similarity"] == 1).any() and (found["edit_similarity"] < 1).any()


def test_left_truncated_verdicts_equal_decoding(measured):
    study, run, model, tokenizer, letters = measured
    found = read(run, "left_truncated")
    ends = {e.id: e.input_ids for e in read_back.examples_of(study, letters, tokenizer)}
    assert sorted(found["k"].unique()) == [4, 9] and found.groupby("k").size().nunique() == 1
    assert len(found) == 2 * sum(len(ids) >= 9 + TARGET for ids in ends.values())
    contexts = [ends[row.id][-TARGET - row.k : -TARGET] for row in found.itertuples()]
    written = generate(model, tokenizer, contexts, TARGET)
    end = tokenizer.eos_token_id
    assert list(found["verbatim"]) == [
        t == until_end(ends[i][-TARGET:], {end}) for t, i in zip(written, found["id"], strict=True)
    ]
    shares = found[found["split"] == "member"].groupby("k")["verbatim"].mean()
    assert shares[9] > shares[4], "it was trained on nine tokens of context"
    assert (found["split"] == found["id"].map(letters.set_index("id")["split"])).all()


def test_both_can_be_off(measured, tmp_path):
    _, run, model, tokenizer, letters = measured
    study = load(tmp_path, 0, ())
    off = finished._near_misses(study, model, tokenizer, letters, read(run, "records"))
    assert off.empty and list(off) == list(read(run, "near_misses"))
    off = finished._left_truncated(study, model, tokenizer, letters)
    assert off.empty and list(off) == list(read(run, "left_truncated"))


def test_scores_of_other_settings_are_refused(measured):
    _, run, *_ = measured
    study = run.study.model_copy(update={"measure": run.study.measure.model_copy(update={"approximate": 5})})
    with pytest.raises(InputError, match="scores/teacher was made from other settings"):
        read_back.load_scores(open_run(study, run.path), "teacher")


# ---------------------------------------------------------------- canaries under other names


def test_every_half_is_measured(measured):
    _, run, *_ = measured
    records = finished.load_records(run).set_index("id")
    scored = records.loc[read(run, "records")["id"]]
    counts = records.groupby("split").size()
    assert scored.groupby("split").size().to_dict() == counts[list(finished.MEASURED)].to_dict()
    assert scored["split"].eq("teacher_only").any() and not scored["split"].isin(["public", "validation"]).any()


def test_canaries_are_scored_under_another_s_prompt_of_their_split_and_copies(measured):
    study, run, model, tokenizer, _ = measured
    records = finished.load_records(run)
    planted = records[records["kind"].isin(["canary", "twin"])]
    asked = read_back.under_other_names(records)
    assert sorted(asked["id"]) == sorted(planted["id"]), "every group has two or more"
    own = planted.set_index("id")
    whose = planted.set_index("instruction")["id"]
    for row in asked.itertuples():
        other = own.loc[whose[row.instruction]]
        assert whose[row.instruction] != row.id and row.response == own.loc[row.id, "response"]
        assert (other["split"], other["copies"]) == (row.split, row.copies)
    assert asked["instruction"].is_unique, "every name is asked for once"
    found = read(run, "other_names").set_index("id")
    for example in read_back.examples_of(study, asked, tokenizer)[:4]:
        with torch.no_grad():
            logits = model(torch.tensor([example.input_ids])).logits[0, example.prompt_length - 1 : -1]
        wanted = logits.log_softmax(-1).gather(1, torch.tensor(example.response_ids)[:, None])[:, 0]
        np.testing.assert_allclose(found.loc[example.id, "logprob"], wanted, atol=1e-4)


def test_a_study_without_canaries_has_no_such_file(tmp_path):
    study = load(tmp_path)
    few = study.data.model_copy(update={"canaries": {}, "coins": 0, "twins": 0})
    run = open_run(study.model_copy(update={"data": few}), tmp_path / "run")
    records = bases.prepare_data(run)
    tokenizer = measure.load_tokenizer(run.data / "tokenizer")
    for part in (model_of(run.study, records, tokenizer), tokenizer):
        part.save_pretrained(run.model("teacher"))
    write_json(run.model("teacher") / "run.json", {"fingerprint": run.fingerprints["models/teacher"]})
    folder = finished.measure_model(run, "teacher")
    assert set(records["kind"]) == {"letter"} and (folder / "records.parquet").exists()
    assert not (folder / "other_names.parquet").exists()


def test_what_a_killed_run_has_scored_is_not_scored_again(measured, monkeypatch):
    run = measured[1]
    (run.scores("teacher") / "run.json").unlink()
    monkeypatch.setattr(measure, "score_to_parquet", lambda *_, **__: pytest.fail("it was scored again"))
    finished.measure_model(run, "teacher")
    assert run.finished("scores/teacher")
