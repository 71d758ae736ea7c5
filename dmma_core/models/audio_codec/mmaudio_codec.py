"""MMAudio's audio codec: log-mel spectrogram, variational autoencoder, and BigVGAN as the vocoder."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dmma_core.errors import ConfigError
from dmma_core.models.audio_codec.bigvgan import BIGVGAN_16K, BIGVGAN_V2_44K, BigVgan, BigVganConfig
from dmma_core.models.audio_codec.codec import AudioCodec, LatentPosterior
from dmma_core.models.audio_codec.mel import MEL_16K, MEL_44K, MelConfig, MelSpectrogram
from dmma_core.models.audio_codec.vae import VAE_16K, VAE_44K, Vae, VaeConfig

_FRAMES_PER_LATENT = 2


@dataclass(frozen=True)
class MMAudioCodecConfig:
    """The three parts of a codec, which must agree in mel bins and in samples per frame."""

    name: str
    mel: MelConfig
    vae: VaeConfig
    vocoder: BigVganConfig

    def __post_init__(self) -> None:
        samples_per_frame = 1
        for rate in self.vocoder.upsample_rates:
            samples_per_frame *= rate
        bins = {self.mel.num_mels, self.vae.num_mels, self.vocoder.num_mels}
        if len(bins) != 1 or samples_per_frame != self.mel.hop_samples:
            raise ConfigError(
                f"The parts of codec {self.name} do not fit: mel bins {sorted(bins)}, hop {self.mel.hop_samples}, "
                f"vocoder {samples_per_frame} samples per frame.",
                remedy="Use spectrogram, VAE and vocoder of one mode.",
            )


MODES = {
    "16k": MMAudioCodecConfig("mmaudio_16k", MEL_16K, VAE_16K, BIGVGAN_16K),
    "44k": MMAudioCodecConfig("mmaudio_44k", MEL_44K, VAE_44K, BIGVGAN_V2_44K),
}


def samples_per_latent(config: MMAudioCodecConfig) -> int:
    """Audio samples per latent: 512 at 16 kHz, 1,024 at 44.1 kHz."""
    return _FRAMES_PER_LATENT * config.mel.hop_samples


class MMAudioCodec(AudioCodec):
    """16 kHz: 31.25 latents/s of 20 channels; 44.1 kHz: 43.07 latents/s of 40 channels (paper, Table A5).

    `vae_state` and `vocoder_state` are published state dicts (see `Vae.from_official`, `BigVgan.from_official`).
    Encoding needs no vocoder; with `vocoder_state` None, `decode` raises ConfigError.
    """

    def __init__(
        self,
        mode: str | MMAudioCodecConfig,
        vae_state: Mapping[str, Any],
        vocoder_state: Mapping[str, Any] | None,
    ) -> None:
        """`mode` is "16k", "44k" or a config of another size.

        Raises ConfigError for an unknown mode, or WeightsError.
        """
        super().__init__()
        if isinstance(mode, str) and mode not in MODES:
            raise ConfigError(f"There is no audio codec mode {mode!r}.", remedy=f"Use one of {', '.join(MODES)}.")
        config = MODES[mode] if isinstance(mode, str) else mode
        self.name = config.name
        self.sample_rate_hz = config.mel.sample_rate_hz
        self.latent_channels = config.vae.latent_channels
        self.samples_per_latent = samples_per_latent(config)
        self.mel = MelSpectrogram(config.mel)
        self.vae = Vae.from_official(config.vae, vae_state)
        self.vocoder = None if vocoder_state is None else BigVgan.from_official(config.vocoder, vocoder_state)

    @torch.no_grad()
    def encode(self, wave_BA: Tensor) -> LatentPosterior:
        """Posterior of float32 waveforms [B, A]. Raises ValueError if A is no multiple of `samples_per_latent`."""
        if wave_BA.ndim != 2 or wave_BA.shape[1] % self.samples_per_latent:
            raise ValueError(
                f"Waveforms of shape {tuple(wave_BA.shape)} cannot be encoded: [B, A] with A a multiple of "
                f"{self.samples_per_latent} is expected."
            )
        return self.vae.encode(self.mel(wave_BA).transpose(1, 2))

    @torch.no_grad()
    def decode(self, latent_BLC: Tensor) -> Tensor:
        """float32 waveforms [B, L * samples_per_latent] in [-1, 1]. Raises ConfigError without a vocoder."""
        if self.vocoder is None:
            raise ConfigError(
                f"Codec {self.name} was loaded without its vocoder, so it cannot decode latents.",
                remedy="Load it with the vocoder's weights.",
            )
        wave_BA: Tensor = self.vocoder(self.vae.decode(latent_BLC.float()))
        return wave_BA

    def fingerprint(self) -> str:
        """Name and sha256 over the mel settings and the VAE's weights; latents do not depend on the vocoder."""
        digest = hashlib.sha256(repr((self.mel.config, self.vae.config)).encode())
        for key, value in sorted(self.vae.state_dict().items()):
            digest.update(f"{key} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return f"{self.name}-{digest.hexdigest()[:16]}"
