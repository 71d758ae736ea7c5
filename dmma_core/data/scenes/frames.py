"""Rendering of frames and depth maps of a planned scene."""

import numpy as np
from numpy.typing import NDArray

from dmma_core.data.scene_config import SceneConfig
from dmma_core.data.scenes import bodies, creatures
from dmma_core.data.scenes.backdrop import light_direction, render_backdrop
from dmma_core.data.scenes.raster import Primitive, composite, paint
from dmma_core.data.scenes.shapes import to_world
from dmma_core.data.scenes.world import KINDS, Floats, Scene, random_generator

_FRAMES_AT_ONCE = 25
_TROLLEY_BORNE = ("hammer", "bell", "clock")


def frame_times(config: SceneConfig) -> Floats:
    """Times (s) of the frames: [T]."""
    return np.arange(config.num_frames) / config.fps


def depth_frame_numbers(config: SceneConfig) -> NDArray[np.int64]:
    """Index of the frame of each depth map: the frame shown at its time. [T']."""
    return np.floor(np.arange(config.num_depth_frames) / config.depth_fps * config.fps + 1e-6).astype(np.int64)


def render_frames(config: SceneConfig, scene: Scene) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Frames uint8 [T, H, W, 3] and depth maps float16 [T', H', W'] in metres along the optical axis."""
    rng = random_generator(config, scene.index, 2)
    light_3 = light_direction(rng)
    background, background_depth = render_backdrop(scene, light_3, rng)
    body = _body(scene, frame_times(config), rng)
    position = scene.path.ground_position(frame_times(config))
    still = np.asarray(background * 255 + 0.5, dtype=np.uint8)
    frames = np.repeat(still[None], config.num_frames, axis=0)
    wanted_depth = {int(number): which for which, number in enumerate(depth_frame_numbers(config))}
    rows = ((np.arange(config.depth_height) + 0.5) * config.height / config.depth_height).astype(int)
    columns = ((np.arange(config.depth_width) + 0.5) * config.width / config.depth_width).astype(int)
    depth_maps = np.empty((config.num_depth_frames, config.depth_height, config.depth_width), np.float16)
    away_from_sun = -light_3[:2] / light_3[2]
    for start in range(0, config.num_frames, _FRAMES_AT_ONCE):
        chunk = slice(start, min(start + _FRAMES_AT_ONCE, config.num_frames))
        under = position[chunk].copy()
        under[:, :2] += away_from_sun * 0.12 * scene.size_m
        layer = paint(
            body, scene.camera, light_3, chunk, (under, 0.42 * KINDS[scene.object_class].extent_m * scene.scale, 0.6)
        )
        for number in range(chunk.start, chunk.stop):
            depth = background_depth.copy()
            if layer is not None:
                image_HW3 = background.copy()
                touched = composite(image_HW3, depth, layer, number - chunk.start)
                if touched is not None:
                    frames[number][touched] = np.clip(image_HW3[touched] * 255 + 0.5, 0, 255)
            if number in wanted_depth:
                depth_maps[wanted_depth[number]] = depth[np.ix_(rows, columns)]
    return frames, depth_maps


def _body(scene: Scene, time_T: Floats, rng: np.random.Generator) -> list[Primitive]:
    """The object's primitives in world coordinates, for all frames."""
    name, path, scale = scene.object_class, scene.path, scene.scale
    position, heading = path.ground_position(time_T), path.heading(time_T)
    speed_m_s = path.speed_m_s
    if name in ("horse", "dog", "footsteps"):
        make = {"horse": creatures.horse, "dog": creatures.dog, "footsteps": creatures.walker}[name]
        parts = make(time_T, scene.event_s, speed_m_s, scale, rng)
    else:
        build = {
            "ball": bodies.bouncing_ball,
            "hammer": bodies.hammer_and_anvil,
            "car": bodies.car,
            "bell": bodies.bell_in_a_frame,
            "clock": bodies.standing_clock,
        }[name]
        parts = build(time_T, scene.event_s, speed_m_s / scale * time_T, scale, rng)
    if name in _TROLLEY_BORNE:  # the trolley has castors, so its load roughly faces the camera
        heading = np.arctan2(-position[:, 1], -position[:, 0]) + rng.uniform(-0.45, 0.45)
    if name == "ball":  # always faces the camera; its spots show the rolling
        heading = np.arctan2(-position[:, 1], -position[:, 0])
    return to_world(parts, position, heading, scale)
