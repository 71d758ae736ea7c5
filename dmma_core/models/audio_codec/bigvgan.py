"""BigVGAN (Lee et al., 2023) and BigVGAN-v2: log-mel to waveform. For inference only.

Sequences are [B, time, channels] throughout. Weight norm is folded when weights are loaded, in either of PyTorch's
spellings. Transposed convolutions become ordinary ones that compute all phases of a step at once.
Module names are those of the published state dict.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dmma_core.errors import ConfigError, WeightsError
from dmma_core.models.audio_codec.anti_aliased import AntiAliasedSnake
from dmma_core.models.audio_codec.channels_last import Conv, convolve, kernel_layout
from dmma_core.storage.state_dicts import checked_state_dict, unwrap

_OUTER_TAPS = 7  # of the first and of the last convolution
_WEIGHT_NORM_SPELLINGS = (
    (".weight_g", ".weight_v"),
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
)


@dataclass(frozen=True)
class BigVganConfig:
    """Published settings. `final` is "tanh" (with a bias before it) or "clamp" (version 2, without one)."""

    num_mels: int
    initial_channels: int
    upsample_rates: tuple[int, ...]
    upsample_taps: tuple[int, ...]
    block_taps: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[int, ...] = (1, 3, 5)
    final: str = "clamp"

    def __post_init__(self) -> None:
        if self.final not in ("tanh", "clamp"):
            raise ConfigError(f"final={self.final!r} is unknown.", remedy="Use tanh or clamp.")
        pairs = list(zip(self.upsample_rates, self.upsample_taps, strict=True))
        if any(taps < rate or (taps - rate) % 2 for rate, taps in pairs):
            raise ConfigError(
                f"Upsampling by {self.upsample_rates} with {self.upsample_taps} taps does not keep the length.",
                remedy="Set taps to the rate plus an even number (0, 2, …).",
            )


BIGVGAN_16K = BigVganConfig(80, 1536, (4, 4, 2, 2, 2, 2), (8, 8, 4, 4, 4, 4), final="tanh")
BIGVGAN_V2_44K = BigVganConfig(128, 1536, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), final="clamp")


class BigVgan(nn.Module):
    """Log-mel [B, F, M] to float32 waveforms [B, F * product of rates] in [-1, 1]."""

    def __init__(self, config: BigVganConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.initial_channels >> level for level in range(len(config.upsample_rates) + 1)]
        self.conv_pre = Conv(config.num_mels, widths[0], _OUTER_TAPS, bias=True)
        self.ups = nn.ModuleList(
            _TransposedConv(before, after, rate, taps)
            for (before, after), rate, taps in zip(
                pairwise(widths), config.upsample_rates, config.upsample_taps, strict=True
            )
        )
        self.resblocks = nn.ModuleList(
            _DilatedBlock(width, taps, config.block_dilations) for width in widths[1:] for taps in config.block_taps
        )
        self.activation_post = AntiAliasedSnake(widths[-1])
        self.conv_post = Conv(widths[-1], 1, _OUTER_TAPS, bias=config.final == "tanh")

    @classmethod
    def from_official(cls, config: BigVganConfig, state: Mapping[str, Any]) -> "BigVgan":
        """Network with the weights of a published state dict, in any of its three spellings of weight norm.

        Raises WeightsError where it does not fit.
        """
        vocoder = cls(config)
        shapes = vocoder.official_shapes()
        filters = [key for key in shapes if key.endswith(".filter")]  # constants, which some files leave out
        plain = fold_weight_norm(unwrap(state))
        plain = checked_state_dict(plain, shapes, f"the vocoder {config}", optional=filters)
        for name, layer in vocoder._layers().items():
            suffixes = [suffix for suffix in layer.official_shapes() if f"{name}.{suffix}" in plain]
            layer.load_official({suffix: plain[f"{name}.{suffix}"] for suffix in suffixes})
        return vocoder

    def official_shapes(self) -> dict[str, tuple[int, ...]]:
        """Keys and shapes of the published state dict of this architecture, weight norm folded."""
        layers = self._layers().items()
        return {
            f"{name}.{suffix}": shape for name, layer in layers for suffix, shape in layer.official_shapes().items()
        }

    @torch.no_grad()
    def forward(self, log_mel_BFM: Tensor) -> Tensor:
        wave_BA = self.before_final(log_mel_BFM)
        return wave_BA.tanh() if self.config.final == "tanh" else wave_BA.clamp(-1.0, 1.0)

    @torch.no_grad()
    def before_final(self, log_mel_BFM: Tensor) -> Tensor:
        """The last convolution's output [B, A], unbounded."""
        h = self.conv_pre(log_mel_BFM)
        num_blocks = len(self.config.block_taps)
        for level, up in enumerate(self.ups):
            h = up(h)
            blocks = self.resblocks[level * num_blocks : (level + 1) * num_blocks]
            h = torch.stack([block(h) for block in blocks]).mean(0)
        wave_BA: Tensor = self.conv_post(self.activation_post(h)).squeeze(-1)
        return wave_BA

    def _layers(self) -> dict[str, "Conv | _TransposedConv | AntiAliasedSnake"]:
        return {
            name: module
            for name, module in self.named_modules()
            if isinstance(module, Conv | _TransposedConv | AntiAliasedSnake)
        }


class _DilatedBlock(nn.Module):
    """Pairs of (activation, dilated convolution, activation, convolution), each added to its input."""

    def __init__(self, width: int, num_taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(Conv(width, width, num_taps, dilation=d, bias=True) for d in dilations)
        self.convs2 = nn.ModuleList(Conv(width, width, num_taps, bias=True) for _ in dilations)
        self.activations = nn.ModuleList(AntiAliasedSnake(width) for _ in range(2 * len(dilations)))

    def forward(self, h: Tensor) -> Tensor:
        for pair, (first, second) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            residual = first(self.activations[2 * pair](h))
            h = second(self.activations[2 * pair + 1](residual)).add_(h)
        return h


class _TransposedConv(nn.Module):
    """Transposed convolution [B, T, in] to [B, T * rate, out].

    Output step q * rate + r depends on inputs q, q - 1, …: one convolution computes the `rate` phases as channels,
    which in this layout are already the steps in order. The (taps - rate) / 2 surplus steps at each end are cut off.
    """

    def __init__(self, num_inputs: int, num_outputs: int, rate: int, num_taps: int) -> None:
        super().__init__()
        self.rate, self.num_outputs, self.num_taps = rate, num_outputs, num_taps
        self.reach = -(-num_taps // rate)
        self.weight = nn.Parameter(torch.empty(rate * num_outputs, num_inputs, 1, self.reach), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(rate * num_outputs), requires_grad=False)

    def official_shapes(self) -> dict[str, tuple[int, ...]]:
        num_inputs = self.weight.shape[1]
        return {"0.weight": (num_inputs, self.num_outputs, self.num_taps), "0.bias": (self.num_outputs,)}

    def load_official(self, parts: Mapping[str, Tensor]) -> None:
        padded = nn.functional.pad(parts["0.weight"], (0, self.reach * self.rate - self.num_taps))
        phases = padded.reshape(*padded.shape[:2], self.reach, self.rate).flip(2).permute(3, 1, 0, 2)
        self.weight.data = kernel_layout(phases.flatten(0, 1))
        self.bias.data = parts["0.bias"].repeat(self.rate)

    def forward(self, h: Tensor) -> Tensor:
        steps = convolve(h, self.weight, self.bias, padding=self.reach - 1)
        steps = steps.reshape(len(h), -1, self.num_outputs)
        cut = (self.num_taps - self.rate) // 2
        return steps[:, cut : cut + h.shape[1] * self.rate].contiguous()


def fold_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with plain `weight` entries instead of magnitude and direction (PyTorch's old or new names).

    The norm is taken over all but the first dimension, also for transposed convolutions (whose first one is the input).
    Raises WeightsError for a magnitude without its direction, the reverse, or sizes that do not match.
    """
    plain = dict(state)
    for magnitude_name, direction_name in _WEIGHT_NORM_SPELLINGS:
        bases = {
            key.removesuffix(suffix)
            for key in state
            for suffix in (magnitude_name, direction_name)
            if key.endswith(suffix)
        }
        for base in sorted(bases):
            if base + magnitude_name not in state or base + direction_name not in state:
                raise WeightsError(
                    f"The weights contain only one of {base + magnitude_name} and {base + direction_name}.",
                    remedy="Fetch the file again.",
                )
            magnitude = plain.pop(base + magnitude_name).to(torch.float32)
            direction = plain.pop(base + direction_name).to(torch.float32)
            if direction.ndim != 3 or magnitude.shape != (len(direction), 1, 1):
                raise WeightsError(
                    f"{base + magnitude_name} {tuple(magnitude.shape)} does not match {base + direction_name} "
                    f"{tuple(direction.shape)}.",
                    remedy="Fetch the file again.",
                )
            norm = direction.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            plain[f"{base}.weight"] = direction * (magnitude / norm)
    return plain
