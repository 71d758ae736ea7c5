"""The VAE at a small size: shapes, magnitudes, folding, and error messages for state dicts that do not fit."""

import pytest
import torch
from torch import Tensor

from dmma_core.errors import WeightsError
from dmma_core.models.audio_codec.vae import Vae, VaeConfig, pixel_norm, scaled_silu, unit_norm, weighted_sum
from helpers.golden import fill_state_dict

CONFIG = VaeConfig(num_mels=12, latent_channels=3, hidden_channels=8)


@pytest.fixture
def state() -> dict[str, Tensor]:
    filled = fill_state_dict(Vae(CONFIG).official_shapes(), "unit")
    return {**filled, "data_mean": torch.full((1, 12, 1), -2.0), "data_std": torch.full((1, 12, 1), 3.0)}


@torch.no_grad()
def test_shapes(state: dict[str, Tensor]) -> None:
    vae = Vae.from_official(CONFIG, state)
    posterior = vae.encode(torch.randn(2, 20, 12))
    assert posterior.mean_BLC.shape == posterior.std_BLC.shape == (2, 10, 3)
    assert (posterior.std_BLC > 0).all()
    assert vae.encode(torch.randn(1, 21, 12)).mean_BLC.shape == (1, 10, 3)  # an odd last frame is dropped
    assert vae.decode(torch.randn(2, 7, 3)).shape == (2, 14, 12)


@torch.no_grad()
def test_mel_bins_are_normalised_and_unnormalised(state: dict[str, Tensor]) -> None:
    vae = Vae.from_official(CONFIG, state)
    plain = Vae.from_official(CONFIG, {**state, "data_mean": torch.zeros(1, 12, 1), "data_std": torch.ones(1, 12, 1)})
    mel_BFM, latent_BLC = torch.randn(1, 8, 12), torch.randn(1, 4, 3)
    assert torch.allclose(vae.encode(3.0 * mel_BFM - 2.0).mean_BLC, plain.encode(mel_BFM).mean_BLC, atol=1e-5)
    assert torch.allclose(vae.decode(latent_BLC), 3.0 * plain.decode(latent_BLC) - 2.0, atol=1e-5)


@torch.no_grad()
def test_a_clip_does_not_depend_on_its_batch(state: dict[str, Tensor]) -> None:
    vae = Vae.from_official(CONFIG, state)
    mel_BFM = torch.randn(3, 16, 12)
    together = vae.encode(mel_BFM).mean_BLC
    assert torch.allclose(vae.encode(mel_BFM[1:2]).mean_BLC[0], together[1], atol=1e-5)


def test_layers_preserve_magnitude() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 4000, 64, generator=generator)
    assert float(pixel_norm(7.0 * x).square().mean()) == pytest.approx(1.0, abs=0.01)
    assert float(scaled_silu(x).square().mean()) == pytest.approx(1.0, abs=0.02)
    assert float(weighted_sum(x, y).square().mean()) == pytest.approx(1.0, abs=0.01)
    weight = unit_norm(5.0 * torch.randn(16, 8, 3, generator=generator))
    assert torch.allclose(weight.flatten(1).norm(dim=1), torch.ones(16), atol=1e-3)


@torch.no_grad()
def test_the_scale_of_kernels_and_the_gain_are_folded(state: dict[str, Tensor]) -> None:
    mel_BFM = torch.randn(1, 8, 12)
    mean_BLC = Vae.from_official(CONFIG, state).encode(mel_BFM).mean_BLC
    scaled = {key: 100.0 * value if key.endswith("conv1.weight") else value for key, value in state.items()}
    assert torch.allclose(Vae.from_official(CONFIG, scaled).encode(mel_BFM).mean_BLC, mean_BLC, atol=0.01)
    gain = state["encoder.learnable_gain"]
    doubled = {**state, "encoder.learnable_gain": 2.0 * (1.0 + gain) - 1.0}
    assert torch.allclose(Vae.from_official(CONFIG, doubled).encode(mel_BFM).mean_BLC, 2.0 * mean_BLC, atol=1e-5)


@torch.no_grad()
def test_half_precision_and_containers_are_accepted(state: dict[str, Tensor]) -> None:
    mel_BFM = torch.randn(1, 8, 12)
    expected = Vae.from_official(CONFIG, {key: value.half().float() for key, value in state.items()}).encode(mel_BFM)
    nested = {"weights": {key: value.half() for key, value in state.items()}}
    assert torch.equal(Vae.from_official(CONFIG, nested).encode(mel_BFM).mean_BLC, expected.mean_BLC)


def test_a_state_dict_that_does_not_fit_is_described(state: dict[str, Tensor]) -> None:
    del state["decoder.conv_in.weight"]
    state["decoder.extra.weight"] = torch.zeros(1)
    state["encoder.conv_in.weight"] = torch.zeros(8, 13, 3)
    with pytest.raises(WeightsError) as caught:
        Vae.from_official(CONFIG, state)
    text = str(caught.value)
    assert "1 missing (decoder.conv_in.weight)" in text
    assert "1 unexpected (decoder.extra.weight)" in text
    assert "encoder.conv_in.weight (8, 13, 3) instead of (8, 12, 3)" in text


def test_weights_that_are_not_finite_are_refused(state: dict[str, Tensor]) -> None:
    state["encoder.conv_in.weight"][0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"1 not finite \(encoder\.conv_in\.weight\)"):
        Vae.from_official(CONFIG, state)
