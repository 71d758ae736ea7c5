"""A small rasteriser: shaded tapered capsules and flat convex faces, painted far to near, for several frames at once.

Neighbouring frames of an object are painted together into layers that move with the object: numpy works on arrays
[n, h, w] of n frames, and a primitive only touches the pixels around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dmma_core.data.scenes.world import Camera, Floats

Pixels = Floats
Colour = tuple[float, float, float]
_SKYLIGHT = 0.42


@dataclass(frozen=True)
class Capsule:
    """A tapered capsule between points a and b [T, 3] with radii [T] in metres; equal points make a sphere.

    `gloss` 0 to 1 is the strength of the highlight, `glow` 0 to 1 that of the emission ([T] or [1]). `bias_m` as in
    `Face`.
    """

    a_T3: Floats
    b_T3: Floats
    radius_a_T: Floats
    radius_b_T: Floats
    colour: Colour
    gloss: float = 0.2
    glow: Floats = field(default_factory=lambda: np.zeros(1))
    bias_m: float = 0.0


@dataclass(frozen=True)
class Face:
    """A flat convex polygon with corners [T, V, 3] in metres, in order.

    With `solid`, back faces are culled (corners are counter-clockwise seen from outside); otherwise it has two sides.
    `bias_m` moves it forward in the painting order.
    """

    corners_TV3: Floats
    colour: Colour
    solid: bool = True
    gloss: float = 0.0
    glow: Floats = field(default_factory=lambda: np.zeros(1))
    bias_m: float = 0.0


Primitive = Capsule | Face


@dataclass
class Layer:
    """Painted pixels of n frames: premultiplied colour [3, n, h, w] in 0 to 1, coverage and depth (m) [n, h, w], and
    the image column and row of each frame's first pixel [n].
    """

    colour: Pixels
    coverage: Pixels
    depth: Pixels
    column_n: NDArray[np.int64]
    row_n: NDArray[np.int64]


@dataclass(frozen=True)
class _Projected:
    """A primitive in image coordinates: points [n, V] with radius in pixels, and position in the painting order."""

    primitive: Primitive
    column_nV: Floats
    row_nV: Floats
    depth_nV: Floats
    reach_nV: Floats
    order: float


def paint(
    primitives: Sequence[Primitive],
    camera: Camera,
    light_3: Floats,
    frames: slice,
    shadow: tuple[Floats, float, float] | None = None,
) -> Layer | None:
    """Paint the frames `frames` of world-space primitives, lit from `light_3` (unit vector in world axes).

    `shadow` is (ground point [n, 3], radius in metres, strength 0 to 1) of a soft shadow. None if nothing is visible.
    """
    projected = [found for primitive in primitives if (found := _project(primitive, camera, frames)) is not None]
    if not projected:
        return None
    projected.sort(key=lambda item: -item.order)
    low_column = np.min([np.min(item.column_nV - item.reach_nV, axis=1) for item in projected], axis=0)
    high_column = np.max([np.max(item.column_nV + item.reach_nV, axis=1) for item in projected], axis=0)
    low_row = np.min([np.min(item.row_nV - item.reach_nV, axis=1) for item in projected], axis=0)
    high_row = np.max([np.max(item.row_nV + item.reach_nV, axis=1) for item in projected], axis=0)
    if shadow is not None:
        column, row, depth = camera.project(shadow[0])
        reach = 2.2 * shadow[1] * camera.focal_px / depth
        low_column, high_column = np.minimum(low_column, column - reach), np.maximum(high_column, column + reach)
        high_row = np.maximum(high_row, row + 0.5 * reach)
        low_row = np.minimum(low_row, row - 0.25 * reach)
    column_n, width = _window(low_column, high_column, camera.image_width)
    row_n, height = _window(low_row, high_row, camera.image_height)
    layer = _blank(camera, column_n, row_n, height, width)
    if shadow is not None:
        _paint_shadow(layer, camera, *shadow)
    axes = np.array([[1, 0, 0], [0, -np.sin(camera.pitch_rad), -np.cos(camera.pitch_rad)]])
    light_camera = np.array(
        [*(axes @ light_3), -np.cos(camera.pitch_rad) * light_3[1] + np.sin(camera.pitch_rad) * light_3[2]]
    )
    for item in projected:
        if isinstance(item.primitive, Capsule):
            _paint_capsule(layer, item, item.primitive, camera, light_camera, frames)
        else:
            _paint_face(layer, item, item.primitive, camera, light_3, frames)
    return layer


def _project(primitive: Primitive, camera: Camera, frames: slice) -> _Projected | None:
    if isinstance(primitive, Capsule):
        points = np.stack((primitive.a_T3[frames], primitive.b_T3[frames]), axis=1)
        radii = np.stack((primitive.radius_a_T[frames], primitive.radius_b_T[frames]), axis=1)
    else:
        points, radii = primitive.corners_TV3[frames], np.zeros(primitive.corners_TV3[frames].shape[:2])
    column, row, depth = camera.project(points)
    if depth.min() < 0.1:
        return None
    if isinstance(primitive, Face) and primitive.solid and _signed_area(column, row).mean() >= 0:
        return None
    reach = np.minimum(radii * camera.focal_px / depth, 4.0 * camera.image_width) + 1.0
    return _Projected(primitive, column, row, depth, reach, float(depth.mean()) - primitive.bias_m)


def _signed_area(column_nV: Floats, row_nV: Floats) -> Floats:
    """Twice the area of polygons in the image; positive for clockwise corners (rows increase downwards)."""
    next_column, next_row = np.roll(column_nV, -1, axis=1), np.roll(row_nV, -1, axis=1)
    return np.asarray((column_nV * next_row - next_column * row_nV).sum(axis=1))


def _window(low_n: Floats, high_n: Floats, limit: int) -> tuple[NDArray[np.int64], int]:
    """First pixel of each frame's window and the common length; excludes what is far outside the image."""
    first = np.floor(np.clip(low_n, -limit, limit)).astype(np.int64)
    last = np.ceil(np.clip(high_n, 0, 2 * limit)).astype(np.int64)
    return first, max(int((last - first).max()) + 1, 1)


def _blank(camera: Camera, column_n: NDArray[np.int64], row_n: NDArray[np.int64], height: int, width: int) -> Layer:
    num = len(column_n)
    rows = row_n[:, None] + np.arange(height) + 0.5
    depth = np.broadcast_to(camera.ground_depth(rows).astype(np.float32)[:, :, None], (num, height, width)).copy()
    colour = np.zeros((3, num, height, width), np.float32)
    return Layer(colour, np.zeros((num, height, width), np.float32), depth, column_n, row_n)


def _paint_shadow(layer: Layer, camera: Camera, point_n3: Floats, radius_m: float, strength: float) -> None:
    _, height, width = layer.coverage.shape
    columns = (layer.column_n[:, None] + np.arange(width) + 0.5)[:, None, :]
    rows = (layer.row_n[:, None] + np.arange(height) + 0.5)[:, :, None]
    depth = np.minimum(camera.ground_depth(rows), 1e4)
    x, y = camera.ground_point(columns, rows, depth)
    away = ((x - point_n3[:, 0, None, None]) ** 2 + (y - point_n3[:, 1, None, None]) ** 2) / radius_m**2
    layer.coverage += (strength / (1 + away**3)).astype(np.float32) * (away < 4)


def _bounds(layer: Layer, item: _Projected) -> tuple[slice, slice] | None:
    """Rows and columns of the layer that a primitive can touch in any of the frames."""
    _, height, width = layer.coverage.shape
    low = np.floor((item.column_nV - item.reach_nV).min(axis=1) - layer.column_n).min()
    high = np.ceil((item.column_nV + item.reach_nV).max(axis=1) - layer.column_n).max()
    top = np.floor((item.row_nV - item.reach_nV).min(axis=1) - layer.row_n).min()
    bottom = np.ceil((item.row_nV + item.reach_nV).max(axis=1) - layer.row_n).max()
    columns = slice(max(int(low), 0), min(int(high) + 1, width))
    rows = slice(max(int(top), 0), min(int(bottom) + 1, height))
    return (rows, columns) if columns.start < columns.stop and rows.start < rows.stop else None


def _grid(layer: Layer, rows: slice, columns: slice) -> tuple[Pixels, Pixels]:
    """Image coordinates of pixel centres: columns [n, 1, w] and rows [n, h, 1]."""
    column = layer.column_n[:, None] + (np.arange(columns.start, columns.stop) + 0.5)
    row = layer.row_n[:, None] + (np.arange(rows.start, rows.stop) + 0.5)
    return column.astype(np.float32)[:, None, :], row.astype(np.float32)[:, :, None]


def _per_frame(values: Floats, frames: slice, num: int) -> Pixels:
    values = values[frames] if len(values) > 1 else values
    return np.broadcast_to(values, (num,)).astype(np.float32)[:, None, None]


def _paint_capsule(
    layer: Layer, item: _Projected, capsule: Capsule, camera: Camera, light_3: Floats, frames: slice
) -> None:
    if (box := _bounds(layer, item)) is None:
        return
    column, row = _grid(layer, *box)
    num = len(column)

    def per_pixel(values_n: Floats) -> Pixels:
        return values_n.astype(np.float32)[:, None, None]

    start_column, start_row = per_pixel(item.column_nV[:, 0]), per_pixel(item.row_nV[:, 0])
    along_column, along_row = per_pixel(item.column_nV[:, 1]) - start_column, per_pixel(item.row_nV[:, 1]) - start_row
    length = np.maximum(along_column**2 + along_row**2, np.float32(1e-6))
    radius_start = per_pixel(item.reach_nV[:, 0] - 1.0)
    radius_change = per_pixel(item.reach_nV[:, 1] - 1.0) - radius_start
    across, down = column - start_column, row - start_row
    along = np.clip(across * (along_column / length) + down * (along_row / length), 0, 1)
    across = across - along * along_column
    down = down - along * along_row
    radius = np.maximum(radius_start + along * radius_change, np.float32(0.35))
    away = np.sqrt(across * across + down * down)
    coverage = np.clip(radius - away + np.float32(0.5), 0, 1)
    normal_column, normal_row = across / radius, down / radius
    normal_near = np.sqrt(np.maximum(1 - normal_column * normal_column - normal_row * normal_row, 0))
    light = normal_column * np.float32(light_3[0]) + normal_row * np.float32(light_3[1])
    light += normal_near * np.float32(light_3[2])
    np.maximum(light, 0, out=light)
    glow = _per_frame(capsule.glow, frames, num)
    shade = (_SKYLIGHT - np.float32(0.12) * normal_row + np.float32(0.62) * light) * (1 - glow) + glow
    shine = (np.float32(capsule.gloss) * light**12) if capsule.gloss else None
    _blend(layer, box, coverage, capsule.colour, shade, shine)
    depth_start, depth_end = per_pixel(item.depth_nV[:, 0]), per_pixel(item.depth_nV[:, 1])
    axis_depth = 1 / ((1 - along) / depth_start + along / depth_end)
    surface = axis_depth * (1 - normal_near * radius / np.float32(camera.focal_px))
    _keep_depth(layer, box, coverage, surface)


def _paint_face(layer: Layer, item: _Projected, face: Face, camera: Camera, light_3: Floats, frames: slice) -> None:
    if (box := _bounds(layer, item)) is None:
        return
    column, row = _grid(layer, *box)
    orientation = np.sign(_signed_area(item.column_nV, item.row_nV))[:, None]
    edge_column = np.roll(item.column_nV, -1, axis=1) - item.column_nV
    edge_row = np.roll(item.row_nV, -1, axis=1) - item.row_nV
    length = np.maximum(np.hypot(edge_column, edge_row), 1e-6)
    a, b = -edge_row / length * orientation, edge_column / length * orientation
    c = -(a * item.column_nV + b * item.row_nV) + 0.5
    inside: Pixels | None = None
    for corner in range(item.column_nV.shape[1]):
        a_n, b_n, c_n = (value[:, corner, None, None].astype(np.float32) for value in (a, b, c))
        edge = a_n * column + (b_n * row + c_n)
        inside = edge if inside is None else np.minimum(inside, edge, out=inside)
    assert inside is not None
    coverage = np.clip(inside, 0, 1)
    corners = face.corners_TV3[frames]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    to_camera = np.array([0.0, 0.0, camera.height_m]) - corners[:, 0]
    normal *= np.where((normal * to_camera).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    light = np.maximum(normal @ light_3, 0)
    glow = _per_frame(face.glow, frames, len(column))
    shade = (_SKYLIGHT + 0.10 * normal[:, 2] + 0.58 * light).astype(np.float32)[:, None, None] * (1 - glow) + glow
    shine = None
    if face.gloss:
        shine = (face.gloss * light**4).astype(np.float32)[:, None, None] * np.ones_like(coverage)
    _blend(layer, box, coverage, face.colour, shade, shine)
    _keep_depth(layer, box, coverage, _plane_depth(corners, camera, column, row))


def _plane_depth(corners_nV3: Floats, camera: Camera, column: Pixels, row: Pixels) -> Pixels:
    """Depth of a plane at image points: 1 / depth is affine in column and row."""
    points = camera.to_camera(corners_nV3)
    normal = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    offset = (normal * points[:, 0]).sum(axis=1)
    offset = np.where(np.abs(offset) < 1e-6, 1e-6, offset)
    a, b, c = (normal / offset[:, None]).T.astype(np.float32)[:, :, None, None]
    inverse = a * ((column - camera.image_width / 2) / np.float32(camera.focal_px))
    inverse = inverse + b * ((row - camera.image_height / 2) / np.float32(camera.focal_px)) + c
    nearest = np.float32(1) / points[..., 2].min(axis=1).astype(np.float32)[:, None, None]
    farthest = np.float32(1) / points[..., 2].max(axis=1).astype(np.float32)[:, None, None]
    return np.asarray(1 / np.clip(inverse, farthest, nearest), dtype=np.float32)


def _blend(
    layer: Layer, box: tuple[slice, slice], coverage: Pixels, colour: Colour, shade: Pixels, shine: Pixels | None
) -> None:
    place = (slice(None), *box)
    keep = 1 - coverage
    covered_shade = coverage * shade
    covered_shine = None if shine is None else coverage * shine
    for channel in range(3):
        target = layer.colour[channel][place]
        target *= keep
        target += np.float32(colour[channel]) * covered_shade
        if covered_shine is not None:
            target += covered_shine
    target = layer.coverage[place]
    target *= keep
    target += coverage


def _keep_depth(layer: Layer, box: tuple[slice, slice], coverage: Pixels, depth: Pixels) -> None:
    place = (slice(None), *box)
    layer.depth[place] = np.where(coverage > 0.5, depth, layer.depth[place])


def composite(image_HW3: Pixels, depth_HW: Pixels, layer: Layer, which: int) -> tuple[slice, slice] | None:
    """Composite frame `which` of a layer into an image and its depth map, both in place; near objects occlude far ones.

    Returns the rows and columns of the image that may have changed, or None.
    """
    _, height, width = layer.coverage.shape
    image_height, image_width = depth_HW.shape
    top, left = int(layer.row_n[which]), int(layer.column_n[which])
    rows = slice(max(top, 0), min(top + height, image_height))
    columns = slice(max(left, 0), min(left + width, image_width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    source = (which, slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    depth = layer.depth[source]
    behind = depth_HW[rows, columns]
    visible = depth <= behind * np.float32(1.001)
    coverage = np.where(visible, layer.coverage[source], 0)
    target = image_HW3[rows, columns]
    target *= (1 - coverage)[:, :, None]
    target += np.moveaxis(layer.colour[(slice(None), *source)], 0, -1) * visible[:, :, None]
    depth_HW[rows, columns] = np.minimum(depth, behind)
    return rows, columns
