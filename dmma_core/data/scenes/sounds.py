"""Synthesis of the objects' sounds at a distance of one metre, without absorption and reverberation; one per class.

A strike, step, or tick is a short waveform of peak `SOURCE_PEAK` times its strength, at the time of the visible
contact. Large objects sound lower. The level depends on the class, not on the clip.
"""

from collections.abc import Callable
from math import pi

import numpy as np
from scipy.signal import lfilter

from dmma_core.data.scene_config import SceneConfig
from dmma_core.data.scenes.world import MARGIN_S, Floats, Scene

SOURCE_PEAK = 1.0  # at one metre; at the nearest 2 m this is half of full scale, -6 dBFS
_Strike = Callable[[int, np.random.Generator], Floats]  # index of the event, random generator


def source_times(config: SceneConfig) -> Floats:
    """Times (s) of the samples of `synthesize`: from `MARGIN_S` before the clip to its end."""
    return np.arange(round((config.duration_s + MARGIN_S) * config.sample_rate_hz)) / config.sample_rate_hz - MARGIN_S


def synthesize(config: SceneConfig, scene: Scene, rng: np.random.Generator) -> Floats:
    """Sound pressure of the object at one metre, full scale 1: [A], at the times of `source_times`."""
    rate = config.sample_rate_hz
    wave = np.zeros(len(source_times(config)))
    if scene.object_class == "car":
        wave += _engine_sound(source_times(config), scene, rng)
    strike = _STRIKES[scene.object_class](rate, scene.scale, rng)
    for number, event_s in enumerate(scene.event_s):
        start = round((event_s + MARGIN_S) * rate)
        sound = SOURCE_PEAK * rng.uniform(0.8, 1.0) * strike(number, rng)
        lost = max(-start, 0)
        end = min(start + len(sound), len(wave))
        if end > max(start, 0):
            wave[max(start, 0) : end] += sound[lost : end - start]
    return wave


def _sample_times(rate: int, length_s: float) -> Floats:
    return np.arange(int(rate * length_s)) / rate


def _modes(rate: int, length_s: float, modes: list[tuple[float, float, float]], attack_s: float = 0.0006) -> Floats:
    """Sum of decaying sines (frequency in Hz, strength, time constant in s); partials above 0.45 x rate are left out.
    Peak 1."""
    time = _sample_times(rate, length_s)
    wave = np.zeros_like(time)
    for frequency_hz, strength, decay_s in modes:
        if frequency_hz < 0.45 * rate:
            wave += strength * np.exp(-time / decay_s) * np.sin(2 * pi * frequency_hz * time)
    return _peak_normalised(wave * (1 - np.exp(-time / attack_s)), rate)


def _peak_normalised(wave: Floats, rate: int) -> Floats:
    """Scale to peak 1, with a fade-out of ten milliseconds."""
    fade = min(int(0.01 * rate), len(wave))
    wave[len(wave) - fade :] *= np.linspace(1, 0, fade)
    return wave / max(float(np.abs(wave).max()), 1e-9)


def _burst(
    rate: int, length_s: float, decay_s: float, low_hz: float, high_hz: float, rng: np.random.Generator
) -> Floats:
    """Decaying band-pass noise. Peak 1."""
    time = _sample_times(rate, length_s)
    noise = rng.standard_normal(len(time))
    upper = 1 - np.exp(-2 * pi * min(high_hz, 0.45 * rate) / rate)
    lower = 1 - np.exp(-2 * pi * low_hz / rate)
    noise = lfilter([upper], [1, upper - 1], noise)
    noise = noise - lfilter([lower], [1, lower - 1], noise)
    return _peak_normalised(noise * np.exp(-time / decay_s), rate)


def _ball_sound(rate: int, scale: float, voice: np.random.Generator) -> _Strike:
    """A hollow rubber thud of falling pitch, with a short slap."""
    tone_hz = 150 / scale
    time = _sample_times(rate, 0.28)

    def strike(number: int, rng: np.random.Generator) -> Floats:
        glide_hz = tone_hz * (1 + 0.9 * np.exp(-time / 0.025))
        thud = np.sin(2 * pi * np.cumsum(glide_hz) / rate) * np.exp(-time / 0.055)
        wave = thud + 0.25 * np.sin(2 * pi * 5.3 * tone_hz * time) * np.exp(-time / 0.05)
        slap = _burst(rate, 0.03, 0.006, 300, 4000, rng)
        wave[: len(slap)] += 0.6 * slap
        return _peak_normalised(wave, rate)

    return strike


def _hammer_sound(rate: int, scale: float, voice: np.random.Generator) -> _Strike:
    """Steel on steel: bright inharmonic partials that ring for some tenths of a second."""
    base_hz = 1150 / scale**0.7 * voice.uniform(0.9, 1.1)
    ratios = np.array([1.0, 1.71, 2.43, 3.38, 4.65, 5.9]) * voice.uniform(0.97, 1.03, 6)

    def strike(number: int, rng: np.random.Generator) -> Floats:
        strengths = np.array([0.7, 1.0, 0.8, 0.6, 0.5, 0.35]) * rng.uniform(0.7, 1.2, 6)
        decays_s = np.array([0.28, 0.20, 0.16, 0.11, 0.08, 0.06])
        modes = [
            (base_hz * ratio, strength, decay)
            for ratio, strength, decay in zip(ratios, strengths, decays_s, strict=True)
        ]
        wave = _modes(rate, 0.9, modes, attack_s=0.0002)
        click = _burst(rate, 0.02, 0.003, 800, 7000, rng)
        wave[: len(click)] += 0.7 * click
        return _peak_normalised(wave, rate)

    return strike


def _horse_sound(rate: int, scale: float, voice: np.random.Generator) -> _Strike:
    """A hoof: a hollow knock of a few hundred hertz over a soft thump; each of the four hooves has its own pitch."""
    pitches_hz = 430 / scale**0.6 * voice.uniform(0.8, 1.25, 4)

    def strike(number: int, rng: np.random.Generator) -> Floats:
        pitch_hz = pitches_hz[number % 4] * rng.uniform(0.97, 1.03)
        knock = [(pitch_hz, 1.0, 0.022), (2.3 * pitch_hz, 0.6, 0.014), (3.9 * pitch_hz, 0.3, 0.008)]
        wave = _modes(rate, 0.12, [*knock, (85 / scale, 0.7, 0.03)])
        dirt = _burst(rate, 0.08, 0.02, 400, 3000, rng)
        wave[: len(dirt)] += 0.2 * dirt
        return _peak_normalised(wave, rate)

    return strike


def _car_sound(rate: int, scale: float, voice: np.random.Generator) -> _Strike:
    """The horn: two reedy tones a third apart for a third of a second."""
    low_hz = 380 / scale**0.4 * voice.uniform(0.92, 1.08)
    time = _sample_times(rate, 0.34)
    rise_and_fall = np.clip(time / 0.008, 0, 1) * np.clip((0.34 - time) / 0.03, 0, 1)
    wave = np.zeros_like(time)
    for tone_hz in (low_hz, 1.26 * low_hz):
        for partial in range(1, 12):
            if partial * tone_hz < 0.45 * rate:
                wave += np.sin(2 * pi * partial * tone_hz * time + partial) / partial**0.7
    wave = _peak_normalised(wave * rise_and_fall, rate)
    return lambda number, rng: wave


def _dog_sound(rate: int, scale: float, voice: np.random.Generator) -> _Strike:
    """A bark: a noisy voiced sound whose pitch rises and falls, filtered by two formants."""
    pitch_hz = 330 / scale**0.9
    time = _sample_times(rate, 0.22)

    def strike(number: int, rng: np.random.Generator) -> Floats:
        fraction = time / 0.22
        glide_hz = pitch_hz * rng.uniform(0.92, 1.08) * (0.75 + 0.65 * np.sin(pi * np.minimum(1.25 * fraction, 1)))
        phase = np.cumsum(glide_hz) / rate % 1
        voiced = 1 - 2 * phase + 0.5 * rng.standard_normal(len(time))
        wave = np.zeros_like(time)
        for formant_hz, width_hz in ((850 / scale**0.5, 250), (1900 / scale**0.5, 400)):
            radius = np.exp(-pi * width_hz / rate)
            filtered = lfilter([1 - radius], [1, -2 * radius * np.cos(2 * pi * formant_hz / rate), radius**2], voiced)
            wave += filtered
        return _peak_normalised(wave * np.clip(fraction / 0.04, 0, 1) * (1 - fraction) ** 1.3, rate)

    return strike


def _bell_sound(rate: int, scale: float, voice: np.random.Generator) -> _Strike:
    """The partials of a church bell (hum, prime, tierce, quint, nominal and two above) with long decays."""
    prime_hz = 440 / scale * voice.uniform(0.95, 1.05)
    partials = ((0.5, 0.45, 1.6), (1.0, 0.8, 1.0), (1.19, 0.8, 0.8), (1.5, 0.4, 0.6), (2.0, 1.0, 0.5), (2.74, 0.5, 0.3), (4.07, 0.35, 0.18))  # fmt: skip
    modes = [(prime_hz * ratio, strength, decay_s * scale**0.5) for ratio, strength, decay_s in partials]
    wave = 0.75 * _modes(rate, 1.8, modes, attack_s=0.001)  # strokes overlap
    return lambda number, rng: wave


def _footsteps_sound(rate: int, scale: float, voice: np.random.Generator) -> _Strike:
    """A heel's dull thump and, a little later, the scrape of the sole."""
    thump_hz = 95 / scale

    def strike(number: int, rng: np.random.Generator) -> Floats:
        wave = 0.8 * _modes(
            rate, 0.2, [(thump_hz * (1 + 0.06 * (number % 2)), 1.0, 0.03), (3.1 * thump_hz, 0.4, 0.015)]
        )
        heel = _burst(rate, 0.04, 0.007, 500, 3000, rng)
        wave[: len(heel)] += heel
        scrape = _burst(rate, 0.11, 0.04, 1800, 6500, rng)
        start = int(0.05 * rate)
        wave[start : start + len(scrape)] += 0.32 * scrape * np.sin(pi * np.arange(len(scrape)) / len(scrape))
        return _peak_normalised(wave, rate)

    return strike


def _clock_sound(rate: int, scale: float, voice: np.random.Generator) -> _Strike:
    """Tick and tock: two short wooden clicks of different pitch in turn."""
    tick_hz = 2500 / scale**0.7 * voice.uniform(0.9, 1.1)
    sounds = []
    for pitch_hz in (tick_hz, 0.76 * tick_hz):
        modes = [(pitch_hz, 1.0, 0.010), (1.62 * pitch_hz, 0.7, 0.006), (0.31 * pitch_hz, 0.5, 0.016)]
        sounds.append(_modes(rate, 0.09, modes, attack_s=0.0002))
    return lambda number, rng: sounds[number % 2]


def _engine_sound(time_A: Floats, scene: Scene, rng: np.random.Generator) -> Floats:
    """Engine and tyres: harmonics of the firing rate with a slight flutter, and noise that increases with speed."""
    speed = scene.path.speed_m_s
    flutter = 1 + 0.015 * np.sin(2 * pi * 1.3 * time_A + rng.uniform(0, 2 * pi))
    firing_hz = (38 + 7 * speed) / scene.scale**0.4 * flutter
    phase = 2 * pi * np.cumsum(firing_hz) * float(time_A[1] - time_A[0])
    wave = sum(np.sin(partial * phase + partial**2) / partial**0.8 for partial in range(1, 9))
    tyres = lfilter([0.25], [1, -0.75], rng.standard_normal(len(time_A)))
    return np.asarray(0.055 * SOURCE_PEAK * (wave * (1 + 0.2 * np.sin(phase / 2)) + 0.12 * speed * tyres))


_STRIKES: dict[str, Callable[[int, float, np.random.Generator], _Strike]] = {
    "ball": _ball_sound,
    "hammer": _hammer_sound,
    "horse": _horse_sound,
    "car": _car_sound,
    "dog": _dog_sound,
    "bell": _bell_sound,
    "footsteps": _footsteps_sound,
    "clock": _clock_sound,
}
