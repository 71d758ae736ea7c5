"""The tiny codec: log-mel, a fixed orthogonal transform to latents, and phase reconstruction. Nothing in it is learned.

A latent encodes two mel frames. The cosine transform (DCT-II) over the mel bins of the frames' sum and of their
difference is orthogonal. The 34 lowest-frequency cosines of the sum encode the spectrum's shape, the 6 lowest of the
difference the onsets within the 32 ms. The dropped fine structure has a standard deviation of about 2 dB on everyday
sounds.
"""

import hashlib
import math

import torch
from torch import Tensor

from dmma_core.models.audio_codec.codec import AudioCodec, LatentPosterior
from dmma_core.models.audio_codec.mel import MEL_16K, MelSpectrogram
from dmma_core.models.audio_codec.phase import FastGriffinLim

_VERSION = 1  # part of the fingerprint: increase it whenever latents or sound change
_NUM_SUM_COSINES = 34
_NUM_DIFFERENCE_COSINES = 6
_FRAMES_PER_LATENT = 2

# Added to mel magnitudes before the logarithm and subtracted after it: -82 dBFS of white noise, so that silence is a
# finite value close to the other sounds' values and decodes to silence.
_MEL_FLOOR = 1e-4
_CENTRE_LOG10 = -2.5  # about halfway between silence and full scale
_SCALE = 4.0  # the largest latents have magnitudes below 10
_MAX_LOG10 = 1.0  # above every mel magnitude of a waveform in [-1, 1]: extreme latents stay finite
_LOWEST_HZ = 30.0  # the mel filters have almost no response below
_MAX_LEVEL_STEP_LOG10 = 1.0
_NUM_PHASE_ITERATIONS = 16  # more hardly lower the spectral error but turn steady sounds into pulses
_PHASE_MOMENTUM = 0.5
_LEVEL_FLOOR = (
    1e-3  # energy (squared magnitude, summed over a latent) added to numerator and denominator of level ratios
)


class SpectralCodec(AudioCodec):
    """16 kHz mono to 31.25 latents/s of 40 channels, and back. Deterministic and independent of the batch.

    `encode` sets the level channel (channel 0) so that the energy that `decode` synthesises for a latent equals the
    original's. Without this, dropping cosines would smooth the log spectrum and so lower the level.
    """

    name = "spectral"
    sample_rate_hz = MEL_16K.sample_rate_hz
    latent_channels = _NUM_SUM_COSINES + _NUM_DIFFERENCE_COSINES
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
        self.register_buffer("cosines_CM", orthonormal_cosines(_NUM_SUM_COSINES, MEL_16K.num_mels), persistent=False)
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
        latent_BLC = self._analyse(self.mel.mel_basis_MK @ magnitude_BKF)
        energy_BL = self._energy(magnitude_BKF)
        for _ in range(2):  # two steps, because the floor makes the level slightly non-linear in channel 0
            synthesised_BL = self._energy(self._synthesise(latent_BLC))
            step_BL = 0.5 * torch.log10((energy_BL + _LEVEL_FLOOR) / (synthesised_BL + _LEVEL_FLOOR))
            latent_BLC = self._raise_level(latent_BLC, step_BL.clamp(-_MAX_LEVEL_STEP_LOG10, _MAX_LEVEL_STEP_LOG10))
        return LatentPosterior(latent_BLC, torch.zeros_like(latent_BLC))

    @torch.no_grad()
    def decode(self, latent_BLC: Tensor) -> Tensor:
        """float32 waveforms [B, L * 512] in [-1, 1]. About 0.05 s of one CPU core for 4 s of sound."""
        wave_BA: Tensor = self.phase(self._synthesise(latent_BLC.float()))
        return wave_BA.clamp(-1.0, 1.0)

    def fingerprint(self) -> str:
        """Name and sha256 over all settings; there are no weights."""
        settings = (
            _VERSION, MEL_16K, _NUM_SUM_COSINES, _NUM_DIFFERENCE_COSINES, _MEL_FLOOR, _CENTRE_LOG10, _SCALE, _LOWEST_HZ,
            _NUM_PHASE_ITERATIONS, _PHASE_MOMENTUM,
        )  # fmt: skip
        return f"{self.name}-{hashlib.sha256(repr(settings).encode()).hexdigest()[:16]}"

    def _analyse(self, mel_BMF: Tensor) -> Tensor:
        log_BMF = torch.log10(mel_BMF + _MEL_FLOOR) - _CENTRE_LOG10
        first_BML, second_BML = log_BMF[:, :, 0::2], log_BMF[:, :, 1::2]
        sum_BLC = ((first_BML + second_BML) * math.sqrt(0.5)).transpose(1, 2) @ self.cosines_CM.T
        difference_BLC = ((first_BML - second_BML) * math.sqrt(0.5)).transpose(1, 2) @ self._lowest_cosines().T
        return torch.cat([sum_BLC, difference_BLC], dim=-1) / _SCALE

    def _synthesise(self, latent_BLC: Tensor) -> Tensor:
        """Linear magnitudes [B, K, 2 L] of latents."""
        sum_BLM = _SCALE * latent_BLC[:, :, :_NUM_SUM_COSINES] @ self.cosines_CM
        difference_BLM = _SCALE * latent_BLC[:, :, _NUM_SUM_COSINES:] @ self._lowest_cosines()
        pair_BLM = [(sum_BLM + difference_BLM) * math.sqrt(0.5), (sum_BLM - difference_BLM) * math.sqrt(0.5)]
        log_BFM = torch.stack(pair_BLM, dim=2).flatten(1, 2) + _CENTRE_LOG10
        mel_BMF = (10.0 ** log_BFM.clamp(max=_MAX_LOG10) - _MEL_FLOOR).clamp(min=0.0).transpose(1, 2)
        return (self.inverse_KM @ mel_BMF).clamp(min=0.0)

    def _lowest_cosines(self) -> Tensor:
        return self.cosines_CM[:_NUM_DIFFERENCE_COSINES]

    def _energy(self, magnitude_BKF: Tensor) -> Tensor:
        """Squared magnitude [B, L], summed over audible frequencies and over the frames of a latent."""
        energy_BF = (magnitude_BKF * self.audible_K[:, None]).square().sum(1)
        return energy_BF.reshape(len(energy_BF), -1, _FRAMES_PER_LATENT).sum(2)

    def _raise_level(self, latent_BLC: Tensor, step_log10_BL: Tensor) -> Tensor:
        """Add a step (log10) to every mel bin: channel 0 is the cosine of frequency 0."""
        per_step = math.sqrt(_FRAMES_PER_LATENT * MEL_16K.num_mels) / _SCALE
        raised_BLC = latent_BLC.clone()
        raised_BLC[:, :, 0] += per_step * step_log10_BL
        return raised_BLC


def orthonormal_cosines(num_cosines: int, length: int) -> Tensor:
    """The lowest-frequency rows [num_cosines, length] of the orthonormal DCT-II."""
    phase = math.pi * (torch.arange(length, dtype=torch.float64) + 0.5) / length
    rows = torch.cos(torch.arange(num_cosines, dtype=torch.float64)[:, None] * phase) * math.sqrt(2.0 / length)
    rows[0] *= math.sqrt(0.5)
    return rows.float()
