"""How sound travels from the object to the camera's microphone.

The direct sound leaves at t, arrives at t + r(t) / 343 m/s with 1 / r(t) of its pressure at one metre, and has lost
treble to the air. The room answers with reverberation whose part grows with the distance. Levels are absolute: nothing
is normalised, so a clip's loudness tells its distance.
"""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from dmma_core.data.scenes.config import SceneConfig
from dmma_core.data.scenes.sounds import source_times, synthesize
from dmma_core.data.scenes.world import Floats, Scene, generator

SPEED_OF_SOUND_M_S = 343.0
AIR_LOSS_DB_PER_M = (
    0.9  # at 8 kHz, growing with the square of frequency: misty air, some ten times the loss of ISO 9613-1
)
REVERB_TIME_S = 0.9
REVERB_SHARE_AT_16_M = 0.4  # amplitude of the reverberation relative to the direct sound; grows with sqrt(distance)
AMBIENCE_RMS = 10 ** (-76 / 20)
_PRE_DELAY_S = 0.012


@dataclass(frozen=True)
class HeardSound:
    """What the microphone picks up, float64 [A] each: direct sound, reverberation, and the quiet noise of the place."""

    direct_A: Floats
    reverb_A: Floats
    ambience_A: Floats

    def mixed(self) -> Floats:
        return self.direct_A + self.reverb_A + self.ambience_A


def arrival_times(scene: Scene, emitted_s: Floats) -> Floats:
    """When sound that leaves the object at `emitted_s` is heard (s)."""
    return emitted_s + scene.distance_m(emitted_s) / SPEED_OF_SOUND_M_S


def hear(config: SceneConfig, scene: Scene) -> HeardSound:
    """The sound of a scene at the microphone for the clip's duration."""
    rng = generator(config, scene.index, 3)
    emitted_s = source_times(config)
    source = synthesize(config, scene, rng)
    distance = scene.distance_m(emitted_s)
    dulled = _air(source, distance, config.sample_rate_hz)
    heard_s = emitted_s[0] + np.arange(len(emitted_s)) / config.sample_rate_hz
    # The time at which that left the object which arrives now; movement turns into Doppler shift by itself.
    left_s = np.interp(heard_s, arrival_times(scene, emitted_s), emitted_s)
    direct = _read(dulled, (left_s - emitted_s[0]) * config.sample_rate_hz) / scene.distance_m(left_s)
    share = REVERB_SHARE_AT_16_M * np.sqrt(scene.distance_m(left_s) / 16.0)
    reverb = _reverberate(direct * share, config.sample_rate_hz, rng)
    first = len(heard_s) - config.num_samples
    ambience = AMBIENCE_RMS * rng.standard_normal(config.num_samples)
    return HeardSound(direct[first:], reverb[first:], ambience)


def _read(wave_A: Floats, place_A: Floats) -> Floats:
    """Values of a waveform between its samples, by cubic interpolation (Catmull-Rom)."""
    whole = np.clip(np.floor(place_A).astype(int), 1, len(wave_A) - 3)
    way = np.clip(place_A - whole, 0, 1)
    before, here, there, after = (wave_A[whole + step] for step in (-1, 0, 1, 2))
    bend = 3 * (here - there) + after - before
    return np.asarray(
        here + 0.5 * way * (there - before + way * (2 * before - 5 * here + 4 * there - after + way * bend))
    )


def _air(wave_A: Floats, distance_A: Floats, sample_rate_hz: int) -> Floats:
    """Treble loss over a changing distance: a blend of the waveform as heard from a few fixed distances.

    The loss in dB grows with frequency squared, so each filter is a Gaussian in frequency and in time: it smears by less
    than a millisecond and has no delay.
    """
    steps_m = np.geomspace(max(distance_A.min() * 0.999, 0.1), distance_A.max() * 1.001, 4)
    size = next_fast_len(len(wave_A) + 512, real=True)
    spectrum = rfft(wave_A, size)
    loss_db = AIR_LOSS_DB_PER_M * (rfftfreq(size, 1 / sample_rate_hz) / 8_000) ** 2
    heard = np.stack([irfft(spectrum * 10 ** (-loss_db * step / 20), size)[: len(wave_A)] for step in steps_m])
    if steps_m[-1] / steps_m[0] < 1.01:
        return np.asarray(heard[0])
    place = (len(steps_m) - 1) * np.log(distance_A / steps_m[0]) / log(steps_m[-1] / steps_m[0])
    lower = np.clip(place.astype(int), 0, len(steps_m) - 2)
    way = place - lower
    columns = np.arange(len(wave_A))
    return np.asarray((1 - way) * heard[lower, columns] + way * heard[lower + 1, columns])


def _reverberate(wave_A: Floats, sample_rate_hz: int, rng: np.random.Generator) -> Floats:
    """Diffuse reverberation of energy 1: noise that decays by 60 dB in `REVERB_TIME_S` and starts a little late."""
    time = np.arange(round(REVERB_TIME_S * sample_rate_hz)) / sample_rate_hz
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / REVERB_TIME_S) * (time >= _PRE_DELAY_S)
    response = np.convolve(response, [0.25, 0.5, 0.25])  # walls swallow treble
    response /= sqrt(float((response**2).sum()))
    size = next_fast_len(len(wave_A) + len(response), real=True)
    return np.asarray(irfft(rfft(wave_A, size) * rfft(response, size), size)[: len(wave_A)])
