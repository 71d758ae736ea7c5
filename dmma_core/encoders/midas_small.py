"""MiDaS v2.1 small: EfficientNet-Lite3 with the same fusion decoder, for machines where a DPT is too slow.

Ranftl et al.: "Towards Robust Monocular Depth Estimation" (2020). Parameter names are those of the published file
midas_v21_small_256.pt.
"""

from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn

from dmma_core.encoders.dpt import UNUSED_IN_DECODER, FusionDecoder
from dmma_core.encoders.torchvision_shim import import_timm
from dmma_core.storage.state_dicts import load_strictly

_STAGES = (0, 2, 3, 5, 7)  # block indices at which MiDaS splits the EfficientNet


class MidasSmall(nn.Module):
    """Images [B, 3, H, W], normalised by ImageNet's mean and std, to non-negative inverse depth [B, H, W]."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    name = "midas_v21_small_256"
    image_size = 256
    size_multiple = 32

    def __init__(self) -> None:
        super().__init__()
        network = import_timm().create_model("tf_efficientnet_lite3", pretrained=False)
        stages = [list(network.blocks[start:end]) for start, end in pairwise(_STAGES)]
        stages[0] = [network.conv_stem, network.bn1, nn.Identity(), *stages[0]]  # the norm includes its activation
        self.pretrained = nn.ModuleDict({f"layer{i}": nn.Sequential(*stage) for i, stage in enumerate(stages, start=1)})
        self.scratch = FusionDecoder((32, 48, 136, 384), (64, 128, 256, 512), 32, head_align_corners=False)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        maps, map_BCHW = [], pixels_BCHW
        for stage in self.pretrained.values():
            map_BCHW = stage(map_BCHW)
            maps.append(map_BCHW)
        inverse_depth_BHW: Tensor = self.scratch(maps, tuple(pixels_BCHW.shape[-2:]))
        return inverse_depth_BHW

    def load(self, state: Mapping[str, Tensor], where: str) -> None:
        """Copy a MiDaS state dict. Raises WeightsError where it does not fit."""
        load_strictly(self, state, self.name, where, unused=(UNUSED_IN_DECODER,))
