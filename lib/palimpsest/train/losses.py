"""Losses between a student and a teacher, from hidden states, without the full logits ever in memory.

With the student's distribution p and the teacher's q over the vocabulary, at one labelled position::

    cross_entropy     - log p(label)
    forward_kl        KL(q || p) = sum q (log q - log p)
    reverse_kl        KL(p || q) = sum p (log p - log q)
    jensen_shannon    (KL(q || m) + KL(p || m)) / 2 with m = (p + q) / 2     (arXiv 2306.13649, equation 1, beta = 0.5)

Each has a closed-form gradient with respect to the student's logits z, for example p - q for the forward direction and
p (log p - log q - KL) for the reverse one. So loss and gradients are made together, chunk by chunk of positions: the
logits of a chunk are computed, used and dropped, and nothing is computed twice. Matrix products take a chunk, everything between
them a few rows at a time, which stay in a processor's cache: in bf16 at 49,152 tokens, that halves the time of the loss.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vecdot

from palimpsest.measure.speed import add_product, product
from palimpsest.study.methods import Objective

# Bytes of a chunk of logits, as many as matrix products need to run at full rate; and numbers of a block of its rows, which on a GPU
# is the chunk: each operation is a launch there.
CHUNK = {"cpu": 2**26, "cuda": 2**28}
BLOCK = {"cpu": 2**17}


@dataclass(frozen=True)
class Divergence:
    """What is minimized at each labelled token.

    Attributes:
        objective: one of the four names above.
        cross_entropy_weight: w in w x cross-entropy + (1 - w) x objective; the cross-entropy is always at temperature 1.
        temperature: both models' logits are divided by it inside the divergence, which is not multiplied by its square.
    """

    objective: Objective = "cross_entropy"
    cross_entropy_weight: float = 0.0
    temperature: float = 1.0


@dataclass
class Teacher:
    """The teacher's side of a batch: hidden states `[tokens, teacher width]` and its output layer, of as many rows as the
    student's."""

    states: Tensor
    weight: Tensor
    bias: Tensor | None = None


def summed_loss(
    divergence: Divergence,
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    teacher: Teacher | None = None,
    chunk_tokens: int | None = None,
) -> Tensor:
    """The loss summed over labelled tokens, differentiable (once) in `states`, `weight` and `bias`.

    Args:
        divergence: what to minimize.
        states: the student's final hidden states, `[tokens, width]`; tokens may be 0.
        weight, bias: the student's output layer, `[vocabulary, width]` and `[vocabulary]`: without rows that no token has.
        labels: `[tokens]`.
        teacher: needed unless the objective is cross-entropy; its vocabulary must be the student's.
        chunk_tokens: positions handled at once; by default what fits `CHUNK`.

    Softmax arithmetic is in fp32 whatever the models' dtype; the matrix products are in the models' dtype (or autocast's).
    """
    device = states.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype
    chunk_tokens = chunk_tokens or max(1, CHUNK.get(device, CHUNK["cuda"]) // dtype.itemsize // weight.shape[0])
    rows = max(1, BLOCK[device] // weight.shape[0]) if device in BLOCK else chunk_tokens
    with torch.autocast(device, enabled=False):
        return _SummedLoss.apply(divergence, states, weight, bias, labels, teacher, dtype, chunk_tokens, rows)


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, divergence, states, weight, bias, labels, teacher, dtype, chunk_tokens, rows):
        h, w = states.to(dtype), weight.to(dtype)
        b = None if bias is None else bias.to(dtype)
        need_states, need_weight, need_bias = ctx.needs_input_grad[1:4]
        total = torch.zeros((), dtype=torch.float32, device=h.device)
        grad_states = torch.empty_like(h) if need_states else None
        grad_weight = torch.zeros(w.shape, dtype=torch.float32, device=h.device) if need_weight else None
        grad_bias = torch.zeros(w.shape[0], dtype=torch.float32, device=h.device) if need_bias else None
        for start in range(0, len(h), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            q = None
            if teacher is not None:
                q = product(teacher.states[part].to(teacher.weight.dtype), teacher.weight, teacher.bias)
            z = product(h[part], w, b)
            for first in range(0, len(z), rows):
                block = slice(first, first + rows)
                loss, grad = _block(divergence, z[block], None if q is None else q[block], labels[part][block])
                total += loss
                if need_bias:
                    grad_bias += grad.sum(0)
                z[block] = grad  # the logits of these rows are used up
            grad = z
            if need_states:
                grad_states[part] = product(grad, w.t())
            if need_weight:
                add_product(grad_weight, grad.t(), h[part].t())
        ctx.grads = [grad_states, grad_weight, grad_bias]
        ctx.dtypes = [states.dtype, weight.dtype, None if bias is None else bias.dtype]
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        if ctx.grads is None:
            raise RuntimeError("This loss was already differentiated; its gradients were handed out and freed.")
        grads = [None if g is None else g.mul_(upstream).to(t) for g, t in zip(ctx.grads, ctx.dtypes, strict=True)]
        ctx.grads = None  # frees the largest buffer at once
        return None, *grads, None, None, None, None, None


def _block(divergence: Divergence, z: Tensor, teacher_z: Tensor | None, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss of a few rows and its gradient with respect to the student's logits `z`, both fp32."""
    w = 1.0 if divergence.objective == "cross_entropy" else divergence.cross_entropy_weight
    if w == 1:
        return _cross_entropy(_log_softmax(z), labels)
    t = divergence.temperature
    log_p, log_q = _log_softmax(z, t), _log_softmax(teacher_z, t)
    loss, grad = 0.0, None
    if w > 0:
        loss, grad = _cross_entropy(log_p.clone() if t == 1 else _log_softmax(z), labels)
        loss, grad = w * loss, grad.mul_(w)
    value, slope = _DIVERGENCES[divergence.objective](log_p, log_q)
    if 1 - w != t:
        slope.mul_((1 - w) / t)
    return loss + (1 - w) * value, slope if grad is None else grad.add_(slope)


def _log_softmax(z: Tensor, temperature: float = 1.0) -> Tensor:
    z = z.float() if temperature == 1 else z.float() / temperature
    return torch.log_softmax(z, -1)


# The functions below overwrite their arguments: the fewer buffers, the more of them stay in the cache.


def _cross_entropy(log_p: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    labels = labels[:, None]
    loss = -log_p.gather(1, labels).sum()
    grad = log_p.exp_()
    return loss, grad.scatter_add_(1, labels, grad.new_full((1, 1), -1.0).expand_as(labels))


def _forward_kl(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    q = log_q.exp()
    loss = vecdot(q, log_q.sub_(log_p)).sum()
    return loss, log_p.exp_().sub_(q)


def _reverse_kl(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    ratio = log_q.neg_().add_(log_p)
    p = log_p.exp_()
    kl = vecdot(p, ratio)
    return kl.sum(), ratio.sub_(kl[:, None]).mul_(p)


def _jensen_shannon(log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    p, q = log_p.exp(), log_q.exp()
    # Where both underflow the logarithm is wrong, and multiplied by zero.
    log_m = torch.add(p, q).mul_(0.5).clamp_min_(torch.finfo(torch.float32).tiny).log_()
    kl_q = vecdot(q, log_q.sub_(log_m))
    ratio = log_p.sub_(log_m)
    kl_p = vecdot(p, ratio)
    return 0.5 * (kl_p + kl_q).sum(), ratio.sub_(kl_p[:, None]).mul_(p).mul_(0.5)


_DIVERGENCES = {"forward_kl": _forward_kl, "reverse_kl": _reverse_kl, "jensen_shannon": _jensen_shannon}
