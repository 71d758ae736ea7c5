"""Weights into modules: what is accepted, and the sentence for what is not."""

import pytest
import torch
from torch import nn

from dmma_core.encoders.loading import fill_with_random_weights, fingerprint, load_strictly
from dmma_core.errors import WeightsError


def _linear(seed: str = "a") -> nn.Linear:
    return fill_with_random_weights(nn.Linear(3, 2), seed)


def test_half_precision_is_widened() -> None:
    source, loaded = _linear(), _linear("b")
    load_strictly(loaded, {key: value.half() for key, value in source.state_dict().items()}, "half.pth")
    assert loaded.weight.dtype == torch.float32
    torch.testing.assert_close(loaded.weight, source.weight, atol=1e-3, rtol=0)


def test_values_that_are_not_finite_are_refused() -> None:
    state = {**_linear().state_dict(), "bias": torch.tensor([0.0, float("nan")])}
    with pytest.raises(WeightsError, match=r"1 not finite \(bias\)"):
        load_strictly(_linear("b"), state, "some.pth")


def test_weights_of_another_architecture_are_listed_and_leave_the_module_unchanged() -> None:
    module = _linear()
    before = module.weight.clone()
    state = {"weight": torch.zeros(5, 3), "scale": torch.zeros(1)}
    with pytest.raises(
        WeightsError, match=r"1 missing \(bias\); 1 unexpected \(scale\); 1 of another shape \(weight\)"
    ):
        load_strictly(module, state, "some.pth")
    assert torch.equal(module.weight, before)


def test_the_fingerprint_follows_architecture_and_every_weight() -> None:
    module = _linear()
    base = fingerprint({"width": 3}, module)
    assert base == fingerprint({"width": 3}, _linear())
    assert base != fingerprint({"width": 4}, module)
    with torch.no_grad():
        module.bias[1] += 1e-7
    assert base != fingerprint({"width": 3}, module)
    assert fingerprint({}, _linear()) != fingerprint({}, _linear().half())
