"""The tiny codec: level and log-mel shape through a fixed orthogonal transform, and phase reconstruction; nothing learned.

A latent encodes two mel frames. The level channels all hold the logarithm of the frames' energy; `decode` scales the frames
to that energy, whatever the other channels are. Those encode the shape: the cosine transform (DCT-II) over the mel bins of
the frames' sum and of their difference is orthogonal. The 33 lowest-frequency cosines of the sum after the constant one
encode the spectrum's shape, the 3 lowest of the difference the onsets within the 32 ms. The dropped fine structure has a
standard deviation of about 2 dB on everyday sounds.
"""

import hashlib
import math

import torch
from torch import Tensor

from dmma_core.models.audio_codec.codec import AudioCodec, LatentPosterior
from dmma_core.models.audio_codec.mel import MEL_16K, MelSpectrogram
from dmma_core.models.audio_codec.phase import FastGriffinLim

_VERSION = 2  # to be raised whenever latents or sound change: it is part of the fingerprint
_NUM_LEVEL_CHANNELS = 4  # equal ones; `decode` takes their mean
_NUM_SUM_COSINES = 33  # after the constant one
_NUM_DIFFERENCE_COSINES = 3
_FRAMES_PER_LATENT = 2

# Added to mel magnitudes before the logarithm and subtracted after it: -82 dBFS of white noise, so that silence is a
# finite value close to the other sounds' values and decodes to silence.
_MEL_FLOOR = 1e-4
_SCALE = 4.0  # brings the largest latents to single digits
_LOWEST_HZ = 30.0  # the mel filters have almost no response below
_MAX_LEVEL_STEP_LOG10 = 1.0
_NUM_PHASE_ITERATIONS = 16  # more of them hardly lower the spectral error but sharpen steady sounds into pulses
_PHASE_MOMENTUM = 0.5
_LEVEL_FLOOR = 1e-3  # added to a latent's energy before the logarithm: -86 dBFS of white noise
_CENTRE_LEVEL_LOG10 = 0.65  # about the middle between silence and full scale
_MAX_LEVEL_LOG10 = 2.8  # energy of a waveform whose every sample is at full scale: no sound has more
_NUM_LEVEL_STEPS = 3  # the floor makes energy slightly non-linear in the offset of the logarithms
_LEVEL_SCALE = math.sqrt(_FRAMES_PER_LATENT * MEL_16K.num_mels) / _SCALE  # of a level channel, per log10 of magnitude


class SpectralCodec(AudioCodec):
    """16 kHz mono to 31.25 latents/s of 40 channels, and back. Deterministic and independent of the batch.

    The level has channels of its own because magnitudes are exponentials of latents: errors of a generated shape that are
    zero on average raise the energy (a standard deviation of 8 dB in every mel bin raises it by 7 dB). It is repeated so
    that errors of the copies average out: noise in every channel is halved in the level.
    """

    name = "spectral"
    sample_rate_hz = MEL_16K.sample_rate_hz
    latent_channels = _NUM_LEVEL_CHANNELS + _NUM_SUM_COSINES + _NUM_DIFFERENCE_COSINES
    samples_per_latent = _FRAMES_PER_LATENT * MEL_16K.hop_samples

    cosines_CM: Tensor
    inverse_KM: Tensor
    audible_K: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.mel = MelSpectrogram(MEL_16K)
        self.phase = FastGriffinLim(
            MEL_16K.fft_size, MEL_16K.hop_samples, num_iterations=_NUM_PHASE_ITERATIONS, momentum=_PHASE_MOMENTUM
        )
        basis_MK = self.mel.mel_basis_MK.double()
        inverse_KM = torch.linalg.pinv(basis_MK).float()
        self.register_buffer(
            "cosines_CM", orthonormal_cosines(1 + _NUM_SUM_COSINES, MEL_16K.num_mels), persistent=False
        )
        self.register_buffer("inverse_KM", inverse_KM, persistent=False)
        bins_hz = torch.linspace(0.0, self.sample_rate_hz / 2, MEL_16K.fft_size // 2 + 1)
        self.register_buffer("audible_K", (bins_hz >= _LOWEST_HZ).float(), persistent=False)

    @torch.no_grad()
    def encode(self, wave_BA: Tensor) -> LatentPosterior:
        """Latents of float32 waveforms [B, A]; std is 0. Raises ValueError if A is no multiple of 512."""
        if wave_BA.ndim != 2 or wave_BA.shape[1] == 0 or wave_BA.shape[1] % self.samples_per_latent:
            raise ValueError(
                f"Waveforms of shape {tuple(wave_BA.shape)} cannot be encoded: [B, A] with A a positive multiple of "
                f"{self.samples_per_latent} is expected."
            )
        magnitude_BKF = self.mel.magnitude(wave_BA)
        level_BL = 0.5 * torch.log10(self._energy(magnitude_BKF) + _LEVEL_FLOOR)
        level_BLC = (_LEVEL_SCALE * (level_BL - _CENTRE_LEVEL_LOG10))[:, :, None].expand(-1, -1, _NUM_LEVEL_CHANNELS)
        latent_BLC = torch.cat([level_BLC, self._analyse(self.mel.mel_basis_MK @ magnitude_BKF)], dim=-1)
        return LatentPosterior(latent_BLC, torch.zeros_like(latent_BLC))

    @torch.no_grad()
    def decode(self, latent_BLC: Tensor) -> Tensor:
        """float32 waveforms [B, L * 512] in [-1, 1]. About 0.05 s of one CPU core for 4 s of sound."""
        wave_BA: Tensor = self.phase(self._synthesise(latent_BLC.float()))
        return wave_BA.clamp(-1.0, 1.0)

    def fingerprint(self) -> str:
        settings = (
            _VERSION, MEL_16K, _NUM_LEVEL_CHANNELS, _NUM_SUM_COSINES, _NUM_DIFFERENCE_COSINES, _MEL_FLOOR, _SCALE, _LOWEST_HZ,
            _NUM_PHASE_ITERATIONS, _PHASE_MOMENTUM, _LEVEL_FLOOR, _CENTRE_LEVEL_LOG10, _MAX_LEVEL_LOG10, _NUM_LEVEL_STEPS,
        )  # fmt: skip
        return f"{self.name}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}"

    def _analyse(self, mel_BMF: Tensor) -> Tensor:
        """The channels of the shape."""
        log_BFM = torch.log10(mel_BMF + _MEL_FLOOR).transpose(1, 2)
        first_BLM, second_BLM = log_BFM[:, 0::2], log_BFM[:, 1::2]
        sum_BLC = (first_BLM + second_BLM) @ self.cosines_CM[1:].T
        difference_BLC = (first_BLM - second_BLM) @ self._lowest_cosines().T
        return torch.cat([sum_BLC, difference_BLC], dim=-1) * (math.sqrt(0.5) / _SCALE)

    def _synthesise(self, latent_BLC: Tensor) -> Tensor:
        """Linear magnitudes [B, K, 2 L] that latents stand for."""
        level_BLC, shape_BLC = latent_BLC[:, :, :_NUM_LEVEL_CHANNELS], latent_BLC[:, :, _NUM_LEVEL_CHANNELS:]
        level_BL = (level_BLC.mean(2) / _LEVEL_SCALE + _CENTRE_LEVEL_LOG10).clamp(max=_MAX_LEVEL_LOG10)
        energy_BL = 10.0 ** (2.0 * level_BL)  # the floor included
        shape_BL2M = self._shape(shape_BLC)
        offset_BL = -shape_BL2M.amax((2, 3))  # at first the loudest bin is 1: nothing overflows
        unit_BL = self._energy(self._magnitude(10.0 ** (shape_BL2M + offset_BL[:, :, None, None]))).clamp(
            min=_LEVEL_FLOOR
        )
        offset_BL = offset_BL + level_BL - 0.5 * torch.log10(unit_BL)
        for _ in range(_NUM_LEVEL_STEPS):
            magnitude_BKF = self._magnitude(10.0 ** (shape_BL2M + offset_BL[:, :, None, None]) - _MEL_FLOOR)
            step_BL = 0.5 * torch.log10(energy_BL / (self._energy(magnitude_BKF) + _LEVEL_FLOOR))
            offset_BL = offset_BL + step_BL.clamp(-_MAX_LEVEL_STEP_LOG10, _MAX_LEVEL_STEP_LOG10)
        return self._magnitude(10.0 ** (shape_BL2M + offset_BL[:, :, None, None]) - _MEL_FLOOR)

    def _shape(self, shape_BLC: Tensor) -> Tensor:
        """Logarithms [B, L, 2, M] of the mel magnitudes of a latent's frames, less their common offset."""
        sum_BLM = _SCALE * shape_BLC[:, :, :_NUM_SUM_COSINES] @ self.cosines_CM[1:]
        difference_BLM = _SCALE * shape_BLC[:, :, _NUM_SUM_COSINES:] @ self._lowest_cosines()
        return torch.stack([sum_BLM + difference_BLM, sum_BLM - difference_BLM], dim=2) * math.sqrt(0.5)

    def _magnitude(self, mel_BL2M: Tensor) -> Tensor:
        """Linear magnitudes [B, K, 2 L] of mel magnitudes."""
        mel_BMF = mel_BL2M.clamp(min=0.0).flatten(1, 2).transpose(1, 2)
        return (self.inverse_KM @ mel_BMF).clamp(min=0.0)

    def _lowest_cosines(self) -> Tensor:
        return self.cosines_CM[:_NUM_DIFFERENCE_COSINES]

    def _energy(self, magnitude_BKF: Tensor) -> Tensor:
        """Squared magnitude [B, L], summed over audible frequencies and over the frames of a latent."""
        energy_BF = (magnitude_BKF * self.audible_K[:, None]).square().sum(1)
        return energy_BF.reshape(len(energy_BF), -1, _FRAMES_PER_LATENT).sum(2)


def orthonormal_cosines(num_cosines: int, length: int) -> Tensor:
    """The lowest-frequency rows [num_cosines, length] of the orthonormal DCT-II."""
    phase = math.pi * (torch.arange(length, dtype=torch.float64) + 0.5) / length
    rows = torch.cos(torch.arange(num_cosines, dtype=torch.float64)[:, None] * phase) * math.sqrt(2.0 / length)
    rows[0] *= math.sqrt(0.5)
    return rows.float()
