"""The audio codec's interface: waveforms to latents and back. VAE + vocoder and the tiny codec stand behind it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil

from torch import Tensor, nn


@dataclass(frozen=True)
class LatentPosterior:
    """Diagonal Gaussian over latents, both float32 [B, L, C]. A codec without uncertainty has std 0."""

    mean_BLC: Tensor
    std_BLC: Tensor

    def sample(self, noise_BLC: Tensor) -> Tensor:
        return self.mean_BLC + self.std_BLC * noise_BLC


class AudioCodec(nn.Module, ABC):
    """Mono audio in [-1, 1] at `sample_rate_hz` to latents of `latent_channels` at `latent_rate_hz`, and back."""

    name: str
    sample_rate_hz: int
    latent_channels: int
    samples_per_latent: int

    @property
    def latent_rate_hz(self) -> float:
        return self.sample_rate_hz / self.samples_per_latent

    def latent_length(self, duration_s: float) -> int:
        """Latent steps L for clips of `duration_s`: the duration in latents, rounded up (MMAudio: 8 s -> 250, 345)."""
        return ceil(round(duration_s * self.sample_rate_hz) / self.samples_per_latent)

    def num_samples(self, duration_s: float) -> int:
        """Audio samples that `latent_length` latents stand for; a little more than the duration where it is no multiple."""
        return self.latent_length(duration_s) * self.samples_per_latent

    @abstractmethod
    def encode(self, wave_BA: Tensor) -> LatentPosterior:
        """Posterior of float32 waveforms [B, A]; A is a multiple of `samples_per_latent`."""

    @abstractmethod
    def decode(self, latent_BLC: Tensor) -> Tensor:
        """float32 waveforms [B, A] in [-1, 1] with A = L * samples_per_latent."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Identity of architecture and weights: equal fingerprint, equal latents."""
