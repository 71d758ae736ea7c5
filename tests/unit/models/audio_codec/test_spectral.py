"""The tiny codec against sounds of four kinds: level, log-mel distance, silence, and independence of the batch."""

import math
import time

import pytest
import torch
from torch import Tensor

from dmma_core.models.audio_codec.mel import MEL_16K, MelSpectrogram
from dmma_core.models.audio_codec.spectral import SpectralCodec, orthonormal_cosines

RATE_HZ = 16_000
DURATION_S = 2.048


def _seconds() -> Tensor:
    return torch.arange(int(DURATION_S * RATE_HZ)) / RATE_HZ


def _noise_bursts() -> Tensor:
    since_burst_s = _seconds() % 0.5
    noise = torch.randn(since_burst_s.shape, generator=torch.Generator().manual_seed(1))
    return 0.2 * noise * torch.exp(-since_burst_s * 20.0)


def _ticks() -> Tensor:
    since_tick_s = (_seconds() - 0.1) % 0.4
    noise = torch.randn(since_tick_s.shape, generator=torch.Generator().manual_seed(2))
    return 0.3 * noise * torch.exp(-since_tick_s * 80.0)


def _engine() -> Tensor:
    t = _seconds()
    harmonics = sum(torch.sin(2 * math.pi * 90.0 * k * t + k * k) / k for k in range(1, 30))
    assert isinstance(harmonics, Tensor)
    return 0.1 * harmonics * (1.0 + 0.5 * torch.sin(2 * math.pi * 1.5 * t))


def _bell() -> Tensor:
    t = _seconds()
    partials = [
        torch.sin(2 * math.pi * f * t) * torch.exp(-t * (1 + f / 1500)) for f in (440.0, 1010.0, 1870.0, 3300.0)
    ]
    return 0.15 * torch.stack(partials).sum(0)


SOUNDS = {"noise bursts": _noise_bursts, "ticks": _ticks, "engine": _engine, "bell": _bell}
# Upper bounds of the root-mean-square error of log10 mel magnitude (above 1e-4) of decode(encode(x)); 0.1 is 2 dB.
# Noise differs because its fine structure is not encoded, pure tones because there are fewer cosines than mel bins, so a line
# becomes three bins wide. Recorded everyday sounds have 0.1 to 0.5.
MAX_LOG_MEL_ERROR = {"noise bursts": 0.32, "ticks": 0.30, "engine": 0.35, "bell": 0.45}


def _level_db(wave: Tensor) -> float:
    return 10.0 * math.log10(float(wave.square().mean()))


@pytest.fixture(scope="module")
def codec() -> SpectralCodec:
    return SpectralCodec()


@pytest.fixture(scope="module")
def waves() -> Tensor:
    return torch.stack([make() for make in SOUNDS.values()])


def test_latents_have_the_stated_shape_and_range(codec: SpectralCodec, waves: Tensor) -> None:
    posterior = codec.encode(waves)
    assert posterior.mean_BLC.shape == (len(SOUNDS), codec.latent_length(DURATION_S), codec.latent_channels)
    assert codec.latent_length(4.0) == 125
    assert not posterior.std_BLC.any()
    assert posterior.mean_BLC.abs().max() < 10.0
    assert 0.2 < posterior.mean_BLC.std() < 2.0
    assert torch.equal(posterior.sample(torch.randn_like(posterior.mean_BLC)), posterior.mean_BLC)


@pytest.mark.parametrize("index", range(len(SOUNDS)), ids=list(SOUNDS))
def test_reconstruction_error_and_level(codec: SpectralCodec, waves: Tensor, index: int) -> None:
    mel = MelSpectrogram(MEL_16K)
    wave_BA = waves[index : index + 1]
    decoded_BA = codec.decode(codec.encode(wave_BA).mean_BLC)
    assert decoded_BA.shape == wave_BA.shape
    assert decoded_BA.abs().max() <= 1.0
    error = torch.log10(10.0 ** mel(decoded_BA) + 1e-4) - torch.log10(10.0 ** mel(wave_BA) + 1e-4)
    assert float(error.square().mean().sqrt()) < list(MAX_LOG_MEL_ERROR.values())[index]
    assert abs(_level_db(decoded_BA) - _level_db(wave_BA)) < 0.5  # dB


@pytest.mark.parametrize("gain_db", [-10.0, -20.0, -30.0])
def test_absolute_level_follows_the_original(codec: SpectralCodec, waves: Tensor, gain_db: float) -> None:
    quieter_BA = waves * 10.0 ** (gain_db / 20.0)
    decoded_BA = codec.decode(codec.encode(quieter_BA).mean_BLC)
    for decoded, original in zip(decoded_BA, quieter_BA, strict=True):
        assert abs(_level_db(decoded) - _level_db(original)) < 0.8


def test_level_follows_the_original_over_time(codec: SpectralCodec) -> None:
    """A source that approaches: 24 dB louder at the end. Quarter-second levels stay within 1 dB."""
    noise = torch.randn(4 * RATE_HZ, generator=torch.Generator().manual_seed(3))
    wave_A = 0.1 * noise * torch.linspace(math.log(0.063), 0.0, 4 * RATE_HZ).exp()
    decoded_A = codec.decode(codec.encode(wave_A[None]).mean_BLC)[0]
    before = wave_A.reshape(-1, RATE_HZ // 4).square().mean(1).log10()
    after = decoded_A.reshape(-1, RATE_HZ // 4).square().mean(1).log10()
    assert float((after - before).abs().max()) * 10.0 < 1.0


def test_an_uncertain_shape_leaves_the_level(codec: SpectralCodec, waves: Tensor) -> None:
    """A generated shape errs around the true one. Magnitudes are exponentials: without a level of its own the sound
    would become louder by several dB."""
    latent_BLC = codec.encode(waves).mean_BLC
    error_BLC = torch.randn(latent_BLC.shape, generator=torch.Generator().manual_seed(4))
    error_BLC *= latent_BLC.std((0, 1))
    error_BLC[:, :, :4] = 0.0  # the level
    for decoded, original in zip(codec.decode(latent_BLC + error_BLC), waves, strict=True):
        assert abs(_level_db(decoded) - _level_db(original)) < 1.5


def test_noise_of_the_level_averages_out(codec: SpectralCodec, waves: Tensor) -> None:
    """Noise as large as the level's own deviation in rendered clips (1.4), in every channel: the energy of a single
    channel with it would be 9 dB too high."""
    latent_BLC = codec.encode(waves).mean_BLC
    noise_BLC = 1.4 * torch.randn(latent_BLC[:, :, :4].shape, generator=torch.Generator().manual_seed(5))
    noisy_BLC = torch.cat([latent_BLC[:, :, :4] + noise_BLC, latent_BLC[:, :, 4:]], dim=2)
    for decoded, original in zip(codec.decode(noisy_BLC), waves, strict=True):
        assert abs(_level_db(decoded) - _level_db(original)) < 4.0


def test_no_latent_is_louder_than_full_scale(codec: SpectralCodec, waves: Tensor) -> None:
    louder_BLC = codec.encode(waves).mean_BLC
    louder_BLC[:, :, :4] = 50.0
    loudest_BLC = louder_BLC.clone()
    loudest_BLC[:, :, :4] = 500.0
    assert torch.equal(codec.decode(louder_BLC), codec.decode(loudest_BLC))


def test_silence_decodes_to_near_silence(codec: SpectralCodec) -> None:
    decoded = codec.decode(codec.encode(torch.zeros(1, 16_384)).mean_BLC)
    assert float(decoded.abs().max()) < 1e-4


def test_onsets_stay_in_place(codec: SpectralCodec) -> None:
    """The envelope's correlation with the original's peaks at a shift below 10 ms."""
    wave_A = _ticks()
    decoded_A = codec.decode(codec.encode(wave_A[None]).mean_BLC)[0]
    frame = 32  # 2 ms
    before, after = (w[: len(w) // frame * frame].reshape(-1, frame).square().mean(1) for w in (wave_A, decoded_A))
    scores = [float((before * after.roll(shift)).sum()) for shift in range(-20, 21)]
    assert abs(scores.index(max(scores)) - 20) * 2 < 10  # ms


def test_a_clip_does_not_depend_on_its_batch(codec: SpectralCodec, waves: Tensor) -> None:
    latent_BLC = codec.encode(waves).mean_BLC
    together_BA = codec.decode(latent_BLC)
    assert torch.equal(codec.decode(latent_BLC), together_BA)
    for index in range(len(waves)):
        alone_BLC = codec.encode(waves[index : index + 1]).mean_BLC
        assert torch.allclose(alone_BLC[0], latent_BLC[index], atol=1e-5)
        alone_BA = codec.decode(latent_BLC[index : index + 1])
        assert torch.allclose(alone_BA[0], together_BA[index], atol=1e-5)


def test_extreme_latents_decode_to_finite_sound(codec: SpectralCodec) -> None:
    decoded = codec.decode(50.0 * torch.randn(1, 8, codec.latent_channels, generator=torch.Generator().manual_seed(0)))
    assert torch.isfinite(decoded).all()
    assert decoded.abs().max() <= 1.0


def test_decoding_is_fast(codec: SpectralCodec) -> None:
    latent_BLC = codec.encode(0.1 * torch.randn(1, 4 * RATE_HZ)[:, : 125 * 512]).mean_BLC
    seconds = []
    for _ in range(3):
        start = time.process_time()
        codec.decode(latent_BLC)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3


def test_cosines_are_orthonormal() -> None:
    cosines = orthonormal_cosines(80, 80)
    assert torch.allclose(cosines @ cosines.T, torch.eye(80), atol=1e-5)


def test_a_wrong_length_is_refused(codec: SpectralCodec) -> None:
    with pytest.raises(ValueError, match="positive multiple of 512"):
        codec.encode(torch.zeros(1, 1000))


def test_fingerprint_is_stable(codec: SpectralCodec) -> None:
    assert codec.fingerprint() == SpectralCodec().fingerprint()
    assert codec.fingerprint().startswith("spectral-")
    assert not codec.state_dict()
