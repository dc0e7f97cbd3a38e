"""Faster layers compute the same, forwards and backwards, and stand aside where they would not."""

import numpy as np
import pytest
import torch
from memorizers import memorizer, texts, words
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from palimpsest.measure import speed
from palimpsest.measure.generation import generate
from palimpsest.measure.scoring import score


@pytest.fixture
def faster(monkeypatch):
    """As on the processors that gain by it; the operation is there on every x86 one."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of PyTorch has no oneDNN")
    monkeypatch.setattr(speed, "has_faster_products", lambda: True)


@pytest.fixture
def asked(monkeypatch):
    """Shapes of what goes to oneDNN."""
    seen, own = [], speed._onednn
    monkeypatch.setattr(speed, "_onednn", lambda x, *rest: seen.append(tuple(x.shape)) or own(x, *rest))
    return seen


def gradients(function, *tensors):
    own = [t.clone().requires_grad_() for t in tensors]
    out = function(*own)
    return [out, *torch.autograd.grad((out * torch.linspace(-1, 1, out.shape[-1])).sum(), own)]


@pytest.mark.parametrize("shape", [(64, 192), (3, 40, 192)], ids=["rows", "batch"])
def test_a_product_and_its_gradients_are_those_of_a_linear_layer(shape, faster, asked):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(*shape), torch.randn(256, 192), torch.randn(256)
    for one, other in zip(
        gradients(speed.product, x, weight, bias), gradients(functional.linear, x, weight, bias), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
    assert len(asked) == 3  # forwards, and both gradients


@pytest.mark.parametrize("layer", [nn.Linear(192, 256), nn.Linear(192, 256, bias=False), Conv1D(256, 192)], ids=str)
def test_a_layer_keeps_its_weights_and_its_answer(layer, faster, asked):
    x = torch.randn(2, 32, 192)
    before, names = layer(x), list(layer.state_dict())
    model = speed.speed_up(nn.Sequential(layer))
    torch.testing.assert_close(model(x), before, rtol=1e-4, atol=1e-4)
    assert len(asked) == 1 and [name for name, _ in layer.named_parameters()] == names
    assert isinstance(layer, nn.Linear | Conv1D) and type(speed.as_built(model)[0]) in (nn.Linear, Conv1D)
    model(x)
    assert len(asked) == 1


def test_small_products_other_types_and_autocast_are_left_to_pytorch(faster, asked):
    x, weight = torch.randn(64, 192), torch.randn(256, 192)
    for one, other in (
        (x[:3], weight),
        (x.bfloat16(), weight.bfloat16()),
        (x.double(), weight.double()),
        (x[:0], weight),
    ):
        assert torch.equal(speed.product(one, other), functional.linear(one, other))
    with torch.autocast("cpu", torch.bfloat16):
        assert speed.product(x, weight).dtype == torch.bfloat16
    assert asked == []


def test_a_processor_that_gains_nothing_keeps_its_layers(monkeypatch):
    monkeypatch.setattr(speed, "has_faster_products", lambda: False)
    assert type(speed.speed_up(nn.Sequential(nn.Linear(4, 4)))[0]) is nn.Linear


@pytest.mark.parametrize("faster_here", [True, False])
def test_a_sum_of_products_is_added_in_place(faster_here, monkeypatch):
    monkeypatch.setattr(speed, "has_faster_products", lambda: faster_here)
    total, x, weight = torch.ones(64, 256), torch.randn(64, 192), torch.randn(256, 192)
    speed.add_product(total, x, weight)
    torch.testing.assert_close(total, 1 + x @ weight.t(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_model_scores_and_writes_as_before(architecture, faster, monkeypatch):
    monkeypatch.setattr(speed, "SMALL", 0)  # so that a tiny model's layers are used, too
    examples = texts(12)
    model, prompts = memorizer(architecture, examples), [e.input_ids[: e.prompt_length] for e in examples]
    before, text = score(model, examples), generate(model, words(), prompts, 20)
    after = score(speed.speed_up(model), examples)
    assert generate(model, words(), prompts, 20) == text
    np.testing.assert_allclose(np.concatenate(after["logprob"]), np.concatenate(before["logprob"]), atol=1e-4)
