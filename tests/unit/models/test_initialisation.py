"""Initial weights, parameter counts, and a depth network made from a baseline."""

from dataclasses import replace

import pytest
import torch

from dmma_core.errors import ConfigError
from dmma_core.models.initialisation import depth_from_baseline, initialise, parameter_count
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.presets import PRESETS, mmdit_config
from helpers.conditions import random_features, shaken, short_config

DEPTHS = [(depth, fusion) for depth in ("rgb_like", "scalars", "both") for fusion in ("concat", "sum", "gated")]


@pytest.mark.parametrize(
    ("depth", "fusion", "version"), [*((*form, 2) for form in DEPTHS), ("rgb_like", "deepmmaudio", 1)]
)
def test_depth_from_baseline_computes_the_baseline_until_trained(depth: str, fusion: str, version: int) -> None:
    baseline = shaken(MMDiT(replace(short_config(), version=version)))
    model = depth_from_baseline(baseline, replace(short_config(depth, fusion), version=version))
    features = random_features(model.config)
    latent, time = torch.randn(2, 31, 40), torch.rand(2)
    with torch.inference_mode():
        expected = baseline(latent, time, replace(features, depth_scalars_BTK=features.depth_scalars_BTK[..., :0]))
        assert torch.equal(model(latent, time, features), expected)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    model(latent, time, features).square().mean().backward()
    optimiser.step()
    other = replace(features, depth_BTD=features.depth_BTD.flip(1), depth_scalars_BTK=features.depth_scalars_BTK * 3)
    with torch.inference_mode():
        assert not torch.equal(model(latent, time, features), model(latent, time, other))


def test_depth_from_baseline_refuses_another_network() -> None:
    baseline = MMDiT(short_config())
    with pytest.raises(ConfigError, match="more than depth and fusion"):
        depth_from_baseline(baseline, replace(short_config("rgb_like"), hidden_width=128))
    with pytest.raises(ConfigError, match="cannot pass the rgb features of a version 2 network"):
        depth_from_baseline(baseline, short_config("rgb_like", "deepmmaudio"))


@pytest.mark.parametrize(("depth", "fusion"), DEPTHS)
def test_both_arms_have_equal_initial_weights(depth: str, fusion: str) -> None:
    baseline, model = MMDiT(short_config()), MMDiT(short_config(depth, fusion))
    initialise(baseline, seed=3)
    initialise(model, seed=3)
    start, depth_start = dict(baseline.named_parameters()), dict(model.named_parameters())
    assert set(start) < set(depth_start)
    assert all(torch.equal(start[name], depth_start[name]) for name in start)
    initialise(baseline, seed=4)
    assert not torch.equal(baseline.latent_in.first.weight, model.latent_in.first.weight)


def test_an_untrained_network_predicts_zero_velocity() -> None:
    model = MMDiT(short_config("both"))
    initialise(model, seed=0)
    assert not model(torch.randn(2, 31, 40), torch.rand(2), random_features(model.config)).any()


def test_parameter_counts() -> None:
    for preset in PRESETS:
        num_all, trainable = parameter_count(mmdit_config(preset))
        with_depth, _ = parameter_count(mmdit_config(preset, depth="both", num_depth_scalars=8))
        assert trainable <= num_all < with_depth < 1.03 * num_all
    assert parameter_count(mmdit_config("tiny"))[0] < 2_500_000
