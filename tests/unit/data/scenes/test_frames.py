"""Frames and depth maps of rendered clips, compared with the planned geometry."""

from dataclasses import replace

import numpy as np
import pytest

from dmma_core.data.scenes import OBJECT_CLASSES, SceneConfig, render_clip
from dmma_core.data.scenes.backdrop import SKY_DEPTH_M, light_direction, render_backdrop
from dmma_core.data.scenes.frames import depth_frame_numbers, render_frames
from dmma_core.data.scenes.world import Path, plan_scene, random_generator

FULL_DEPTH = SceneConfig(seed=5, fps=5.0, depth_fps=5.0, depth_height=128, depth_width=128)


def scene_of(object_class: str, motion: str = "stay", config: SceneConfig = FULL_DEPTH):
    return next(
        scene
        for scene in (plan_scene(config, index) for index in range(40))
        if (scene.object_class, scene.motion) == (object_class, motion)
    )


def at_distance(scene, away_m: float):
    return replace(scene, motion="stay", path=Path("stay", (0.0, away_m, 0.0, 0.0), -2.4))


def mask_of(config: SceneConfig, scene):
    """Pixels of the object in every frame, from the depth maps with and without it."""
    _, depth = render_frames(config, scene)
    rng = random_generator(config, scene.index, 2)
    _, empty = render_backdrop(scene, light_direction(rng), rng)
    return depth, depth.astype(np.float32) < 0.97 * empty


@pytest.mark.parametrize("object_class", OBJECT_CLASSES)
def test_depth_at_the_object_is_its_known_distance(object_class):
    scene = at_distance(scene_of(object_class), 6.0)
    depth, mask = mask_of(FULL_DEPTH, scene)
    _, _, centre_m = scene.camera.project(scene.path.ground_position(np.zeros(1)))
    found = np.median(depth[mask].astype(np.float32))
    reach = 1.4 * scene.scale if object_class in ("horse", "car") else 0.6 * scene.scale
    assert abs(found - centre_m[0]) < reach


def test_ground_contact_has_the_depth_of_the_ground_beneath():
    """Just below the wheels of a static object the depth map shows the ground at its known distance."""
    scene = at_distance(scene_of("clock"), 8.0)
    depth, mask = mask_of(FULL_DEPTH, scene)
    lowest = np.where(mask[0].any(axis=1))[0].max()
    _, row, known_m = scene.camera.project(scene.path.ground_position(np.zeros(1)))
    assert abs(lowest + 1 - row[0]) < 0.07 * FULL_DEPTH.height
    column = FULL_DEPTH.width // 2
    at_contact = float(depth[0, int(row[0]) + 1, column])
    assert at_contact == pytest.approx(known_m[0], rel=0.08)


def test_ground_rows_follow_the_camera_and_the_sky_is_far():
    clip = render_clip(FULL_DEPTH, 0)
    camera = plan_scene(FULL_DEPTH, 0).camera
    rows = np.arange(128) + 0.5
    expected = np.minimum(camera.ground_depth(rows), SKY_DEPTH_M)
    shown = clip.truth.depth_m[0].astype(np.float32).max(axis=1)  # nothing is behind ground and sky
    np.testing.assert_allclose(shown, expected, rtol=2e-3)
    assert shown[0] == SKY_DEPTH_M


@pytest.mark.parametrize("object_class", OBJECT_CLASSES)
def test_size_in_the_image_follows_perspective(object_class):
    heights = {}
    for away_m in (6.0, 12.0):
        scene = at_distance(scene_of(object_class), away_m)
        _, mask = mask_of(FULL_DEPTH, scene)
        heights[away_m] = np.median([np.ptp(np.where(frame.any(axis=1))[0]) + 1 for frame in mask])
        expected = scene.size_m * scene.camera.focal_px / away_m
        assert 0.6 * expected - 2 < heights[away_m] < 1.6 * expected + 2
    assert heights[6.0] > 1.5 * heights[12.0]


@pytest.mark.parametrize("object_class", OBJECT_CLASSES)
def test_the_object_is_visible_and_moves(object_class):
    config = SceneConfig(seed=5)
    scene = at_distance(scene_of(object_class, config=config), 5.0)
    frames, _ = render_frames(config, scene)
    changes = np.abs(np.diff(frames.astype(np.int16), axis=0)).max(axis=3)
    assert (changes > 12).any(axis=(1, 2)).mean() > 0.3
    column, row, _ = scene.camera.project(scene.source_position(np.zeros(1)))
    still = (changes > 12).any(axis=0)
    rows, columns = np.where(still)
    assert abs(columns.mean() - column[0]) < 40 and abs(rows.mean() - row[0]) < 45


def test_the_ball_squashes_at_contact():
    config = SceneConfig(seed=5, fps=100.0, depth_fps=100.0, depth_height=128, depth_width=128, duration_s=1.5)
    scene = at_distance(scene_of("ball"), 3.5)
    _, mask = mask_of(config, scene)
    heights = np.array([np.ptp(np.where(frame.any(axis=1))[0]) + 1 for frame in mask])
    times = depth_frame_numbers(config) / config.fps
    away_s = np.abs(times[:, None] - scene.event_s).min(axis=1)
    assert heights[away_s < 0.01].mean() < 0.85 * heights[away_s > 0.12].mean()


def test_nearer_objects_occlude_the_object():
    scene = plan_scene(FULL_DEPTH, 0)
    rng = random_generator(FULL_DEPTH, scene.index, 2)
    _, background = render_backdrop(scene, light_direction(rng), rng)
    _, depth = render_frames(FULL_DEPTH, scene)
    assert (depth.astype(np.float32) <= background * 1.001).all()


def test_other_frame_and_depth_sizes():
    config = SceneConfig(seed=2, height=64, width=96, fps=10.0, duration_s=2.0, depth_height=16, depth_width=24)
    clip = render_clip(config, 3)
    assert clip.frames_THWC.shape == (20, 64, 96, 3) and clip.frames_THWC.dtype == np.uint8
    assert clip.truth.depth_m.shape == (16, 16, 24) and clip.truth.depth_m.dtype == np.float16
    assert clip.truth.distance_m.shape == (20,) and clip.truth.position_m.shape == (20, 3)
    assert clip.audio_A.shape == (32_000,) and clip.audio_A.dtype == np.float32
