"""Rotary position embedding (RoFormer, section 3.2), with scaled positions to align sequences of different rates.

Channels of a head are in half-split order: the first of every rotated pair, then the second of every pair. The
published weights interleave them. The order does not change dot products, and contiguous halves are faster.
"""

from functools import lru_cache

import torch
from torch import Tensor

_BASE = 10_000.0


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # the cached tensors are used in training too
def rotation_table(length: int, head_width: int, scaling: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """(cos, signed sin), float32 [length, 1, head_width], of positions 0, scaling, 2 * scaling, …

    Computed in float32 for every dtype of the network: in bfloat16 neighbouring positions would be equal.
    """
    exponents = torch.arange(0, head_width, 2, dtype=torch.float32, device=device) / head_width
    frequencies = 1.0 / (_BASE**exponents) * scaling
    angles = torch.arange(length, dtype=torch.float32, device=device)[:, None, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x_BLHD: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the channel pairs (d, d + D/2) of every head by the angle of their position; float32 inside."""
    cos, signed_sin = table
    first, second = x_BLHD.float().chunk(2, dim=-1)
    return torch.addcmul(x_BLHD * cos, torch.cat((second, first), dim=-1), signed_sin).to(x_BLHD.dtype)
