"""The matmul equals PyTorch's own, forwards and backwards, whichever library computes it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dmma_core.models import matmul


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 20, 48), (64, 48), (1, 48), (0, 48)])
def test_values_and_gradients(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(shape), torch.randn(32, 48), *([torch.randn(32)] if bias else [])]
    ours, theirs = ([value.clone().requires_grad_() for value in inputs] for _ in range(2))
    ours_y, theirs_y = matmul.linear(*ours), F.linear(*theirs)
    torch.testing.assert_close(ours_y, theirs_y, atol=1e-4, rtol=1e-4)
    weight = torch.randn_like(theirs_y)
    (ours_y * weight).sum().backward()
    (theirs_y * weight).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-3, rtol=1e-4)


def test_views_with_gaps() -> None:
    x, weight = torch.randn(3, 30, 96)[:, 5:25, :48].requires_grad_(), torch.randn(32, 48)
    torch.testing.assert_close(matmul.linear(x, weight), F.linear(x, weight), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_use_pytorch(dtype: torch.dtype) -> None:
    x, weight = torch.randn(40, 48, dtype=dtype), torch.randn(32, 48, dtype=dtype)
    assert torch.equal(matmul.linear(x, weight), F.linear(x, weight))


def test_autocast_is_respected() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert matmul.linear(torch.randn(40, 48), torch.randn(32, 48)).dtype == torch.bfloat16


def test_use_fast_linear_keeps_results_and_names_of_other_modules() -> None:
    layers = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 8, bias=False))
    x = torch.randn(40, 32)
    expected, names = layers(x), list(layers.state_dict())
    matmul.use_fast_linear(layers)
    assert isinstance(layers[0], nn.Linear)
    assert list(layers.state_dict()) == names
    assert torch.allclose(layers(x), expected, atol=1e-5)
