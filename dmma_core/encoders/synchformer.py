"""The visual encoder of Synchformer: motion features, 8 for every 16 frames of 25 fps video.

Iashin, Xie, Rahtu, Zisserman: "Synchformer" (2024), section 3.1; its backbone is MotionFormer (Patrick et al. 2021)
with divided space-time attention. MMAudio (section 3.2) uses overlapping segments of 16 frames with a step of 8, which
yields 24 features per second. Parameter names are those of the published file below `vfeat_extractor.`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.encoders.loading import fill_with_random_weights, network_fingerprint
from dmma_core.errors import WeightsError
from dmma_core.models.matmul import use_fast_linear
from dmma_core.storage.state_dicts import load_strictly, read_state_dict, unwrap

SEGMENT_FRAMES = 16
SEGMENT_STEP = 8
TUBELET_FRAMES = 2
FEATURES_PER_SEGMENT = SEGMENT_FRAMES // TUBELET_FRAMES
_PREFIX = "vfeat_extractor."
# The file also contains the unused two-dimensional patch embedding of MotionFormer's ViT.
_UNUSED = (f"{_PREFIX}patch_embed.",)
_NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class SynchformerConfig:
    """Size of the visual encoder. `random_weights` marks a stand-in with untrained weights."""

    name: str
    image_size: int
    patch_size: int
    width: int
    num_blocks: int
    num_heads: int
    mlp_ratio: int = 4
    random_weights: bool = False

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


SYNCHFORMER = SynchformerConfig("synchformer", image_size=224, patch_size=16, width=768, num_blocks=12, num_heads=12)
TINY_RANDOM = SynchformerConfig(
    "tiny-random", image_size=64, patch_size=16, width=64, num_blocks=2, num_heads=4, random_weights=True
)


def num_sync_features(num_frames: int) -> int:
    """Number of features S of `num_frames` frames.

    Frames after the last full segment are unused; 0 below one segment.
    """
    return FEATURES_PER_SEGMENT * max(0, (num_frames - SEGMENT_FRAMES) // SEGMENT_STEP + 1)


class SynchformerEncoder(nn.Module):
    """Frames at 25 fps to sync features."""

    def __init__(self, config: SynchformerConfig, segments_per_batch: int = 16) -> None:
        super().__init__()
        self.config = config
        self.segments_per_batch = segments_per_batch
        self.vfeat_extractor = _VisualEncoder(config)
        use_fast_linear(self.vfeat_extractor)

    @torch.inference_mode()
    def encode_frames(self, frames_BTHWC: Tensor) -> Tensor:
        """float32 features [B, S, D] of uint8 frames [B, T, H, W, 3] of the encoder's size; S = num_sync_features(T).

        Raises ValueError for another size or fewer frames than one segment.
        """
        batch_size, num_frames, height, width = frames_BTHWC.shape[:4]
        side = self.config.image_size
        if (height, width) != (side, side) or num_frames < SEGMENT_FRAMES:
            raise ValueError(
                f"Synchformer needs at least {SEGMENT_FRAMES} frames of {side}x{side}, "
                f"not {num_frames} of {height}x{width}."
            )
        parameter = next(self.parameters())
        # [B, segments, H, W, C, T]: a view, no copy
        segments = frames_BTHWC.unfold(1, SEGMENT_FRAMES, SEGMENT_STEP).flatten(0, 1)
        features = []
        for chunk_BHWCT in torch.split(segments, self.segments_per_batch):
            pixels_BCTHW = chunk_BHWCT.to(parameter.device).permute(0, 3, 4, 1, 2).float() * (1 / 255)
            normalised_BCTHW = ((pixels_BCTHW - 0.5) / 0.5).to(parameter.dtype)
            features.append(self.vfeat_extractor(normalised_BCTHW).float())
        return torch.cat(features).reshape(batch_size, -1, self.config.width)

    def load(self, state: Mapping[str, Tensor], where: str) -> None:
        """Copy the visual part of a Synchformer state dict, ignoring the other parts. Raises WeightsError."""
        visual = {key: value for key, value in unwrap(state, where).items() if key.startswith(_PREFIX)}
        if not visual:
            raise WeightsError(
                f"{where} contains no visual encoder of Synchformer.", remedy="Use synchformer_state_dict.pth."
            )
        load_strictly(self, visual, self.config.name, where, unused=_UNUSED)

    def fingerprint(self) -> str:
        """Identifies architecture, precision and weights; begins with "tiny-random:" for the stand-in."""
        digest = network_fingerprint(asdict(self.config), self.vfeat_extractor)
        return f"{self.config.name}:{digest}" if self.config.random_weights else digest


class _VisualEncoder(nn.Module):
    """MotionFormer with divided attention, then a transformer layer over space: [B, C, T, H, W] to [B, T/2, D]."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width = config.width
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.num_patches, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, FEATURES_PER_SEGMENT, width))
        self.patch_embed_3d = _PatchEmbedding(config)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.spatial_attn_agg = _SpatialSummary(config)

    def forward(self, pixels_BCTHW: Tensor) -> Tensor:
        patches_BTPD = self.patch_embed_3d(pixels_BCTHW)
        positions_1TPD = self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]
        patches_BTPD = patches_BTPD + positions_1TPD
        cls_B1D = (self.cls_token + self.pos_embed[:, :1]).expand(len(patches_BTPD), -1, -1)
        for block in self.blocks:
            cls_B1D, patches_BTPD = block(cls_B1D, patches_BTPD)
        summary_BTD: Tensor = self.spatial_attn_agg(self.norm(patches_BTPD))
        return summary_BTD


class _PatchEmbedding(nn.Module):
    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        kernel = (TUBELET_FRAMES, config.patch_size, config.patch_size)
        self.proj = nn.Conv3d(3, config.width, kernel, stride=kernel)

    def forward(self, pixels_BCTHW: Tensor) -> Tensor:
        patches_BTPD: Tensor = self.proj(pixels_BCTHW).flatten(3).permute(0, 2, 3, 1)
        return patches_BTPD


class _Block(nn.Module):
    """Attention over time for each patch, then over space for each time step, then a feed-forward; one class token."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.norm3 = nn.LayerNorm(width, eps=_NORM_EPSILON)
        self.attn = _DividedAttention(width, config.num_heads)
        self.timeattn = _DividedAttention(width, config.num_heads)
        self.mlp = _FeedForward(width, config.mlp_ratio * width)

    def forward(self, cls_B1D: Tensor, patches_BTPD: Tensor) -> tuple[Tensor, Tensor]:
        cls_out_B1D, out_BPTD = self.timeattn(self.norm3(cls_B1D), self.norm3(patches_BTPD).transpose(1, 2))
        cls_B1D, patches_BTPD = cls_B1D + cls_out_B1D, patches_BTPD + out_BPTD.transpose(1, 2)
        cls_out_B1D, out_BTPD = self.attn(self.norm1(cls_B1D), self.norm1(patches_BTPD))
        cls_B1D, patches_BTPD = cls_B1D + cls_out_B1D, patches_BTPD + out_BTPD
        return cls_B1D + self.mlp(self.norm2(cls_B1D)), patches_BTPD + self.mlp(self.norm2(patches_BTPD))


class _DividedAttention(nn.Module):
    """Attention within groups: a token attends to its own group and the class token, the class token to all tokens."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, cls_B1D: Tensor, tokens_BGND: Tensor) -> tuple[Tensor, Tensor]:
        """Class token [B, 1, D] and tokens [B, groups, N, D]; returns both after attention, same shapes."""
        num_groups = tokens_BGND.shape[1]
        cls_q, cls_k, cls_v = self._heads(cls_B1D.unsqueeze(1))  # [B, 1, heads, 1, d]
        query, key, value = self._heads(tokens_BGND)  # [B, groups, heads, N, d]
        all_keys = torch.cat([cls_k, _ungrouped(key)], dim=3)
        all_values = torch.cat([cls_v, _ungrouped(value)], dim=3)
        cls_out = F.scaled_dot_product_attention(cls_q, all_keys, all_values)
        group_keys = torch.cat([cls_k.expand(-1, num_groups, -1, -1, -1), key], dim=3)
        group_values = torch.cat([cls_v.expand(-1, num_groups, -1, -1, -1), value], dim=3)
        out = F.scaled_dot_product_attention(query, group_keys, group_values)
        return self.proj(_joined(cls_out)).squeeze(1), self.proj(_joined(out))

    def _heads(self, tokens_BGND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        split = self.qkv(tokens_BGND).unflatten(-1, (3, self.num_heads, -1))  # [B, groups, N, 3, heads, d]
        query, key, value = split.permute(3, 0, 1, 4, 2, 5).unbind(0)
        return query, key, value


def _ungrouped(heads: Tensor) -> Tensor:
    """[B, groups, heads, N, d] to [B, 1, heads, groups * N, d]."""
    return heads.transpose(1, 2).flatten(2, 3).unsqueeze(1)


def _joined(heads: Tensor) -> Tensor:
    """[B, groups, heads, N, d] to [B, groups, N, heads * d]."""
    return heads.transpose(2, 3).flatten(3)


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class _SpatialSummary(nn.TransformerEncoderLayer):
    """A pre-norm transformer layer over the patches of one time step; its class token is that step's feature."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__(
            config.width,
            config.num_heads,
            dim_feedforward=config.mlp_ratio * config.width,
            dropout=0.0,
            activation=F.gelu,
            layer_norm_eps=_NORM_EPSILON,
            batch_first=True,
            norm_first=True,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))

    def forward(self, patches_BTPD: Tensor) -> Tensor:  # type: ignore[override]
        batch_size, num_steps = patches_BTPD.shape[:2]
        tokens_BND = patches_BTPD.flatten(0, 1)
        tokens_BND = torch.cat([self.cls_token.expand(len(tokens_BND), -1, -1), tokens_BND], dim=1)
        return super().forward(tokens_BND)[:, 0].reshape(batch_size, num_steps, -1)


def tiny_random_synchformer() -> SynchformerEncoder:
    """The small stand-in with random weights, the same on every machine.

    Its patch filters are differences in time (the second frame's filter is minus the first's), so that its random
    features depend on motion and not on static content. Kernels and positions are scaled so that faint motion exceeds
    compression noise after the first norm.
    """
    encoder = fill_with_random_weights(SynchformerEncoder(TINY_RANDOM), TINY_RANDOM.name)
    network = encoder.vfeat_extractor
    kernel = network.patch_embed_3d.proj.weight
    with torch.no_grad():
        kernel[:, :, 1] = -kernel[:, :, 0]
        kernel.mul_(4)
        network.pos_embed.mul_(5)
        network.temp_embed.mul_(5)
    return encoder.eval()


def full_synchformer(weights: str) -> SynchformerEncoder:
    """Synchformer's visual encoder with the weights of its published file.

    Raises WeightsError where they do not fit.
    """
    state = read_state_dict(weights)  # first, because building the network takes seconds
    encoder = SynchformerEncoder(SYNCHFORMER)
    encoder.load(state, weights)
    return encoder.eval()
