"""Configuration of a set of rendered clips, object classes and motions."""

from dataclasses import dataclass
from math import isfinite

from dmma_core.errors import ConfigError

OBJECT_CLASSES = ("ball", "hammer", "horse", "car", "dog", "bell", "footsteps", "clock")
MOTIONS = ("approach", "recede", "parallel", "stay", "circle")


@dataclass(frozen=True)
class SceneConfig:
    """Settings of rendered clips. Clip `index` depends on `seed`, `index` and the other settings, never on `num_clips`.

    Distances from the camera lie between `near_m` and `far_m`. The truth's depth maps have `depth_height` x
    `depth_width` points at `depth_fps`. Raises ConfigError for values that no clip can be rendered with.
    """

    num_clips: int = 200
    seed: int = 1
    height: int = 128
    width: int = 128
    fps: float = 25.0
    duration_s: float = 4.0
    sample_rate_hz: int = 16_000
    near_m: float = 2.0
    far_m: float = 16.0
    depth_fps: float = 8.0
    depth_height: int = 32
    depth_width: int = 32

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if value < 32 or value % 2:
                raise ConfigError(f"{name} is {value}.", remedy="Use an even number of at least 32 (H.264 needs even).")
        for name in ("fps", "duration_s", "near_m", "far_m", "depth_fps"):
            value = getattr(self, name)
            if not isfinite(value) or value <= 0:
                raise ConfigError(f"{name} is {value}.", remedy="Use a positive number.")
        if self.num_clips < 1:
            raise ConfigError(f"num_clips is {self.num_clips}.", remedy="Use at least one clip.")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}.", remedy="Use a seed of 0 or more.")
        if self.sample_rate_hz < 8_000:
            raise ConfigError(f"sample_rate_hz is {self.sample_rate_hz}.", remedy="Use at least 8000.")
        if self.duration_s < 1:
            raise ConfigError(f"duration_s is {self.duration_s}.", remedy="Clips last at least one second.")
        if self.near_m < 2 or self.far_m < 8 * self.near_m:
            raise ConfigError(
                f"Distances from {self.near_m} m to {self.far_m} m are too close for some objects and motions.",
                remedy="Set near_m to at least 2 and far_m to at least eight times near_m.",
            )
        if self.depth_fps > self.fps:
            raise ConfigError(
                f"depth_fps is {self.depth_fps}, above fps {self.fps}.", remedy="Use at most the frame rate."
            )
        for name, limit in (("depth_height", self.height), ("depth_width", self.width)):
            if not 1 <= getattr(self, name) <= limit:
                raise ConfigError(f"{name} is {getattr(self, name)}.", remedy=f"Use 1 to {limit}, the frame's size.")

    @property
    def num_frames(self) -> int:
        return int(self.fps * self.duration_s)

    @property
    def num_depth_frames(self) -> int:
        return int(self.depth_fps * self.duration_s)

    @property
    def num_samples(self) -> int:
        return round(self.duration_s * self.sample_rate_hz)
