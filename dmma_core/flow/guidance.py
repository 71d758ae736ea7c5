"""Classifier-free guidance (Ho and Salimans 2022), all branches in one batch, with an optional scale for depth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dmma_core.errors import ConfigError

if TYPE_CHECKING:  # configurations check their guidance here and do not load torch
    from torch import Tensor


def guidance_weights(scale: float, depth_scale: float | None = None) -> dict[str, float]:
    """Weight of each branch's velocity, in stacking order; the weights sum to one.

    Branches: "empty" (no conditions, or the negative text), "without_depth" (all conditions but depth), "full". The
    guided velocity is empty + scale * (without_depth - empty) + depth_scale * (full - without_depth). Without
    `depth_scale`, or with one equal to `scale`, it is empty + scale * (full - empty). A scale of at most 1 means no
    guidance: a single conditional pass, as in the published sampler below 1. Branches of weight zero are left out.
    Raises ConfigError for a negative scale.
    """
    if scale < 0 or (depth_scale is not None and depth_scale < 0):
        raise ConfigError(f"A guidance scale is negative ({scale}, {depth_scale}).", remedy="Use 4.5, or 1 for none.")
    scale = max(scale, 1.0)
    if depth_scale is None:
        depth_scale = scale
    weights = {"empty": 1 - scale, "without_depth": scale - depth_scale, "full": depth_scale}
    return {branch: weight for branch, weight in weights.items() if weight != 0}


def guided_velocity(
    velocity: Callable[[Tensor, Tensor, Any], Tensor],
    latent_BLC: Tensor,
    time: Tensor,
    conditions: Any,
    weights: Mapping[str, float],
) -> Tensor:
    """Weighted sum of the branches' velocities, [B, L, C].

    `velocity(latent_BLC, time, conditions)` is called once. `conditions` are those of all branches in the order of
    `weights`, stacked along the batch, and it must return [len(weights) * B, L, C] in the same order (as
    `MMDiT.velocity` does).
    """
    stacked = velocity(latent_BLC, time, conditions)
    if len(weights) == 1:
        return stacked
    first, *others = (weight * part for weight, part in zip(weights.values(), stacked.chunk(len(weights)), strict=True))
    for other in others:
        first += other
    return first
