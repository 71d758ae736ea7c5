"""The scene of a clip: a camera above a ground plane, one object on a path, and the times of its sounds.

World axes in metres: x to the right, y away from the camera, z up; the ground is z = 0 and the camera, which is also
the microphone, is at (0, 0, height). Object coordinates: x ahead, y to its left, z up, origin on the ground.
"""

from dataclasses import dataclass
from math import atan2, copysign, cos, exp, floor, hypot, log, pi, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmma_core.data.scene_config import MOTIONS, OBJECT_CLASSES, SceneConfig

Floats = NDArray[np.floating[Any]]
MARGIN_S = 1.5  # simulated before and after the clip, because sound is delayed and reverberates


@dataclass(frozen=True)
class Kind:
    """Properties of an object class: usual height, largest horizontal extent and height of the sound source in metres,
    range of speeds in m/s, and its caption."""

    height_m: float
    extent_m: float
    source_height_m: float
    speeds_m_s: tuple[float, float]
    phrase: str


KINDS = {
    "ball": Kind(0.60, 0.6, 0.30, (1.0, 3.5), "a ball bouncing"),
    "hammer": Kind(1.05, 1.1, 0.70, (1.0, 3.2), "a hammer striking an anvil"),
    "horse": Kind(1.75, 2.4, 0.30, (4.0, 7.5), "a horse galloping"),
    "car": Kind(1.10, 2.7, 0.50, (4.0, 7.5), "a car driving and honking"),
    "dog": Kind(0.75, 1.1, 0.60, (2.0, 5.0), "a dog barking"),
    "bell": Kind(1.30, 1.0, 0.80, (1.0, 3.2), "a bell ringing"),
    "footsteps": Kind(1.70, 0.8, 0.10, (1.2, 2.6), "footsteps of a person walking"),
    "clock": Kind(1.60, 0.6, 1.20, (1.0, 3.2), "a clock ticking"),
}
MOTION_PHRASES = {
    "approach": "coming closer",
    "recede": "going away",
    "parallel": "passing by",
    "stay": "staying in place",
    "circle": "turning in a circle",
}


@dataclass(frozen=True)
class Camera:
    """A pinhole camera `height_m` above the ground, tilted down by `pitch_rad`; `focal_px` is its focal length."""

    height_m: float
    pitch_rad: float
    focal_px: float
    image_height: int
    image_width: int

    def to_camera(self, points_X3: Floats) -> Floats:
        """World points [..., 3] in camera coordinates: right, down, and depth along the optical axis, in metres."""
        y, z = points_X3[..., 1], points_X3[..., 2] - self.height_m
        sine, cosine = sin(self.pitch_rad), cos(self.pitch_rad)
        return np.stack((points_X3[..., 0], -sine * y - cosine * z, cosine * y - sine * z), axis=-1)

    def project(self, points_X3: Floats) -> tuple[Floats, Floats, Floats]:
        """Image column, row (pixels; pixel i covers i to i + 1) and depth along the optical axis (m) of points."""
        camera = self.to_camera(points_X3)
        depth = np.maximum(camera[..., 2], 0.05)
        column = self.image_width / 2 + self.focal_px * camera[..., 0] / depth
        row = self.image_height / 2 + self.focal_px * camera[..., 1] / depth
        return column, row, camera[..., 2]

    def ground_depth(self, row_H: Floats) -> Floats:
        """Depth (m) of the ground at image rows; infinite at and above the horizon."""
        slope = sin(self.pitch_rad) + cos(self.pitch_rad) * (row_H - self.image_height / 2) / self.focal_px
        return np.where(slope > 1e-6, self.height_m / np.maximum(slope, 1e-6), np.inf)

    def ground_point(self, column_X: Floats, row_X: Floats, depth_X: Floats) -> tuple[Floats, Floats]:
        """World x and y (m) of image points at a given depth."""
        down = (row_X - self.image_height / 2) / self.focal_px * depth_X
        x = (column_X - self.image_width / 2) / self.focal_px * depth_X
        return x, cos(self.pitch_rad) * depth_X - sin(self.pitch_rad) * down


@dataclass(frozen=True)
class Path:
    """Position of the object over time, also before and after the clip.

    `curve` is (x, y, vx, vy) of a straight line from time 0, or (x, y, radius, initial angle, rad/s) of a circle.
    """

    motion: str
    curve: tuple[float, ...]
    still_heading_rad: float

    def ground_position(self, time_T: Floats) -> Floats:
        """World x, y, z = 0 of the object at times in seconds: [T, 3]."""
        if self.motion == "circle":
            x, y, radius, angle, rate = self.curve
            turned = angle + rate * time_T
            column, row = x + radius * np.cos(turned), y + radius * np.sin(turned)
        else:
            x, y, vx, vy = self.curve
            column, row = x + vx * time_T, y + vy * time_T
        return np.stack((column, row, np.zeros_like(column)), axis=-1)

    def heading(self, time_T: Floats) -> Floats:
        """Direction the object faces, radians from the world's x axis towards y: [T]."""
        if self.motion == "circle":
            _, _, _, angle, rate = self.curve
            return np.asarray(angle + rate * time_T + copysign(pi / 2, rate))
        if self.motion == "stay":
            return np.full_like(time_T, self.still_heading_rad)
        return np.full_like(time_T, np.arctan2(self.curve[3], self.curve[2]))

    @property
    def speed_m_s(self) -> float:
        return abs(self.curve[2] * self.curve[4]) if self.motion == "circle" else hypot(*self.curve[2:])


@dataclass(frozen=True)
class Scene:
    """The plan of a clip, from which frames and sound are rendered.

    `event_s` are the times of the visible contacts (strikes, steps, barks, ...), ascending, from `MARGIN_S` before the
    clip to `MARGIN_S` after it. `scale` multiplies the class's usual size.
    """

    index: int
    clip_id: str
    object_class: str
    motion: str
    caption: str
    scale: float
    camera: Camera
    path: Path
    event_s: Floats

    @property
    def size_m(self) -> float:
        return KINDS[self.object_class].height_m * self.scale

    def source_position(self, time_T: Floats) -> Floats:
        """World position (m) of the sound source: [T, 3]."""
        position = self.path.ground_position(time_T)
        position[..., 2] = KINDS[self.object_class].source_height_m * self.scale
        return position

    def distance_m(self, time_T: Floats) -> Floats:
        """Distance (m) from the camera (and microphone) to the sound source: [T]."""
        offset = self.source_position(time_T) - np.array([0.0, 0.0, self.camera.height_m])
        return np.asarray(np.linalg.norm(offset, axis=-1))


def random_generator(config: SceneConfig, index: int, purpose: int) -> np.random.Generator:
    """Random generator of one clip for one purpose, so that a change in one part does not change the others."""
    return np.random.default_rng((config.seed, index, purpose))


def plan_scene(config: SceneConfig, index: int) -> Scene:
    """Plan class, motion, size, camera, path and events of clip `index`. Deterministic.

    Each block of eight clips has all classes, each block of forty every class in every motion.
    """
    object_class, motion = _class_and_motion(config.seed, index)
    kind = KINDS[object_class]
    rng = random_generator(config, index, 1)
    scale = _log_uniform(rng, 0.65, 1.5)
    camera = _plan_camera(config, rng)
    path = _plan_path(config, kind, motion, scale, rng)
    event_s = _plan_events(object_class, path.speed_m_s, scale, config.duration_s, rng)
    caption = f"{kind.phrase}, {MOTION_PHRASES[motion]}" if rng.random() < 0.5 else kind.phrase
    clip_id = f"scene_{index:06d}_{object_class}_{motion}"
    return Scene(index, clip_id, object_class, motion, caption, scale, camera, path, event_s)


def _class_and_motion(seed: int, index: int) -> tuple[str, str]:
    num_classes = len(OBJECT_CLASSES)
    block, place = divmod(index, num_classes * len(MOTIONS))
    round_, place = divmod(place, num_classes)
    rng = np.random.default_rng((seed, block, 0))
    class_order = np.stack([rng.permutation(num_classes) for _ in MOTIONS])
    motion_order = np.stack([rng.permutation(len(MOTIONS)) for _ in OBJECT_CLASSES])
    which = int(class_order[round_, place])
    return OBJECT_CLASSES[which], MOTIONS[int(motion_order[which, round_])]


def _plan_camera(config: SceneConfig, rng: np.random.Generator) -> Camera:
    """A camera on a low tripod, tilted down so that the ground just beyond `near_m` is in the frame."""
    height_m, pitch_rad = rng.uniform(0.95, 1.25), rng.uniform(0.05, 0.12)
    focal_px = config.width * rng.uniform(1.18, 1.36)
    lowest_rad = atan2(height_m, 1.1 * config.near_m) - atan2(config.height / 2, focal_px)
    return Camera(height_m, max(pitch_rad, lowest_rad), focal_px, config.height, config.width)


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return exp(rng.uniform(log(low), log(max(high, low * 1.0001))))


def _plan_path(config: SceneConfig, kind: Kind, motion: str, scale: float, rng: np.random.Generator) -> Path:
    # Far enough that long and tall objects fit into the frame, whose upper edge rises by about 0.26 per metre.
    nearest_m = max(config.near_m, 1.3 * kind.extent_m * scale, (kind.height_m * scale - 0.9) / 0.26)
    travel_m = min(rng.uniform(*kind.speeds_m_s) * config.duration_s, 0.8 * (config.far_m - nearest_m))
    seconds = config.duration_s
    bearing_0, bearing_1 = rng.uniform(-0.2, 0.2, 2)
    side = 1.0 if rng.random() < 0.5 else -1.0
    if motion == "circle":
        centre_m = _log_uniform(rng, nearest_m / 0.7, config.far_m / 1.3)
        radius_m = centre_m * rng.uniform(0.11, 0.22)
        rate = side * min(travel_m / seconds / radius_m, 1.7)
        curve = (centre_m * sin(bearing_0 / 3), centre_m * cos(bearing_0 / 3), radius_m, rng.uniform(0, 2 * pi), rate)
        return Path(motion, curve, 0.0)
    if motion == "parallel":
        away_m = _log_uniform(rng, nearest_m * 1.1, 0.85 * config.far_m)
        half_m = min(0.28 * away_m, travel_m / 2)
        centre_m = rng.uniform(-1, 1) * (0.28 * away_m - half_m)
        return Path(motion, (centre_m - side * half_m, away_m, side * 2 * half_m / seconds, 0.0), 0.0)
    if motion == "stay":
        away_m = _log_uniform(rng, nearest_m, 0.9 * config.far_m)
        heading = -pi / 2 + side * rng.uniform(0.35, 1.35)
        return Path(motion, (away_m * sin(bearing_0), away_m * cos(bearing_0), 0.0, 0.0), heading)
    # Approach or recede: the far end is at least 1.6 times as far as the near end, so that the change is audible.
    near_end_m = _log_uniform(rng, nearest_m, min(travel_m / 0.6, config.far_m - travel_m))
    ends = [(near_end_m + travel_m, bearing_0), (near_end_m, bearing_1)]
    if motion == "recede":
        ends.reverse()
    (x0, y0), (x1, y1) = [(away_m * sin(bearing), away_m * cos(bearing)) for away_m, bearing in ends]
    return Path(motion, (x0, y0, (x1 - x0) / seconds, (y1 - y0) / seconds), 0.0)


def _plan_events(
    object_class: str, speed_m_s: float, scale: float, duration_s: float, rng: np.random.Generator
) -> Floats:
    """Times of the contacts. Large objects are slower; steps and strides follow from the speed."""
    slow = scale**0.5
    if object_class == "horse":
        stride_s = rng.uniform(0.46, 0.56) * slow
        beats = np.array([0.0, 0.2, 0.34, 0.54])  # hind, hind, fore, fore, then all four in the air
        first_s = -MARGIN_S - rng.uniform(0, stride_s)
        strides = first_s + stride_s * np.arange(floor((duration_s + 2 * MARGIN_S) / stride_s) + 3)
        return np.asarray((strides[:, None] + beats * stride_s).ravel())
    if object_class == "footsteps":
        step_s = 0.72 * scale / speed_m_s if speed_m_s > 0.3 else 0.6 * slow
        interval_s, jitter = min(max(step_s, 0.28), 0.7), 0.0
    else:
        interval_s, jitter = {
            "ball": (rng.uniform(0.5, 0.75) * slow, 0.12),
            "hammer": (rng.uniform(0.6, 0.95) * slow, 0.08),
            "car": (rng.uniform(0.9, 1.5), 0.25),
            "dog": (rng.uniform(0.45, 0.8) * slow, 0.25),
            "bell": (rng.uniform(0.7, 1.0) * slow, 0.0),
            "clock": (rng.uniform(0.36, 0.5) * slow, 0.0),
        }[object_class]
    count = floor((duration_s + 2 * MARGIN_S) / (interval_s * (1 - jitter))) + 3
    intervals = interval_s * (1 + jitter * rng.uniform(-1, 1, count))
    return np.asarray(np.cumsum(intervals) - MARGIN_S - interval_s - rng.uniform(0, interval_s))
