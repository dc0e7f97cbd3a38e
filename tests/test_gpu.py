"""On a GPU: what the CPU gives, for scoring, decoding and one step of each method; and bf16 near it."""

import numpy as np
import pytest
import torch
from memorizers import memorizer, texts, untrained, words

from palimpsest.measure.generation import generate
from palimpsest.measure.scoring import score
from palimpsest.study import METHODS
from palimpsest.study.sections import Training
from palimpsest.train.fine_tuning import fine_tune

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: these compare a GPU with the CPU"),
]
KINDS = ["gpt2", "llama"]


@pytest.fixture(scope="module", params=KINDS)
def known(request):
    """A model that knows most of some records, and the records."""
    examples = texts(12)
    return memorizer(request.param, examples), examples


def test_scores_are_those_of_the_cpu(known):
    model, examples = known
    wanted, found = score(model.cpu(), examples), score(model.cuda(), examples)
    for name in ("logprob", "margin", "mean_logprob", "std_logprob"):
        np.testing.assert_allclose(np.concatenate(found[name]), np.concatenate(wanted[name]), atol=1e-3)
    sure = np.concatenate(wanted["margin"]) > 1e-2  # a near-tie may be broken otherwise
    assert (np.concatenate(found["hit"]) == np.concatenate(wanted["hit"]))[sure].all()


def test_scores_in_bf16_are_near(known):
    model, examples = known
    wanted = np.concatenate(score(model.cuda().float(), examples)["logprob"])
    found = np.concatenate(score(model.cuda().bfloat16(), examples)["logprob"])
    model.float()
    assert np.abs(found - wanted).mean() < 0.1


def test_greedy_text_is_that_of_the_cpu(known):
    model, examples = known
    prompts = [e.input_ids[: e.prompt_length] for e in examples]
    wanted = generate(model.cpu(), words(), prompts, 20)
    assert generate(model.cuda(), words(), prompts, 20) == wanted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", [m for m in METHODS if not METHODS[m].private and not METHODS[m].samples])
def test_a_step_of_each_method_is_that_of_the_cpu(method, precision, tmp_path, monkeypatch):
    settings = Training(epochs=1, batch_size=8, learning_rate=1e-2, max_steps=1, precision=precision, dropout=0.0)
    losses = []
    for device in ("cpu", "cuda"):
        monkeypatch.setattr("palimpsest.train.fine_tuning.default_device", lambda device=device: device)
        teacher = untrained("llama", seed=7, hidden_size=64).to(device)
        student = untrained("llama").to(device)
        facts = fine_tune(student, words(), texts(8), settings, tmp_path / device, method=method, teacher=teacher)
        losses.append(facts["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3 if precision == "fp32" else 5e-2)


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].samples or METHODS[m].private])
def test_sampling_and_private_methods_train(method, tmp_path):
    settings = Training(epochs=1, batch_size=4, learning_rate=1e-3, precision="fp32", dropout=0.0, max_new_tokens=8)
    teacher = untrained("gpt2", seed=7).cuda()
    student = untrained("gpt2").cuda()
    facts = fine_tune(student, words(), texts(8), settings, tmp_path, method=method, teacher=teacher)
    assert facts["steps"] == 2 and np.isfinite(facts["train_loss"])


def test_what_was_done_names_the_gpu_and_its_memory(tmp_path):
    settings = Training(epochs=1, batch_size=4, learning_rate=1e-3, precision="bf16", dropout=0.0)
    facts = fine_tune(untrained("gpt2").cuda(), words(), texts(8), settings, tmp_path)
    assert (
        facts["precision"] == "bf16" and facts["peak_memory_bytes"] > 0 and facts["devices"]["type"].startswith("cuda")
    )
