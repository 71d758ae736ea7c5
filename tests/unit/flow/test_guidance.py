"""Guidance: formula and identities."""

import pytest
import torch
from torch import Tensor

from dmma_core.errors import ConfigError
from dmma_core.flow.guidance import guidance_weights, guided_velocity

BRANCHES = {"empty": torch.tensor(1.0), "without_depth": torch.tensor(10.0), "full": torch.tensor(100.0)}


def guided(scale: float, depth_scale: float | None = None) -> float:
    weights = guidance_weights(scale, depth_scale)
    conditions = torch.stack([BRANCHES[branch] for branch in weights])

    def velocity(latent_BLC: Tensor, time: Tensor, conditions: Tensor) -> Tensor:
        return conditions.repeat_interleave(latent_BLC.shape[0])[:, None, None].expand(-1, *latent_BLC.shape[1:])

    result = guided_velocity(velocity, torch.zeros(2, 3, 4), torch.tensor(0.5), conditions, weights)
    assert result.shape == (2, 3, 4)
    return float(result.mean())


def test_formula() -> None:
    assert guided(4.5) == pytest.approx(1 + 4.5 * (100 - 1))
    assert guided(4.5, 2.0) == pytest.approx(1 + 4.5 * (10 - 1) + 2.0 * (100 - 10))
    assert guided(4.5, 4.5) == pytest.approx(guided(4.5))
    assert guided(3.0, 0.0) == pytest.approx(1 + 3 * (10 - 1))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_no_guidance_is_one_conditional_pass(scale: float) -> None:
    assert guidance_weights(scale) == {"full": 1.0}
    assert guided(scale) == 100


@pytest.mark.parametrize(("scale", "depth_scale"), [(4.5, None), (4.5, 2.0), (1.0, 3.0), (2.0, 0.0)])
def test_weights_sum_to_one_and_none_is_zero(scale: float, depth_scale: float | None) -> None:
    weights = guidance_weights(scale, depth_scale)
    assert sum(weights.values()) == pytest.approx(1)
    assert all(weights.values())


def test_negative_scales_are_refused() -> None:
    with pytest.raises(ConfigError):
        guidance_weights(-1.0)
