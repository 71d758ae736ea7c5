"""Training data of the tiny encoders from rendered clips: a few frames of each, their depth, class and position."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from dmma_core.data.scenes import OBJECT_CLASSES, SceneConfig, render_clip
from dmma_core.data.scenes.world import plan_scene
from dmma_core.storage.media.frames import fit_frame

SIDE = 96  # side in pixels of the frames for the tiny CLIP and the tiny depth network
_FRAMES_PER_S = 1.5


@dataclass(frozen=True)
class Samples:
    """B clips with T frames each: frames uint8 [B, T, H, W, 3], inverse depth in 1/m float16 [B, T, H, W], the object's
    distance in metres and the pixel row and column of its sound source, float32 [B, T] each; the class as an index into
    OBJECT_CLASSES [B]; audio float32 [B, A] at 16 kHz."""

    frames_BTHWC: NDArray[np.uint8]
    inverse_depth_BTHW: NDArray[np.float16]
    distance_m_BT: NDArray[np.float32]
    row_BT: NDArray[np.float32]
    column_BT: NDArray[np.float32]
    class_B: NDArray[np.int64]
    audio_BA: NDArray[np.float32]


def sample_scenes(seed: int, num_clips: int) -> SceneConfig:
    """Scene settings as in the demo, but at a low frame rate and with depth for every pixel."""
    return SceneConfig(
        num_clips=num_clips,
        seed=seed,
        fps=_FRAMES_PER_S,
        depth_fps=_FRAMES_PER_S,
        depth_height=SIDE,
        depth_width=SIDE,
    )


def sample_clips(scenes: SceneConfig, indices: Sequence[int]) -> Samples:
    """Render the clips of these indices."""
    rows = [_sample(scenes, index) for index in indices]
    return Samples(*(np.stack([getattr(row, field.name) for row in rows]) for field in fields(Samples)))


def join_samples(parts: Sequence[Samples]) -> Samples:
    """Concatenate along the clips."""
    return Samples(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Samples)))


def _sample(scenes: SceneConfig, index: int) -> Samples:
    clip, scene = render_clip(scenes, index), plan_scene(scenes, index)
    times_T = np.arange(scenes.num_frames) / scenes.fps
    column_T, row_T, _ = scene.camera.project(scene.source_position(times_T))
    return Samples(
        np.stack([fit_frame(frame_HWC, SIDE, SIDE, "squash") for frame_HWC in clip.frames_THWC]),
        (1 / clip.truth.depth_m.astype(np.float32)).astype(np.float16),
        clip.truth.distance_m,
        (row_T * SIDE / scenes.height).astype(np.float32),
        (column_T * SIDE / scenes.width).astype(np.float32),
        np.asarray(OBJECT_CLASSES.index(clip.truth.object_class)),
        clip.audio_A,
    )
