"""The matmul of every linear layer, computed by the fastest library for the device.

On CPUs PyTorch multiplies float32 matrices with MKL, which does not use AVX-512 on AMD processors (measured: 100
GFLOP/s per core against 215), while its convolutions use oneDNN. So do the matmuls here.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MIN_ROWS = 16  # below, a matmul is bound by reading the weights


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias over the last dimension, as `F.linear`, with gradients."""
    if not uses_onednn(x, weight):
        return F.linear(x, weight, bias)
    return cast(Tensor, _OneDnnLinear.apply(x, weight, bias))  # type: ignore[no-untyped-call]


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `linear` computes this matmul with oneDNN."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and weight.dtype == torch.float32
        and x.numel() >= _MIN_ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # the compiler chooses the library
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def use_fast_linear(module: nn.Module) -> None:
    """Make every `nn.Linear` within `module` compute with `linear`, in place; also in modules of other libraries."""
    for child in module.modules():
        if type(child) is nn.Linear:
            child.__class__ = _Linear


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def matmul_add(x: Tensor, weight: Tensor, added: Tensor | None = None) -> Tensor:
    """x @ weight.T + added by oneDNN, without gradients."""
    if added is None:
        return _matmul(x, weight)
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.binary(x, added, weight, None, "add"))


def _matmul(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias; either may be a transposed view."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _matmul(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        # Contiguous, because oneDNN falls back to a very slow kernel for transposed views with gaps.
        grad_2d, x_2d = (value.reshape(-1, value.shape[-1]).contiguous() for value in (grad, x))
        grad_x = _matmul(grad_2d, weight.t()).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_weight = _matmul(grad_2d.t(), x_2d.t()) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad_2d.sum(dim=0) if ctx.has_bias else None
