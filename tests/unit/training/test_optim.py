"""AdamW over everything, and its state as named tensors."""

import pytest
import torch
from torch import nn

from dmma_core.errors import CheckpointError, ConfigError
from dmma_core.recipe import OptimConfig
from dmma_core.training.optim import build_optimizer, clip_gradients, load_optimizer_tensors, optimizer_tensors


def small_model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    model[1].bias.requires_grad_(False)
    return model


def take_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 3)).square().sum().backward()
    optimizer.step()


def test_one_group_with_everything_trainable() -> None:
    optimizer = build_optimizer(small_model(), OptimConfig())
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 3
    assert (group["betas"], group["weight_decay"], group["eps"]) == ((0.9, 0.95), 1e-6, 1e-6)


def test_state_round_trips_through_names() -> None:
    model = small_model()
    optimizer = build_optimizer(model, OptimConfig(learning_rate=0.1))
    take_step(model, optimizer)
    saved = {key: value.clone() for key, value in optimizer_tensors(model, optimizer).items()}
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    take_step(model, optimizer)

    again = small_model()
    again.load_state_dict(weights)
    other = build_optimizer(again, OptimConfig(learning_rate=0.1))
    load_optimizer_tensors(again, other, saved)
    take_step(again, other)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


def test_state_of_other_parameters_is_refused() -> None:
    model = small_model()
    optimizer = build_optimizer(model, OptimConfig())
    take_step(model, optimizer)
    other = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(CheckpointError, match="other parameters"):
        load_optimizer_tensors(other, build_optimizer(other, OptimConfig()), optimizer_tensors(model, optimizer))


def test_clipping_bounds_the_norm_and_reports_the_one_before() -> None:
    model = small_model()
    (1000 * model(torch.ones(2, 3)).square().sum()).backward()
    norm = clip_gradients(model, 1.0)
    clipped = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert norm > 1
    assert float(clipped) == pytest.approx(1.0, rel=1e-3)


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="learning_rate"):
        OptimConfig(learning_rate=0)
