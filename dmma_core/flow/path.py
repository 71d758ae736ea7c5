"""Conditional flow matching on straight paths from noise (time 0) to data (time 1): Lipman et al. 2023, section 4.1."""

import torch
from torch import Tensor


def interpolate(noise_BLC: Tensor, data_BLC: Tensor, time_B: Tensor, min_sigma: float = 0.0) -> Tensor:
    """x_t = (1 - (1 - min_sigma) t) * noise + t * data."""
    time_B11 = time_B.reshape(-1, 1, 1)
    return (1 - (1 - min_sigma) * time_B11) * noise_BLC + time_B11 * data_BLC


def target_velocity(noise_BLC: Tensor, data_BLC: Tensor, min_sigma: float = 0.0) -> Tensor:
    """dx_t/dt = data - (1 - min_sigma) * noise, constant in time."""
    return data_BLC - (1 - min_sigma) * noise_BLC


def flow_loss(velocity_BLC: Tensor, noise_BLC: Tensor, data_BLC: Tensor, min_sigma: float = 0.0) -> Tensor:
    """Mean squared error of the predicted velocity, per clip: float32 [B]."""
    error_BLC = velocity_BLC.float() - target_velocity(noise_BLC, data_BLC, min_sigma).float()
    return error_BLC.square().flatten(1).mean(dim=1)


def logit_normal_times(normal_B: Tensor, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    """Times in (0, 1) from standard normal noise: sigmoid(normal * scale + mean) (Esser et al. 2024, section 3.1)."""
    return torch.sigmoid(normal_B * scale + mean)
