"""The audio codec's interface: waveforms to latents and back. Implemented by VAE + vocoder and by the tiny codec."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil

from torch import Tensor, nn


@dataclass(frozen=True)
class LatentPosterior:
    """Diagonal Gaussian over latents, both float32 [B, L, C]. A deterministic codec has std 0."""

    mean_BLC: Tensor
    std_BLC: Tensor

    def sample(self, noise_BLC: Tensor) -> Tensor:
        """Reparameterised sample: mean + std * standard normal noise, [B, L, C]."""
        return self.mean_BLC + self.std_BLC * noise_BLC


class AudioCodec(nn.Module, ABC):
    """Mono audio in [-1, 1] at `sample_rate_hz` to latents of `latent_channels`, one for `samples_per_latent`, and back."""

    name: str
    sample_rate_hz: int
    latent_channels: int
    samples_per_latent: int

    def latent_length(self, duration_s: float) -> int:
        """Latent steps L of clips of `duration_s`, rounded up (MMAudio, 8 s: 250 at 16 kHz, 345 at 44.1 kHz)."""
        return ceil(round(duration_s * self.sample_rate_hz) / self.samples_per_latent)

    def num_samples(self, duration_s: float) -> int:
        """Audio samples of `latent_length` latents: the duration rounded up to full latents."""
        return self.latent_length(duration_s) * self.samples_per_latent

    @abstractmethod
    def encode(self, wave_BA: Tensor) -> LatentPosterior:
        """Posterior of float32 waveforms [B, A]; A is a multiple of `samples_per_latent`."""

    @abstractmethod
    def decode(self, latent_BLC: Tensor) -> Tensor:
        """float32 waveforms [B, A] in [-1, 1] with A = L * samples_per_latent."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Identifies architecture and weights: equal fingerprints mean equal latents."""
