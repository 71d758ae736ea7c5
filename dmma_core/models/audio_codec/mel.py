"""Log-mel spectrograms in the two settings of the MMAudio paper (Table A5)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_POWER_EPSILON = 1e-9  # under the square root: keeps the magnitude's gradient finite where the spectrum is zero
LOG_FLOOR = 1e-5  # mel magnitudes below are clamped to this


@dataclass(frozen=True)
class MelConfig:
    """Settings of a log-mel spectrogram; `log_base` is 10 or "e" (natural)."""

    sample_rate_hz: int
    num_mels: int
    fft_size: int
    hop_samples: int
    max_hz: float
    log_base: str


MEL_16K = MelConfig(sample_rate_hz=16_000, num_mels=80, fft_size=1024, hop_samples=256, max_hz=8_000.0, log_base="10")
MEL_44K = MelConfig(sample_rate_hz=44_100, num_mels=128, fft_size=2048, hop_samples=512, max_hz=22_050.0, log_base="e")


class MelSpectrogram(nn.Module):
    """Waveforms [B, A], clamped to [-1, 1], to log-mel [B, M, F] with F = A // hop_samples.

    Frames are windowed by a periodic Hann window of `fft_size` and centred by reflecting (fft_size - hop) / 2 samples
    at both ends, so A must exceed that. No weights; window and filters are buffers outside the state dict.
    """

    mel_basis_MK: Tensor
    window: Tensor

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mel_basis_MK", slaney_mel_basis(config), persistent=False)
        self.register_buffer("window", torch.hann_window(config.fft_size), persistent=False)

    def magnitude(self, wave_BA: Tensor) -> Tensor:
        """Linear magnitudes [B, fft_size // 2 + 1, F]."""
        config = self.config
        margin = (config.fft_size - config.hop_samples) // 2
        padded = nn.functional.pad(wave_BA.clamp(-1.0, 1.0).unsqueeze(1), (margin, margin), mode="reflect").squeeze(1)
        spectrum = torch.stft(
            padded, config.fft_size, config.hop_samples, window=self.window, center=False, return_complex=True
        )
        return (spectrum.real.square() + spectrum.imag.square() + _POWER_EPSILON).sqrt()

    def forward(self, wave_BA: Tensor) -> Tensor:
        mel_BMF = (self.mel_basis_MK @ self.magnitude(wave_BA)).clamp(min=LOG_FLOOR)
        return mel_BMF.log10() if self.config.log_base == "10" else mel_BMF.log()


def slaney_mel_basis(config: MelConfig) -> Tensor:
    """Triangular filters [M, fft_size // 2 + 1] of equal area on Slaney's scale (Auditory Toolbox, 1998).

    The scale is linear up to 1 kHz (200/3 Hz a mel) and logarithmic above (factor 6.4 in 27 mels).
    """
    edge_mels = torch.linspace(0.0, _hz_to_mel(config.max_hz), config.num_mels + 2, dtype=torch.float64)
    log_step = torch.log(torch.tensor(6.4, dtype=torch.float64)) / 27.0
    edges_hz = torch.where(edge_mels < 15.0, edge_mels * 200.0 / 3.0, 1000.0 * torch.exp(log_step * (edge_mels - 15.0)))
    bins_hz = torch.linspace(0.0, config.sample_rate_hz / 2, config.fft_size // 2 + 1, dtype=torch.float64)
    ramps = edges_hz[:, None] - bins_hz[None, :]
    widths_hz = edges_hz.diff()
    rising = -ramps[:-2] / widths_hz[:-1, None]
    falling = ramps[2:] / widths_hz[1:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    areas = 2.0 / (edges_hz[2:] - edges_hz[:-2])
    return (triangles * areas[:, None]).float()


def _hz_to_mel(hz: float) -> float:
    if hz < 1000.0:
        return hz * 3.0 / 200.0
    value = torch.tensor(hz / 1000.0, dtype=torch.float64).log() / torch.tensor(6.4, dtype=torch.float64).log()
    return 15.0 + 27.0 * float(value)
