"""The engine: the same numbers as a plain forward pass, whatever the batch; files that resume; clear refusals."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from memorizers import END, WORDS, memorizer, texts, untrained
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import CausalLMOutput

from palimpsest.data.examples import Example
from palimpsest.errors import InputError
from palimpsest.measure import scoring as engine
from palimpsest.measure.forward import choose_mode
from palimpsest.measure.score_file import ROUNDED, flatten
from palimpsest.measure.scoring import score, score_to_parquet
from palimpsest.measure.token_stats import sampling_steps, signals

FLOATS = ["logprob", "margin", "mean_logprob", "std_logprob"]
KINDS = ("gpt2", "llama")


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return memorizer(request.param, texts(24))


def same(one: pd.DataFrame, other: pd.DataFrame, tolerance: float = 1e-5) -> None:
    assert list(one.columns) == list(other.columns)
    for column in one.columns:
        if isinstance(one[column].iloc[0], np.ndarray):
            np.testing.assert_array_equal(one[column].map(len), other[column].map(len))
            got, wanted = np.concatenate(list(one[column])), np.concatenate(list(other[column]))
            rounded = 2**-15 if column in ROUNDED else 0  # a file keeps 16 binary digits
            atol = tolerance if column in FLOATS else 0
            np.testing.assert_allclose(got, wanted, rtol=rounded, atol=atol, err_msg=column)
        else:
            assert list(one[column]) == list(other[column])


def by_hand(model, example: Example) -> pd.Series:
    """The row of one record, from a plain forward pass on it alone."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([example.input_ids])).logits[0, example.prompt_length - 1 : -1].double()
    true = torch.tensor(example.response_ids)
    logp = logits.log_softmax(-1)
    mean = (logp.exp() * logp).sum(-1)
    top = logits.sort(descending=True, dim=-1).values
    return pd.Series(
        {
            "id": example.id,
            "prompt_length": example.prompt_length,
            "length": len(true),
            "token": true.numpy(),
            "logprob": logp[range(len(true)), true].numpy(),
            "hit": (logits.argmax(-1) == true).numpy(),
            "rank": (logits > logits.gather(1, true[:, None])).sum(-1).numpy(),
            "margin": (top[:, 0] - top[:, 1]).numpy(),
            "mean_logprob": mean.numpy(),
            "std_logprob": (logp.exp() * (logp - mean[:, None]) ** 2).sum(-1).sqrt().numpy(),
        }
    )


def test_every_column_equals_a_plain_forward_pass(model):
    examples = texts(12) + texts(12, seed=1)  # known and unknown ones
    same(score(model, examples), pd.DataFrame([by_hand(model, e) for e in examples]))


def test_first_and_last_response_tokens_are_both_there(model):
    examples = texts(8)
    table = score(model, examples)
    for example, row in zip(examples, table.itertuples(), strict=True):
        assert row.length == len(row.logprob) == len(example.input_ids) - example.prompt_length
        assert list(row.token) == example.response_ids and row.token[-1] == END


@pytest.mark.parametrize("token_budget", [1, 64, 4096])
def test_batch_size_and_padding_do_not_matter(model, token_budget):
    examples = texts(20)
    same(score(model, examples, token_budget=token_budget), pd.concat([score(model, [e]) for e in examples]))


def test_logits_in_small_chunks_and_tiles_are_the_same(model, monkeypatch):
    examples = texts(20)
    whole = score(model, examples)
    monkeypatch.setattr("palimpsest.measure.forward.CHUNK", 7 * WORDS)
    monkeypatch.setattr("palimpsest.measure.token_stats.TILE", 3 * WORDS)
    same(score(model, examples), whole)


def capped():
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 16,
    }
    config = Gemma2Config(vocab_size=WORDS, num_key_value_heads=2, max_position_embeddings=64, **small)
    config.final_logit_softcapping = 0.5
    return Gemma2ForCausalLM(config).eval()


def scaled():
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    return GraniteForCausalLM(
        GraniteConfig(vocab_size=WORDS, num_key_value_heads=2, logits_scaling=3.0, **small)
    ).eval()


@pytest.mark.parametrize("make", [capped, scaled])
def test_what_a_model_does_to_its_logits_afterwards_is_kept(make):
    model, examples = make(), texts(6)
    assert choose_mode(model, examples) == "model"
    same(score(model, examples), pd.DataFrame([by_hand(model, e) for e in examples]))


class Functional(LlamaForCausalLM):
    """Multiplies by the output layer's weights without calling the layer."""

    def forward(self, input_ids, attention_mask=None, position_ids=None, use_cache=False):
        hidden = self.model(input_ids, attention_mask, position_ids, use_cache=use_cache).last_hidden_state
        return CausalLMOutput(logits=hidden @ self.lm_head.weight.T)


def test_a_model_that_does_not_call_its_output_layer():
    usual, examples = untrained("llama"), texts(6)
    functional = Functional(usual.config).eval()
    functional.load_state_dict(usual.state_dict())
    assert (choose_mode(usual, examples), choose_mode(functional, examples)) == ("rows", "all")
    same(score(functional, examples), score(usual, examples))


def test_bf16_is_scored_with_an_fp32_softmax(model):
    examples = texts(12)
    full, half = score(model, examples), score(model.to(torch.bfloat16), examples)
    model.to(torch.float32)
    assert all(abs(a - b).max() < 0.3 for a, b in zip(full["logprob"], half["logprob"], strict=True))
    with torch.no_grad():
        logits = model.to(torch.bfloat16)(input_ids=torch.tensor([examples[0].input_ids])).logits
    model.to(torch.float32)
    wanted = logits[0, examples[0].prompt_length - 1 : -1].float().log_softmax(-1)
    alone = wanted[range(len(wanted)), examples[0].response_ids]
    np.testing.assert_allclose(half["logprob"].iloc[0], alone, atol=0.1)


def test_ties_go_to_the_lower_token_as_in_greedy_decoding():
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0], [0.0, 2.0, 2.0, 1.0], [0.0, 2.0, 2.0, 1.0]])
    found = signals(logits, torch.tensor([1, 2, 3]))
    assert found["hit"].tolist() == [True, False, False]
    assert found["rank"].tolist() == [0, 1, 2]
    assert found["margin"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("width", [2, 63, 64, 65, 200, 1000])
def test_top_two_and_moments_for_any_vocabulary(width):
    torch.manual_seed(width)
    logits = torch.randn(50, width) * 4
    logits[:, 0] = -torch.inf  # a token that is never possible
    target = torch.randint(0, width, (50,))
    found, logp = signals(logits, target), logits.double().log_softmax(-1)
    top = logits.topk(2).values
    np.testing.assert_array_equal(found["margin"], top[:, 0] - top[:, 1])
    np.testing.assert_array_equal(found["hit"], logits.argmax(-1) == target)
    entropy_part = torch.special.xlogy(logp.exp(), logp.exp())
    np.testing.assert_allclose(found["mean_logprob"], entropy_part.sum(-1), atol=1e-5)
    finite = torch.where(logp.isfinite(), logp, 0)
    deviation = (logp.exp() * (finite - entropy_part.sum(-1, keepdim=True)) ** 2).sum(-1).sqrt()
    np.testing.assert_allclose(found["std_logprob"], deviation, atol=1e-5)


def test_std_of_a_nearly_flat_distribution_keeps_its_digits():
    torch.manual_seed(0)
    logits = torch.randn(4, 50_000) * 1e-3
    logp = logits.double().log_softmax(-1)
    mean = (logp.exp() * logp).sum(-1, keepdim=True)
    wanted = (logp.exp() * (logp - mean) ** 2).sum(-1).sqrt()
    np.testing.assert_allclose(signals(logits, torch.zeros(4, dtype=torch.long))["std_logprob"], wanted, rtol=1e-3)


def test_sampling_settings_give_the_truncated_renormalized_probability():
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]]).repeat(4, 1)
    settings = {
        "k2": {"top_k": 2},
        "t2": {"temperature": 2.0},
        "p": {"top_p": 0.8},
        "all": {"temperature": 0.5, "top_k": 3},
    }
    found = signals(logits, torch.arange(4), sampling_steps(settings))
    p = np.exp([3.0, 2, 1, 0])
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found["logprob_k2"], np.log([*p[:2] / p[:2].sum(), 0, 0]), rtol=1e-5)
        np.testing.assert_allclose(found["logprob_t2"], np.log(np.sqrt(p) / np.sqrt(p).sum()), rtol=1e-5)
        # 0.64 alone is below 0.8; with the second token it is 0.88
        np.testing.assert_allclose(found["logprob_p"], np.log([*p[:2] / p[:2].sum(), 0, 0]), rtol=1e-5)
        np.testing.assert_allclose(found["logprob_all"], np.log([*p[:3] ** 2 / (p[:3] ** 2).sum(), 0]), rtol=1e-5)


def test_sampling_columns_reach_the_table():
    model, examples = untrained("gpt2"), texts(4)
    table = score(model, examples, sampling={"k5": {"top_k": 5}, "all": {"top_k": WORDS}})
    assert table["logprob_k5"].map(len).tolist() == table["length"].tolist()
    np.testing.assert_allclose(flatten(table, "logprob_all")[0], flatten(table, "logprob")[0], atol=1e-5)
    assert (np.isfinite(flatten(table, "logprob_k5")[0]) == (flatten(table, "rank")[0] < 5)).all()
    with pytest.raises(InputError, match="temperature > 0"):
        score(model, examples, sampling={"cold": {"temperature": 0}})


def test_running_out_of_memory_halves_the_batch(monkeypatch):
    model, examples, real = untrained("gpt2"), texts(16), engine.labelled_logits
    wanted, sizes = score(model, examples), []

    def tight(model, inputs, where, mode):
        sizes.append(where.numel())
        if where.numel() > 200:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, inputs, where, mode)

    monkeypatch.setattr(engine, "labelled_logits", tight)
    with pytest.warns(UserWarning, match="out of memory"):
        same(score(model, examples), wanted)
    assert max(sizes) > 200 >= sizes[-1]
    with pytest.raises(InputError, match="does not fit in memory alone"), pytest.warns(UserWarning):
        monkeypatch.setattr(engine, "labelled_logits", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()))
        score(model, examples)


def test_the_model_is_left_in_the_mode_it_was_in():
    model = untrained("gpt2", resid_pdrop=0.5).train()
    one, other = score(model, texts(4)), score(model, texts(4))
    assert model.training and (np.concatenate(list(one["logprob"])) == np.concatenate(list(other["logprob"]))).all()


def test_records_without_a_response_and_no_records():
    model = untrained("llama")
    table = score(model, [Example("a", [5], 1), Example("b", [5, 6, 7], 1), Example("c", [5, 6], 2)])
    assert table["length"].tolist() == [0, 2, 0] and table["logprob"].map(len).tolist() == [0, 2, 0]
    assert len(score(model, [])) == 0


# ---------------------------------------------------------------- refusals


def test_nan_is_named_with_its_record():
    model, examples = untrained("gpt2"), texts(6)
    examples[3].input_ids[examples[3].prompt_length] = WORDS - 1
    for e in examples:
        e.input_ids[:] = [t if e is examples[3] else min(t, WORDS - 2) for t in e.input_ids]
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    model.transformer.wte.weight.data[WORDS - 1] = torch.nan
    with pytest.raises(InputError, match=f"NaN for record {examples[3].id}"):
        score(model, examples)


def test_a_record_longer_than_the_context_is_counted_and_refused():
    examples = texts(4) + [Example("long", list(range(1, 60)) + [1] * 6, 3)]
    with pytest.raises(InputError, match=r"1 of 5 records are longer .* 64 tokens"):
        score(untrained("gpt2"), examples)


@pytest.mark.parametrize("example", [Example("x", [1, 2], 0), Example("x", [], 1), Example("x", [1], 2)])
def test_an_example_needs_a_given_token(example):
    with pytest.raises(InputError, match="at least one given token"):
        score(untrained("gpt2"), [example])


def test_foreign_token_ids():
    with pytest.raises(InputError, match="does not fit the model"):
        score(untrained("gpt2"), [Example("x", [1, WORDS], 1)])


def test_models_that_are_not_causal():
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertConfig(vocab_size=WORDS, **small)
    with pytest.raises(InputError, match="lets a token see those after it"):
        score(BertLMHeadModel(bert).eval(), texts(2))
    with pytest.raises(InputError, match="no output layer"):
        score(BertModel(bert).eval(), texts(2))
    t5 = T5Config(vocab_size=WORDS, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0)
    with pytest.raises(InputError, match="sequence-to-sequence"):
        score(T5ForConditionalGeneration(t5).eval(), texts(2))


# ---------------------------------------------------------------- files


def test_a_file_equals_the_table_in_memory(tmp_path):
    model, examples = untrained("llama"), texts(25)
    path = score_to_parquet(model, examples, tmp_path / "s.parquet", part=10)
    same(pd.read_parquet(path), score(model, examples))
    assert [p.name for p in tmp_path.iterdir()] == ["s.parquet"]


def count_scored(monkeypatch, most: int = 1000) -> list[int]:
    """How many records are scored at a time; after `most` of them the run is killed."""
    rows, real = [], engine._table

    def counted(model, examples, *how):
        if sum(rows) >= most:
            raise KeyboardInterrupt
        rows.append(len(examples))
        return real(model, examples, *how)

    monkeypatch.setattr(engine, "_table", counted)
    return rows


def test_a_killed_run_resumes_without_scoring_a_finished_part_again(tmp_path, monkeypatch):
    model, examples, path = untrained("gpt2"), texts(22), tmp_path / "s.parquet"
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        count_scored(killed, 15)
        score_to_parquet(model, examples, path, part=5)
    assert not path.exists()
    wanted, rows = score(model, examples), count_scored(monkeypatch)
    score_to_parquet(model, examples, path, part=5)
    assert rows == [5, 2]
    same(pd.read_parquet(path), wanted)


@pytest.mark.parametrize("other", ["model", "setting", "records"])
def test_parts_of_something_else_are_not_mixed_in(other, tmp_path, monkeypatch):
    examples, path = texts(10), tmp_path / "s.parquet"
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        count_scored(killed, 5)
        score_to_parquet(untrained("gpt2"), examples, path, part=5)
    model = untrained("gpt2", seed=int(other == "model"))
    sampling = {"k": {"top_k": 2}} if other == "setting" else None
    examples = [*examples[1:], examples[0]] if other == "records" else examples
    wanted, rows = score(model, examples, sampling=sampling), count_scored(monkeypatch)
    for _ in range(2):  # a finished file is replaced
        score_to_parquet(model, examples, path, part=5, sampling=sampling)
        same(pd.read_parquet(path), wanted)
    assert rows == [5] * 4 and [p.name for p in tmp_path.iterdir()] == ["s.parquet"]


def test_no_records_give_an_empty_file_with_all_columns(tmp_path):
    model = untrained("gpt2")
    table = pd.read_parquet(score_to_parquet(model, [], tmp_path / "s.parquet"))
    assert len(table) == 0 and list(table.columns) == list(score(model, texts(1)).columns)


def test_a_full_disk_leaves_nothing_that_looks_whole(tmp_path, monkeypatch):
    path, real = tmp_path / "s.parquet", pq.write_table

    def full(table, where, **options):
        if where == tmp_path / "s.parquet.part":
            raise OSError(28, "No space left on device")
        real(table, where, **options)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        score_to_parquet(untrained("gpt2"), texts(10), path, part=5)
    assert not path.exists() and len(list((tmp_path / "s.parquet.parts").rglob("*.parquet"))) == 2


STREAM = """
import resource, sys
from memorizers import untrained
from palimpsest.data.examples import Example
from palimpsest.measure.scoring import score_to_parquet
model = untrained("gpt2", n_layer=1, n_embd=8, n_head=1)
score_to_parquet(model, [Example(str(i), [1, 2 + i % 50, 3, 4], 1) for i in range(int(sys.argv[1]))], sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_is_flat_in_the_number_of_records(tmp_path):
    def peak(records: int) -> int:
        command = [sys.executable, "-c", STREAM, str(records), str(tmp_path / f"{records}.parquet")]
        return int(
            subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout
        )

    few, many = peak(4_000), peak(24_000)
    assert many < 1.2 * few
