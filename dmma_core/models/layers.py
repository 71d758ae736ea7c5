"""Basic layers of the blocks. Sequences are channels-last ([B, L, E]) throughout; nothing is ever transposed.

Weights are stored in the layout of their matmul, which differs from the published one: a one-dimensional convolution is
one matmul over its taps, and the two branches of a gated feed-forward are one matmul. `mmaudio_interop` converts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.models.matmul import linear


@dataclass(frozen=True)
class InitialValue:
    """Initial values of a parameter: "uniform" in +-`value`, "normal" with deviation `value`, or "constant" `value`."""

    kind: str
    value: float = 0.0


_EPSILON = torch.finfo(torch.float32).eps
ZERO = InitialValue("constant", 0.0)
ONE = InitialValue("constant", 1.0)


def gather_taps(x_BLE: Tensor, num_taps: int, direction: int = 1) -> Tensor:
    """[B, L, E] to [B, L, num_taps * E]: for tap j the neighbour at distance direction * (j - num_taps // 2).

    Neighbours beyond either end are zero.
    """
    return cast(Tensor, _GatherTaps.apply(x_BLE, num_taps, direction))  # type: ignore[no-untyped-call]


def sum_taps(z_BLkE: Tensor, num_taps: int, direction: int = 1) -> Tensor:
    """[B, L, num_taps * E] to [B, L, E]: each tap's value shifted by direction * (j - num_taps // 2), then summed.

    The adjoint of `gather_taps`.
    """
    return cast(Tensor, _SumTaps.apply(z_BLkE, num_taps, direction))  # type: ignore[no-untyped-call]


def _gather(x_BLE: Tensor, num_taps: int, direction: int) -> Tensor:
    half, length = num_taps // 2, x_BLE.shape[1]
    padded = F.pad(x_BLE, (0, 0, half, half))
    starts = [half + direction * (tap - half) for tap in range(num_taps)]
    return torch.cat([padded[:, start : start + length] for start in starts], dim=-1)


def _sum(z_BLkE: Tensor, num_taps: int, direction: int) -> Tensor:
    half, length = num_taps // 2, z_BLkE.shape[1]
    taps = z_BLkE.view(*z_BLkE.shape[:2], num_taps, -1)
    total = taps[:, :, half].clone()
    for tap in range(num_taps):
        move = direction * (tap - half)
        if move > 0:
            total[:, move:] += taps[:, : length - move, tap]
        elif move < 0:
            total[:, :move] += taps[:, -move:, tap]
    return total


class _GatherTaps(torch.autograd.Function):
    """Custom backward: autograd of the slices would allocate the padded sequence once per tap."""

    @staticmethod
    def forward(ctx: Any, x_BLE: Tensor, num_taps: int, direction: int) -> Tensor:
        ctx.taps = num_taps, direction
        return _gather(x_BLE, num_taps, direction)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _sum(grads[0], *ctx.taps), None, None


class _SumTaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z_BLkE: Tensor, num_taps: int, direction: int) -> Tensor:
        ctx.taps = num_taps, direction
        return _sum(z_BLkE, num_taps, direction)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _gather(grads[0], *ctx.taps), None, None


class TokenMap(nn.Module):
    """A "same" convolution of odd `num_taps` over the sequence, [B, L, in] to [B, L, out]; with one tap a linear layer.

    Taps are gathered before the matmul where the output is wider than the input, and summed after it otherwise, so that
    the intermediate is the smaller of the two. `weight` is [out, taps * in] in the first case and [taps * out, in] in
    the second, taps outermost. `num_parallel` is the number of published layers in the outputs (for initialisation).
    """

    def __init__(self, width: int, out_width: int, num_taps: int = 1, bias: bool = True, num_parallel: int = 1) -> None:
        super().__init__()
        self.width, self.out_width, self.num_taps, self.num_parallel = width, out_width, num_taps, num_parallel
        self.gathers = out_width > width
        shape = (out_width, num_taps * width) if self.gathers else (num_taps * out_width, width)
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(out_width)) if bias else None

    def forward(self, x_BLE: Tensor) -> Tensor:
        if self.num_taps == 1:
            return linear(x_BLE, self.weight, self.bias)
        if self.gathers:
            return linear(gather_taps(x_BLE, self.num_taps), self.weight, self.bias)
        summed = sum_taps(linear(x_BLE, self.weight), self.num_taps, direction=-1)
        return summed if self.bias is None else summed + self.bias

    def initial_values(self) -> dict[str, InitialValue]:
        """Xavier-uniform weight and zero bias with one tap; +-1/sqrt(fan in) for both with several."""
        if self.num_taps > 1:
            bound = InitialValue("uniform", (self.num_taps * self.width) ** -0.5)
            return {"weight": bound, "bias": bound}
        fan_sum = self.width + self.out_width // self.num_parallel
        return {"weight": InitialValue("uniform", (6 / fan_sum) ** 0.5), "bias": ZERO}


class ZeroTokenMap(TokenMap):
    """A `TokenMap` whose weight and bias are initially zero."""

    def initial_values(self) -> dict[str, InitialValue]:
        return {"weight": ZERO, "bias": ZERO}


class GatedFeedForward(nn.Module):
    """w2(silu(w1 x) * w3 x) without biases; hidden width 2/3 of `expanded_width`, rounded up to `multiple`."""

    def __init__(self, width: int, expanded_width: int, num_taps: int = 1, multiple: int = 256) -> None:
        super().__init__()
        hidden = -(-int(2 * expanded_width / 3) // multiple) * multiple
        self.up = TokenMap(width, 2 * hidden, num_taps, bias=False, num_parallel=2)
        self.down = TokenMap(hidden, width, num_taps, bias=False)
        self.winograd: Callable[[Tensor], Tensor] | None = None  # see `winograd`

    def forward(self, x_BLE: Tensor) -> Tensor:
        if self.winograd is not None:
            return self.winograd(x_BLE)
        gate, value = self.up(x_BLE).chunk(2, dim=-1)
        down: Tensor = self.down(F.silu(gate) * value)
        return down


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last dimension and scale by a learned weight.

    eps is float32's epsilon for every dtype. PyTorch's default, the dtype's own, is 0.008 in bfloat16, which is large
    enough to change the network's results.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), _EPSILON)

    def initial_values(self) -> dict[str, InitialValue]:
        return {"weight": ONE}


def modulated_norm(x_BLE: Tensor, shift_BLE: Tensor, scale_BLE: Tensor) -> Tensor:
    """Layer norm without learned parameters (eps 1e-5), then x * (1 + scale) + shift."""
    return torch.addcmul(shift_BLE, F.layer_norm(x_BLE, x_BLE.shape[-1:]), scale_BLE + 1)
