"""What enters the network: time, and depth joined to the picture features."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.models.layers import ZERO, Initial, TokenMap, ZeroTokenMap


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a kept tensor must serve training too
def time_frequencies(width: int, max_period: float, device: torch.device) -> Tensor:
    """Float32 [width / 2]: from 10000 / max_period downwards. Never in a lower precision, and never in a checkpoint.

    Rounding them to bfloat16, as casting the published network does, changes the second version's result beyond
    recognition: its arguments reach 10,000 radians.
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
    return (10_000 / max_period) * (1.0 / (10_000**exponents))


def time_waves(time_B: Tensor, width: int, max_period: float) -> Tensor:
    """Float32 [B, width]: cosines, then sines, of time in [0, 1] times each frequency."""
    angles = time_B.float()[:, None] * time_frequencies(width, max_period, time_B.device)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """Time [B] to [B, E]: waves and a two-layer network. v1: 256 waves, period 10,000; v2: E waves, period 1."""

    def __init__(self, hidden_width: int, num_waves: int, max_period: float) -> None:
        super().__init__()
        self.num_waves, self.max_period = num_waves, max_period
        self.first = _NormalMap(num_waves, hidden_width)
        self.second = _NormalMap(hidden_width, hidden_width)

    def forward(self, time_B: Tensor) -> Tensor:
        waves = time_waves(time_B, self.num_waves, self.max_period).to(self.first.weight.dtype)
        embedded: Tensor = self.second(F.silu(self.first(waves)))
        return embedded


class _NormalMap(TokenMap):
    def initials(self) -> dict[str, Initial]:
        return {"weight": Initial("normal", 0.02), "bias": ZERO}


class DepthFusion(nn.Module):
    """Joins per-frame depth to the picture features: rgb + a learned correction, [B, T, D] to [B, T, D].

    The correction's last layer (the gate, with `fusion="gated"`) starts at zero, so the network starts as the one
    without depth and a trained one without depth can be taken over unchanged.

    - `depth="rgb_like"`: the CLIP embedding of the depth video; "scalars": K statistics per frame, logarithms of
      inverse depth among them (`encoders.depth.SCALAR_NAMES`), normalised; "both": the sum of the two.
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

    def initials(self) -> dict[str, Initial]:
        return {"empty": Initial("normal", 0.02)}

    def set_scalar_statistics(self, mean_K: Tensor, std_K: Tensor) -> None:
        """Store the training set's statistics, with which the scalars are normalised; until then they enter as they are."""
        if self.depth != "rgb_like":
            self.scalar_mean.copy_(mean_K)
            self.scalar_std.copy_(std_K)

    def forward(self, rgb_BTD: Tensor, depth_BTD: Tensor, scalars_BTK: Tensor, present_depth_B: Tensor) -> Tensor:
        """Where `present_depth_B` is False the learned empty token stands for depth, independently of the picture."""
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
    """DeepMMAudio's form, for its checkpoints: one linear layer on [rgb, depth], [B, T, 2D] to [B, T, D].

    Its two flaws: in the first version of the network no activation stands between this layer and the next linear one,
    so the two are one linear map of the concatenation; and the published training drops depth only together with rgb
    and sync, so the network never learns to do without depth alone and cannot be guided on it. `DepthFusion` mends both.
    """

    def __init__(self, width: int, activation: bool) -> None:
        super().__init__()
        self.activation = activation
        self.empty = nn.Parameter(torch.zeros(1, width))
        self.map = TokenMap(2 * width, width)

    def initials(self) -> dict[str, Initial]:
        return {"empty": ZERO}

    @torch.no_grad()
    def pass_rgb(self) -> None:
        """Set the map so that rgb passes unchanged and depth has no effect yet."""
        self.map.weight.copy_(torch.eye(*self.map.weight.shape))
        assert self.map.bias is not None
        self.map.bias.zero_()

    def forward(self, rgb_BTD: Tensor, depth_BTD: Tensor, scalars_BTK: Tensor, present_depth_B: Tensor) -> Tensor:
        depth = torch.where(present_depth_B[:, None, None], depth_BTD, self.empty)
        joined: Tensor = self.map(torch.cat((rgb_BTD, depth), dim=-1))
        return F.silu(joined) if self.activation else joined


def _unit(x: Tensor) -> Tensor:
    """Unit root mean square (an L2-normalised embedding to 1 in 2,000), so that the non-linearity sees more than its linear
    middle. Zero stays zero."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)
