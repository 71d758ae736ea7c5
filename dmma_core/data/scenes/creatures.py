"""Geometry of horse, dog and person, in object coordinates at their usual size, for all frames of the clip."""

from colorsys import hsv_to_rgb
from math import pi

import numpy as np

from dmma_core.data.scenes.bodies import darker, event_count, flash, random_colour
from dmma_core.data.scenes.raster import Colour, Primitive
from dmma_core.data.scenes.shapes import Point, capsule, sphere
from dmma_core.data.scenes.world import Floats


def _leg(
    hip: Point, phase_T: Floats, reach: float, lift: float, thick: tuple[float, float, float],
    colours: tuple[Colour, Colour], knee_ahead: float, stance: float,
) -> list[Primitive]:  # fmt: skip
    """One leg.

    `phase_T` is 0 when the foot touches the ground and 1 at its next touch. During the fraction `stance` the foot is on
    the ground and moves from `reach` ahead of the hip to `reach` behind it; then it swings forward.
    """
    num = len(phase_T)
    standing = phase_T < stance
    swing = np.clip((phase_T - stance) / (1 - stance), 0, 1)
    ahead = np.where(standing, reach * (1 - 2 * phase_T / stance), -reach * np.cos(pi * swing))
    up = np.where(standing, 0.0, lift * np.sin(pi * swing))
    foot = (hip[0] + ahead, hip[1], thick[2] + up)
    bend = knee_ahead + 0.10 * np.where(standing, 0, np.sin(pi * swing))
    knee = (hip[0] + 0.55 * ahead + bend, hip[1], 0.52 * np.asarray(hip[2]) + 0.62 * up)
    upper = capsule(hip, knee, thick[0], thick[1], colours[0], num)
    lower = capsule(knee, foot, thick[1], 0.8 * thick[2], colours[0], num)
    toe = (foot[0] + 0.6 * thick[2], hip[1], foot[2])
    return [upper, lower, capsule(foot, toe, thick[2], 0.9 * thick[2], colours[1], num, bias_m=0.02)]


def horse(time_T: Floats, event_s: Floats, speed_m_s: float, scale: float, rng: np.random.Generator) -> list[Primitive]:
    """A galloping horse; the events are the touches of its four hooves in turn."""
    num = len(time_T)
    coat = hsv_to_rgb(rng.uniform(0.04, 0.09), rng.uniform(0.25, 0.75), rng.uniform(0.35, 0.85))
    dark, hoof = darker(coat, 0.45), (0.10, 0.08, 0.07)
    stride_s = float(np.mean(np.diff(event_s[::4])))
    reach = float(np.clip(speed_m_s / scale * 0.34 * stride_s / 2, 0.22, 0.48))
    bob = 0.06 * np.sin(2 * pi * event_count(time_T, event_s[3::4]))
    parts: list[Primitive] = []
    for leg, (ahead, aside) in enumerate(((-0.62, -0.17), (-0.62, 0.17), (0.55, -0.16), (0.55, 0.16))):
        phase = event_count(time_T, event_s[leg::4]) % 1
        shade = coat if aside < 0 else darker(coat, 0.85)
        parts += _leg((ahead, aside, 1.02 + bob), phase, reach, 0.34, (0.13, 0.075, 0.06), (shade, hoof), 0.02, 0.34)
    parts.append(capsule((-0.62, 0, 1.16 + bob), (0.52, 0, 1.18 + bob), 0.28, 0.26, coat, num, gloss=0.25))
    nod = 0.08 * np.sin(2 * pi * event_count(time_T, event_s[1::4]))
    poll: Point = (1.02 + nod, 0, 1.70 + bob)
    parts.append(capsule((0.62, 0, 1.28 + bob), poll, 0.19, 0.11, coat, num, gloss=0.2, bias_m=0.05))
    parts.append(capsule((0.50, 0, 1.48 + bob), (0.92 + nod, 0, 1.82 + bob), 0.06, 0.07, dark, num, bias_m=0.06))
    parts.append(capsule(poll, (1.34 + nod, 0, 1.50 + bob), 0.12, 0.075, coat, num, gloss=0.2, bias_m=0.08))
    for aside in (-0.06, 0.06):
        parts.append(capsule((0.99 + nod, aside, 1.78 + bob), (0.98 + nod, aside, 1.92 + bob), 0.04, 0.012, coat, num))
        parts.append(sphere((1.12 + nod, 1.7 * aside, 1.70 + bob), 0.025, (0.05, 0.04, 0.04), num, bias_m=0.15))
    stream = 0.15 * np.sin(2 * pi * event_count(time_T, event_s[2::4]))
    parts.append(capsule((-0.88, 0, 1.26 + bob), (-1.30, stream, 0.98 + bob), 0.08, 0.04, dark, num))
    return parts


def dog(time_T: Floats, event_s: Floats, speed_m_s: float, scale: float, rng: np.random.Generator) -> list[Primitive]:
    """A dog that opens its mouth and raises its head with every bark; its steps make no sound."""
    num = len(time_T)
    coat = hsv_to_rgb(rng.uniform(0.05, 0.12), rng.uniform(0.1, 0.8), rng.uniform(0.4, 1.0))
    dark, collar = darker(coat, 0.5), random_colour(rng)
    cadence_hz = float(np.clip(speed_m_s / (0.9 * scale), 0.0, 3.2))
    reach = min(speed_m_s / scale * 0.5 / max(cadence_hz, 1.0) / 2, 0.20)
    pace = cadence_hz * time_T
    bark = flash(time_T, event_s, 0.24)
    bob = 0.015 * np.sin(4 * pi * pace)
    parts: list[Primitive] = []
    for ahead, aside, offset in ((-0.30, -0.10, 0.0), (-0.30, 0.10, 0.5), (0.26, -0.10, 0.5), (0.26, 0.10, 0.0)):
        shade = coat if aside < 0 else darker(coat, 0.8)
        phase = (pace + offset) % 1 if cadence_hz else np.full(num, 0.25)
        lift = 0.10 if cadence_hz else 0.0
        parts += _leg((ahead, aside, 0.40 + bob), phase, reach, lift, (0.07, 0.045, 0.04), (shade, dark), -0.02, 0.5)
    parts.append(capsule((-0.30, 0, 0.46 + bob), (0.28, 0, 0.48 + bob), 0.13, 0.15, coat, num))
    wag = 0.10 * np.sin(2 * pi * 3.1 * time_T)
    parts.append(capsule((-0.40, 0, 0.52 + bob), (-0.62, wag, 0.74 + bob), 0.04, 0.02, coat, num))
    up = 0.07 * bark
    skull: Point = (0.48, 0, 0.72 + up + bob)
    parts.append(capsule((0.30, 0, 0.55 + bob), skull, 0.10, 0.09, coat, num, bias_m=0.02))
    parts.append(
        capsule(
            (0.37, 0, 0.60 + 0.5 * up + bob), (0.40, 0, 0.63 + 0.5 * up + bob), 0.112, 0.108, collar, num, bias_m=0.03
        )
    )
    parts.append(sphere(skull, 0.125, coat, num, bias_m=0.05))
    parts.append(
        capsule((0.50, 0, 0.72 + up + bob), (0.70, 0, 0.72 + 2.0 * up + bob), 0.07, 0.055, coat, num, bias_m=0.10)
    )
    parts.append(
        capsule(
            (0.52, 0, 0.66 + up + bob),
            (0.66, 0, 0.66 + up - 0.13 * bark + bob),
            0.05,
            0.035,
            darker(coat, 0.9),
            num,
            bias_m=0.07,
        )
    )
    parts.append(
        capsule(
            (0.55, 0, 0.68 + up + bob),
            (0.67, 0, 0.69 + up - 0.06 * bark + bob),
            1e-3 + 0.05 * bark,
            1e-3 + 0.035 * bark,
            (0.80, 0.12, 0.16),
            num,
            bias_m=0.09,
        )
    )
    parts.append(sphere((0.75, 0, 0.745 + 2.0 * up + bob), 0.03, (0.05, 0.05, 0.06), num, bias_m=0.16))
    for aside in (-0.09, 0.09):
        parts.append(
            capsule(
                (0.45, aside, 0.80 + up + bob),
                (0.42, 1.5 * aside, 0.66 + up + bob),
                0.045,
                0.03,
                dark,
                num,
                bias_m=0.12,
            )
        )
        parts.append(sphere((0.585, 0.6 * aside, 0.77 + up + bob), 0.02, (0.04, 0.04, 0.04), num, bias_m=0.18))
    return parts


def walker(
    time_T: Floats, event_s: Floats, speed_m_s: float, scale: float, rng: np.random.Generator
) -> list[Primitive]:
    """A walking person; the events are the touches of the right and the left foot in turn."""
    num = len(time_T)
    skin = hsv_to_rgb(0.07, rng.uniform(0.3, 0.6), rng.uniform(0.45, 0.95))
    shirt, trousers, shoes = random_colour(rng), random_colour(rng, 0.6, 0.5), (0.10, 0.08, 0.09)
    step_s = float(np.mean(np.diff(event_s)))
    reach = float(np.clip(speed_m_s / scale * step_s / 2, 0.12, 0.40))
    lift = 0.12 if speed_m_s else 0.22
    count = event_count(time_T, event_s)
    bob = 0.025 * np.abs(np.sin(pi * count))
    parts: list[Primitive] = []
    for aside, offset in ((-0.10, 0.0), (0.10, 1.0)):
        phase = ((count + offset) / 2) % 1
        parts += _leg((0.0, aside, 0.86 + bob), phase, reach, lift, (0.095, 0.07, 0.055), (trousers, shoes), 0.03, 0.55)
        swing = (0.55 if speed_m_s else 0.3) * np.cos(pi * (count + offset))
        hand = (-0.55 * np.sin(swing), 2.7 * aside, 1.38 - 0.55 * np.cos(swing) + bob)
        elbow = (-0.26 * np.sin(swing) - 0.03, 2.5 * aside, 1.38 - 0.28 * np.cos(swing) + bob)
        parts.append(capsule((0, 2.1 * aside, 1.38 + bob), elbow, 0.065, 0.055, shirt, num, bias_m=0.02))
        parts.append(capsule(elbow, hand, 0.05, 0.042, skin, num, bias_m=0.03))
    parts.append(capsule((0, 0, 0.90 + bob), (0, 0, 1.30 + bob), 0.15, 0.185, shirt, num, bias_m=0.01))
    parts.append(capsule((0, 0, 1.40 + bob), (0.01, 0, 1.52 + bob), 0.06, 0.06, skin, num))
    parts.append(capsule((0.02, 0, 1.58 + bob), (0.02, 0, 1.62 + bob), 0.105, 0.11, skin, num, bias_m=0.02))
    parts.append(
        capsule(
            (-0.03, 0, 1.63 + bob),
            (-0.01, 0, 1.68 + bob),
            0.11,
            0.095,
            darker(random_colour(rng, 0.6, 0.4), 0.7),
            num,
            bias_m=0.01,
        )
    )
    return parts
