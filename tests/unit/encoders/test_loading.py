"""Fingerprints of networks."""

import torch
from torch import nn

from dmma_core.encoders.loading import fill_with_random_weights, network_fingerprint


def _linear(seed: str = "a") -> nn.Linear:
    return fill_with_random_weights(nn.Linear(3, 2), seed)


def test_the_fingerprint_depends_on_architecture_and_every_weight() -> None:
    module = _linear()
    base = network_fingerprint({"width": 3}, module)
    assert base == network_fingerprint({"width": 3}, _linear())
    assert base != network_fingerprint({"width": 4}, module)
    with torch.no_grad():
        module.bias[1] += 1e-7
    assert base != network_fingerprint({"width": 3}, module)
    assert network_fingerprint({}, _linear()) != network_fingerprint({}, _linear().half())
