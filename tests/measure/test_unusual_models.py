"""Models whose numbers are easily wrong in batches: each record scored among others as by a plain forward pass alone, and each
text decoded among others as by the library's `generate` alone."""

import numpy as np
import pytest
import torch
from memorizers import END, WORDS, texts
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from palimpsest.measure.extraction import verbatim_at_every_prefix
from palimpsest.measure.forward import check_causal
from palimpsest.measure.generation import generate
from palimpsest.measure.models import switch_length
from palimpsest.measure.score_file import flatten
from palimpsest.measure.scoring import score

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "vocab_size": WORDS, "max_position_embeddings": 64}
SMALL |= {"bos_token_id": END, "eos_token_id": END, "pad_token_id": END}
SWITCH = 20


def longrope():
    factors = {"short_factor": [1.0] * 4, "long_factor": [3.0, 1.0, 4.0, 2.0]}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": SWITCH, **factors}
    return Phi3ForCausalLM(Phi3Config(**SMALL, rope_parameters=rope, original_max_position_embeddings=SWITCH))


def capped():
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.5))


def routed():
    return MixtralForCausalLM(MixtralConfig(**SMALL, num_local_experts=4, output_router_logits=True))


def state_space():
    return MambaForCausalLM(MambaConfig(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, state_size=4))


def with_pictures():
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 8, "patch_size": 4}
    own = {"image_token_index": WORDS - 1, "boi_token_index": WORDS - 2, "eoi_token_index": WORDS - 3}
    config = Gemma3Config(text_config={**SMALL, "head_dim": 8}, vision_config=vision, mm_tokens_per_image=1, **own)
    return Gemma3ForConditionalGeneration(config)


def scaled_with_length():
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
    return LlamaForCausalLM(LlamaConfig(**SMALL, rope_parameters=rope))


@pytest.fixture(params=[longrope, capped, routed, state_space, with_pictures, scaled_with_length])
def model(request):
    torch.manual_seed(1)
    made = request.param().eval()
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.ndim > 1 and "conv" not in name:
                weight *= 4  # a fresh model's layers hardly change their input, and its choices would hang on nothing
    check_causal(made)
    return made


@torch.no_grad()
def alone(model, ids):
    """Log-probabilities after `ids`, of this one text."""
    return model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)


def one_by_one(model, prompt, count):
    ids = torch.tensor([prompt])
    options = {"do_sample": False, "max_new_tokens": count, "eos_token_id": None}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :].tolist()


def test_scores_among_others_are_those_of_a_record_alone(model):
    examples = texts(8, longest=50)
    assert min(len(e.input_ids) for e in examples) < SWITCH < max(len(e.input_ids) for e in examples)
    found, starts = flatten(score(model, examples, token_budget=400), "logprob")
    wanted = [
        alone(model, e.input_ids[:at])[e.input_ids[at]].item()
        for e in examples
        for at in range(e.prompt_length, len(e.input_ids))
    ]
    assert np.allclose(found, wanted, atol=2e-4) and starts[-1] == len(wanted)


def test_verdicts_and_texts_among_others_are_those_of_generate_alone(model):
    """Responses are the model's own greedy text, one token changed in every other: recited up to there, and not beyond."""
    examples = texts(6, longest=30)
    for i, e in enumerate(examples):
        written = one_by_one(model, e.input_ids[: e.prompt_length], len(e.response_ids))
        if i % 2:
            written[len(written) // 2] = (written[len(written) // 2] + 1) % WORDS
        e.input_ids[e.prompt_length :] = written
    table = score(model, examples, token_budget=400)
    recited, starts = verbatim_at_every_prefix(table, None), np.cumsum([0, *table["length"]])
    assert [bool(recited[s]) for s in starts[:-1]] == [i % 2 == 0 for i in range(6)]
    prompts, limits = [e.input_ids[: e.prompt_length] for e in examples], [len(e.response_ids) for e in examples]
    new = generate(model, None, prompts, limits, ends=(), token_budget=400)
    assert new == [one_by_one(model, p, n) for p, n in zip(prompts, limits, strict=True)]


def test_where_positions_are_read_otherwise():
    assert switch_length(longrope()) == SWITCH and switch_length(scaled_with_length()) is None
