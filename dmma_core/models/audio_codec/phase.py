"""Phase reconstruction: from magnitudes of a short-time spectrum to a waveform."""

import torch
from torch import Tensor, nn

_PHASE_SEED = 20_250_101
_TINY = 1e-9


class FastGriffinLim(nn.Module):
    """Fast Griffin-Lim algorithm (Perraudin, Balazs, Soendergaard 2013) on the frames of `MelSpectrogram.magnitude`.

    The initial phases are those of a fixed white noise signal. Unlike independent random phases they are consistent, so
    few iterations are enough and steady sounds do not turn into pulse trains. The result is deterministic. Clips are
    reconstructed one by one, so a clip's samples do not depend on its batch.
    """

    window: Tensor

    def __init__(self, fft_size: int, hop_samples: int, num_iterations: int, momentum: float) -> None:
        super().__init__()
        assert fft_size % hop_samples == 0, "overlap-add needs an integer number of hops per window"
        self.fft_size = fft_size
        self.hop_samples = hop_samples
        self.num_iterations = num_iterations
        self.momentum = momentum
        self.margin = (fft_size - hop_samples) // 2
        self.register_buffer("window", torch.hann_window(fft_size), persistent=False)

    def forward(self, magnitude_BKF: Tensor) -> Tensor:
        """float32 waveforms [B, F * hop_samples] with the magnitudes `magnitude_BKF` [B, fft_size // 2 + 1, F]."""
        return torch.stack([self._reconstruct(magnitude_FK) for magnitude_FK in magnitude_BKF.transpose(1, 2)])

    def _reconstruct(self, magnitude_FK: Tensor) -> Tensor:
        num_samples = magnitude_FK.shape[0] * self.hop_samples
        noise_A = torch.randn(num_samples, generator=torch.Generator().manual_seed(_PHASE_SEED))
        phase_FK = self._spectrum(noise_A.to(magnitude_FK.device)).angle()
        envelope = self._overlap_add(self.window.square().expand(magnitude_FK.shape[0], -1)).clamp(min=1e-3)
        estimate_FK = torch.polar(magnitude_FK.contiguous(), phase_FK)
        previous_FK = None
        for _ in range(self.num_iterations):
            consistent_FK = self._spectrum(self._wave(estimate_FK, envelope))
            ahead_FK = consistent_FK
            if previous_FK is not None:
                ahead_FK = torch.lerp(previous_FK, consistent_FK, 1.0 + self.momentum)
            previous_FK = consistent_FK
            estimate_FK = ahead_FK * (magnitude_FK / (ahead_FK.abs() + _TINY))
        return self._wave(estimate_FK, envelope)

    def _spectrum(self, wave_A: Tensor) -> Tensor:
        padded = nn.functional.pad(wave_A[None], (self.margin, self.margin), mode="reflect")[0]
        frames: Tensor = padded.unfold(0, self.fft_size, self.hop_samples) * self.window
        spectrum_FK: Tensor = torch.fft.rfft(frames)
        return spectrum_FK

    def _wave(self, spectrum_FK: Tensor, envelope: Tensor) -> Tensor:
        frames = torch.fft.irfft(spectrum_FK, n=self.fft_size) * self.window
        return self._overlap_add(frames) / envelope

    def _overlap_add(self, frames: Tensor) -> Tensor:
        num_frames, hops = frames.shape[0], self.fft_size // self.hop_samples
        total = frames.new_zeros(num_frames + hops - 1, self.hop_samples)
        for hop, part in enumerate(frames.reshape(num_frames, hops, self.hop_samples).unbind(1)):
            total[hop : hop + num_frames] += part
        return total.flatten()[self.margin : self.margin + num_frames * self.hop_samples]
