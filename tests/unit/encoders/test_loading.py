"""The identity of weights."""

import torch
from torch import nn

from dmma_core.encoders.loading import fill_with_random_weights, fingerprint


def _linear(seed: str = "a") -> nn.Linear:
    return fill_with_random_weights(nn.Linear(3, 2), seed)


def test_the_fingerprint_follows_architecture_and_every_weight() -> None:
    module = _linear()
    base = fingerprint({"width": 3}, module)
    assert base == fingerprint({"width": 3}, _linear())
    assert base != fingerprint({"width": 4}, module)
    with torch.no_grad():
        module.bias[1] += 1e-7
    assert base != fingerprint({"width": 3}, module)
    assert fingerprint({}, _linear()) != fingerprint({}, _linear().half())
