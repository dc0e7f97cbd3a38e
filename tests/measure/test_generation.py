"""Batched decoding must give what one record at a time gives, and end where the response ends."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)

from palimpsest.errors import InputError
from palimpsest.measure.generation import generate, until_end

VOCABULARY, CONTEXT, END = 48, 64, 44  # 44: a token both tiny models come to say, at different steps
TOKENIZER = SimpleNamespace(eos_token_id=END, pad_token_id=END)  # GPT-2's usual setting: padding is end-of-text


def tiny(kind: str):
    torch.manual_seed(3)
    # A wide initialisation keeps the top two logits well apart, so that no verdict hangs on a rounding error.
    shared = {"vocab_size": VOCABULARY, "initializer_range": 0.4, "bos_token_id": None, "eos_token_id": None}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=CONTEXT, **shared)).eval()
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=64,
            max_position_embeddings=CONTEXT,
            **shared,
        )
    ).eval()


def one_by_one(model, prefix: list[int], limit: int) -> list[int]:
    """The definition: no batch, no padding, no cache."""
    ids = list(prefix)
    while len(ids) - len(prefix) < limit and (len(ids) == len(prefix) or ids[-1] != END):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prefix) :]


def prefixes(count: int, longest: int) -> list[list[int]]:
    torch.manual_seed(7)
    return [torch.randint(0, VOCABULARY, (int(n),)).tolist() for n in torch.randint(1, longest, (count,))]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("token_budget", [1, 200, 16_384])
def test_batches_equal_one_by_one(kind, token_budget):
    model, starts = tiny(kind), prefixes(40, 40)
    limits = [1 + i % 24 for i in range(40)]
    got = generate(model, TOKENIZER, starts, limits, token_budget=token_budget)
    assert got == [one_by_one(model, p, n) for p, n in zip(starts, limits, strict=True)]
    assert any(tokens[-1] == END for tokens in got) and any(tokens[-1] != END for tokens in got)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_decode_is_greedy_by_default_and_equals_plain_generate(kind):
    model, starts = tiny(kind), prefixes(10, 30)
    for beams in (1, 3):
        batched = generate(model, TOKENIZER, starts, max_new_tokens=12, num_beams=beams)
        for start, tokens in zip(starts, batched, strict=True):
            plain = model.generate(
                torch.tensor([start]),
                attention_mask=torch.ones(1, len(start), dtype=torch.long),
                max_new_tokens=12,
                num_beams=beams,
                do_sample=False,
                eos_token_id=END,
                pad_token_id=0,
            )
            assert tokens == until_end(plain[0, len(start) :].tolist(), {END})


def test_a_model_without_a_cache_is_read_again_at_every_step():
    torch.manual_seed(3)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": CONTEXT}
    model = OpenAIGPTLMHeadModel(OpenAIGPTConfig(vocab_size=VOCABULARY, initializer_range=0.4, **shape)).eval()
    starts, limits = prefixes(12, 20), [1 + i for i in range(12)]
    assert generate(model, TOKENIZER, starts, limits) == [
        one_by_one(model, p, n) for p, n in zip(starts, limits, strict=True)
    ]


def test_a_full_context_fits_beside_a_short_prefix():
    """With learned positions, sharing the longest limit would run the long prefix out of the position table."""
    model = tiny("gpt2")
    starts = [prefixes(1, 2)[0], list(range(6, 6 + 40)) + list(range(6, 20))]
    limits = [CONTEXT - 1, CONTEXT - len(starts[1])]
    assert generate(model, TOKENIZER, starts, limits) == [
        one_by_one(model, *pair) for pair in zip(starts, limits, strict=True)
    ]


def test_end_of_text_is_kept_and_nothing_follows_it():
    assert until_end([1, END, END, 2], {END}) == [1, END]
    assert until_end([END], {END}) == [END]
    assert until_end([1, 2], {END}) == [1, 2]
    assert until_end([1, 2], ()) == [1, 2]
    model = tiny("gpt2")
    with torch.no_grad():  # a model that says end-of-text at once: the row is as long as it can be shortest
        model.lm_head.weight.zero_()
        model.lm_head.weight[END] = 100.0
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
    assert generate(model, TOKENIZER, prefixes(3, 9), 7) == [[END]] * 3


def test_a_checkpoint_cannot_switch_on_its_own_settings():
    model, starts = tiny("llama"), prefixes(10, 20)
    plain = generate(model, TOKENIZER, starts, 20)
    beams = generate(model, TOKENIZER, starts, max_new_tokens=20, num_beams=2)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.suppress_tokens = sorted({t for tokens in plain for t in tokens} - {END})
    model.generation_config.do_sample = True
    model.train()
    assert generate(model, TOKENIZER, starts, 20) == plain
    assert generate(model, TOKENIZER, starts, max_new_tokens=20, num_beams=2) == beams
    assert model.generation_config.repetition_penalty == 5.0 and model.training


def test_sampling_repeats_with_its_seed_and_leaves_the_random_state_alone():
    model, starts = tiny("gpt2"), prefixes(8, 20)
    before = torch.random.get_rng_state()
    first, again, other = (
        generate(model, TOKENIZER, starts, max_new_tokens=10, do_sample=True, seed=seed, temperature=2.0)
        for seed in (1, 1, 2)
    )
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sampling_draws_from_the_whole_vocabulary():
    """A uniform model sampled 2,000 times shows about all of its tokens; a top-k of 20 would show 20."""
    model = tiny("gpt2")
    with torch.no_grad():
        model.lm_head.weight.zero_()
    drawn = generate(model, TOKENIZER, [[1]] * 2000, max_new_tokens=1, do_sample=True)
    assert {t for tokens in drawn for t in tokens} == set(range(VOCABULARY))


@pytest.mark.parametrize(
    ("starts", "limit", "words"),
    [
        ([[]], 4, "0 tokens"),
        ([[1]], 0, "max_new_tokens 0"),
        ([[1] * 60], 10, "context of 64"),
        ([[1]], [1, 2], "2 values"),
    ],
)
def test_bad_input_is_named(starts, limit, words):
    with pytest.raises(InputError, match=words):
        generate(tiny("gpt2"), TOKENIZER, starts, limit)


def test_undefined_settings_are_refused():
    for settings in ({"num_beams": 2, "do_sample": True}, {"num_beams": 0}, {"temperature": 0.0, "do_sample": True}):
        with pytest.raises(InputError, match="not defined"):
            generate(tiny("gpt2"), TOKENIZER, [[1]], max_new_tokens=2, **settings)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}])
def test_running_out_of_memory_halves_the_batch(settings):
    """The model itself asks for more than any machine has when it is shown more than three rows (of beams: six) at once."""
    model, starts, sizes = tiny("gpt2"), prefixes(12, 20), []
    wanted = generate(model, TOKENIZER, starts, 9, **settings)

    def tight(module, args, inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 3 * settings.get("num_beams", 1):
            torch.empty(1 << 50)

    hook = model.register_forward_pre_hook(tight, with_kwargs=True)
    with pytest.warns(UserWarning, match="out of memory: going on with at most"):
        assert generate(model, TOKENIZER, starts, 9, **settings) == wanted
    assert max(sizes) > 3 * settings.get("num_beams", 1) >= sizes[-1]
    hook.remove()
    model.register_forward_pre_hook(lambda *_: torch.empty(1 << 50))
    with (
        pytest.raises(InputError, match="prompt [0-9]+ .* does not fit in memory alone"),
        pytest.warns(UserWarning, match="out of memory"),
    ):
        generate(model, TOKENIZER, starts, 9, **settings)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}])
def test_a_mixture_of_experts_that_is_being_trained_decodes_as_ever(settings):
    """A trainer switches its router's outputs on, whose loss fits no single token."""
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(3)
    config = MixtralConfig(vocab_size=VOCABULARY, intermediate_size=64, num_local_experts=2, **shape)
    model, starts = MixtralForCausalLM(config).eval(), prefixes(6, 12)
    wanted = generate(model, TOKENIZER, starts, 8, **settings)
    model.config.output_router_logits = True
    assert generate(model.train(), TOKENIZER, starts, 8, **settings) == wanted
    assert model.config.output_router_logits and model.training


def test_nothing_to_decode():
    assert generate(tiny("gpt2"), TOKENIZER, [], 5) == []
