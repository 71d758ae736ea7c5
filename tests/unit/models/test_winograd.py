"""Winograd convolution: equal results for even and odd lengths, and not used with gradients."""

import pytest
import torch

from dmma_core.models.layers import GatedFeedForward
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.winograd import winograd_convolutions
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
    with winograd_convolutions(layer):
        assert layer.winograd is not None
        result = layer(x)
    assert layer.winograd is None
    torch.testing.assert_close(result, direct, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_full_network() -> None:
    model = shaken(MMDiT(short_config()))
    features, latent, time = random_features(model.config), torch.randn(2, 31, 40), torch.rand(2)
    expected = model(latent, time, features)
    with winograd_convolutions(model):
        torch.testing.assert_close(model(latent, time, features), expected, atol=1e-4, rtol=1e-4)


def test_not_used_with_gradients() -> None:
    layer = GatedFeedForward(32, 128, num_taps=3)
    with winograd_convolutions(layer):
        assert layer.winograd is None
        layer(torch.randn(1, 4, 32)).sum().backward()
    assert layer.up.weight.grad is not None
