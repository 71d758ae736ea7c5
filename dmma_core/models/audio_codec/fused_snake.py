"""The anti-aliased activation as one formula that `torch.compile` turns into one pass over memory.

Both phases of the doubled rate are six-tap sums; the squared sine is a polynomial, since it needs no sine's sign. Without
a compiler this form would be slower than that of `anti_aliased.py`, which is then used instead.
"""

import logging
import math
import shutil
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

REACH = 6  # input steps on each side that an output step depends on

SnakeKernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(steps [T + 12, C], alpha [C], 1 / beta [C]) to [T, C]."""

_COMPILERS = ("g++", "clang++", "c++")
# pi in two parts: the first has so few bits that its product with the number of half turns is exact.
_PI_HIGH = 3.140625
_PI_LOW = math.pi - _PI_HIGH
# sin^2(r) / r^2 as a polynomial in r^2, fitted on |r| <= pi / 2 (Chebyshev, degree 6): sin^2 is right to 8e-10.
_SINE_SQUARED = (1.0, -0.333333331, 0.0444444249, -0.00317455271, 0.0001410317, -4.23673589e-06, 8.17768058e-08)

_log = logging.getLogger(__name__)


def fused_snake(padded_TC: Tensor, alpha_C: Tensor, inverse_beta_C: Tensor, taps: tuple[float, ...]) -> Tensor:
    """Activation of the steps [6 : -6] of `padded_TC`, as if the sequence went on at both ends."""
    num_steps = padded_TC.shape[0] - 2 * REACH
    doubled = num_steps + REACH  # three neighbours on each side
    even_TC = sum_of([2.0 * taps[11 - 2 * tap] * padded_TC[tap : tap + doubled] for tap in range(6)])
    odd_TC = sum_of([2.0 * taps[10 - 2 * tap] * padded_TC[tap + 1 : tap + 1 + doubled] for tap in range(6)])
    even_TC = even_TC + inverse_beta_C * sine_squared(alpha_C * even_TC)
    odd_TC = odd_TC + inverse_beta_C * sine_squared(alpha_C * odd_TC)
    return sum_of(
        [taps[2 * tap] * odd_TC[tap : tap + num_steps] for tap in range(6)]
        + [taps[2 * tap + 1] * even_TC[tap + 1 : tap + 1 + num_steps] for tap in range(6)]
    )


def sine_squared(angle: Tensor) -> Tensor:
    """sin^2, right to about 1e-7 plus the rounding of `angle` itself."""
    half_turns = torch.round(angle * (1.0 / math.pi))
    rest = (angle - half_turns * _PI_HIGH) - half_turns * _PI_LOW
    square = rest * rest
    value = torch.full_like(square, _SINE_SQUARED[-1])
    for coefficient in reversed(_SINE_SQUARED[:-1]):
        value = value * square + coefficient
    return value * square


def sum_of(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


@cache
def compiled_snake(taps: tuple[float, ...]) -> SnakeKernel | None:
    """`fused_snake` with these 12 taps through `torch.compile`, for every size; None, with a warning, where there is no C++ compiler.

    The first call of the result compiles, which takes some seconds; PyTorch keeps compiled kernels on disk.
    """
    if not any(shutil.which(name) for name in _COMPILERS):
        _log.warning("No C++ compiler (%s) was found: the vocoder runs without compiled activations.", _COMPILERS[0])
        return None

    def snake(padded_TC: Tensor, alpha_C: Tensor, inverse_beta_C: Tensor) -> Tensor:
        return fused_snake(padded_TC, alpha_C, inverse_beta_C, taps)  # the taps become constants of the kernel

    compiled: SnakeKernel = torch.compile(snake, dynamic=True)
    return compiled
