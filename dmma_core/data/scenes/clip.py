"""One rendered clip: frames, sound and ground truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmma_core.data.scene_config import SceneConfig
from dmma_core.data.scenes.acoustics import arrival_times, sound_at_microphone
from dmma_core.data.scenes.frames import frame_times, render_frames
from dmma_core.data.scenes.world import Floats, plan_scene
from dmma_core.errors import ConfigError


@dataclass(frozen=True)
class SceneTruth:
    """Ground truth of a clip of T frames at `fps` and T' depth maps at `depth_fps`.

    `distance_m` float32 [T] is the distance from the camera, which is also the microphone, to the sound source;
    `position_m` float32 [T, 3] the position of the object on the ground (x right, y ahead of the camera, z up);
    `contact_s` are the times of visible contacts within the clip and `onset_s` the times within the clip at which their
    sounds arrive, later by distance / 343 m/s; `depth_m` float16 [T', H', W'] is metres along the optical axis at
    points on an even grid over the frame, at most 100. `size_m` is the object's height.
    """

    clip_id: str
    index: int
    caption: str
    object_class: str
    motion: str
    size_m: float
    fps: float
    distance_m: NDArray[np.float32]
    position_m: NDArray[np.float32]
    contact_s: Floats
    onset_s: Floats
    depth_fps: float
    depth_m: NDArray[np.float16]


@dataclass(frozen=True)
class RenderedClip:
    """Frames uint8 [T, H, W, 3], mono sound float32 [A] at absolute level within [-1, 1], and the ground truth."""

    frames_THWC: NDArray[np.uint8]
    audio_A: NDArray[np.float32]
    truth: SceneTruth


def render_clip(config: SceneConfig, index: int) -> RenderedClip:
    """Render clip `index`.

    It depends on the settings alone, not on other clips. Raises ConfigError for a negative index.
    """
    if index < 0:
        raise ConfigError(f"There is no clip number {index}.", remedy="Clip numbers start at 0.")
    scene = plan_scene(config, index)
    frames, depth_m = render_frames(config, scene)
    times = frame_times(config)
    truth = SceneTruth(
        clip_id=scene.clip_id,
        index=index,
        caption=scene.caption,
        object_class=scene.object_class,
        motion=scene.motion,
        size_m=scene.size_m,
        fps=config.fps,
        distance_m=scene.distance_m(times).astype(np.float32),
        position_m=scene.path.ground_position(times).astype(np.float32),
        contact_s=_within(scene.event_s, config),
        onset_s=_within(arrival_times(scene, scene.event_s), config),
        depth_fps=config.depth_fps,
        depth_m=depth_m,
    )
    wave = sound_at_microphone(config, scene).mixed()
    return RenderedClip(frames, np.clip(wave, -1, 1).astype(np.float32), truth)


def _within(time_s: Floats, config: SceneConfig) -> Floats:
    return time_s[(time_s >= 0) & (time_s < config.duration_s)]
