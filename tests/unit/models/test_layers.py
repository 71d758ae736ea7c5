"""Layers against PyTorch's own convolutions and normalisations."""

import pytest
import torch
import torch.nn.functional as F

from dmma_core.models.layers import GatedFeedForward, RMSNorm, TokenMap, gather_taps, modulated_norm, sum_taps


@pytest.mark.parametrize(("width", "out_width"), [(3, 8), (8, 3), (5, 5)])
@pytest.mark.parametrize("num_taps", [1, 3, 7])
def test_token_map_is_a_same_convolution(width: int, out_width: int, num_taps: int) -> None:
    torch.manual_seed(0)
    layer = TokenMap(width, out_width, num_taps).double()
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 9, width, dtype=torch.float64)
    if layer.gathers or num_taps == 1:
        kernel = layer.weight.detach().view(out_width, num_taps, width).permute(0, 2, 1)
    else:
        kernel = layer.weight.detach().view(num_taps, out_width, width).permute(1, 2, 0)
    expected = F.conv1d(x.transpose(1, 2), kernel, layer.bias, padding=num_taps // 2).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("length", [2, 9])
def test_gathering_and_summing_taps_are_adjoint_with_right_gradients(direction: int, length: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, length, 9, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close((gather_taps(x, 3, direction) * z).sum(), (x * sum_taps(z, 3, direction)).sum())
    assert torch.autograd.gradcheck(lambda value: gather_taps(value, 3, direction), (x,))
    assert torch.autograd.gradcheck(lambda value: sum_taps(value, 3, direction), (z,))


def test_gated_feed_forward_has_the_published_width_and_formula() -> None:
    torch.manual_seed(0)
    layer = GatedFeedForward(8, 32, multiple=16)
    assert layer.down.width == 32  # 2/3 of 32 is 21.3, rounded up to a multiple of 16
    torch.nn.init.normal_(layer.up.weight)
    torch.nn.init.normal_(layer.down.weight)
    x = torch.randn(1, 4, 8)
    w1, w3 = layer.up.weight.chunk(2)
    torch.testing.assert_close(layer(x), (F.silu(x @ w1.T) * (x @ w3.T)) @ layer.down.weight.T)


def test_norms() -> None:
    x = torch.randn(2, 3, 4, 16)
    torch.testing.assert_close(RMSNorm(16)(x).square().mean(dim=-1), torch.ones(2, 3, 4))
    y, shift, scale = torch.randn(2, 5, 8), torch.randn(2, 1, 8), torch.randn(2, 5, 8)
    torch.testing.assert_close(modulated_norm(y, shift, scale), F.layer_norm(y, (8,)) * (1 + scale) + shift)
