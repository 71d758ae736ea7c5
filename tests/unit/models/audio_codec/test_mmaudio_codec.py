"""MMAudio's codec at a small size: lengths, vocoder, fingerprint, and refused inputs."""

import pytest
import torch
from torch import Tensor

from dmma_core.errors import ConfigError, WeightsError
from dmma_core.models.audio_codec.bigvgan import BigVgan, BigVganConfig
from dmma_core.models.audio_codec.mel import MelConfig
from dmma_core.models.audio_codec.mmaudio_codec import MODES, MMAudioCodec, MMAudioCodecConfig
from dmma_core.models.audio_codec.vae import Vae, VaeConfig
from helpers.golden import fill_state_dict

SMALL = MMAudioCodecConfig(
    name="small_random",
    mel=MelConfig(sample_rate_hz=4_000, num_mels=12, fft_size=64, hop_samples=16, max_hz=2_000.0, log_base="e"),
    vae=VaeConfig(num_mels=12, latent_channels=3, hidden_channels=8),
    vocoder=BigVganConfig(num_mels=12, initial_channels=16, upsample_rates=(4, 4), upsample_taps=(8, 8)),
)


def _vae_state() -> dict[str, Tensor]:
    filled = fill_state_dict(Vae(SMALL.vae).official_shapes(), "unit")
    return {**filled, "data_mean": torch.zeros(1, 12, 1), "data_std": torch.ones(1, 12, 1)}


def _vocoder_state() -> dict[str, Tensor]:
    return fill_state_dict(BigVgan(SMALL.vocoder).official_shapes(), "unit")


def test_encoding_and_decoding_keeps_lengths() -> None:
    codec = MMAudioCodec(SMALL, _vae_state(), _vocoder_state())
    num_samples = codec.num_samples(1.0)
    assert num_samples == 4_000
    posterior = codec.encode(0.1 * torch.randn(2, num_samples))
    assert posterior.mean_BLC.shape == (2, codec.latent_length(1.0), codec.latent_channels)
    wave_BA = codec.decode(posterior.mean_BLC)
    assert wave_BA.shape == (2, num_samples)
    assert wave_BA.abs().max() <= 1.0


def test_published_modes_have_the_published_lengths() -> None:
    """8 s: 250 latents of 20 channels at 16 kHz, 345 of 40 and 353,280 samples at 44.1 kHz (MMAudio, Table A5)."""
    for mode, latent_length, num_samples in (("16k", 250, 128_000), ("44k", 345, 353_280)):
        config = MODES[mode]
        samples_per_latent = 2 * config.mel.hop_samples
        assert -(-round(8.0 * config.mel.sample_rate_hz) // samples_per_latent) == latent_length
        assert latent_length * samples_per_latent == num_samples


def test_without_a_vocoder_it_encodes_only() -> None:
    codec = MMAudioCodec(SMALL, _vae_state(), None)
    latent_BLC = codec.encode(torch.zeros(1, 320)).mean_BLC
    with pytest.raises(ConfigError, match="without its vocoder"):
        codec.decode(latent_BLC)


def test_the_fingerprint_depends_on_the_vae_but_not_on_the_vocoder() -> None:
    state = _vae_state()
    first = MMAudioCodec(SMALL, state, None).fingerprint()
    assert first == MMAudioCodec(SMALL, state, _vocoder_state()).fingerprint()
    state["encoder.conv_in.weight"] = state["encoder.conv_in.weight"].flip(0)
    assert first != MMAudioCodec(SMALL, state, None).fingerprint()


def test_wrong_input_is_described() -> None:
    with pytest.raises(ConfigError, match="no audio codec mode '48k'"):
        MMAudioCodec("48k", {}, None)
    with pytest.raises(WeightsError, match="contains no network"):
        MMAudioCodec("16k", {}, None)
    with pytest.raises(ValueError, match="multiple of 32"):
        MMAudioCodec(SMALL, _vae_state(), None).encode(torch.zeros(1, 100))
    with pytest.raises(ConfigError, match="do not fit"):
        MMAudioCodecConfig("odd", SMALL.mel, SMALL.vae, BigVganConfig(12, 16, (4, 2), (8, 4)))
