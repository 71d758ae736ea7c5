"""Plain eager PyTorch implementation of BigVGAN, with its published parameter names.

The reference of `audio_codec.py`: sequences [B, channels, time], anti-aliasing by depthwise convolutions on padded
copies, transposed convolutions. Tests compare it with the same reference outputs as DMMA's own vocoder.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.models.audio_codec.anti_aliased import NUM_TAPS, kaiser_sinc_filter
from dmma_core.models.audio_codec.bigvgan import BigVganConfig


class PlainSnake(nn.Module):
    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(num_channels))
        self.beta = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha[None, :, None].exp(), self.beta[None, :, None].exp()
        return x + torch.sin(x * alpha).square() / (beta + 1e-9)


class PlainUpsample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", kaiser_sinc_filter().reshape(1, 1, NUM_TAPS))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        taps = self.filter.expand(channels, -1, -1)
        return 2 * F.conv_transpose1d(F.pad(x, (5, 5), mode="replicate"), taps, stride=2, groups=channels)[..., 15:-15]


class PlainLowPass(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", kaiser_sinc_filter().reshape(1, 1, NUM_TAPS))

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.conv1d(
            F.pad(x, (5, 6), mode="replicate"), self.filter.expand(channels, -1, -1), stride=2, groups=channels
        )


class PlainDownsample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lowpass = PlainLowPass()

    def forward(self, x: Tensor) -> Tensor:
        return self.lowpass(x)


class PlainActivation(nn.Module):
    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.act = PlainSnake(num_channels)
        self.upsample = PlainUpsample()
        self.downsample = PlainDownsample()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(self.act(self.upsample(x)))


class PlainResidualBlock(nn.Module):
    def __init__(self, width: int, taps: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(width, width, taps, dilation=d, padding=d * (taps - 1) // 2) for d in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(width, width, taps, padding=(taps - 1) // 2) for _ in dilations)
        self.activations = nn.ModuleList(PlainActivation(width) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        for pair, (first, second) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            residual = first(self.activations[2 * pair](x))
            x = x + second(self.activations[2 * pair + 1](residual))
        return x


class PlainBigVgan(nn.Module):
    """Log-mel [B, M, F] to waveforms [B, 1, A]."""

    def __init__(self, config: BigVganConfig) -> None:
        super().__init__()
        self.config = config
        width = config.initial_channels
        self.conv_pre = nn.Conv1d(config.num_mels, width, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, taps in zip(config.upsample_rates, config.upsample_taps, strict=True):
            up = nn.ConvTranspose1d(width, width // 2, taps, rate, padding=(taps - rate) // 2)
            self.ups.append(nn.ModuleList([up]))
            width //= 2
            self.resblocks.extend(PlainResidualBlock(width, k, config.block_dilations) for k in config.block_taps)
        self.activation_post = PlainActivation(width)
        self.conv_post = nn.Conv1d(width, 1, 7, padding=3, bias=config.final == "tanh")

    def forward(self, mel: Tensor) -> Tensor:
        x = self.before_final(mel)
        return torch.tanh(x) if self.config.final == "tanh" else x.clamp(-1.0, 1.0)

    def before_final(self, mel: Tensor) -> Tensor:
        x = self.conv_pre(mel)
        num_blocks = len(self.config.block_taps)
        for level, (up,) in enumerate(self.ups):
            x = up(x)
            total = sum(block(x) for block in self.resblocks[level * num_blocks : (level + 1) * num_blocks])
            x = total / num_blocks
        return self.conv_post(self.activation_post(x))
