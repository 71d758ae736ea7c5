"""Plain eager PyTorch implementation of the published flow network, with its published parameter names.

The reference of `flow_network.py`: convolutions as convolutions, interleaved projections, and separate passes for the
conditions and for both branches of guidance. Tests compare it with the same reference outputs as DMMA's own network.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.mmdit_config import MMDiTConfig


class PlainConv(nn.Conv1d):
    """Convolution of channels-last sequences."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def layer(width: int, out_width: int, taps: int, bias: bool = True) -> nn.Module:
    if taps == 1:
        return nn.Linear(width, out_width, bias=bias)
    return PlainConv(width, out_width, taps, padding=taps // 2, bias=bias)


class PlainFeedForward(nn.Module):
    def __init__(self, width: int, taps: int, multiple: int) -> None:
        super().__init__()
        hidden = math.ceil(int(8 * width / 3) / multiple) * multiple
        self.w1 = layer(width, hidden, taps, bias=False)
        self.w2 = layer(hidden, width, taps, bias=False)
        self.w3 = layer(width, hidden, taps, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


def rotation(length: int, width: int, scaling: float) -> Tensor:
    frequencies = scaling / 10_000 ** (torch.arange(0, width, 2).float() / width)
    angles = torch.arange(length).float()[:, None] * frequencies
    return torch.stack((angles.cos(), -angles.sin(), angles.sin(), angles.cos()), dim=-1).view(length, -1, 2, 2)


def rotated(x: Tensor, table: Tensor) -> Tensor:
    """Channels 2i and 2i + 1 of [B, H, L, D] by 2x2 matrices [L, D/2, 2, 2]."""
    pairs = x.float().reshape(*x.shape[:-1], -1, 1, 2)
    return (table[..., 0] * pairs[..., 0] + table[..., 1] * pairs[..., 1]).reshape(x.shape).to(x.dtype)


class PlainAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.RMSNorm(width // heads)
        self.k_norm = nn.RMSNorm(width // heads)

    def forward(self, x: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.qkv(x).reshape(*x.shape[:2], self.heads, -1, 3)
        q, k, v = (part.squeeze(-1).transpose(1, 2) for part in parts.chunk(3, dim=-1))
        q, k = self.q_norm(q), self.k_norm(k)
        return (q, k, v) if table is None else (rotated(q, table), rotated(k, table), v)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = F.scaled_dot_product_attention(q.contiguous(), k.contiguous(), v.contiguous())
    return out.transpose(1, 2).flatten(2).contiguous()


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int, taps: int, multiple: int, pre_only: bool = False) -> None:
        super().__init__()
        self.pre_only = pre_only
        self.attn = PlainAttention(width, heads)
        if not pre_only:
            self.linear1 = layer(width, width, taps)
            self.ffn = PlainFeedForward(width, taps, multiple)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, (2 if pre_only else 6) * width))

    def before(self, x: Tensor, c: Tensor, table: Tensor | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        shift, scale, *rest = self.adaLN_modulation(c).chunk(2 if self.pre_only else 6, dim=-1)
        return self.attn(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift, table), tuple(rest)

    def after(self, x: Tensor, attended: Tensor, rest: tuple[Tensor, ...]) -> Tensor:
        if self.pre_only:
            return x
        gate, shift, scale, forward_gate = rest
        x = x + self.linear1(attended) * gate
        return x + self.ffn(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift) * forward_gate

    def forward(self, x: Tensor, c: Tensor, table: Tensor) -> Tensor:
        qkv, rest = self.before(x, c, table)
        return self.after(x, attend(*qkv), rest)


class PlainJointBlock(nn.Module):
    def __init__(self, width: int, heads: int, multiple: int, pre_only: bool) -> None:
        super().__init__()
        self.latent_block = PlainBlock(width, heads, 3, multiple)
        self.clip_block = PlainBlock(width, heads, 3, multiple, pre_only)
        self.text_block = PlainBlock(width, heads, 1, multiple, pre_only)

    def forward(
        self, latent: Tensor, clip: Tensor, text: Tensor, c: Tensor, cs: Tensor, tables: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        qkv_latent, rest_latent = self.latent_block.before(latent, cs, tables[0])
        qkv_clip, rest_clip = self.clip_block.before(clip, c, tables[1])
        qkv_text, rest_text = self.text_block.before(text, c, None)
        joined = (torch.cat(parts, dim=2) for parts in zip(qkv_latent, qkv_clip, qkv_text, strict=True))
        attended = attend(*joined).split([latent.shape[1], clip.shape[1], text.shape[1]], dim=1)
        return (
            self.latent_block.after(latent, attended[0], rest_latent),
            self.clip_block.after(clip, attended[1], rest_clip),
            self.text_block.after(text, attended[2], rest_text),
        )


class PlainTime(nn.Module):
    def __init__(self, width: int, waves: int, period: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(waves, width), nn.SiLU(), nn.Linear(width, width))
        self.frequencies = 10_000 / period * (1 / 10_000 ** (torch.arange(0, waves, 2).float() / waves))

    def forward(self, time_B: Tensor) -> Tensor:
        angles = time_B[:, None].float() * self.frequencies.to(time_B.device)
        return self.mlp(torch.cat((angles.cos(), angles.sin()), dim=-1))


class PlainFinal(nn.Module):
    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.conv = PlainConv(width, out_width, 7, padding=3)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        return self.conv(F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift)


class PlainMMDiT(nn.Module):
    """Loads published state dicts unchanged (`load_state_dict`)."""

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        width, multiple = config.hidden_width, config.feed_forward_multiple
        selu, silu = [nn.SELU()], [nn.SiLU()]
        audio_sync, rgb_text = (selu, []) if config.version == 1 else (silu, silu)

        def projection(width_in: int, taps: int, activation: list[nn.Module], forward_taps: int) -> list[nn.Module]:
            return [layer(width_in, width, taps), *activation, PlainFeedForward(width, forward_taps, multiple)]

        depth = [nn.Linear(2 * config.rgb_width, config.rgb_width), *rgb_text] if config.is_deepmmaudio else []
        self.audio_input_proj = nn.Sequential(*projection(config.latent_width, 7, audio_sync, 7))
        self.clip_input_proj = nn.Sequential(*depth, *projection(config.rgb_width, 1, rgb_text, 3))
        self.sync_input_proj = nn.Sequential(*projection(config.sync_width, 7, audio_sync, 3))
        self.text_input_proj = nn.Sequential(*projection(config.text_width, 1, rgb_text, 1))
        self.clip_cond_proj = nn.Linear(width, width)
        self.text_cond_proj = nn.Linear(width, width)
        self.global_cond_mlp = PlainFeedForward(width, 1, multiple)
        self.final_layer = PlainFinal(width, config.latent_width)
        self.t_embed = PlainTime(width, *((256, 10_000.0) if config.version == 1 else (width, 1.0)))
        num = config.num_joint_blocks
        self.joint_blocks = nn.ModuleList(
            PlainJointBlock(width, config.num_heads, multiple, index == num - 1) for index in range(num)
        )
        self.fused_blocks = nn.ModuleList(
            PlainBlock(width, config.num_heads, 3, multiple) for _ in range(config.num_fused_blocks)
        )
        self.sync_pos_emb = nn.Parameter(torch.zeros(1, 1, 8, config.sync_width))
        self.latent_mean = nn.Parameter(torch.zeros(1, 1, config.latent_width), requires_grad=False)
        self.latent_std = nn.Parameter(torch.zeros(1, 1, config.latent_width), requires_grad=False)
        self.empty_string_feat = nn.Parameter(torch.zeros(config.text_length, config.text_width), requires_grad=False)
        self.empty_clip_feat = nn.Parameter(torch.zeros(1, config.rgb_width))
        self.empty_sync_feat = nn.Parameter(torch.zeros(1, config.sync_width))
        if config.is_deepmmaudio:
            self.empty_depth_feat = nn.Parameter(torch.zeros(1, config.rgb_width))
        head_width = width // config.num_heads
        self.latent_rot = rotation(config.latent_length, head_width, 1.0)
        self.clip_rot = rotation(config.rgb_length, head_width, config.latent_length / config.rgb_length)

    def conditions(self, clip: Tensor, depth: Tensor | None, sync: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        if depth is not None:
            clip = torch.cat((clip, depth), dim=-1)
        sync = (sync.unflatten(1, (-1, 8)) + self.sync_pos_emb).flatten(1, 2)
        clip, sync, text = self.clip_input_proj(clip), self.sync_input_proj(sync), self.text_input_proj(text)
        sync = F.interpolate(sync.transpose(1, 2), size=self.config.latent_length, mode="nearest-exact").transpose(1, 2)
        return clip, sync, text, self.clip_cond_proj(clip.mean(dim=1)), self.text_cond_proj(text.mean(dim=1))

    def flow(self, latent: Tensor, time_B: Tensor, conditions: tuple[Tensor, ...]) -> Tensor:
        clip, sync, text, clip_c, text_c = conditions
        latent = self.audio_input_proj(latent)
        c = (self.t_embed(time_B) + self.global_cond_mlp(clip_c + text_c))[:, None]
        cs = c + sync
        for block in self.joint_blocks:
            latent, clip, text = block(latent, clip, text, c, cs, (self.latent_rot, self.clip_rot))
        for block in self.fused_blocks:
            latent = block(latent, cs, self.latent_rot)
        return self.final_layer(latent, c)

    def forward(self, latent: Tensor, time_B: Tensor, features: ConditionFeatures) -> Tensor:
        """Velocity with all conditions present."""
        depth = features.depth_BTD if self.config.is_deepmmaudio else None
        conditions = self.conditions(features.rgb_BTD, depth, features.sync_BSD, features.text_BND)
        return self.flow(latent, time_B, conditions)

    def sample(self, noise: Tensor, features: ConditionFeatures, num_steps: int, scale: float) -> Tensor:
        """Euler steps with classifier-free guidance, the two branches in separate passes."""
        batch_size = noise.shape[0]
        depth = features.depth_BTD if self.config.is_deepmmaudio else None
        full = self.conditions(features.rgb_BTD, depth, features.sync_BSD, features.text_BND)
        empty_depth = self.empty_depth_feat.expand_as(features.depth_BTD) if self.config.is_deepmmaudio else None
        empty = self.conditions(
            self.empty_clip_feat.expand_as(features.rgb_BTD),
            empty_depth,
            self.empty_sync_feat.expand_as(features.sync_BSD),
            self.empty_string_feat.expand_as(features.text_BND),
        )
        state, times = noise, torch.linspace(0, 1, num_steps + 1)
        for index in range(num_steps):
            time_B = times[index].expand(batch_size)
            velocity = scale * self.flow(state, time_B, full) + (1 - scale) * self.flow(state, time_B, empty)
            state = state + (times[index + 1] - times[index]) * velocity
        return state
