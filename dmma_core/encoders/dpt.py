"""DPT, the dense prediction transformer of MiDaS v3, on a ViT backbone of timm.

Ranftl, Bochkovskiy, Koltun: "Vision Transformers for Dense Prediction" (2021), sections 3 and 4; MiDaS v3 for the
weights. Parameter names are those of the published files dpt_hybrid_384.pt and dpt_large_384.pt.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.encoders.torchvision_shim import import_timm
from dmma_core.storage.state_dicts import load_strictly

# In the published files but unused: the residual unit of the level without a skip connection, and the classifier.
UNUSED_IN_DECODER = "scratch.refinenet4.resConfUnit1."
_UNUSED = (UNUSED_IN_DECODER, "pretrained.model.head.")


@dataclass(frozen=True)
class DptConfig:
    """Architecture of a DPT.

    `backbone` is a timm name, or "vit" for a plain ViT of the given sizes. The four taps are blocks of the ViT; with
    `num_stage_taps` = 2 (the hybrid) the first two are stages of the convolutional stem instead. `scales` is the
    resampling factor of each tap's grid: 4 and 2 by transposed convolution, 1 not at all, 1/2 by a strided convolution.
    """

    name: str
    backbone: str
    taps: tuple[int, int, int, int]
    tap_channels: tuple[int, int, int, int]
    num_stage_taps: int
    num_features: int
    num_head_features: int
    image_size: int
    patch_size: int
    width: int
    scales: tuple[float, float, float, float] = (4, 2, 1, 0.5)
    num_blocks: int = 0
    num_heads: int = 0
    mlp_ratio: float = 4.0


DPT_HYBRID_384 = DptConfig(
    name="dpt_hybrid_384",
    backbone="vit_base_r50_s16_384",
    taps=(0, 1, 8, 11),
    tap_channels=(256, 512, 768, 768),
    num_stage_taps=2,
    num_features=256,
    num_head_features=32,
    image_size=384,
    patch_size=16,
    width=768,
)
DPT_LARGE_384 = DptConfig(
    name="dpt_large_384",
    backbone="vit_large_patch16_384",
    taps=(5, 11, 17, 23),
    tap_channels=(256, 512, 1024, 1024),
    num_stage_taps=0,
    num_features=256,
    num_head_features=32,
    image_size=384,
    patch_size=16,
    width=1024,
)
TINY_DPT = DptConfig(
    name="tiny-dpt",
    backbone="vit",
    taps=(0, 1, 2, 3),
    tap_channels=(16, 32, 32, 32),
    num_stage_taps=0,
    num_features=24,
    num_head_features=8,
    image_size=96,
    patch_size=8,
    width=64,
    scales=(2, 1, 0.5, 0.25),
    num_blocks=4,
    num_heads=4,
    mlp_ratio=2.0,
)


class Dpt(nn.Module):
    """Images [B, 3, H, W], normalised by mean 0.5 and std 0.5, to non-negative inverse depth [B, H, W]."""

    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, config: DptConfig) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.size_multiple = round(config.patch_size / min(1, *config.scales))  # so that every grid has an integer size
        self.pretrained = _Backbone(config)
        self.scratch = FusionDecoder(
            config.tap_channels, (config.num_features,) * 4, config.num_head_features, head_align_corners=True
        )

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Inverse depth [B, H, W]. Raises ValueError for sides that are no multiples of `size_multiple`."""
        multiple, size = self.size_multiple, tuple(pixels_BCHW.shape[-2:])
        if any(side % multiple or not side for side in size):
            raise ValueError(f"{self.config.name} needs sizes that are multiples of {multiple}, not {size}.")
        inverse_depth_BHW: Tensor = self.scratch(self.pretrained(pixels_BCHW), size)
        return inverse_depth_BHW

    def load(self, state: Mapping[str, Tensor], where: str) -> None:
        """Copy a MiDaS state dict. Raises WeightsError where it does not fit."""
        load_strictly(self, state, self.config.name, where, unused=_UNUSED)


class _Backbone(nn.Module):
    """ViT and the four reassemble operations: tokens of four taps become feature maps of decreasing size."""

    def __init__(self, config: DptConfig) -> None:
        super().__init__()
        self.config = config
        timm = import_timm()
        if config.backbone == "vit":
            self.model = timm.models.vision_transformer.VisionTransformer(
                img_size=config.image_size,
                patch_size=config.patch_size,
                embed_dim=config.width,
                depth=config.num_blocks,
                num_heads=config.num_heads,
                mlp_ratio=config.mlp_ratio,
                num_classes=0,
            )
        else:
            self.model = timm.create_model(config.backbone, pretrained=False, num_classes=0)
        for index in range(config.num_stage_taps, 4):
            channels, scale = config.tap_channels[index], config.scales[index]
            self.add_module(f"act_postprocess{index + 1}", _reassemble(config.width, channels, scale))

    def forward(self, pixels_BCHW: Tensor) -> list[Tensor]:
        model, config = self.model, self.config
        height, width = (side // config.patch_size for side in pixels_BCHW.shape[-2:])
        taps: dict[int, Tensor] = {}
        grid_BCHW = pixels_BCHW
        if config.num_stage_taps:
            grid_BCHW = model.patch_embed.backbone.stem(grid_BCHW)
            for index, stage in enumerate(model.patch_embed.backbone.stages):
                grid_BCHW = stage(grid_BCHW)
                if index < config.num_stage_taps:
                    taps[index] = grid_BCHW
        tokens_BND = model.patch_embed.proj(grid_BCHW).flatten(2).transpose(1, 2)
        tokens_BND = torch.cat([model.cls_token.expand(len(tokens_BND), -1, -1), tokens_BND], dim=1)
        tokens_BND = tokens_BND + _resized_positions(model.pos_embed, height, width)
        for block_index, block in enumerate(model.blocks[: config.taps[-1] + 1]):
            tokens_BND = block(tokens_BND)
            if block_index in config.taps[config.num_stage_taps :]:
                index = config.taps.index(block_index, config.num_stage_taps)
                # The names are those of a published nn.Sequential whose items 1 and 2 only reshape.
                reassemble = self.get_submodule(f"act_postprocess{index + 1}")
                assert isinstance(reassemble, nn.ModuleDict)
                map_BCHW = reassemble["0"](tokens_BND).transpose(1, 2).unflatten(2, (height, width))
                for name in ("3", "4"):
                    map_BCHW = reassemble[name](map_BCHW) if name in reassemble else map_BCHW
                taps[index] = map_BCHW
        return [taps[index] for index in range(4)]


class FusionDecoder(nn.Module):
    """Fusion of four maps from coarse to fine, and the head (the paper's section 3, "convolutional decoder").

    `features` are the widths of the four levels, finest first. `head_align_corners` is for the head's resizing.
    """

    def __init__(
        self, tap_channels: tuple[int, ...], features: tuple[int, ...], num_head_features: int, head_align_corners: bool
    ) -> None:
        super().__init__()
        self.head_align_corners = head_align_corners
        finer = (features[0], *features)
        for index, channels in enumerate(tap_channels, start=1):
            width = features[index - 1]
            self.add_module(f"layer{index}_rn", nn.Conv2d(channels, width, 3, padding=1, bias=False))
            self.add_module(f"refinenet{index}", _FeatureFusion(width, finer[index - 1], with_skip=index < 4))
        half = features[0] // 2
        self.output_conv = nn.ModuleDict(
            {
                "0": nn.Conv2d(features[0], half, 3, padding=1),
                "2": nn.Conv2d(half, num_head_features, 3, padding=1),
                "4": nn.Conv2d(num_head_features, 1, 1),
            }
        )

    def forward(self, maps: list[Tensor], size: tuple[int, ...]) -> Tensor:
        """Inverse depth [B, H, W] of `size` from maps [B, C, h, w], finest first."""
        maps = [self.get_submodule(f"layer{index}_rn")(map_BCHW) for index, map_BCHW in enumerate(maps, start=1)]
        path_BCHW = None
        for index in (4, 3, 2, 1):
            next_size = maps[index - 2].shape[-2:] if index > 1 else [2 * side for side in maps[0].shape[-2:]]
            path_BCHW = self.get_submodule(f"refinenet{index}")(maps[index - 1], path_BCHW, next_size)
        head = self.output_conv
        wide_BCHW = F.interpolate(head["0"](path_BCHW), size, mode="bilinear", align_corners=self.head_align_corners)
        inverse_depth_BCHW = F.relu(head["4"](F.relu(head["2"](wide_BCHW))))
        return inverse_depth_BCHW.squeeze(1)


class _FeatureFusion(nn.Module):
    """Adds the finer map to the coarser path, refines the sum and resizes it to the next finer size."""

    def __init__(self, features: int, out_features: int, with_skip: bool = True) -> None:
        super().__init__()
        self.resConfUnit1 = _ResidualUnit(features) if with_skip else None
        self.resConfUnit2 = _ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, out_features, 1)

    def forward(self, map_BCHW: Tensor, path_BCHW: Tensor | None, size: list[int]) -> Tensor:
        if path_BCHW is None:
            path_BCHW = map_BCHW
        else:
            assert self.resConfUnit1 is not None
            path_BCHW = path_BCHW + self.resConfUnit1(map_BCHW)
        refined_BCHW = self.resConfUnit2(path_BCHW)
        # A 1x1 convolution and interpolation commute; convolving the smaller map first is cheaper.
        fused_BCHW: Tensor = F.interpolate(self.out_conv(refined_BCHW), size, mode="bilinear", align_corners=True)
        return fused_BCHW


class _ResidualUnit(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        refined_BCHW: Tensor = self.conv2(F.relu(self.conv1(F.relu(map_BCHW))))
        return map_BCHW + refined_BCHW


class _Readout(nn.Module):
    """Joins the class token to every other token (the paper's "project" readout)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, tokens_BND: Tensor) -> Tensor:
        patches_BND = tokens_BND[:, 1:]
        readout_BND = tokens_BND[:, :1].expand_as(patches_BND)
        projected_BND: Tensor = self.project(torch.cat([patches_BND, readout_BND], dim=-1))
        return projected_BND


def _reassemble(width: int, channels: int, scale: float) -> nn.ModuleDict:
    parts: dict[str, nn.Module] = {"0": _Readout(width), "3": nn.Conv2d(width, channels, 1)}
    if scale > 1:
        parts["4"] = nn.ConvTranspose2d(channels, channels, int(scale), stride=int(scale))
    elif scale < 1:
        parts["4"] = nn.Conv2d(channels, channels, 3, stride=round(1 / scale), padding=1)
    return nn.ModuleDict(parts)


def _resized_positions(positions_1ND: Tensor, height: int, width: int) -> Tensor:
    """Positional embedding of the class token and of a grid of another size, bilinear."""
    side = round((positions_1ND.shape[1] - 1) ** 0.5)
    if (side, side) == (height, width):
        return positions_1ND
    grid_1DHW = positions_1ND[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
    grid_1DHW = F.interpolate(grid_1DHW, (height, width), mode="bilinear")
    return torch.cat([positions_1ND[:, :1], grid_1DHW.flatten(2).transpose(1, 2)], dim=1)
