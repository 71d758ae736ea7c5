"""The flow network: velocity of an audio latent, conditioned on rgb, depth, synchronisation and text features.

MMAudio's multimodal diffusion transformer (section 3.3; supplement, table A1), optionally with depth. What does not
depend on time is computed once, by `embed_conditions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.errors import ConfigError
from dmma_core.models.blocks import FinalBlock, FusedBlock, InputProjection, JointBlock, Upsampling
from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.embeddings import DepthFusion, LinearDepthFusion, TimeEmbedding
from dmma_core.models.layers import ZERO, GatedFeedForward, InitialValue, TokenMap
from dmma_core.models.mmdit_config import SYNC_GROUP, MMDiTConfig
from dmma_core.models.rope import rotation_table


@dataclass(frozen=True)
class Conditions:
    """Embedded conditions of B clips, for all time steps. `sync_BSE` has its own rate, `global_BE` lacks the time."""

    rgb_BTE: Tensor
    sync_BSE: Tensor
    text_BNE: Tensor
    global_BE: Tensor

    @staticmethod
    def stack(parts: Sequence["Conditions"]) -> "Conditions":
        """Concatenate along the batch: [part 0's clips, part 1's clips, …], as guidance needs them."""
        names = [field.name for field in fields(Conditions)]
        return Conditions(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def expand(self, batch_size: int) -> "Conditions":
        """The conditions of one clip for `batch_size` clips, without a copy."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return Conditions(**{name: value.expand(batch_size, *value.shape[1:]) for name, value in tensors.items()})


class MMDiT(nn.Module):
    """The flow network. Parameters are zero or one until `initialise` or a checkpoint sets them.

    `latent_mean` and `latent_std` ([C], NaN until set) normalise latents: `normalize`, `unnormalize`.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        width, multiple = config.hidden_width, config.feed_forward_multiple
        audio_sync_activation, rgb_text_activation = ("selu", "none") if config.version == 1 else ("silu", "silu")
        self.latent_in = InputProjection(config.latent_width, width, 7, audio_sync_activation, 7, multiple)
        self.rgb_in = InputProjection(config.rgb_width, width, 1, rgb_text_activation, 3, multiple)
        self.sync_in = InputProjection(config.sync_width, width, 7, audio_sync_activation, 3, multiple)
        self.text_in = InputProjection(config.text_width, width, 1, rgb_text_activation, 1, multiple)
        self.rgb_pool = TokenMap(width, width)
        self.text_pool = TokenMap(width, width)
        self.global_mlp = GatedFeedForward(width, 4 * width, 1, multiple)
        num_sinusoids, max_period = (256, 10_000.0) if config.version == 1 else (width, 1.0)
        self.time_in = TimeEmbedding(width, num_sinusoids, max_period)
        num_joint = config.num_joint_blocks
        self.joint_blocks = nn.ModuleList(
            JointBlock(width, config.num_heads, multiple, last=index == num_joint - 1) for index in range(num_joint)
        )
        self.fused_blocks = nn.ModuleList(
            FusedBlock(width, config.num_heads, 3, multiple) for _ in range(config.num_fused_blocks)
        )
        self.final = FinalBlock(width, config.latent_width)
        self.depth_fusion = _depth_fusion(config)
        self.sync_position = nn.Parameter(torch.zeros(SYNC_GROUP, config.sync_width))
        self.empty_rgb = nn.Parameter(torch.zeros(1, config.rgb_width))
        self.empty_sync = nn.Parameter(torch.zeros(1, config.sync_width))
        empty_text_ND = torch.zeros(config.text_length, config.text_width)
        self.empty_text = nn.Parameter(empty_text_ND, requires_grad=False)
        self.register_buffer("latent_mean", torch.full((config.latent_width,), torch.nan))
        self.register_buffer("latent_std", torch.full((config.latent_width,), torch.nan))
        self._upsamplings: dict[tuple[int, int, torch.device], Upsampling] = {}

    def initial_values(self) -> dict[str, InitialValue]:
        """Empty tokens and sync positions are initially zero, as in the published network."""
        return dict.fromkeys(("sync_position", "empty_rgb", "empty_sync", "empty_text"), ZERO)

    # Conditions

    def embed_conditions(self, features: ConditionFeatures) -> Conditions:
        """Everything that does not depend on time, for B clips. Raises ConfigError for features of another size."""
        self._require_sizes(features)
        video_B11 = features.present_video_B[:, None, None]
        rgb = torch.where(video_B11, features.rgb_BTD, self.empty_rgb)
        sync = torch.where(video_B11, features.sync_BSD, self.empty_sync)
        text = torch.where(features.present_text_B[:, None, None], features.text_BND, self.empty_text)
        if self.depth_fusion is not None:
            rgb = self.depth_fusion(rgb, features.depth_BTD, features.depth_scalars_BTK, features.present_depth_B)
        sync = sync + self.sync_position.repeat(self.config.sync_length // SYNC_GROUP, 1)
        rgb_BTE, sync_BSE, text_BNE = self.rgb_in(rgb), self.sync_in(sync), self.text_in(text)
        pooled_BE = self.rgb_pool(rgb_BTE.mean(dim=1)) + self.text_pool(text_BNE.mean(dim=1))
        return Conditions(rgb_BTE, sync_BSE, text_BNE, self.global_mlp(pooled_BE))

    def empty_conditions(self, batch_size: int, negative_text_BND: Tensor | None = None) -> Conditions:
        """The unconditional branch of guidance. `negative_text_BND` ([B or 1, N, D]) replaces the empty text."""
        weight = self.empty_rgb
        num = 1 if negative_text_BND is None else negative_text_BND.shape[0]
        config = self.config

        def zeros(length: int, width: int) -> Tensor:
            return weight.new_zeros(num, length, width)

        absent_B = torch.zeros(num, dtype=torch.bool, device=weight.device)
        text_BND = zeros(config.text_length, config.text_width) if negative_text_BND is None else negative_text_BND
        features = ConditionFeatures(
            rgb_BTD=zeros(config.rgb_length, config.rgb_width),
            depth_BTD=zeros(config.rgb_length, config.rgb_width),
            depth_scalars_BTK=zeros(config.rgb_length, config.num_depth_scalars),
            sync_BSD=zeros(config.sync_length, config.sync_width),
            text_BND=text_BND,
            present_video_B=absent_B,
            present_depth_B=absent_B,
            present_text_B=absent_B if negative_text_BND is None else ~absent_B,
        )
        conditions = self.embed_conditions(features)
        return conditions.expand(batch_size) if num == 1 else conditions

    def branch_conditions(
        self, features: ConditionFeatures, branches: Sequence[str], negative_text_BND: Tensor | None = None
    ) -> Conditions:
        """Conditions of the guidance `branches` ("empty", "without_depth", "full"; see `flow.guidance`), stacked.

        Raises ConfigError for "without_depth" with DeepMMAudio's fusion, whose training never drops depth alone.
        """
        if "without_depth" in branches and self.config.is_deepmmaudio:
            raise ConfigError(
                "DeepMMAudio's depth fusion does not support guidance on depth: its training never drops depth alone.",
                remedy="Leave guidance_depth out.",
            )
        batch_size = features.rgb_BTD.shape[0]
        parts = []
        for branch in branches:
            if branch == "empty":
                parts.append(self.empty_conditions(batch_size, negative_text_BND))
            elif branch == "without_depth":
                absent_B = torch.zeros_like(features.present_depth_B)
                parts.append(self.embed_conditions(replace(features, present_depth_B=absent_B)))
            else:
                assert branch == "full", branch
                parts.append(self.embed_conditions(features))
        return parts[0] if len(parts) == 1 else Conditions.stack(parts)

    # Velocity

    def velocity(self, latent_BLC: Tensor, time_B: Tensor, conditions: Conditions) -> Tensor:
        """dx/dt of normalised latents at time 0 (noise) to 1 (data), in the latent's shape.

        `time_B` may be [1] or a scalar. For the stacked conditions of several branches (num * B
        clips) the result is [num * B, L, C]; what depends on the latent alone is computed once.
        Raises ConfigError for latents of another size.
        """
        if latent_BLC.shape[1:] != (self.config.latent_length, self.config.latent_width):
            raise ConfigError(
                f"The latents are {tuple(latent_BLC.shape[1:])}, but the network is set to "
                f"{(self.config.latent_length, self.config.latent_width)}.",
                remedy="Use latents of the same codec and duration, or set_lengths for another duration.",
            )
        latent_BLE = self.latent_in(latent_BLC)
        num = conditions.global_BE.shape[0]
        if num != latent_BLC.shape[0]:
            latent_BLE = latent_BLE.repeat(num // latent_BLC.shape[0], 1, 1)
        time_BE = self.time_in(time_B.reshape(-1))
        if time_BE.shape[0] not in (1, num):
            time_BE = time_BE.repeat(num // time_BE.shape[0], 1)
        global_B1E = (time_BE + conditions.global_BE)[:, None]
        condition = F.silu(global_B1E + conditions.sync_BSE)
        global_B1E = F.silu(global_B1E)
        length, device = latent_BLE.shape[1], latent_BLE.device
        upsampling: Upsampling | None = self.upsampling(conditions.sync_BSE.shape[1], length, device)
        assert upsampling is not None
        if not upsampling.widens:
            condition, upsampling = upsampling(condition), None
        rgb_BTE, text_BNE = conditions.rgb_BTE, conditions.text_BNE
        head_width, rgb_length = self.config.hidden_width // self.config.num_heads, rgb_BTE.shape[1]
        latent_table = rotation_table(length, head_width, 1.0, device)
        rgb_table = rotation_table(rgb_length, head_width, length / rgb_length, device)
        for block in self.joint_blocks:
            latent_BLE, rgb_BTE, text_BNE = block(
                latent_BLE, rgb_BTE, text_BNE, global_B1E, condition, upsampling, latent_table, rgb_table
            )
        for block in self.fused_blocks:
            latent_BLE = block(latent_BLE, condition, upsampling, latent_table)
        # As published, the final layer uses the global condition, not the one per step.
        velocity: Tensor = self.final(latent_BLE, global_B1E)
        return velocity

    def forward(self, latent_BLC: Tensor, time_B: Tensor, features: ConditionFeatures) -> Tensor:
        """Embed the conditions and compute `velocity`: the call of the training step."""
        return self.velocity(latent_BLC, time_B, self.embed_conditions(features))

    def upsampling(self, num_tokens: int, length: int, device: torch.device) -> Upsampling:
        """Upsampling of sync tokens to latent steps, cached for each pair of lengths."""
        key = (num_tokens, length, device)
        if key not in self._upsamplings:
            self._upsamplings[key] = Upsampling(num_tokens, length, device)
        return self._upsamplings[key]

    # Latent statistics and lengths

    def set_latent_statistics(self, mean_C: Tensor, std_C: Tensor) -> None:
        """Store the training set's latent statistics (per channel)."""
        self.latent_mean.copy_(mean_C)
        self.latent_std.copy_(std_C)

    def set_depth_scalar_statistics(self, mean_K: Tensor, std_K: Tensor) -> None:
        """Store the training set's statistics of the depth scalars; does nothing without depth scalars."""
        if isinstance(self.depth_fusion, DepthFusion):
            self.depth_fusion.set_scalar_statistics(mean_K, std_K)

    def normalize(self, latent_BLC: Tensor) -> Tensor:
        """(latent - mean) / std, a new tensor."""
        return (latent_BLC - self.latent_mean) / self.latent_std

    def unnormalize(self, latent_BLC: Tensor) -> Tensor:
        """latent * std + mean, a new tensor."""
        return latent_BLC * self.latent_std + self.latent_mean

    def set_lengths(self, latent_length: int, rgb_length: int, sync_length: int) -> None:
        """Set the lengths of another duration. Raises ConfigError for a sync length that is no multiple of eight."""
        self.config = replace(self.config, latent_length=latent_length, rgb_length=rgb_length, sync_length=sync_length)

    def _require_sizes(self, features: ConditionFeatures) -> None:
        config = self.config
        expected = {
            "rgb": (features.rgb_BTD, config.rgb_length, config.rgb_width),
            "sync": (features.sync_BSD, config.sync_length, config.sync_width),
            "text": (features.text_BND, config.text_length, config.text_width),
        }
        if config.depth in ("rgb_like", "both"):
            expected["depth"] = (features.depth_BTD, config.rgb_length, config.rgb_width)
        if config.depth in ("scalars", "both"):
            expected["depth scalars"] = (features.depth_scalars_BTK, config.rgb_length, config.num_depth_scalars)
        for name, (tensor, length, width) in expected.items():
            if tensor.shape[1:] != (length, width):
                raise ConfigError(
                    f"The {name} features are {tuple(tensor.shape[1:])}, but the network is set to {(length, width)}.",
                    remedy="Use features of the same bundle and duration, or set_lengths for another duration.",
                )


def _depth_fusion(config: MMDiTConfig) -> DepthFusion | LinearDepthFusion | None:
    if config.depth == "off":
        return None
    if config.is_deepmmaudio:
        return LinearDepthFusion(config.rgb_width, activation=config.version == 2)
    return DepthFusion(config.rgb_width, config.rgb_width, config.num_depth_scalars, config.depth, config.fusion)
