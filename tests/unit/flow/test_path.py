"""Path, loss and times in closed form."""

import pytest
import torch

from dmma_core.flow.path import flow_loss, interpolate, logit_normal_times, target_velocity


@pytest.mark.parametrize("min_sigma", [0.0, 0.1])
def test_target_is_the_derivative_of_the_path(min_sigma: float) -> None:
    noise, data = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    early, late = torch.full((3,), 0.3).double(), torch.full((3,), 0.8).double()
    moved = interpolate(noise, data, late, min_sigma) - interpolate(noise, data, early, min_sigma)
    torch.testing.assert_close(moved / 0.5, target_velocity(noise, data, min_sigma))
    torch.testing.assert_close(interpolate(noise, data, torch.zeros(3).double(), min_sigma), noise)


def test_loss_is_per_clip_and_zero_for_the_target() -> None:
    noise, data = torch.randn(2, 3, 5, 4)
    assert not flow_loss(target_velocity(noise, data), noise, data).any()
    shifted = target_velocity(noise, data) + torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    torch.testing.assert_close(flow_loss(shifted, noise, data), torch.tensor([1.0, 4.0, 9.0]))
    assert flow_loss(shifted.bfloat16(), noise, data).dtype == torch.float32


def test_times_have_the_given_median() -> None:
    normal = torch.linspace(-3, 3, 101)
    times = logit_normal_times(normal, mean=0.5, scale=2.0)
    torch.testing.assert_close(torch.logit(times), normal * 2 + 0.5, atol=1e-4, rtol=1e-4)
