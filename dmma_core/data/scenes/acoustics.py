"""Sound propagation from the object to the microphone at the camera.

Direct sound emitted at t arrives at t + r(t) / 343 m/s with 1 / r(t) of its pressure at one metre, and is attenuated by
atmospheric absorption. The relative level of reverberation increases with distance. Levels are absolute: nothing is
normalised, so a clip's loudness depends on distance.
"""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from dmma_core.data.scene_config import SceneConfig
from dmma_core.data.scenes.sounds import source_times, synthesize
from dmma_core.data.scenes.world import Floats, Scene, random_generator

SPEED_OF_SOUND_M_S = 343.0
# Atmospheric absorption at 8 kHz, proportional to frequency squared: about ten times that of ISO 9613-1.
AIR_LOSS_DB_PER_M = 0.9
REVERB_TIME_S = 0.9
REVERB_SHARE_AT_16_M = (
    0.4  # amplitude of the reverberation relative to the direct sound; proportional to sqrt(distance)
)
AMBIENCE_RMS = 10 ** (-76 / 20)
_PRE_DELAY_S = 0.012


@dataclass(frozen=True)
class MicrophoneSound:
    """Components of the recorded sound, float64 [A] each: direct sound, reverberation, and background noise."""

    direct_A: Floats
    reverb_A: Floats
    ambience_A: Floats

    def mixed(self) -> Floats:
        """Sum of all components."""
        return self.direct_A + self.reverb_A + self.ambience_A


def arrival_times(scene: Scene, emitted_s: Floats) -> Floats:
    """Times (s) at which sound emitted by the object at `emitted_s` reaches the microphone."""
    return emitted_s + scene.distance_m(emitted_s) / SPEED_OF_SOUND_M_S


def sound_at_microphone(config: SceneConfig, scene: Scene) -> MicrophoneSound:
    """The sound of a scene at the microphone for the clip's duration [A]."""
    rng = random_generator(config, scene.index, 3)
    emitted_s = source_times(config)
    source = synthesize(config, scene, rng)
    distance = scene.distance_m(emitted_s)
    absorbed = _air_absorption(source, distance, config.sample_rate_hz)
    arrival_s = emitted_s[0] + np.arange(len(emitted_s)) / config.sample_rate_hz
    # Emission time of the sound that arrives at each sample; this includes the Doppler shift.
    emission_s = np.interp(arrival_s, arrival_times(scene, emitted_s), emitted_s)
    direct = _interpolated(absorbed, (emission_s - emitted_s[0]) * config.sample_rate_hz) / scene.distance_m(emission_s)
    share = REVERB_SHARE_AT_16_M * np.sqrt(scene.distance_m(emission_s) / 16.0)
    reverb = _reverberate(direct * share, config.sample_rate_hz, rng)
    first = len(arrival_s) - config.num_samples
    ambience = AMBIENCE_RMS * rng.standard_normal(config.num_samples)
    return MicrophoneSound(direct[first:], reverb[first:], ambience)


def _interpolated(wave_A: Floats, position_A: Floats) -> Floats:
    """Values of a waveform between its samples, by cubic interpolation (Catmull-Rom)."""
    index_A = np.clip(np.floor(position_A).astype(int), 1, len(wave_A) - 3)
    fraction = np.clip(position_A - index_A, 0, 1)
    before, here, there, after = (wave_A[index_A + step] for step in (-1, 0, 1, 2))
    third = 3 * (here - there) + after - before
    return np.asarray(
        here
        + 0.5 * fraction * (there - before + fraction * (2 * before - 5 * here + 4 * there - after + fraction * third))
    )


def _air_absorption(wave_A: Floats, distance_A: Floats, sample_rate_hz: int) -> Floats:
    """Atmospheric absorption over a changing distance, interpolated between the waveforms of a few fixed distances.

    The loss in dB is proportional to frequency squared, so each filter is a Gaussian in frequency and in time: shorter
    than a millisecond and without delay.
    """
    steps_m = np.geomspace(max(distance_A.min() * 0.999, 0.1), distance_A.max() * 1.001, 4)
    size = next_fast_len(len(wave_A) + 512, real=True)
    spectrum = rfft(wave_A, size)
    loss_db = AIR_LOSS_DB_PER_M * (rfftfreq(size, 1 / sample_rate_hz) / 8_000) ** 2
    absorbed = np.stack([irfft(spectrum * 10 ** (-loss_db * step / 20), size)[: len(wave_A)] for step in steps_m])
    if steps_m[-1] / steps_m[0] < 1.01:
        return np.asarray(absorbed[0])
    position = (len(steps_m) - 1) * np.log(distance_A / steps_m[0]) / log(steps_m[-1] / steps_m[0])
    lower = np.clip(position.astype(int), 0, len(steps_m) - 2)
    fraction = position - lower
    columns = np.arange(len(wave_A))
    return np.asarray((1 - fraction) * absorbed[lower, columns] + fraction * absorbed[lower + 1, columns])


def _reverberate(wave_A: Floats, sample_rate_hz: int, rng: np.random.Generator) -> Floats:
    """Diffuse reverberation of energy 1: noise that decays by 60 dB in `REVERB_TIME_S`, after a pre-delay."""
    time = np.arange(round(REVERB_TIME_S * sample_rate_hz)) / sample_rate_hz
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / REVERB_TIME_S) * (time >= _PRE_DELAY_S)
    response = np.convolve(response, [0.25, 0.5, 0.25])  # walls absorb high frequencies
    response /= sqrt(float((response**2).sum()))
    size = next_fast_len(len(wave_A) + len(response), real=True)
    return np.asarray(irfft(rfft(wave_A, size) * rfft(response, size), size)[: len(wave_A)])
