"""The same model in less time on a processor: fp32 matrix products by oneDNN where PyTorch asks a slower library, and GPT-2's
activation in one operation.

PyTorch's fp32 products on x86 are MKL's, which on AMD processors keeps to AVX2: 110 GFLOP/s a core, where oneDNN, in the same
package, reaches 240 with AVX-512. So a linear layer takes half the time, forwards and backwards. A product is the same sum of
products in another order: equal to rounding (1e-5 of a logit). Nowhere else anything changes: not on a GPU, on processors whose
MKL is as fast, in bf16 (oneDNN's already), nor for products so small that the call costs more.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

SMALL, FEW = 1 << 21, 4  # multiplications, and rows, below which oneDNN gains nothing


@cache
def has_faster_products() -> bool:
    """Whether this is an AMD processor with AVX-512, and PyTorch brings both libraries."""
    try:
        maker = Path("/proc/cpuinfo").read_text(errors="ignore")
    except OSError:
        return False
    both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return both and "AuthenticAMD" in maker and torch.backends.cpu.get_cpu_capability() == "AVX512"


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear`: `x` `[..., inputs]` times the transpose of `weight` `[outputs, inputs]`, plus `bias` `[outputs]`."""
    if not _gains(x, weight):
        return functional.linear(x, weight, bias)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Product.apply(x, weight, bias)
    return _onednn(x, weight, bias)


def add_product(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add `product(x, weight)` to `total` in place: where nothing is gained, without a copy of its size."""
    if total.dtype == x.dtype and not _gains(x, weight):
        total.addmm_(x, weight.t())
    else:
        total += product(x, weight)


def _gains(x: Tensor, weight: Tensor) -> bool:
    plain = (
        x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    )
    rows = x.numel() // max(1, x.shape[-1])
    return plain and rows >= FEW and rows * weight.numel() >= SMALL and has_faster_products()


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # what `torch.compile` makes of a layer


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            product(grad, weight.t()) if need_x else None,
            product(rows.t(), x.flatten(0, -2).t()) if need_weight else None,
            rows.sum(0) if need_bias else None,
        )


class _Linear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


class _Conv1D(Conv1D):  # as GPT-2 keeps its weights: transposed
    def forward(self, x: Tensor) -> Tensor:
        return product(x, self.weight.t(), self.bias)


_FASTER = {nn.Linear: _Linear, Conv1D: _Conv1D}


def speed_up(model: nn.Module) -> nn.Module:
    """Let the model's own layers compute the same in less time; returns the model. Layers of other classes stay as they are."""
    for module in model.modules():
        if has_faster_products():
            module.__class__ = _FASTER.get(type(module), type(module))
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):  # eight operations, of which training keeps five tensors
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


def as_built(model: nn.Module) -> nn.Module:
    """Give the layers their own classes back, for a library that looks for them by name; returns the model."""
    own = {faster: plain for plain, faster in _FASTER.items()}
    for module in model.modules():
        module.__class__ = own.get(type(module), type(module))
    return model
