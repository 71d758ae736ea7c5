"""Background of a clip: sky, hills, a textured ground with marks one metre apart, and a few static objects.

Rendered once per clip. The depth of everything above the horizon that is not an object is `SKY_DEPTH_M`.
"""

from colorsys import hsv_to_rgb
from math import cos, pi, sin

import numpy as np

from dmma_core.data.scenes.raster import Capsule, Colour, Pixels, Primitive, composite, paint
from dmma_core.data.scenes.shapes import box, capsule, sphere, to_world
from dmma_core.data.scenes.world import Camera, Floats, Scene

SKY_DEPTH_M = 100.0
_STYLES = ("paving", "meadow", "planks", "sand")


def light_direction(rng: np.random.Generator) -> Floats:
    """Unit vector towards the sun, which is behind the camera, to the left or right."""
    bearing, height = rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.1), rng.uniform(0.6, 1.0)
    return np.array([sin(bearing) * cos(height), -cos(bearing) * cos(height), sin(height)])


def render_backdrop(scene: Scene, light_3: Floats, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Image float32 [H, W, 3] in 0 to 1 and depth float32 [H, W] in metres along the optical axis."""
    camera = scene.camera
    rows = np.arange(camera.image_height) + 0.5
    columns = np.arange(camera.image_width) + 0.5
    depth = np.minimum(camera.ground_depth(rows), SKY_DEPTH_M)
    image_HW3 = _sky(camera, rows, columns, rng)
    ground_rows = depth < SKY_DEPTH_M
    haze = image_HW3[max(int(ground_rows.argmax()) - 1, 0)].mean(axis=0)
    x, y = camera.ground_point(columns[None, :], rows[ground_rows, None], depth[ground_rows, None])
    ground = _ground(x, np.broadcast_to(y, x.shape), depth[ground_rows, None], camera, rng)
    fog = (1 - np.exp(-depth[ground_rows, None] / 70.0))[:, :, None]
    image_HW3[ground_rows] = ground * (1 - fog) + haze * fog
    depth_HW = np.broadcast_to(depth[:, None], image_HW3.shape[:2]).astype(np.float32).copy()
    image_HW3 = image_HW3.astype(np.float32)
    for primitives in _static_objects(scene, rng):
        layer = paint(primitives, camera, light_3, slice(0, 1), None)
        if layer is not None:
            composite(image_HW3, depth_HW, layer, 0)
    return image_HW3, depth_HW


def _sky(camera: Camera, rows: Floats, columns: Floats, rng: np.random.Generator) -> Floats:
    hue = rng.choice([0.56, 0.58, 0.60, 0.07, 0.93])
    high = np.array(hsv_to_rgb(hue, rng.uniform(0.35, 0.65), rng.uniform(0.75, 0.95)))
    low = np.array(hsv_to_rgb((hue + 0.03) % 1, rng.uniform(0.08, 0.25), 0.97))
    horizon = camera.image_height / 2 - camera.focal_px * np.tan(camera.pitch_rad)
    fraction = np.clip(rows / max(horizon, 1.0), 0, 1)[:, None, None] ** 1.4
    sky = np.broadcast_to(high * (1 - fraction) + low * fraction, (len(rows), len(columns), 3)).copy()
    across, down = columns[None, :] / camera.image_width, rows[:, None] / camera.image_height
    cloud = _value_noise(across * 3.0 + rng.uniform(0, 50), down * 11.0, rng, 3)
    cover = np.clip((cloud - rng.uniform(0.50, 0.62)) * 3.5, 0, 0.8)[:, :, None]
    sky = sky * (1 - cover) + cover
    for distance, height in ((1.0, 0.10), (0.65, 0.055)):
        ridge = sum(np.sin(across[0] * rate + rng.uniform(0, 2 * pi)) / rate for rate in (5.0, 9.0, 17.0, 31.0)) * 2.2
        crest = horizon - camera.image_height * height * (0.75 + np.asarray(ridge))
        inside = np.clip(rows[:, None] - crest[None, :] + 0.5, 0, 1)[:, :, None]
        tint = np.array(hsv_to_rgb(rng.uniform(0.30, 0.62), 0.28, 0.45 + 0.28 * distance))
        sky = sky * (1 - inside) + inside * (0.5 * distance * low + (1 - 0.5 * distance) * tint)
    return np.asarray(sky)


def _value_noise(x: Floats, y: Floats, rng: np.random.Generator, octaves: int) -> Floats:
    """Value noise in 0 to 1, interpolated on a small random lattice and summed over octaves."""
    lattice = rng.random((64, 64))
    total, weight, amplitude = np.zeros(np.broadcast(x, y).shape), 0.0, 1.0
    for _ in range(octaves):
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        u, v = x - column, y - row
        u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
        left, right = column % 64, (column + 1) % 64
        upper, lower = row % 64, (row + 1) % 64
        top = lattice[upper, left] * (1 - u) + lattice[upper, right] * u
        bottom = lattice[lower, left] * (1 - u) + lattice[lower, right] * u
        total += amplitude * (top * (1 - v) + bottom * v)
        weight += amplitude
        x, y, amplitude = 2.03 * x + 7.1, 2.03 * y + 3.7, 0.55 * amplitude
    return total / weight


def _ground(x: Floats, y: Floats, depth: Floats, camera: Camera, rng: np.random.Generator) -> Floats:
    """Colour [rows, W, 3] of ground points. Marks repeat every metre and show the scale; they fade where a pixel covers
    more than their width."""
    style = str(rng.choice(_STYLES))
    x, y = x + rng.uniform(0, 1), y + rng.uniform(0, 1)
    footprint_m = depth * depth / (camera.focal_px * camera.height_m)
    sharp = 1 / (1 + (footprint_m / 0.35) ** 2)
    fine = 1 / (1 + (footprint_m / 0.12) ** 2)
    hue, saturation, value = {
        "paving": (rng.uniform(0.0, 1.0), 0.10, rng.uniform(0.55, 0.75)),
        "meadow": (rng.uniform(0.22, 0.36), rng.uniform(0.45, 0.65), rng.uniform(0.45, 0.62)),
        "planks": (rng.uniform(0.05, 0.10), rng.uniform(0.30, 0.55), rng.uniform(0.50, 0.70)),
        "sand": (rng.uniform(0.09, 0.13), rng.uniform(0.25, 0.40), rng.uniform(0.72, 0.85)),
    }[style]
    base = np.array(hsv_to_rgb(hue, saturation, value))
    grain = _value_noise(x * 5.0, y * 5.0, rng, 2) - 0.5
    patch = _value_noise(x * 0.35 + 9, y * 0.35, rng, 2) - 0.5
    tone = 1 + 0.30 * fine * grain + 0.35 * patch
    checks = np.sign(np.sin(pi * x)) * np.sign(np.sin(pi * y))
    line_x, line_y = np.abs((x + 0.5) % 1 - 0.5), np.abs((y + 0.5) % 1 - 0.5)
    joint_x = np.clip(1.5 - line_x / (0.02 + 0.6 * footprint_m * 0.1), 0, 1)
    joint_y = np.clip(1.5 - line_y / (0.02 + 0.3 * footprint_m), 0, 1)
    if style == "paving":
        tone *= 1 + sharp * (0.13 * checks - 0.35 * np.maximum(joint_x, joint_y * fine))
    elif style == "meadow":
        tone *= 1 + sharp * 0.12 * np.sign(np.sin(pi * x)) + fine * 0.08 * np.sign(np.sin(pi * y))
    elif style == "planks":
        tone *= 1 + sharp * (
            0.16 * (_value_noise(np.floor(x) * 3.3, np.floor(y / 4) * 5.1, rng, 1) - 0.5) - 0.45 * joint_x
        )
    else:
        tone *= 1 + 0.10 * sharp * np.sin(2 * pi * y + 1.5 * _value_noise(x, y, rng, 1)) + 0.04 * sharp * checks
    return np.asarray(np.clip(base * tone[:, :, None], 0, 1))


def _static_objects(scene: Scene, rng: np.random.Generator) -> list[list[Primitive]]:
    """Trees, bushes, posts, and rocks beside the object's path, each a list of primitives for one frame."""
    path = scene.path.ground_position(np.linspace(0, 4, 9))[:, :2]
    objects: list[list[Primitive]] = []
    for _ in range(int(rng.integers(4, 9))):
        away = float(np.exp(rng.uniform(np.log(5), np.log(60))))
        spot = np.array([rng.uniform(-0.6, 0.6) * away, away, 0.0])
        in_the_way = np.linalg.norm(path - spot[:2], axis=1) < 2.0 + 0.12 * away
        in_front = (np.abs(spot[0] / spot[1] - path[:, 0] / path[:, 1]) < 0.18) & (path[:, 1] > away)
        if in_the_way.any() or in_front.mean() > 0.3:  # the object may be occluded briefly
            continue
        make = (_tree, _bush, _post, _rock)[int(rng.integers(4))]
        objects.append(to_world(make(rng), spot[None], np.array([rng.uniform(0, 2 * pi)]), 1.0))
    objects.sort(key=lambda parts: -float(parts[0].a_T3[0, 1]) if isinstance(parts[0], Capsule) else 0.0)
    return objects


def _leaf(rng: np.random.Generator) -> Colour:
    return hsv_to_rgb(rng.uniform(0.18, 0.40), rng.uniform(0.4, 0.7), rng.uniform(0.35, 0.6))


def _tree(rng: np.random.Generator) -> list[Primitive]:
    height, leaf = rng.uniform(2.5, 5.0), _leaf(rng)
    parts: list[Primitive] = [capsule((0, 0, 0), (0, 0, 0.6 * height), 0.16, 0.10, (0.36, 0.25, 0.17), 1)]
    for _ in range(4):
        aside, ahead = rng.uniform(-0.5, 0.5, 2)
        parts.append(
            sphere((ahead, aside, rng.uniform(0.6, 0.9) * height), rng.uniform(0.22, 0.30) * height, leaf, 1, gloss=0)
        )
    return parts


def _bush(rng: np.random.Generator) -> list[Primitive]:
    leaf = _leaf(rng)
    return [sphere((0, aside, 0.35), rng.uniform(0.35, 0.5), leaf, 1, gloss=0) for aside in (-0.35, 0.0, 0.4)]


def _post(rng: np.random.Generator) -> list[Primitive]:
    parts: list[Primitive] = [capsule((0, 0, 0), (0, 0, 1.0), 0.06, 0.06, (0.85, 0.83, 0.78), 1)]
    parts.append(capsule((0, 0, 0.8), (0, 0, 0.9), 0.065, 0.065, (0.80, 0.15, 0.12), 1, bias_m=0.05))
    return parts


def _rock(rng: np.random.Generator) -> list[Primitive]:
    tone = rng.uniform(0.4, 0.65)
    rock = (tone, tone * 0.97, tone * 0.92)
    return [
        capsule((-0.25, 0, 0.12), (0.2, 0.1, 0.16), 0.26, 0.20, rock, 1, gloss=0.0),
        *box((0, 0, 0), (0.1, 0.1, 0.1), rock, 1),
    ]
