"""BigVGAN's anti-aliased activation (Lee et al., 2023, section 3.2): upsample by 2, snake, low-pass, downsample by 2.

Both filters have 12 taps. They are computed as matmuls with small banded matrices, because depthwise convolutions are
slow on a CPU: a tile of time steps in, the same tile at the other rate out. Tiles are overlapping views, without a
copy. Chunks are small enough to stay in the cache.
"""

from collections.abc import Mapping
from math import pi

import torch
from torch import Tensor, nn

from dmma_core.errors import WeightsError

NUM_TAPS = 12
_TILE = 8  # time steps at the lower rate that one matmul computes
_UP_REACH = 3  # input steps on each side of a tile that upsampling looks at
_DOWN_BEFORE = 5  # steps at the higher rate before a tile's first that downsampling looks at (and 6 - 1 after its last)
_HALO = _TILE // 2  # steps around a chunk that are upsampled once more, to give downsampling its neighbours
_CHUNK_ELEMENTS = 1 << 17  # at the lower rate, per CPU thread: the intermediates stay in its caches
_SNAKE_EPSILON = 1e-9
_FILTER_TOLERANCE = 1e-3  # taps rounded to bfloat16 differ by 3e-4


def kaiser_sinc_filter() -> Tensor:
    """The 12-tap low-pass of both directions, float32: cutoff 0.25 of the higher rate, transition width 0.3 of it."""
    cutoff, half_width, half = 0.25, 0.3, NUM_TAPS // 2
    attenuation_db = 2.285 * (half - 1) * pi * 4.0 * half_width + 7.95
    if attenuation_db > 50.0:
        beta = 0.1102 * (attenuation_db - 8.7)
    else:
        beta = 0.5842 * (attenuation_db - 21.0) ** 0.4 + 0.07886 * (attenuation_db - 21.0)
    window = torch.kaiser_window(NUM_TAPS, periodic=False, beta=beta)
    time = torch.arange(-half, half) + 0.5
    taps = 2.0 * cutoff * window * torch.sinc(2.0 * cutoff * time)
    return taps / taps.sum()


def upsampling_matrix(taps: Tensor) -> Tensor:
    """[2 tile, tile + 6]: row 2 m + p is phase p of output step m; column j is input step j - 3 of the tile."""
    matrix = torch.zeros(2 * _TILE, _TILE + 2 * _UP_REACH)
    for step in range(_TILE):
        matrix[2 * step, step : step + 6] = 2.0 * taps[1::2].flip(0)
        matrix[2 * step + 1, step + 1 : step + 7] = 2.0 * taps[0::2].flip(0)
    return matrix


def downsampling_matrix(taps: Tensor) -> Tensor:
    """[tile, 2 tile + 10]: column j is input step j - 5 at the higher rate."""
    matrix = torch.zeros(_TILE, 2 * _TILE + NUM_TAPS - 2)
    for step in range(_TILE):
        matrix[step, 2 * step : 2 * step + NUM_TAPS] = taps
    return matrix


class AntiAliasedSnake(nn.Module):
    """[B, T, C] to [B, T, C]: x + sin^2(alpha x) / beta at twice the rate, with alpha and beta per channel.

    Both ends are continued by repeating the outermost value, at both rates. For inference: no gradients.
    """

    up: Tensor
    down: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.empty(num_channels), requires_grad=False)
        self.amplitude = nn.Parameter(torch.empty(num_channels), requires_grad=False)  # 1 / sqrt(beta)
        self.register_buffer("up", upsampling_matrix(kaiser_sinc_filter()), persistent=False)
        self.register_buffer("down", downsampling_matrix(kaiser_sinc_filter()), persistent=False)

    def official_shapes(self) -> dict[str, tuple[int, ...]]:
        """Suffixes and shapes in the published state dict."""
        taps = (1, 1, NUM_TAPS)
        per_channel = tuple(self.alpha.shape)
        return {
            "act.alpha": per_channel,
            "act.beta": per_channel,
            "upsample.filter": taps,
            "downsample.lowpass.filter": taps,
        }

    def load_official(self, parts: Mapping[str, Tensor]) -> None:
        """Load published parameters; alpha and beta are published as logarithms.

        Raises WeightsError for filters other than BigVGAN's. A file without filters is accepted.
        """
        known = kaiser_sinc_filter()
        for suffix in ("upsample.filter", "downsample.lowpass.filter"):
            if suffix in parts and not torch.allclose(parts[suffix].flatten(), known, atol=_FILTER_TOLERANCE):
                raise WeightsError(
                    f"The vocoder's {suffix} is not BigVGAN's low-pass filter.", remedy="Use an official vocoder."
                )
        self.alpha.data = parts["act.alpha"].exp()
        self.amplitude.data = (parts["act.beta"].exp() + _SNAKE_EPSILON).rsqrt()

    @torch.no_grad()
    def forward(self, x_BTC: Tensor) -> Tensor:
        num_steps, num_channels = x_BTC.shape[1:]
        result_BTC = torch.empty_like(x_BTC, memory_format=torch.contiguous_format)
        # One row of parameters for a tile of steps: the inner loop stays long with few channels.
        alpha, amplitude = self.alpha.repeat(_TILE), self.amplitude.repeat(_TILE)
        chunk = _chunk_steps(x_BTC)
        # Reused by all chunks: new memory of this size would cause page faults each time.
        doubled, waves = x_BTC.new_empty(2, 2 * (min(chunk, num_steps + _TILE) + 2 * _HALO), num_channels).unbind()
        for x_TC, result_TC in zip(x_BTC, result_BTC, strict=True):
            for start in range(0, num_steps, chunk):
                tiles = -(-min(chunk, num_steps - start) // _TILE)
                v = doubled[: 2 * (tiles * _TILE + 2 * _HALO)]
                self._upsample(x_TC, start, v)
                rows = v.view(-1, _TILE * num_channels)
                wave = waves[: len(v)].view_as(rows)
                torch.mul(rows, alpha, out=wave).sin_().mul_(amplitude)
                rows.addcmul_(wave, wave)
                _repeat_ends(v, 2 * (_HALO - start), 2 * (_HALO - start + num_steps))
                self._downsample(v[2 * _HALO - _DOWN_BEFORE :], result_TC[start : start + tiles * _TILE])
        return result_BTC

    def _upsample(self, x_TC: Tensor, start: int, v: Tensor) -> None:
        """Fill `v` with the steps from `start` - halo, at twice the rate; steps outside of x repeat its ends."""
        first = start - _HALO - _UP_REACH
        last = first + len(v) // 2 + 2 * _UP_REACH
        if first >= 0 and last <= len(x_TC):
            part_TC = x_TC[first:last]
        else:
            part_TC = x_TC[torch.arange(first, last, device=x_TC.device).clamp(0, len(x_TC) - 1)]
        windows = part_TC.unfold(0, _TILE + 2 * _UP_REACH, _TILE).transpose(1, 2)
        torch.bmm(self.up.expand(len(windows), -1, -1), windows, out=v.view(len(windows), 2 * _TILE, -1))

    def _downsample(self, v: Tensor, result_TC: Tensor) -> None:
        num_tiles = -(-len(result_TC) // _TILE)
        windows = v.unfold(0, self.down.shape[1], 2 * _TILE)[:num_tiles].transpose(1, 2)
        down = self.down.expand(num_tiles, -1, -1)
        if len(result_TC) == num_tiles * _TILE:
            torch.bmm(down, windows, out=result_TC.view(num_tiles, _TILE, -1))
        else:
            result_TC.copy_(torch.bmm(down, windows).flatten(0, 1)[: len(result_TC)])


def _chunk_steps(x_BTC: Tensor) -> int:
    if x_BTC.device.type != "cpu":
        return -(-x_BTC.shape[1] // _TILE) * _TILE
    elements = _CHUNK_ELEMENTS * torch.get_num_threads()
    return max(1, elements // (x_BTC.shape[2] * _TILE)) * _TILE


def _repeat_ends(v: Tensor, first: int, end: int) -> None:
    """Overwrite the rows before `first` and from `end` on by the nearest row between them."""
    if first > 0:
        v[:first] = v[first]
    if end < len(v):
        v[max(end, 0) :] = v[end - 1]
