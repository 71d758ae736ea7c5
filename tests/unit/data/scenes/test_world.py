"""The planned scene: classes, motions, geometry, and refused settings."""

import numpy as np
import pytest

from dmma_core.data.scenes import MOTIONS, OBJECT_CLASSES, SceneConfig
from dmma_core.data.scenes.world import KINDS, MARGIN_S, Camera, plan_scene
from dmma_core.errors import ConfigError

CONFIG = SceneConfig(seed=3)
TIMES_T = np.linspace(0, CONFIG.duration_s, 41)


def test_eight_clips_show_all_classes_and_forty_every_class_in_every_motion():
    scenes = [plan_scene(CONFIG, index) for index in range(40)]
    assert {scene.object_class for scene in scenes[:8]} == set(OBJECT_CLASSES)
    pairs = {(scene.object_class, scene.motion) for scene in scenes}
    assert pairs == {(name, motion) for name in OBJECT_CLASSES for motion in MOTIONS}


def test_captions_name_the_class_and_sometimes_the_motion():
    scenes = [plan_scene(CONFIG, index) for index in range(80)]
    assert all(scene.caption.startswith(KINDS[scene.object_class].phrase) for scene in scenes)
    with_motion = sum("," in scene.caption for scene in scenes)
    assert 20 < with_motion < 60
    assert len({kind.phrase for kind in KINDS.values()}) == len(OBJECT_CLASSES) >= 8


def test_a_plan_does_not_depend_on_the_number_of_clips_or_the_frame_rate():
    other = SceneConfig(seed=3, num_clips=7, fps=10.0)
    one, two = plan_scene(CONFIG, 5), plan_scene(other, 5)
    assert one.clip_id == two.clip_id
    np.testing.assert_array_equal(one.event_s, two.event_s)
    np.testing.assert_array_equal(one.distance_m(TIMES_T), two.distance_m(TIMES_T))
    assert plan_scene(SceneConfig(seed=4), 5).size_m != one.size_m


@pytest.mark.parametrize("motion", MOTIONS)
def test_motions_match_their_names(motion):
    scenes = [scene for scene in (plan_scene(CONFIG, index) for index in range(200)) if scene.motion == motion]
    for scene in scenes:
        distance = scene.distance_m(TIMES_T)
        position = scene.path.ground_position(TIMES_T)
        if motion == "approach":
            assert (np.diff(distance) < 0).all() and distance[0] > 1.3 * distance[-1]
        elif motion == "recede":
            assert (np.diff(distance) > 0).all() and distance[-1] > 1.3 * distance[0]
        elif motion == "parallel":
            assert np.ptp(position[:, 1]) == 0 and np.ptp(position[:, 0]) > 0.3
        elif motion == "stay":
            assert np.ptp(position) >= 0 and (np.ptp(position, axis=0) == 0).all()
        else:
            turned = np.ptp(np.unwrap(scene.path.heading(TIMES_T)))
            centre = np.asarray(scene.path.curve[:2])
            assert np.ptp(np.linalg.norm(position[:, :2] - centre, axis=1)) < 1e-9 and turned > 0.3


def test_objects_stay_visible_and_within_the_distances():
    for index in range(200):
        scene = plan_scene(CONFIG, index)
        column, row, depth = scene.camera.project(scene.source_position(TIMES_T))
        assert (depth > 0).all()
        assert (column > 0).all() and (column < CONFIG.width).all()
        assert (row > 0).all() and (row < CONFIG.height).all()
        distance = scene.distance_m(TIMES_T)
        assert distance.min() >= 0.95 * CONFIG.near_m and distance.max() <= 1.05 * CONFIG.far_m


def test_object_size_is_independent_of_distance():
    scales = np.array([plan_scene(CONFIG, index).scale for index in range(400)])
    distances = np.array([plan_scene(CONFIG, index).distance_m(TIMES_T).mean() for index in range(400)])
    assert scales.max() / scales.min() > 2
    assert abs(np.corrcoef(np.log(scales), np.log(distances))[0, 1]) < 0.35


def test_events_cover_the_clip_and_its_margins_in_order():
    for index in range(80):
        event_s = plan_scene(CONFIG, index).event_s
        assert (np.diff(event_s) > 0).all()
        assert event_s[0] <= -MARGIN_S + 0.5 and event_s[-1] >= CONFIG.duration_s + 0.5
        assert ((event_s >= 0) & (event_s < CONFIG.duration_s)).sum() >= 2


def test_projection_and_ground_agree():
    camera = Camera(height_m=1.6, pitch_rad=0.15, focal_px=140.0, image_height=128, image_width=128)
    points = np.array([[0.5, 4.0, 0.0], [-2.0, 9.0, 0.0], [3.0, 18.0, 0.0]])
    column, row, depth = camera.project(points)
    np.testing.assert_allclose(camera.ground_depth(row), depth, rtol=1e-9)
    x, y = camera.ground_point(column, row, depth)
    np.testing.assert_allclose(np.stack((x, y), axis=1), points[:, :2], atol=1e-9)
    horizon = 64 - 140.0 * np.tan(0.15)
    assert np.isinf(camera.ground_depth(np.array([horizon - 1]))).all()


def test_an_object_twice_as_far_appears_half_as_tall():
    camera = Camera(height_m=1.0, pitch_rad=0.0, focal_px=128.0, image_height=128, image_width=128)
    heights = []
    for away in (5.0, 10.0):
        _, row, _ = camera.project(np.array([[0.0, away, 0.0], [0.0, away, 2.0]]))
        heights.append(row[0] - row[1])
    assert heights[0] == pytest.approx(2 * heights[1])
    assert heights[0] == pytest.approx(128 * 2 / 5)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"num_clips": 0}, "num_clips"),
        ({"seed": -1}, "seed"),
        ({"height": 127}, "height"),
        ({"width": 16}, "width"),
        ({"fps": 0.0}, "fps"),
        ({"duration_s": float("nan")}, "duration_s"),
        ({"duration_s": 0.5}, "duration_s"),
        ({"sample_rate_hz": 4000}, "sample_rate_hz"),
        ({"near_m": 5.0}, "Distances"),
        ({"depth_fps": 50.0}, "depth_fps"),
        ({"depth_height": 256}, "depth_height"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, word):
    with pytest.raises(ConfigError, match=word) as caught:
        SceneConfig(**settings)
    assert caught.value.remedy
