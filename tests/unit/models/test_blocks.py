"""Upsampling of sync tokens and its gradient."""

import pytest
import torch
import torch.nn.functional as F

from dmma_core.models.blocks import Upsampling

CPU = torch.device("cpu")


@pytest.mark.parametrize(("num_tokens", "length"), [(192, 345), (192, 250), (8, 20), (16, 16), (24, 11)])
def test_upsampling_is_nearest_exact(num_tokens: int, length: int) -> None:
    x = torch.randn(2, num_tokens, 3)
    expected = F.interpolate(x.transpose(1, 2), size=length, mode="nearest-exact").transpose(1, 2)
    upsampling = Upsampling(num_tokens, length, CPU)
    assert torch.equal(upsampling(x), expected)
    assert upsampling.widens == (length >= num_tokens)


@pytest.mark.parametrize(("num_tokens", "length"), [(8, 20), (8, 11), (12, 5)])
def test_upsampling_gradient(num_tokens: int, length: int) -> None:
    x = torch.randn(2, num_tokens, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Upsampling(num_tokens, length, CPU), (x,))
