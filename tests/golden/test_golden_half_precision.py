"""Half precision compared with the published network's, which also rounds its time frequencies.

DMMA does not round them: it ruins version 2, which multiplies times by up to 10,000. The target in half precision is
therefore the published float32 result, not the published half-precision one.
"""

from collections.abc import Callable
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.embeddings import time_frequencies
from dmma_core.models.mmdit import MMDiT
from helpers.golden import GoldenFile, assert_close, golden_file, golden_names
from helpers.golden_mmdit import golden_features, golden_network

NAMES = golden_names("*_bf16", default="mm_tiny_v1_bf16")
ONE_ROUNDING = 2**-8
# Rounding errors of version 1 are about as large as the published ones, those of version 2 much smaller.
SHARE_OF_PUBLISHED_ERROR = {1: 1.5, 2: 0.25}
SHARE_OF_MAGNITUDE = 0.04


def with_autocast(model: MMDiT, file: GoldenFile) -> Tensor:
    """As in training on a GPU: float32 weights, matmuls in bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        velocity: Tensor = model(file["in.latent"], file["in.t"], golden_features(file))
    return velocity


def with_rounded_weights(model: MMDiT, file: GoldenFile) -> Tensor:
    """Weights, latents and features in bfloat16; time in float32, as in the solvers."""
    features = golden_features(file)
    values = {field.name: getattr(features, field.name) for field in fields(features)}
    values = {name: value.bfloat16() if value.is_floating_point() else value for name, value in values.items()}
    velocity: Tensor = model.bfloat16()(file["in.latent"].bfloat16(), file["in.t"], ConditionFeatures(**values))
    return velocity


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compute", [with_autocast, with_rounded_weights])
@torch.inference_mode()
def test_half_precision_stays_near_the_published_float32(
    name: str, compute: Callable[[MMDiT, GoldenFile], Tensor]
) -> None:
    halved, file = golden_file(name), golden_file(name.removesuffix("_bf16"))
    model = golden_network(file)
    expected = file["forward.flow"]
    error = _size(compute(model, file).float() - expected)
    assert error <= SHARE_OF_MAGNITUDE * _size(expected)
    published_error = _size(halved["forward.flow_bf16_as_f32"] - expected)
    assert error <= SHARE_OF_PUBLISHED_ERROR[model.config.version] * published_error


@pytest.mark.parametrize("name", NAMES)
def test_published_half_precision_rounds_the_frequencies_of_time(name: str) -> None:
    """They equal ours except for rounding; ours stay float32 when the network is cast."""
    halved, model = golden_file(name), golden_network(golden_file(name.removesuffix("_bf16"))).bfloat16()
    published = halved["t_embed.freqs_bf16_as_f32"]
    assert torch.equal(published, published.bfloat16().float())
    ours = time_frequencies(model.time_in.num_sinusoids, model.time_in.max_period, torch.device("cpu"))
    assert ours.dtype == torch.float32
    assert_close(ours / published, torch.ones_like(published), ONE_ROUNDING)


def _size(values: Tensor) -> float:
    """Root mean square."""
    return float(values.double().square().mean().sqrt())
