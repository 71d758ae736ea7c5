"""Log-mel spectrograms: frames, units, floor, and the filters against Slaney's definition."""

import math

import pytest
import torch

from dmma_core.models.audio_codec.mel import LOG_FLOOR, MEL_16K, MEL_44K, MelConfig, MelSpectrogram, slaney_mel_basis

CONFIGS = [MEL_16K, MEL_44K]


@pytest.mark.parametrize("config", CONFIGS)
def test_one_frame_per_hop(config: MelConfig) -> None:
    mel = MelSpectrogram(config)
    log_mel = mel(torch.zeros(2, 20 * config.hop_samples))
    assert log_mel.shape == (2, config.num_mels, 20)
    floor = math.log10(LOG_FLOOR) if config.log_base == "10" else math.log(LOG_FLOOR)
    assert log_mel.max() <= floor + 0.5  # silence is at the floor, up to the constant under the square root
    assert not mel.state_dict()


@pytest.mark.parametrize("config", CONFIGS)
def test_filters_have_equal_area_and_rising_centres(config: MelConfig) -> None:
    basis_MK = slaney_mel_basis(config)
    bin_hz = config.sample_rate_hz / config.fft_size
    wide = basis_MK[config.num_mels // 2 :]  # filters of many bins, so that sampling the triangle is accurate
    assert torch.allclose(wide.sum(1) * bin_hz, torch.ones(len(wide)), atol=0.02)
    assert (basis_MK.argmax(1).diff() >= 0).all()
    assert (basis_MK >= 0).all()


def test_a_tone_has_its_maximum_in_its_filter() -> None:
    """Slaney's scale: 1 kHz is mel 15 of 45.2 at 8 kHz."""
    tone = 0.5 * torch.sin(2 * math.pi * 1000.0 * torch.arange(16_000) / 16_000)
    top_mel = 15.0 + 27.0 * math.log(8.0) / math.log(6.4)
    expected = 15.0 / top_mel * (MEL_16K.num_mels + 1) - 1.0
    found = int(MelSpectrogram(MEL_16K)(tone[None]).mean(-1).argmax())
    assert abs(found - expected) <= 1.0


def test_a_louder_wave_is_clamped() -> None:
    wave_BA = torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))
    mel = MelSpectrogram(MEL_16K)
    assert torch.equal(mel(3.0 * wave_BA), mel((3.0 * wave_BA).clamp(-1.0, 1.0)))


@pytest.mark.parametrize("config", CONFIGS)
def test_ten_times_the_amplitude_is_one_decade(config: MelConfig) -> None:
    wave_BA = 0.05 * torch.randn(1, 16 * config.hop_samples, generator=torch.Generator().manual_seed(0))
    mel = MelSpectrogram(config)
    decade = 1.0 if config.log_base == "10" else math.log(10.0)
    assert torch.allclose(mel(wave_BA) - mel(wave_BA / 10.0), torch.tensor(decade), atol=0.01)
