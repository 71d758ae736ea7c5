"""Depth of video frames: inverse depth, the three-channel depth video, and scalars that keep absolute distance.

The only depth code: feature extraction, training and generation use it, so that their depth maps are the same.
"Inverse depth" is large for near objects. The MiDaS networks predict it up to an unknown scale, which is constant over
the images of one network; the tiny network predicts it in 1/m.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.encoders.dpt import DPT_HYBRID_384, DPT_LARGE_384, TINY_DPT, Dpt
from dmma_core.encoders.loading import network_fingerprint
from dmma_core.encoders.midas_small import MidasSmall
from dmma_core.errors import ConfigError
from dmma_core.models.matmul import use_fast_linear
from dmma_core.storage.state_dicts import read_state_dict

NORMALIZATIONS = ("per_frame", "per_clip", "raw_scaled")
SCALAR_NAMES = (
    "log_p25",
    "log_p75",
    "log_max",
    "log_mean",
    "log_centre",
    "log_foreground",
    "log_foreground_per_s",
    "relative_std",
)
TINY_WEIGHTS = Path(__file__).parent / "tiny_weights" / "depth.safetensors"
MIDAS_VARIANTS: Mapping[str, Callable[[], Dpt | MidasSmall]] = {
    DPT_HYBRID_384.name: partial(Dpt, DPT_HYBRID_384),
    DPT_LARGE_384.name: partial(Dpt, DPT_LARGE_384),
    MidasSmall.name: MidasSmall,
}
_HALF = torch.bfloat16  # on every device, so that features do not depend on the device
_VERSION = 1  # part of the fingerprint: increase it whenever maps, images or scalars change
_FLOOR = 1e-2  # inverse depth is clamped to this before logarithms: 100 m where the unit is 1/m
_STILL_WEIGHT = 1e-4  # of pixels not nearer than the median; moving objects have 0.1 to 2
_EPSILON = 1e-8  # as in the published depth normalisation


@dataclass(frozen=True)
class DepthConfig:
    """Input size and precision of a depth network, and the normalisation of its depth images.

    `raw_scale` is the inverse depth that `raw_scaled` maps to 1 (white), in the network's own unit. `size` and
    `size_multiple` are those of the network's input; `resize` is MiDaS' "minimal" or "upper_bound". `architecture`
    describes the network where `name` does not. Half precision is bfloat16.
    """

    name: str
    size: int
    size_multiple: int
    normalization: str = "per_frame"
    raw_scale: float | None = None
    resize: str = "minimal"
    half_precision: bool = False
    architecture: str = ""
    frames_per_batch: int = 32

    def __post_init__(self) -> None:
        if self.normalization not in NORMALIZATIONS:
            raise ConfigError(
                f"There is no depth normalisation {self.normalization!r}.", remedy=f"Use one of {NORMALIZATIONS}."
            )
        if self.normalization == "raw_scaled" and not self.raw_scale:
            raise ConfigError(
                f"Depth of {self.name} has no unit of its own, so raw_scaled needs a scale.",
                remedy="Set the inverse depth that maps to white, for example the 99th percentile over a dataset.",
            )


class DepthEncoder(nn.Module):
    """Frames to inverse depth and depth images, batched, optionally in half precision.

    `network` maps normalised images [B, 3, H, W] to non-negative inverse depth [B, H, W]; its `mean` and `std` (three
    numbers each) normalise its images.
    """

    def __init__(self, config: DepthConfig, network: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.network = network
        use_fast_linear(network)
        self.register_buffer("mean_C", torch.tensor(network.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std_C", torch.tensor(network.std).view(3, 1, 1), persistent=False)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Inverse depth [B, H, W] of images in [0, 1] of a size the network accepts.

        Tracks gradients (for training).
        """
        normalised_BCHW = (pixels_BCHW - self.get_buffer("mean_C")) / self.get_buffer("std_C")
        inverse_depth_BHW: Tensor = self.network(normalised_BCHW)
        return inverse_depth_BHW

    @torch.inference_mode()
    def inverse_depth(self, frames_THWC: Tensor) -> Tensor:
        """float32 inverse depth [n, h, w] >= 0 of uint8 frames [n, H, W, 3].

        Frames of another size than the network's are resized first as MiDaS does (aspect ratio kept); the maps have
        the size of the network's input.
        """
        device = self.get_buffer("mean_C").device
        maps = []
        for chunk_THWC in torch.split(frames_THWC, self.config.frames_per_batch):
            pixels_BCHW = resize_like_midas(chunk_THWC.to(device), self.config)
            with torch.autocast(device.type, _HALF, enabled=self.config.half_precision):
                maps.append(self(pixels_BCHW).float())
        return torch.cat(maps)

    def images(self, inverse_depth_THW: Tensor, side: int) -> Tensor:
        """Three-channel depth video [T, 3, side, side] in [0, 1] of ONE clip's maps [T, h, w], for CLIP."""
        return depth_images(normalized_depth(inverse_depth_THW, self.config), side)

    def fingerprint(self) -> str:
        """Identifies the network, its weights and all settings that change features; the same on every device."""
        settings = asdict(self.config)
        del settings["frames_per_batch"]  # changes rounding only
        settings |= {"version": _VERSION, "scalars": SCALAR_NAMES, "half_precision": self._precision()}
        settings |= {"mean": self.get_buffer("mean_C").tolist(), "std": self.get_buffer("std_C").tolist()}
        return network_fingerprint(settings, self.network)

    def _precision(self) -> str:
        return str(_HALF if self.config.half_precision else torch.float32)


def normalized_depth(inverse_depth_THW: Tensor, config: DepthConfig) -> Tensor:
    """Inverse depth [T, h, w] of ONE clip, normalised to [0, 1] by `config.normalization`.

    per_frame: each frame by its own minimum and maximum (DeepMMAudio); per_clip: by those of the clip, which keeps
    changes of distance visible; raw_scaled: divided by `raw_scale`, which keeps absolute distance.
    """
    if config.normalization == "raw_scaled":
        assert config.raw_scale is not None  # checked by the config
        return (inverse_depth_THW / config.raw_scale).clamp(0, 1)
    if not inverse_depth_THW.numel():
        return inverse_depth_THW
    axes = (1, 2) if config.normalization == "per_frame" else (0, 1, 2)
    low, high = inverse_depth_THW.amin(axes, keepdim=True), inverse_depth_THW.amax(axes, keepdim=True)
    return (inverse_depth_THW - low) / (high - low + _EPSILON)


def depth_images(depth_THW: Tensor, side: int) -> Tensor:
    """Normalised depth maps [T, h, w] as images [T, 3, side, side] of three equal channels (bilinear, antialiased)."""
    images_TCHW = depth_THW.unsqueeze(1)
    if images_TCHW.shape[-2:] != (side, side):
        images_TCHW = F.interpolate(images_TCHW, (side, side), mode="bilinear", antialias=True)
    return images_TCHW.expand(-1, 3, -1, -1)


def depth_scalars(inverse_depth_THW: Tensor, fps: float) -> Tensor:
    """Per-frame statistics [T, K] of raw inverse depth of ONE clip at `fps`, columns `SCALAR_NAMES`.

    With natural logarithms (of values clamped to at least 0.01) a constant factor of distance is a constant offset in
    any unit of the network. `log_centre` is the mean over the middle quarter of the frame. `log_foreground` is the mean
    logarithm over pixels nearer than in the median frame of the clip, weighted by the difference: with a static camera
    the moving object, in a still clip the full frame. `log_foreground_per_s` is its change, positive for an approach.
    """
    num_frames, height, width = inverse_depth_THW.shape
    if not num_frames:
        return inverse_depth_THW.new_zeros(0, len(SCALAR_NAMES))
    flat_TP = inverse_depth_THW.flatten(1).contiguous()  # torch.median is wrong on expanded tensors
    centre_THW = inverse_depth_THW[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    mean_T = flat_TP.mean(1)
    log_TP = flat_TP.clamp_min(_FLOOR).log()
    weight_TP = (log_TP - log_TP.median(0).values).clamp_min(0) + _STILL_WEIGHT
    foreground_T = (weight_TP * log_TP).sum(1) / weight_TP.sum(1)
    ranks = torch.tensor([0.25, 0.75], dtype=flat_TP.dtype, device=flat_TP.device)
    quartiles_2T = torch.stack([torch.quantile(flat_P, ranks) for flat_P in flat_TP], dim=1)
    levels_KT = torch.stack([*quartiles_2T, flat_TP.amax(1), mean_T, centre_THW.mean((1, 2))])
    logs_KT = levels_KT.clamp_min(_FLOOR).log()
    neighbours_T = torch.cat([foreground_T[:1], foreground_T, foreground_T[-1:]])
    change_T = (neighbours_T[2:] - neighbours_T[:-2]) * (fps / 2)
    relative_std_T = flat_TP.std(1) / mean_T.clamp_min(_FLOOR)
    return torch.stack([*logs_KT, foreground_T, change_T, relative_std_T], dim=1)


def resize_like_midas(frames_THWC: Tensor, config: DepthConfig) -> Tensor:
    """float32 images [n, 3, h, w] of uint8 frames [n, H, W, 3], resized as in MiDaS' transform.

    Bicubic (a = -0.75, no antialiasing, not clipped) to `midas_size`; in [0, 1] up to the overshoot of the kernel.
    """
    pixels_TCHW = frames_THWC.permute(0, 3, 1, 2)
    height, width = frames_THWC.shape[1:3]
    size = midas_size(height, width, config)
    if size == (height, width):
        return pixels_TCHW.float() * (1 / 255)
    return F.interpolate(pixels_TCHW.double() / 255, size, mode="bicubic").float()


def midas_size(height: int, width: int, config: DepthConfig) -> tuple[int, int]:
    """Height and width that MiDaS resizes an image to: aspect ratio kept, both multiples of `size_multiple`.

    "minimal" uses the scale of the side that changes less, "upper_bound" the scale that keeps both sides within
    `size`. Raises ValueError for an image so narrow that a side would be zero.
    """
    scales = (config.size / height, config.size / width)
    scale = min(scales) if config.resize == "upper_bound" else min(scales, key=lambda value: abs(1 - value))
    multiple = config.size_multiple
    sides = []
    for length in (height, width):
        side = round(scale * length / multiple) * multiple  # half to even, as numpy rounds
        if config.resize == "upper_bound" and side > config.size:
            side = int(scale * length // multiple) * multiple
        sides.append(side)
    if not all(sides):
        raise ValueError(f"An image of {height}x{width} is too narrow for the depth network {config.name}.")
    return sides[0], sides[1]


def tiny_depth(
    weights: str | None = None,
    normalization: str = "per_clip",
    raw_scale: float | None = None,
    half_precision: bool = False,
) -> DepthEncoder:
    """The tiny DPT with the weights of a file, or untrained where `weights` is None (for training only).

    Its inverse depth is in 1/m; with `raw_scale` None, 1 m is white.
    """
    network = Dpt(TINY_DPT)
    if weights is not None:
        network.load(read_state_dict(weights), weights)
    config = DepthConfig(
        TINY_DPT.name,
        network.image_size,
        network.size_multiple,
        raw_scale=raw_scale or 1.0,
        normalization=normalization,
        half_precision=half_precision,
    )
    return DepthEncoder(config, network).eval()


def midas_depth(
    weights: str,
    variant: str = "dpt_hybrid_384",
    normalization: str = "per_frame",
    raw_scale: float | None = None,
    half_precision: bool = False,
) -> DepthEncoder:
    """MiDaS with the weights of its published file; `variant` is one of `MIDAS_VARIANTS`.

    Raises ConfigError for another variant and WeightsError for a file that does not fit.
    """
    if variant not in MIDAS_VARIANTS:
        raise ConfigError(f"There is no depth network {variant!r}.", remedy=f"Use one of {sorted(MIDAS_VARIANTS)}.")
    state = read_state_dict(weights)  # first, because building the network takes seconds
    network = MIDAS_VARIANTS[variant]()
    network.load(state, weights)
    config = DepthConfig(
        variant,
        network.image_size,
        network.size_multiple,
        raw_scale=raw_scale,
        resize="upper_bound" if variant == MidasSmall.name else "minimal",
        normalization=normalization,
        half_precision=half_precision,
        frames_per_batch=16,
    )
    return DepthEncoder(config, network).eval()
