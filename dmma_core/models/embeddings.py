"""Input embeddings: time, and the fusion of depth with the rgb features."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.models.layers import ZERO, InitialValue, TokenMap, ZeroTokenMap


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # the cached tensor is used in training too
def time_frequencies(width: int, max_period: float, device: torch.device) -> Tensor:
    """Float32 [width / 2], descending from 10000 / max_period; always float32, never part of a checkpoint.

    Casting the published network to bfloat16 rounds them, which ruins version 2: its angles reach 10,000 radians.
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    return (10_000 / max_period) * (1.0 / (10_000**exponents))


def sinusoidal_embedding(time_B: Tensor, width: int, max_period: float) -> Tensor:
    """Float32 [B, width]: cosines, then sines, of time in [0, 1] times each frequency."""
    angles = time_B.float()[:, None] * time_frequencies(width, max_period, time_B.device)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """Time [B] to [B, E]: sinusoids, two-layer MLP. v1: 256 sinusoids, period 10,000; v2: E sinusoids, period 1."""

    def __init__(self, hidden_width: int, num_sinusoids: int, max_period: float) -> None:
        super().__init__()
        self.num_sinusoids, self.max_period = num_sinusoids, max_period
        self.first = _NormalMap(num_sinusoids, hidden_width)
        self.second = _NormalMap(hidden_width, hidden_width)

    def forward(self, time_B: Tensor) -> Tensor:
        sinusoids = sinusoidal_embedding(time_B, self.num_sinusoids, self.max_period).to(self.first.weight.dtype)
        embedded: Tensor = self.second(F.silu(self.first(sinusoids)))
        return embedded


class _NormalMap(TokenMap):
    def initial_values(self) -> dict[str, InitialValue]:
        return {"weight": InitialValue("normal", 0.02), "bias": ZERO}


class DepthFusion(nn.Module):
    """Adds per-frame depth to the rgb features: rgb + a learned correction, [B, T, D] to [B, T, D].

    The correction's last layer (the gate, with `fusion="gated"`) is initially zero, so the network initially computes
    the baseline's function, and a trained baseline can be extended by depth without change.

    - `depth="rgb_like"`: the CLIP embedding of the depth video; "scalars": K normalised statistics per frame, such as
      log inverse depth (`encoders.depth.SCALAR_NAMES`); "both": the sum of the two.
    - `fusion="concat"`: correction = W2 silu(W1 [rgb, depth]); "sum": W2 silu(W1 depth); "gated":
      tanh(Wg [rgb, depth]) * silu(W1 depth).
    """

    scalar_mean: Tensor
    scalar_std: Tensor

    def __init__(self, width: int, depth_width: int, num_scalars: int, depth: str, fusion: str) -> None:
        super().__init__()
        self.depth, self.fusion = depth, fusion
        self.empty = nn.Parameter(torch.zeros(1, depth_width))
        if depth != "rgb_like":
            self.register_buffer("scalar_mean", torch.zeros(num_scalars))
            self.register_buffer("scalar_std", torch.ones(num_scalars))
            self.scalars_first = TokenMap(num_scalars, depth_width)
            self.scalars_second = TokenMap(depth_width, depth_width)
        self.first = TokenMap(depth_width + (width if fusion == "concat" else 0), width)
        self.last = ZeroTokenMap(width + (depth_width if fusion == "gated" else 0), width)

    def initial_values(self) -> dict[str, InitialValue]:
        return {"empty": InitialValue("normal", 0.02)}

    def set_scalar_statistics(self, mean_K: Tensor, std_K: Tensor) -> None:
        """Store the training set's mean and deviation, which normalise the scalars; before, they are 0 and 1."""
        if self.depth != "rgb_like":
            self.scalar_mean.copy_(mean_K)
            self.scalar_std.copy_(std_K)

    def forward(self, rgb_BTD: Tensor, depth_BTD: Tensor, scalars_BTK: Tensor, present_depth_B: Tensor) -> Tensor:
        """Fused features [B, T, D]. Where `present_depth_B` is False the learned empty token replaces depth."""
        depth = torch.where(present_depth_B[:, None, None], self._embed(depth_BTD, scalars_BTK), self.empty)
        if self.fusion == "gated":
            gate = torch.tanh(self.last(torch.cat((_unit(rgb_BTD), depth), dim=-1)))
            return rgb_BTD + gate * F.silu(self.first(depth))
        joined = torch.cat((_unit(rgb_BTD), depth), dim=-1) if self.fusion == "concat" else depth
        corrected: Tensor = rgb_BTD + self.last(F.silu(self.first(joined)))
        return corrected

    def _embed(self, depth_BTD: Tensor, scalars_BTK: Tensor) -> Tensor:
        if self.depth == "rgb_like":
            return _unit(depth_BTD)
        normalised_BTK = (scalars_BTK - self.scalar_mean) / self.scalar_std
        scalars: Tensor = self.scalars_second(F.silu(self.scalars_first(normalised_BTK)))
        return scalars if self.depth == "scalars" else _unit(depth_BTD) + scalars


class LinearDepthFusion(nn.Module):
    """DeepMMAudio's fusion, for its checkpoints: one linear layer on [rgb, depth], [B, T, 2D] to [B, T, D].

    It has two limitations. In version 1 of the network no activation follows this layer, so together with the next
    linear layer it is a single linear map. And the published training drops depth only together with rgb and sync, so
    the network never sees depth missing alone and cannot be guided on depth. `DepthFusion` has neither.
    """

    def __init__(self, width: int, activation: bool) -> None:
        super().__init__()
        self.activation = activation
        self.empty = nn.Parameter(torch.zeros(1, width))
        self.map = TokenMap(2 * width, width)

    def initial_values(self) -> dict[str, InitialValue]:
        return {"empty": ZERO}

    @torch.no_grad()
    def pass_rgb(self) -> None:
        """Set the map to the identity on rgb and zero on depth."""
        self.map.weight.copy_(torch.eye(*self.map.weight.shape))
        assert self.map.bias is not None
        self.map.bias.zero_()

    def forward(self, rgb_BTD: Tensor, depth_BTD: Tensor, scalars_BTK: Tensor, present_depth_B: Tensor) -> Tensor:
        """As `DepthFusion.forward`; `scalars_BTK` is ignored."""
        depth = torch.where(present_depth_B[:, None, None], depth_BTD, self.empty)
        joined: Tensor = self.map(torch.cat((rgb_BTD, depth), dim=-1))
        return F.silu(joined) if self.activation else joined


def _unit(x: Tensor) -> Tensor:
    """Scale the last dimension to root mean square 1 (within 1 in 2,000 for L2-normalised embeddings); zero stays zero.

    At L2 norm 1 the inputs of the activation would be so small that it is almost linear.
    """
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)
