"""MMAudio's variational autoencoder of log-mel spectrograms (paper, section 3.2 and supplement).

A one-dimensional convolutional network whose layers preserve the magnitude of their inputs (Karras et al., EDM2, 2024):
kernels of unit norm, weighted sums and activations divided by their expected magnitude. The published file holds
kernels before that normalisation; it is applied once, at loading. Sequences are [B, time, channels] throughout. Module
names are those of the published state dict.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from dmma_core.models.audio_codec.channels_last import Conv
from dmma_core.models.audio_codec.codec import LatentPosterior
from dmma_core.storage.state_dicts import checked_state_dict

_EPSILON = 1e-4
_MAX_ACTIVATION = 256.0
_SILU_MAGNITUDE = 0.596  # root-mean-square of silu(x) for x ~ N(0, 1)
_RESIDUAL_SHARE = 0.3
_LOG_VARIANCE_RANGE = (-30.0, 20.0)
_MULTIPLIERS = (1, 2, 4)  # width of each level; between the first two, time is halved
_NUM_ENCODER_BLOCKS = 2
_NUM_DECODER_BLOCKS = 3


@dataclass(frozen=True)
class VaeConfig:
    """Mel bins in and out, latent channels, and the width of the first level."""

    num_mels: int
    latent_channels: int
    hidden_channels: int


VAE_16K = VaeConfig(num_mels=80, latent_channels=20, hidden_channels=384)
VAE_44K = VaeConfig(num_mels=128, latent_channels=40, hidden_channels=512)


class Vae(nn.Module):
    """Log-mel [B, F, M] to a Gaussian over latents [B, F // 2, C], and latents [B, L, C] to log-mel [B, 2 L, M].

    `data_mean_M` and `data_std_M` are the training set's statistics per mel bin; they are part of the weights.
    """

    data_mean_M: Tensor
    data_std_M: Tensor

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)
        self.register_buffer("data_mean_M", torch.zeros(config.num_mels))
        self.register_buffer("data_std_M", torch.ones(config.num_mels))

    @classmethod
    def from_official(cls, config: VaeConfig, state: Mapping[str, Any]) -> "Vae":
        """Network with the weights of a published state dict. Raises WeightsError where it does not fit."""
        vae = cls(config)
        state = checked_state_dict(state, vae.official_shapes(), f"the VAE {config}")
        vae.data_mean_M, vae.data_std_M = state["data_mean"].flatten(), state["data_std"].flatten()
        for name, conv in vae._convs().items():
            weight = unit_norm(state[f"{name}.weight"])
            if name.endswith(".qkv"):
                weight = _deinterleaved(weight)
            half, _, rest = name.partition(".")
            if rest == "conv_out":
                weight = weight * (1.0 + state[f"{half}.learnable_gain"])
            conv.load_official({"weight": weight})
        return vae

    def official_shapes(self) -> dict[str, tuple[int, ...]]:
        """Keys and shapes of the published state dict of this architecture."""
        statistics = dict.fromkeys(("data_mean", "data_std"), (1, self.config.num_mels, 1))
        kernels = {f"{name}.weight": conv.official_shapes()["weight"] for name, conv in self._convs().items()}
        return {**statistics, "encoder.learnable_gain": (), "decoder.learnable_gain": (), **kernels}

    def _convs(self) -> dict[str, Conv]:
        return {name: module for name, module in self.named_modules() if isinstance(module, Conv)}

    def encode(self, log_mel_BFM: Tensor) -> LatentPosterior:
        """Posterior of log-mel spectrograms; an odd last frame is dropped."""
        mean_BLC, log_variance_BLC = self.encoder((log_mel_BFM - self.data_mean_M) / self.data_std_M).chunk(2, dim=-1)
        return LatentPosterior(mean_BLC, torch.exp(0.5 * log_variance_BLC.clamp(*_LOG_VARIANCE_RANGE)))

    def decode(self, latent_BLC: Tensor) -> Tensor:
        """Log-mel [B, 2 L, M] of latents [B, L, C]."""
        log_mel_BFM: Tensor = self.decoder(latent_BLC) * self.data_std_M + self.data_mean_M
        return log_mel_BFM


class _Encoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.hidden_channels * multiplier for multiplier in _MULTIPLIERS]
        self.conv_in = _conv(config.num_mels, widths[0])
        self.down = nn.ModuleList(
            [
                _Level(widths[0], widths[0], _NUM_ENCODER_BLOCKS, downsample=True),
                _Level(widths[0], widths[1], _NUM_ENCODER_BLOCKS),
                _Level(widths[1], widths[2], _NUM_ENCODER_BLOCKS),
            ]
        )
        self.mid = _Middle(widths[2])
        self.conv_out = _conv(widths[2], 2 * config.latent_channels)

    def forward(self, mel_BFM: Tensor) -> Tensor:
        h = self.conv_in(mel_BFM)
        for level in self.down:
            h = level(h)
        moments_BLC: Tensor = self.conv_out(scaled_silu(self.mid(h)))
        return moments_BLC


class _Decoder(nn.Module):
    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.hidden_channels * multiplier for multiplier in _MULTIPLIERS]
        self.conv_in = _conv(config.latent_channels, widths[2])
        self.mid = _Middle(widths[2])
        self.up = nn.ModuleList(  # numbered from the mel side, run from the latent side
            [
                _Level(widths[1], widths[0], _NUM_DECODER_BLOCKS),
                _Level(widths[2], widths[1], _NUM_DECODER_BLOCKS, upsample=True),
                _Level(widths[2], widths[2], _NUM_DECODER_BLOCKS),
            ]
        )
        self.conv_out = _conv(widths[0], config.num_mels)

    def forward(self, latent_BLC: Tensor) -> Tensor:
        h = self.mid(self.conv_in(latent_BLC))
        for level in reversed(self.up):
            h = level(h)
        mel_BFM: Tensor = self.conv_out(scaled_silu(h))
        return mel_BFM


class _Level(nn.Module):
    def __init__(
        self, num_inputs: int, num_outputs: int, num_blocks: int, *, downsample: bool = False, upsample: bool = False
    ) -> None:
        super().__init__()
        inputs = [num_inputs] + [num_outputs] * (num_blocks - 1)
        self.block = nn.ModuleList(_ResidualBlock(width, num_outputs) for width in inputs)
        self.downsample = _Downsample(num_outputs) if downsample else None
        self.upsample = _Upsample(num_outputs) if upsample else None

    def forward(self, h: Tensor) -> Tensor:
        for block in self.block:
            h = block(h).clamp(-_MAX_ACTIVATION, _MAX_ACTIVATION)
        for resample in (self.downsample, self.upsample):
            h = h if resample is None else resample(h)
        return h


class _Middle(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = _ResidualBlock(width, width)
        self.attn_1 = _Attention(width)
        self.block_2 = _ResidualBlock(width, width)

    def forward(self, h: Tensor) -> Tensor:
        h = self.block_2(self.attn_1(self.block_1(h)))
        return h.clamp(-_MAX_ACTIVATION, _MAX_ACTIVATION)


class _ResidualBlock(nn.Module):
    """The normalised input feeds both the convolutions and the skip path."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.conv1 = _conv(num_inputs, num_outputs)
        self.conv2 = _conv(num_outputs, num_outputs)
        self.nin_shortcut = _conv(num_inputs, num_outputs, num_taps=1) if num_inputs != num_outputs else None

    def forward(self, h: Tensor) -> Tensor:
        h = pixel_norm(h)
        residual = self.conv2(scaled_silu(self.conv1(scaled_silu(h))))
        return weighted_sum(h if self.nin_shortcut is None else self.nin_shortcut(h), residual)


class _Attention(nn.Module):
    """One head over time whose queries, keys and values are all normalised."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = _conv(width, 3 * width, num_taps=1)
        self.proj_out = _conv(width, width, num_taps=1)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = (pixel_norm(part) for part in self.qkv(h).chunk(3, dim=-1))
        return weighted_sum(h, self.proj_out(nn.functional.scaled_dot_product_attention(q, k, v)))


class _Downsample(nn.Module):
    """Halves the rate: mean of two time steps; an odd last one is dropped."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, width, num_taps=1)
        self.conv2 = _conv(width, width, num_taps=1)

    def forward(self, h: Tensor) -> Tensor:
        h = self.conv1(h)
        result: Tensor = self.conv2(0.5 * (h[:, 0 : h.shape[1] // 2 * 2 : 2] + h[:, 1::2]))
        return result


class _Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)

    def forward(self, h: Tensor) -> Tensor:
        result: Tensor = self.conv(h.repeat_interleave(2, dim=1))
        return result


def _conv(num_inputs: int, num_outputs: int, num_taps: int = 3) -> Conv:
    return Conv(num_inputs, num_outputs, num_taps, bias=False)


def pixel_norm(h: Tensor) -> Tensor:
    """Divide each time step by the root-mean-square of its channels (last dimension)."""
    magnitude: Tensor = torch.linalg.vector_norm(h, dim=-1, keepdim=True) / sqrt(h.shape[-1])
    return h / (_EPSILON + magnitude)


def scaled_silu(h: Tensor) -> Tensor:
    """SiLU divided by its expected magnitude for standard normal inputs."""
    return nn.functional.silu(h) / _SILU_MAGNITUDE


def weighted_sum(skip: Tensor, residual: Tensor) -> Tensor:
    """Weighted mean of two uncorrelated tensors of unit magnitude, rescaled to unit magnitude."""
    return skip.lerp(residual, _RESIDUAL_SHARE) / sqrt((1.0 - _RESIDUAL_SHARE) ** 2 + _RESIDUAL_SHARE**2)


def unit_norm(weight: Tensor) -> Tensor:
    """Kernels [out, in, taps] as used in training: each output channel's kernel has norm 1, up to epsilon."""
    fan_in = weight[0].numel()
    norm: Tensor = torch.linalg.vector_norm(weight, dim=(1, 2), keepdim=True) / sqrt(fan_in)
    return weight / (_EPSILON + norm) / sqrt(fan_in)


def _deinterleaved(weight: Tensor) -> Tensor:
    """Rows from the published order (channel, q k v) to all q, all k, all v."""
    return weight.reshape(-1, 3, *weight.shape[1:]).transpose(0, 1).flatten(0, 1)
