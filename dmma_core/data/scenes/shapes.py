"""Primitives in object coordinates (x ahead, y left, z up, in metres), and transformation to world coordinates."""

from collections.abc import Sequence
from dataclasses import replace
from math import cos, pi, sin

import numpy as np

from dmma_core.data.scenes.raster import Capsule, Colour, Face, Primitive
from dmma_core.data.scenes.world import Floats

Value = float | Floats
Point = tuple[Value, Value, Value]


def point(x: Value, y: Value, z: Value, num_frames: int) -> Floats:
    """A point for every frame: [T, 3]; each coordinate is one number or [T]."""
    return np.stack(
        [np.broadcast_to(np.asarray(value, dtype=np.float64), (num_frames,)) for value in (x, y, z)], axis=1
    )


def capsule(
    a: Point, b: Point, radius_a: Value, radius_b: Value, colour: Colour, num_frames: int, *,
    gloss: float = 0.15, glow: Value = 0.0, bias_m: float = 0.0,
) -> Capsule:  # fmt: skip
    """A tapered capsule from `a` to `b`."""
    spread = [np.broadcast_to(np.asarray(value, np.float64), (num_frames,)) for value in (radius_a, radius_b, glow)]
    ends = point(*a, num_frames), point(*b, num_frames)
    return Capsule(*ends, spread[0], spread[1], colour, gloss, spread[2], bias_m)


def sphere(
    centre: Point, radius: Value, colour: Colour, num_frames: int, *,
    gloss: float = 0.3, glow: Value = 0.0, bias_m: float = 0.0,
) -> Capsule:  # fmt: skip
    """A sphere."""
    return capsule(centre, centre, radius, radius, colour, num_frames, gloss=gloss, glow=glow, bias_m=bias_m)


def polygon(
    corners: Sequence[Point], colour: Colour, num_frames: int, *,
    solid: bool = False, gloss: float = 0.0, glow: Value = 0.0, bias_m: float = 0.0,
) -> Face:  # fmt: skip
    """A convex polygon."""
    stacked = np.stack([point(*corner, num_frames) for corner in corners], axis=1)
    glow_T = np.broadcast_to(np.asarray(glow, np.float64), (num_frames,))
    return Face(stacked, colour, solid, gloss, glow_T, bias_m)


def box(
    low: Point, high: Point, colour: Colour, num_frames: int, *, taper: float = 1.0, bias_m: float = 0.0,
    gloss: float = 0.0,
) -> list[Primitive]:  # fmt: skip
    """A box between two corners without its underside; `taper` scales the length and width of the top face."""
    middle = [(low[axis] + high[axis]) / 2 for axis in (0, 1)]
    half = [(high[axis] - low[axis]) / 2 for axis in (0, 1)]

    def corner(across: int, aside: int, up: bool) -> Point:
        stretch = taper if up else 1.0
        return middle[0] + across * half[0] * stretch, middle[1] + aside * half[1] * stretch, high[2] if up else low[2]

    around = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    sides: list[Primitive] = []
    for here, there in zip(around, around[1:] + around[:1], strict=True):
        corners = [corner(*there, False), corner(*here, False), corner(*here, True), corner(*there, True)]
        sides.append(polygon(corners[::-1], colour, num_frames, solid=True, gloss=gloss, bias_m=bias_m))
    top = [corner(*place, True) for place in around]
    sides.append(polygon(top, colour, num_frames, solid=True, gloss=gloss, bias_m=bias_m + 0.01))
    return sides


def disc(
    centre: Point, radius: Value, normal: str, colour: Colour, num_frames: int, *, corners: int = 12,
    bias_m: float = 0.0, gloss: float = 0.0, glow: Value = 0.0,
) -> Face:  # fmt: skip
    """A flat two-sided disc whose normal is the object's x or y axis."""
    ring: list[Point] = []
    for angle in (2 * pi * step / corners for step in range(corners)):
        across, up = radius * cos(angle), radius * sin(angle)
        if normal == "x":
            ring.append((centre[0], centre[1] + across, centre[2] + up))
        else:
            ring.append((centre[0] + across, centre[1], centre[2] + up))
    return polygon(ring, colour, num_frames, bias_m=bias_m, gloss=gloss, glow=glow)


def to_world(primitives: Sequence[Primitive], position_T3: Floats, heading_T: Floats, scale: float) -> list[Primitive]:
    """Transform primitives from object to world coordinates: scale, rotate to the heading, translate."""
    cosine, sine = np.cos(heading_T), np.sin(heading_T)

    def transformed(points: Floats) -> Floats:
        shape = (slice(None),) + (None,) * (points.ndim - 2)
        x = scale * (points[..., 0] * cosine[shape] - points[..., 1] * sine[shape])
        y = scale * (points[..., 0] * sine[shape] + points[..., 1] * cosine[shape])
        return np.stack((x, y, scale * points[..., 2]), axis=-1) + position_T3[(slice(None), *shape[1:])]

    placed: list[Primitive] = []
    for primitive in primitives:
        bias_m = primitive.bias_m * scale
        if isinstance(primitive, Capsule):
            ends = transformed(primitive.a_T3), transformed(primitive.b_T3)
            radii = primitive.radius_a_T * scale, primitive.radius_b_T * scale
            placed.append(Capsule(*ends, *radii, primitive.colour, primitive.gloss, primitive.glow, bias_m))
        else:
            placed.append(replace(primitive, corners_TV3=transformed(primitive.corners_TV3), bias_m=bias_m))
    return placed
