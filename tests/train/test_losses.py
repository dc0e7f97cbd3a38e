"""Losses from hidden states against plain NumPy and plain PyTorch, values and gradients."""

import math
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from palimpsest.train import losses
from palimpsest.train.losses import Divergence, Teacher, summed_loss

OBJECTIVES = ["cross_entropy", "forward_kl", "reverse_kl", "jensen_shannon"]
TOKENS, WORDS, WIDTH, TEACHER_WIDTH = 37, 101, 16, 24


def inputs(dtype=torch.float32, tokens=TOKENS, seed=0):
    """Student leaves (states, weight, bias), labels, and a teacher that is sure of itself in places."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return (scale * torch.randn(*shape, generator=draw)).to(dtype)

    student = [normal(tokens, WIDTH), normal(WORDS, WIDTH), normal(WORDS)]
    labels = torch.randint(0, WORDS, (tokens,), generator=draw)
    teacher = Teacher(normal(tokens, TEACHER_WIDTH), normal(WORDS, TEACHER_WIDTH), normal(WORDS))
    return [t.requires_grad_() for t in student], labels, teacher


def by_numpy(divergence: Divergence, student, labels, teacher) -> float:
    """The definitions, in double precision, over the whole matrix of logits."""
    states, weight, bias = [t.detach().double().numpy() for t in student]
    z = states @ weight.T + bias
    zt = teacher.states.double().numpy() @ teacher.weight.double().numpy().T + teacher.bias.double().numpy()

    def softmax(x):
        e = np.exp(x - x.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    cross_entropy = -np.log(softmax(z)[np.arange(len(labels)), labels.numpy()]).sum()
    if divergence.objective == "cross_entropy":
        return cross_entropy
    p, q = softmax(z / divergence.temperature), softmax(zt / divergence.temperature)
    m = (p + q) / 2
    value = {
        "forward_kl": (q * np.log(q / p)).sum(),
        "reverse_kl": (p * np.log(p / q)).sum(),
        "jensen_shannon": ((q * np.log(q / m)).sum() + (p * np.log(p / m)).sum()) / 2,
    }[divergence.objective]
    w = divergence.cross_entropy_weight
    return w * cross_entropy + (1 - w) * value


def by_torch(divergence: Divergence, student, labels, teacher) -> torch.Tensor:
    """The same through autograd."""
    z, zt = functional.linear(*student), functional.linear(teacher.states, teacher.weight, teacher.bias)
    cross_entropy = functional.cross_entropy(z, labels, reduction="sum")
    if divergence.objective == "cross_entropy":
        return cross_entropy
    t = divergence.temperature
    log_p, log_q = torch.log_softmax(z / t, 1), torch.log_softmax(zt / t, 1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)

    def kl(a, b):
        return (a.exp() * (a - b)).sum()

    value = {
        "forward_kl": lambda: kl(log_q, log_p),
        "reverse_kl": lambda: kl(log_p, log_q),
        "jensen_shannon": lambda: (kl(log_q, log_m) + kl(log_p, log_m)) / 2,
    }[divergence.objective]()
    w = divergence.cross_entropy_weight
    return w * cross_entropy + (1 - w) * value


SETTINGS = [
    Divergence(objective, weight, temperature)
    for objective, weight, temperature in product(OBJECTIVES, (0.0, 0.5, 1.0), (1.0, 2.0))
]


@pytest.mark.parametrize("divergence", SETTINGS, ids=str)
@pytest.mark.parametrize("chunk, rows", [(1, 1), (8, 3), (TOKENS, 1), (TOKENS, TOKENS), (1000, 5)])
def test_loss_and_gradients_are_the_plain_ones(divergence, chunk, rows, monkeypatch):
    monkeypatch.setattr(losses, "BLOCK", {"cpu": rows * WORDS})
    student, labels, teacher = inputs()
    loss = summed_loss(divergence, *student, labels, teacher, chunk)
    assert loss.item() == pytest.approx(by_numpy(divergence, student, labels, teacher), rel=1e-5)
    found = torch.autograd.grad(0.3 * loss, student)
    wanted = torch.autograd.grad(0.3 * by_torch(divergence, student, labels, teacher), student)
    for f, w in zip(found, wanted, strict=True):
        assert (f - w).abs().max() < 1e-5 * w.abs().max()


@pytest.mark.parametrize("objective, beta", [("forward_kl", 0), ("reverse_kl", 1), ("jensen_shannon", 0.5)])
def test_directions_are_those_of_trl(objective, beta):
    student, labels, teacher = inputs()
    z, zt = functional.linear(*student), functional.linear(teacher.states, teacher.weight, teacher.bias)
    with warnings.catch_warnings():  # it warns that it is experimental
        warnings.simplefilter("ignore")
        from trl.experimental.gkd import GKDTrainer
    wanted = GKDTrainer.generalized_jsd_loss(z[None], zt[None], labels[None], beta=beta, reduction="sum")
    found = summed_loss(Divergence(objective), *student, labels, teacher)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_tied_weight_gets_both_of_its_gradients():
    student, labels, teacher = inputs()
    weight = student[1]
    ids = torch.arange(TOKENS) % WORDS
    found = torch.autograd.grad(
        summed_loss(Divergence("reverse_kl"), weight[ids], weight, None, labels, teacher), weight
    )
    plain = by_torch(Divergence("reverse_kl"), [weight[ids], weight, None], labels, teacher)
    wanted = torch.autograd.grad(plain, weight)
    assert (found[0] - wanted[0]).abs().max() < 1e-5 * wanted[0].abs().max()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_frozen_output_layer_gets_no_gradient_and_costs_none(objective):
    student, labels, teacher = inputs()
    frozen = [student[0], student[1].detach(), student[2].detach()]
    with Largest() as seen:
        summed_loss(Divergence(objective), *frozen, labels, teacher, 4).backward()
    wanted = torch.autograd.grad(by_torch(Divergence(objective), student, labels, teacher), student[0])[0]
    assert (student[0].grad - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert seen.fp32 < WORDS * WIDTH


class Largest(TorchDispatchMode):
    """Size of the largest fp32 tensor made, reshaping and transposing of existing ones aside."""

    fp32 = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(t, torch.Tensor) and t.dtype == torch.float32 and not func.is_view:
                self.fp32 = max(self.fp32, t.numel())
        return out


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_logits_of_all_tokens_never_exist_at_once(objective):
    student, labels, teacher = inputs(tokens=400)
    with Largest() as seen:
        summed_loss(Divergence(objective, 0.5), *student, labels, teacher, 64).backward()
    assert seen.fp32 <= 64 * WORDS < 400 * WORDS


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_low_precision_models_have_their_softmax_in_fp32(objective):
    student, labels, teacher = inputs(torch.bfloat16)
    divergence = Divergence(objective, 0.25)
    loss = summed_loss(divergence, *student, labels, teacher, 8)
    assert loss.dtype == torch.float32
    z, zt = functional.linear(*student), functional.linear(teacher.states, teacher.weight, teacher.bias)
    same = [z.float(), torch.eye(WORDS), torch.zeros(WORDS)]  # the rounded logits, all else in full precision
    exact = Teacher(zt.detach().float(), torch.eye(WORDS), torch.zeros(WORDS))
    wanted = by_torch(divergence, same, labels, exact)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    loss.backward()
    grads = torch.autograd.grad(wanted, student)
    for leaf, grad in zip(student, grads, strict=True):
        assert leaf.grad.dtype == torch.bfloat16
        assert (leaf.grad - grad).abs().max() < 2e-2 * grad.abs().max()


def test_autocast_multiplies_in_bf16_and_returns_fp32_gradients():
    student, labels, teacher = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = summed_loss(Divergence("forward_kl"), *student, labels, teacher, 8)
    plain = summed_loss(Divergence("forward_kl"), *student, labels, teacher, 8)
    assert loss.item() != plain.item()
    assert loss.item() == pytest.approx(plain.item(), rel=2e-2)
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(loss, student))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_tokens_give_zero_and_zero_gradients(objective):
    student, labels, teacher = inputs(tokens=0)
    loss = summed_loss(Divergence(objective), *student, labels, teacher)
    loss.backward()
    assert loss.item() == 0
    assert all(leaf.grad is not None and not leaf.grad.any() for leaf in student)


@pytest.mark.parametrize("objective", OBJECTIVES[1:])
def test_certain_models_give_finite_numbers(objective):
    student, labels, teacher = inputs()
    loud = [(300 * t.detach()).requires_grad_() for t in student]
    loss = summed_loss(
        Divergence(objective), *loud, labels, Teacher(300 * teacher.states, teacher.weight, teacher.bias)
    )
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, loud))
    assert math.isfinite(loss.item())
    if objective == "jensen_shannon":
        assert loss.item() <= TOKENS * math.log(2) * (1 + 1e-5)


def test_evaluation_makes_no_gradients():
    student, labels, teacher = inputs()
    with torch.no_grad():
        loss = summed_loss(Divergence("forward_kl"), *student, labels, teacher)
    assert not loss.requires_grad


def test_a_second_backward_is_refused():
    student, labels, teacher = inputs()
    loss = summed_loss(Divergence("forward_kl"), *student, labels, teacher)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="already differentiated"):
        loss.backward()
