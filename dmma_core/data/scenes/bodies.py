"""Geometry of the objects without legs: ball, hammer and anvil, bell and clock on a trolley, car.

Each function returns primitives in object coordinates at the usual size, for all frames of the clip.
"""

from colorsys import hsv_to_rgb
from math import pi

import numpy as np

from dmma_core.data.scenes.raster import Colour, Primitive
from dmma_core.data.scenes.shapes import box, capsule, disc, sphere
from dmma_core.data.scenes.world import Floats

_GRAVITY_M_S2 = 9.81
_TROLLEY_TOP_M = 0.26


def random_colour(rng: np.random.Generator, saturation: float = 0.75, value: float = 0.85) -> Colour:
    """A random bright colour."""
    return hsv_to_rgb(rng.random(), saturation * rng.uniform(0.8, 1.1), min(value * rng.uniform(0.8, 1.15), 1.0))


def darker(colour: Colour, factor: float) -> Colour:
    """`colour` times `factor`."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def event_count(time_T: Floats, event_s: Floats) -> Floats:
    """Number of events before each time, plus the elapsed fraction of the interval to the next one: [T]."""
    return np.asarray(np.interp(time_T, event_s, np.arange(len(event_s), dtype=np.float64)))


def since_event(time_T: Floats, event_s: Floats) -> Floats:
    """Seconds since the last event: [T]; 1000 before the first one."""
    last = np.searchsorted(event_s, time_T + 1e-9, side="right") - 1
    return np.where(last >= 0, time_T - event_s[np.maximum(last, 0)], 1e3)


def flash(time_T: Floats, event_s: Floats, length_s: float) -> Floats:
    """1 at an event, falling to 0 within `length_s`: [T]."""
    return np.asarray(np.clip(1 - since_event(time_T, event_s) / length_s, 0, 1))


def bouncing_ball(
    time_T: Floats, event_s: Floats, rolled_m: Floats, scale: float, rng: np.random.Generator
) -> list[Primitive]:
    """A spotted ball in free fall between contacts, flattened at each contact."""
    num, radius, colour = len(time_T), 0.30, random_colour(rng)
    count = event_count(time_T, event_s)
    interval_s = np.diff(event_s)[np.clip(count.astype(int), 0, len(event_s) - 2)]
    phase = count % 1
    height = 0.5 * _GRAVITY_M_S2 * interval_s**2 * phase * (1 - phase) / scale
    nearest_s = np.abs(time_T[:, None] - event_s).min(axis=1)
    squash = np.exp(-((nearest_s / 0.035) ** 2))
    flat, wide = radius * (1 - 0.34 * squash), radius * 0.42 * squash
    middle = height + flat
    parts: list[Primitive] = [capsule((0, -wide, middle), (0, wide, middle), flat, flat, colour, num, gloss=0.55)]
    spot = darker((1.0, 1.0, 0.96), 1.0)
    turn = rolled_m / radius + 2.0 * time_T
    for step in range(5):
        angle = turn + 2 * pi * step / 5
        aside = 0.35 * (-1) ** step
        centre = (0.78 * radius * np.sin(angle), aside * radius, middle + 0.78 * flat * np.cos(angle))
        parts.append(sphere(centre, 0.36 * radius, spot, num, gloss=0.3))
    return parts


def _trolley(rolled_m: Floats, num: int, rng: np.random.Generator) -> list[Primitive]:
    colour, wheel = random_colour(rng, 0.5, 0.6), (0.12, 0.12, 0.14)
    parts: list[Primitive] = box((-0.42, -0.5, 0.16), (0.42, 0.5, _TROLLEY_TOP_M), colour, num, bias_m=-0.3)
    for ahead in (-0.3, 0.3):
        for aside in (-0.42, 0.42):
            parts.append(
                capsule((ahead, aside - 0.04, 0.09), (ahead, aside + 0.04, 0.09), 0.09, 0.09, wheel, num, bias_m=-0.1)
            )
            mark = (ahead + 0.05 * np.cos(rolled_m / 0.09), aside, 0.09 + 0.05 * np.sin(rolled_m / 0.09))
            parts.append(sphere(mark, 0.035, (0.75, 0.75, 0.7), num, bias_m=0.15))
    return parts


def hammer_and_anvil(
    time_T: Floats, event_s: Floats, rolled_m: Floats, scale: float, rng: np.random.Generator
) -> list[Primitive]:
    """A hammer on an arm that rises slowly and falls fast on an anvil, with sparks at each strike."""
    num, top = len(time_T), _TROLLEY_TOP_M
    iron, wood = darker((0.36, 0.39, 0.45), rng.uniform(0.8, 1.25)), (0.62, 0.42, 0.22)
    parts = _trolley(rolled_m, num, rng)
    parts += box((-0.17, -0.22, top), (0.17, 0.22, top + 0.12), iron, num, taper=0.7)
    parts += box((-0.10, -0.13, top + 0.12), (0.10, 0.13, top + 0.26), darker(iron, 0.9), num, bias_m=0.02)
    parts += box((-0.15, -0.24, top + 0.26), (0.15, 0.24, top + 0.40), iron, num, bias_m=0.05, gloss=0.25)
    parts.append(capsule((0, -0.22, top + 0.34), (0, -0.48, top + 0.37), 0.085, 0.02, iron, num, gloss=0.5))
    phase = event_count(time_T, event_s) % 1
    lift = np.where(phase < 0.72, np.sin(pi / 2 * phase / 0.72) ** 1.3, np.clip(1 - ((phase - 0.72) / 0.28) ** 2, 0, 1))
    angle = 0.05 + 1.05 * lift
    pivot_y, pivot_z, reach = 0.46, top + 0.44, 0.46
    head = (0.0, pivot_y - reach * np.cos(angle), pivot_z + reach * np.sin(angle))
    across, up = np.sin(angle), np.cos(angle)
    parts.append(capsule((-0.05, pivot_y, top), (-0.05, pivot_y, pivot_z), 0.05, 0.04, darker(wood, 0.7), num))
    parts.append(capsule((0, pivot_y, pivot_z), head, 0.026, 0.026, wood, num, bias_m=0.1))
    below = (0.0, head[1] - 0.10 * across * 0.9, head[2] - 0.02 - 0.04 * up)
    above = (0.0, head[1] + 0.10 * across, head[2] + 0.13 * up)
    steel = random_colour(rng, 0.7, 0.8)
    parts.append(capsule(below, above, 0.085, 0.085, steel, num, gloss=0.7, bias_m=0.2))
    spark, age_s = flash(time_T, event_s, 0.16), since_event(time_T, event_s)
    for angle_0 in np.linspace(0.3, pi - 0.3, 5):
        flight = 0.05 + 2.6 * np.minimum(age_s, 0.2)
        centre = (
            0.1,
            flight * np.cos(angle_0),
            top + 0.42 + flight * np.sin(angle_0) - 4 * np.minimum(age_s, 0.2) ** 2,
        )
        parts.append(sphere(centre, 1e-3 + 0.04 * spark, (1.0, 0.82, 0.3), num, glow=1.0, bias_m=0.3))
    return parts


def bell_in_a_frame(
    time_T: Floats, event_s: Floats, rolled_m: Floats, scale: float, rng: np.random.Generator
) -> list[Primitive]:
    """A bell that swings between two posts; its clapper strikes at both turning points."""
    num, top = len(time_T), _TROLLEY_TOP_M
    wood = darker((0.55, 0.34, 0.20), rng.uniform(0.7, 1.3))
    bronze = hsv_to_rgb(rng.uniform(0.09, 0.14), rng.uniform(0.55, 0.85), rng.uniform(0.75, 0.98))
    parts = _trolley(rolled_m, num, rng)
    for aside in (-0.44, 0.44):
        parts.append(capsule((0, aside, top), (0, aside, 1.24), 0.05, 0.045, wood, num))
    parts.append(capsule((0, -0.48, 1.24), (0, 0.48, 1.24), 0.05, 0.05, wood, num))
    angle = 0.62 * np.cos(pi * event_count(time_T, event_s))
    across, down = np.sin(angle), -np.cos(angle)

    def along(length: float) -> tuple[float, Floats, Floats]:
        return 0.0, length * across, 1.18 + length * down

    clapper = 0.62 * np.cos(pi * event_count(time_T, event_s) - 0.35)
    tongue = (0.0, 0.70 * np.sin(clapper), 1.18 - 0.70 * np.cos(clapper))
    parts.append(capsule(along(0.3), tongue, 0.02, 0.02, darker(bronze, 0.4), num, bias_m=-0.05))
    parts.append(sphere(tongue, 0.075, darker(bronze, 0.55), num, bias_m=-0.05))
    parts.append(capsule(along(0.02), along(0.16), 0.04, 0.12, bronze, num, gloss=0.5, bias_m=0.1))
    parts.append(capsule(along(0.14), along(0.40), 0.15, 0.21, bronze, num, gloss=0.6, bias_m=0.15))
    rim_left = (0.0, 0.52 * across - 0.21 * np.cos(angle), 1.18 + 0.52 * down - 0.21 * np.sin(angle))
    rim_right = (0.0, 0.52 * across + 0.21 * np.cos(angle), 1.18 + 0.52 * down + 0.21 * np.sin(angle))
    parts.append(capsule(along(0.36), along(0.47), 0.21, 0.25, bronze, num, gloss=0.5, bias_m=0.18))
    parts.append(capsule(rim_left, rim_right, 0.055, 0.055, darker(bronze, 0.85), num, gloss=0.6, bias_m=0.25))
    return parts


def standing_clock(
    time_T: Floats, event_s: Floats, rolled_m: Floats, scale: float, rng: np.random.Generator
) -> list[Primitive]:
    """A tall case clock: with every tick its hand jumps and its pendulum is at a turning point."""
    num, top = len(time_T), _TROLLEY_TOP_M
    wood, dial = random_colour(rng, 0.55, 0.55), (0.97, 0.95, 0.86)
    gold = (0.95, 0.75, 0.25)
    parts = _trolley(rolled_m, num, rng)
    parts += box((-0.16, -0.27, top), (0.16, 0.27, 0.42), darker(wood, 0.8), num, taper=0.9)
    parts += box((-0.13, -0.21, 0.42), (0.13, 0.21, 1.0), wood, num, bias_m=0.02)
    parts += box((-0.16, -0.31, 1.0), (0.16, 0.31, 1.56), wood, num, taper=0.96, bias_m=0.05)
    parts.append(sphere((0, 0, 1.60), 0.06, gold, num, gloss=0.6))
    parts.append(disc((0.172, 0, 1.29), 0.26, "x", gold, num, bias_m=0.25, gloss=0.3))
    parts.append(disc((0.176, 0, 1.29), 0.225, "x", dial, num, bias_m=0.30, glow=0.25))
    count = event_count(time_T, event_s)
    tick = np.floor(count)
    jump = np.clip((count - tick) * 12, 0, 1)  # the hand moves within a twelfth of the interval
    turn = 2 * pi / 12 * (tick - 1 + jump) + rng.uniform(0, 2 * pi)
    slow = rng.uniform(0, 2 * pi)
    for angle, length, thick, colour in ((turn, 0.20, 0.022, (0.8, 0.1, 0.1)), (slow, 0.12, 0.026, (0.1, 0.1, 0.12))):
        tip = (0.19, -length * np.sin(angle), 1.29 + length * np.cos(angle))
        parts.append(capsule((0.19, 0, 1.29), tip, thick, 0.6 * thick, colour, num, bias_m=0.36))
    swing = 0.30 * np.cos(pi * count)
    weight = (0.15, 0.42 * np.sin(swing), 0.98 - 0.40 * np.cos(swing))
    parts.append(capsule((0.15, 0, 0.98), weight, 0.014, 0.014, gold, num, bias_m=0.2))
    parts.append(sphere(weight, 0.075, gold, num, gloss=0.7, bias_m=0.25))
    return parts


def car(time_T: Floats, event_s: Floats, rolled_m: Floats, scale: float, rng: np.random.Generator) -> list[Primitive]:
    """A small car; its headlights flash while it honks."""
    num, colour = len(time_T), random_colour(rng, 0.85, 0.85)
    glass, dark = (0.35, 0.50, 0.62), (0.10, 0.10, 0.12)
    shake = 0.008 * np.sin(2 * pi * 9 * time_T)
    parts: list[Primitive] = box(
        (-1.3, -0.58, 0.22 + shake), (1.3, 0.58, 0.66 + shake), colour, num, taper=0.96, gloss=0.15
    )
    parts += box(
        (-0.95, -0.50, 0.66 + shake), (0.55, 0.50, 1.06 + shake), glass, num, taper=0.78, bias_m=0.3, gloss=0.35
    )
    parts += box((-0.76, -0.41, 1.05 + shake), (0.36, 0.41, 1.10 + shake), colour, num, bias_m=0.4, gloss=0.2)
    for aside in (-0.59, 0.59):
        for ahead in (-0.82, 0.84):
            parts.append(disc((ahead, aside, 0.25), 0.25, "y", dark, num, bias_m=0.25))
            parts.append(disc((ahead, aside * 1.01, 0.25), 0.13, "y", (0.72, 0.74, 0.78), num, corners=8, bias_m=0.30))
            angle = rolled_m / 0.25
            mark = (ahead - 0.15 * np.sin(angle), aside * 1.02, 0.25 + 0.15 * np.cos(angle))
            parts.append(sphere(mark, 0.045, (0.9, 0.9, 0.9), num, bias_m=0.35))
    honk = np.clip(flash(time_T, event_s, 0.34) * 3, 0, 1)
    for aside in (-0.40, 0.40):
        parts.append(
            sphere((1.29, aside, 0.50), 0.11 + 0.07 * honk, (1.0, 0.96, 0.70), num, glow=0.25 + 0.75 * honk, bias_m=0.4)
        )
        parts.append(sphere((-1.29, aside, 0.50), 0.08, (0.85, 0.08, 0.08), num, glow=0.3, bias_m=0.2))
    return parts
