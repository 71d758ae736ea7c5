"""From decoded frames to requested ones: selected by time, rotated upright, resized."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dmma_core.errors import ConfigError

Image = NDArray[np.uint8]

# Containers round timestamps (Matroska to 1 ms): a frame counts as shown at t if it starts no later than this after t.
TIME_TOLERANCE_S = 6e-4


@dataclass(frozen=True)
class FrameRequest:
    """Frames that one consumer requests: `fps` per second, `height` x `width`.

    `fit` is "squash" (both sides resized, the aspect ratio ignored) or "crop" (resized until both sides are covered,
    then centre cropped). The frame at time t is the last one whose timestamp is not after t.
    """

    name: str
    fps: float
    height: int
    width: int
    fit: str = "squash"

    def __post_init__(self) -> None:
        if self.fit not in ("squash", "crop"):
            raise ConfigError(f"Frame fit is {self.fit!r}.", remedy='Use "squash" or "crop".')
        if self.fps <= 0 or self.height < 1 or self.width < 1:
            raise ConfigError(
                f"Frames {self.name!r}: fps={self.fps}, {self.height}x{self.width}.", remedy="Use positive values."
            )

    def num_frames(self, duration_s: float) -> int:
        return int(np.floor(self.fps * duration_s + 1e-6))


def fit_frame(rgb_HWC: Image, height: int, width: int, fit: str) -> Image:
    """Resize an RGB image: bicubic with antialiasing on uint8, rounding between the two passes.

    The same values as torchvision's Resize on uint8 CPU tensors, with its rounding of the long side and of the crop.
    """
    source_height, source_width = rgb_HWC.shape[:2]
    new_height, new_width = height, width
    if fit == "crop":
        if source_width * height >= source_height * width:
            new_width = max(width, int(height * source_width / source_height))
        else:
            new_height = max(height, int(width * source_height / source_width))
    if (new_height, new_width) != (source_height, source_width):
        image_1CHW = torch.from_numpy(rgb_HWC).permute(2, 0, 1)[None]
        resized_1CHW = F.interpolate(image_1CHW, (new_height, new_width), mode="bicubic", antialias=True)
        rgb_HWC = resized_1CHW[0].permute(1, 2, 0).numpy()
    top, left = round((new_height - height) / 2), round((new_width - width) / 2)
    return rgb_HWC[top : top + height, left : left + width]


def upright_rgb(frame: Any) -> Image:
    """RGB image of an av.VideoFrame, rotated by its display matrix (decoders leave that to the player)."""
    rgb_HWC: Image = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb_HWC, quarter_turns)) if quarter_turns else rgb_HWC


class FrameSink(Protocol):
    """Receives decoded frames in the order of their times."""

    @property
    def done(self) -> bool:
        """Whether no later frame is requested."""
        ...

    def num_requested(self, until_s: float) -> int:
        """How often the frame that is shown until `until_s` is requested; 0 avoids its conversion to RGB."""
        ...

    def add(self, rgb_HWC: Image, until_s: float) -> None:
        """Add the frame that is shown until `until_s`."""
        ...


class FrameSampler:
    """Collects the frames of one request."""

    def __init__(self, request: FrameRequest, start_s: float, duration_s: float) -> None:
        self.request = request
        num_frames = request.num_frames(duration_s)
        self._times_T = start_s + np.arange(num_frames) / request.fps
        self.frames_THWC: Image = np.empty((num_frames, request.height, request.width, 3), dtype=np.uint8)
        self._filled = 0

    @property
    def done(self) -> bool:
        return self._filled == len(self._times_T)

    @property
    def last_time_s(self) -> float:
        return float(self._times_T[-1]) if len(self._times_T) else 0.0

    def num_requested(self, until_s: float) -> int:
        """How many of the missing frames equal the one that is shown until `until_s`."""
        end = int(np.searchsorted(self._times_T, until_s - TIME_TOLERANCE_S))
        return max(0, end - self._filled)

    def add(self, rgb_HWC: Image, until_s: float) -> None:
        """Fill all missing frames before `until_s` with this one."""
        if count := self.num_requested(until_s):
            r = self.request
            self.frames_THWC[self._filled : self._filled + count] = fit_frame(rgb_HWC, r.height, r.width, r.fit)
            self._filled += count
