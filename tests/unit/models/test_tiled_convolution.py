"""The cheaper convolution computes the same function, for even and odd lengths, and only where it may."""

import pytest
import torch

from dmma_core.models.layers import GatedFeedForward
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.tiled_convolution import tiled_convolutions
from helpers.conditions import random_features, shaken, short_config


@pytest.mark.parametrize("length", [1, 2, 7, 12])
@torch.inference_mode()
def test_same_function(length: int) -> None:
    torch.manual_seed(0)
    layer = GatedFeedForward(32, 128, num_taps=3, multiple=32)
    torch.nn.init.normal_(layer.up.weight, std=0.1)
    torch.nn.init.normal_(layer.down.weight, std=0.1)
    x = torch.randn(2, length, 32)
    direct = layer(x)
    with tiled_convolutions(layer):
        assert layer.tiled is not None
        tiled = layer(x)
    assert layer.tiled is None
    torch.testing.assert_close(tiled, direct, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_whole_network() -> None:
    model = shaken(MMDiT(short_config()))
    features, latent, time = random_features(model.config), torch.randn(2, 31, 40), torch.rand(2)
    expected = model(latent, time, features)
    with tiled_convolutions(model):
        torch.testing.assert_close(model(latent, time, features), expected, atol=1e-4, rtol=1e-4)


def test_training_is_left_alone() -> None:
    layer = GatedFeedForward(32, 128, num_taps=3)
    with tiled_convolutions(layer):
        assert layer.tiled is None
        layer(torch.randn(1, 4, 32)).sum().backward()
    assert layer.up.weight.grad is not None
