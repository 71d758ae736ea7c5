"""Transformer blocks of the multimodal diffusion transformer (MMAudio, section 3.3 and figure 2)."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.models.layers import GatedFeedForward, RMSNorm, TokenMap, ZeroTokenMap, modulated_norm
from dmma_core.models.rope import rotate

RotationTable = tuple[Tensor, Tensor]


class Upsampling:
    """Nearest-exact upsampling of S tokens to L steps. Its gradient is a gather, deterministic on every device.

    `index_L` is the source token of each step; `reverse_RS` the up to R steps of each token, padded with L, the index
    of a row of zeros.
    """

    @torch.inference_mode(False)  # the cached tensors are used in training too
    def __init__(self, num_tokens: int, length: int, device: torch.device) -> None:
        positions = torch.arange(num_tokens, dtype=torch.float32)[None, None]
        index_L = F.interpolate(positions, size=length, mode="nearest-exact")[0, 0].long()
        counts_S = torch.bincount(index_L, minlength=num_tokens)
        starts_S = counts_S.cumsum(0) - counts_S
        steps_RS = starts_S + torch.arange(int(counts_S.max()))[:, None]
        self.reverse_RS = torch.where(steps_RS < starts_S + counts_S, steps_RS, length).to(device)
        self.index_L = index_L.to(device)
        # With fewer tokens than steps, linear maps are cheaper before the repetition than after it.
        self.widens = length >= num_tokens

    def __call__(self, x_BSE: Tensor) -> Tensor:
        """Repeat tokens: [B, S, E] to [B, L, E]."""
        return cast(Tensor, _Repeat.apply(x_BSE, self.index_L, self.reverse_RS))  # type: ignore[no-untyped-call]


class _Repeat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BSE: Tensor, index_L: Tensor, reverse_RS: Tensor) -> Tensor:
        ctx.save_for_backward(reverse_RS)
        return x_BSE.index_select(1, index_L)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (reverse_RS,) = ctx.saved_tensors
        padded = F.pad(grads[0], (0, 0, 0, 1))
        total = padded.index_select(1, reverse_RS[0])
        for steps_S in reverse_RS[1:]:
            total += padded.index_select(1, steps_S)
        return total, None, None


def attend(q_BLHD: Tensor, k_BLHD: Tensor, v_BLHD: Tensor) -> Tensor:
    """Scaled dot-product attention of all heads; [B, L, E]."""
    q, k, v = (x.transpose(1, 2) for x in (q_BLHD, k_BLHD, v_BLHD))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class StreamBlock(nn.Module):
    """One modality's half of a block: modulated queries, keys, values, and what follows the attention.

    With `only_attends` it computes queries, keys and values only (rgb and text of the last joint block).
    """

    def __init__(self, width: int, num_heads: int, num_taps: int, multiple: int, only_attends: bool = False) -> None:
        super().__init__()
        self.num_heads, self.only_attends = num_heads, only_attends
        self.modulation = ZeroTokenMap(width, (2 if only_attends else 6) * width)
        self.qkv = TokenMap(width, 3 * width)
        self.q_norm = RMSNorm(width // num_heads)
        self.k_norm = RMSNorm(width // num_heads)
        if not only_attends:
            self.out = TokenMap(width, width, num_taps)
            self.feed_forward = GatedFeedForward(width, 4 * width, num_taps, multiple)

    def modulations(self, condition_BSE: Tensor, upsampling: Upsampling | None = None) -> tuple[Tensor, ...]:
        """Shifts, scales and gates from the activated condition, upsampled to the stream's length afterwards."""
        modulation: Tensor = self.modulation(condition_BSE)
        if upsampling is not None:
            modulation = upsampling(modulation)
        return modulation.chunk(modulation.shape[-1] // self.qkv.width, dim=-1)

    def queries_keys_values(
        self, x_BLE: Tensor, shift: Tensor, scale: Tensor, table: RotationTable | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, H, D] each."""
        qkv = self.qkv(modulated_norm(x_BLE, shift, scale))
        q, k, v = qkv.view(*qkv.shape[:2], 3, self.num_heads, -1).unbind(dim=2)
        q, k = self.q_norm(q), self.k_norm(k)
        return (q, k, v) if table is None else (rotate(q, table), rotate(k, table), v)

    def after_attention(
        self, x_BLE: Tensor, attended_BLE: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, forward_gate: Tensor
    ) -> Tensor:
        """Gated output projection and gated feed-forward, each added to its input; [B, L, E]."""
        x_BLE = torch.addcmul(x_BLE, self.out(attended_BLE), gate)
        return torch.addcmul(x_BLE, self.feed_forward(modulated_norm(x_BLE, shift, scale)), forward_gate)


class FusedBlock(StreamBlock):
    """Block of the latent alone, conditioned by modulation only."""

    def forward(
        self, x_BLE: Tensor, condition_BSE: Tensor, upsampling: Upsampling | None, table: RotationTable
    ) -> Tensor:
        shift, scale, *rest = self.modulations(condition_BSE, upsampling)
        attended = attend(*self.queries_keys_values(x_BLE, shift, scale, table))
        return self.after_attention(x_BLE, attended, *rest)


class JointBlock(nn.Module):
    """Joint attention over latent, rgb and text, each with its own weights. Text has no rotary embedding."""

    def __init__(self, width: int, num_heads: int, multiple: int, last: bool) -> None:
        super().__init__()
        self.last = last
        self.latent = StreamBlock(width, num_heads, 3, multiple)
        self.rgb = StreamBlock(width, num_heads, 3, multiple, only_attends=last)
        self.text = StreamBlock(width, num_heads, 1, multiple, only_attends=last)

    def forward(
        self,
        latent_BLE: Tensor,
        rgb_BTE: Tensor,
        text_BNE: Tensor,
        global_B1E: Tensor,
        condition_BSE: Tensor,
        upsampling: Upsampling | None,
        latent_table: RotationTable,
        rgb_table: RotationTable,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Conditions are already activated: one per latent step for the latent, a global one for rgb and text."""
        latent_shift, latent_scale, *latent_rest = self.latent.modulations(condition_BSE, upsampling)
        rgb_shift, rgb_scale, *rgb_rest = self.rgb.modulations(global_B1E)
        text_shift, text_scale, *text_rest = self.text.modulations(global_B1E)
        parts = zip(
            self.latent.queries_keys_values(latent_BLE, latent_shift, latent_scale, latent_table),
            self.rgb.queries_keys_values(rgb_BTE, rgb_shift, rgb_scale, rgb_table),
            self.text.queries_keys_values(text_BNE, text_shift, text_scale, None),
            strict=True,
        )
        attended = attend(*(torch.cat(streams, dim=1) for streams in parts))
        rgb_start, text_start = latent_BLE.shape[1], latent_BLE.shape[1] + rgb_BTE.shape[1]
        latent_attended = attended[:, :rgb_start]
        rgb_attended, text_attended = attended[:, rgb_start:text_start], attended[:, text_start:]
        latent_BLE = self.latent.after_attention(latent_BLE, latent_attended, *latent_rest)
        if not self.last:
            rgb_BTE = self.rgb.after_attention(rgb_BTE, rgb_attended, *rgb_rest)
            text_BNE = self.text.after_attention(text_BNE, text_attended, *text_rest)
        return latent_BLE, rgb_BTE, text_BNE


class FinalBlock(nn.Module):
    """Modulated norm and a convolution to the latent channels; initially zero, so the initial velocity is zero."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.modulation = ZeroTokenMap(width, 2 * width)
        self.out = ZeroTokenMap(width, out_width, num_taps=7)

    def forward(self, x_BLE: Tensor, global_B1E: Tensor) -> Tensor:
        shift, scale = self.modulation(global_B1E).chunk(2, dim=-1)
        velocity: Tensor = self.out(modulated_norm(x_BLE, shift, scale))
        return velocity


class InputProjection(nn.Module):
    """Features to tokens: a linear map or convolution of `num_taps`, an activation, a gated feed-forward."""

    def __init__(
        self, width: int, hidden_width: int, num_taps: int, activation: str, feed_forward_taps: int, multiple: int
    ) -> None:
        super().__init__()
        self.activation = activation
        self.first = TokenMap(width, hidden_width, num_taps)
        self.feed_forward = GatedFeedForward(hidden_width, 4 * hidden_width, feed_forward_taps, multiple)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(x)
        if self.activation == "silu":
            tokens = F.silu(tokens)
        elif self.activation == "selu":
            tokens = F.selu(tokens)
        projected: Tensor = self.feed_forward(tokens)
        return projected
