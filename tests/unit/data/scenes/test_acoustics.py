"""The sound of rendered clips: level against distance, delay, onsets, absorption, reverberation, absolute level."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import hilbert
from scipy.stats import spearmanr

from dmma_core.data.scenes import OBJECT_CLASSES, SceneConfig, render_clip
from dmma_core.data.scenes.acoustics import SPEED_OF_SOUND_M_S, arrival_times, sound_at_microphone
from dmma_core.data.scenes.world import Path, plan_scene

CONFIG = SceneConfig(seed=11)
RATE = CONFIG.sample_rate_hz


def scene_of(object_class: str, motion: str = "stay"):
    return next(
        scene
        for scene in (plan_scene(CONFIG, index) for index in range(40))
        if (scene.object_class, scene.motion) == (object_class, motion)
    )


def at_distance(scene, away_m: float):
    return replace(scene, motion="stay", path=Path("stay", (0.0, away_m, 0.0, 0.0), -1.5))


def level_db(wave) -> float:
    return 10 * np.log10(np.mean(wave**2))


@pytest.mark.parametrize("object_class", OBJECT_CLASSES)
def test_direct_sound_loses_six_decibels_each_time_the_distance_doubles(object_class):
    scene = scene_of(object_class)
    near, far = at_distance(scene, 5.0), at_distance(scene, 10.0)
    ratio_db = 20 * np.log10(far.distance_m(np.zeros(1))[0] / near.distance_m(np.zeros(1))[0])
    # Only low frequencies, which are hardly absorbed.
    levels = []
    for placed in (near, far):
        spectrum = np.fft.rfft(sound_at_microphone(CONFIG, placed).direct_A)
        spectrum[np.fft.rfftfreq(CONFIG.num_samples, 1 / RATE) > 1500] = 0
        levels.append(level_db(np.fft.irfft(spectrum)))
    assert levels[0] - levels[1] == pytest.approx(ratio_db, abs=0.6)


def test_level_decreases_with_distance_over_clips():
    scene = scene_of("clock")
    distances = np.geomspace(3, 20, 9)
    levels = [level_db(sound_at_microphone(CONFIG, at_distance(scene, away)).mixed()) for away in distances]
    assert spearmanr(levels, 1 / distances).statistic > 0.99


def test_approaching_objects_get_louder():
    for object_class in ("hammer", "footsteps", "horse"):
        scene = scene_of(object_class, "approach")
        wave = sound_at_microphone(CONFIG, scene).direct_A
        first, last = wave[:RATE], wave[-RATE:]
        times = np.linspace(0, CONFIG.duration_s, 9)
        expected_db = 20 * np.log10(scene.distance_m(times)[:3].mean() / scene.distance_m(times)[-3:].mean())
        assert level_db(last) - level_db(first) == pytest.approx(expected_db, abs=5)
        assert level_db(last) > level_db(first)


@pytest.mark.parametrize("object_class", ["hammer", "clock", "ball"])
def test_sound_arrives_after_distance_over_the_speed_of_sound(object_class):
    scene = scene_of(object_class)
    near, far = (at_distance(scene, away) for away in (3.0, 20.0))
    near_wave, far_wave = (np.abs(hilbert(sound_at_microphone(CONFIG, placed).direct_A)) for placed in (near, far))
    lag = np.argmax(np.correlate(far_wave, near_wave, mode="full")[CONFIG.num_samples - 1 :][: RATE // 10])
    seconds = (far.distance_m(np.zeros(1))[0] - near.distance_m(np.zeros(1))[0]) / SPEED_OF_SOUND_M_S
    assert lag / RATE == pytest.approx(seconds, abs=0.002)


@pytest.mark.parametrize("object_class", OBJECT_CLASSES)
def test_onsets_are_at_the_times_of_the_ground_truth(object_class):
    scene = scene_of(object_class)
    clip = render_clip(CONFIG, scene.index)
    envelope = np.abs(hilbert(clip.audio_A))
    window = int(0.03 * RATE)
    rises = []
    for onset_s in clip.truth.onset_s:
        place = round(onset_s * RATE)
        if place < window or place + window > len(envelope):
            continue
        before, after = envelope[place - window : place - 20].max(), envelope[place : place + window].max()
        rises.append(after / max(before, 1e-9))
    assert len(rises) >= 1
    assert np.median(rises) > 1.6 and min(rises) > 1.1
    delay_s = clip.truth.distance_m[0] / SPEED_OF_SOUND_M_S
    np.testing.assert_allclose(arrival_times(scene, scene.event_s) - scene.event_s, delay_s, rtol=1e-5)


def test_high_frequencies_are_absorbed_over_distance():
    scene = scene_of("hammer")

    def treble_share(away_m: float) -> float:
        power = np.abs(np.fft.rfft(sound_at_microphone(CONFIG, at_distance(scene, away_m)).direct_A)) ** 2
        frequency_hz = np.fft.rfftfreq(CONFIG.num_samples, 1 / RATE)
        return 10 * np.log10(power[frequency_hz > 4000].sum() / power[frequency_hz < 2000].sum())

    assert treble_share(3.0) - treble_share(20.0) > 3


def test_reverberation_increases_with_distance():
    scene = scene_of("dog")
    ratios = []
    for away in (3.0, 8.0, 20.0):
        heard = sound_at_microphone(CONFIG, at_distance(scene, away))
        ratios.append(level_db(heard.reverb_A) - level_db(heard.direct_A))
    assert ratios[0] < ratios[1] < ratios[2] < 0
    assert ratios[2] - ratios[0] > 5


def test_levels_are_absolute_and_do_not_clip():
    peaks_db, nearest = [], []
    for index in range(0, 120, 3):
        scene = plan_scene(CONFIG, index)
        wave = sound_at_microphone(CONFIG, scene).mixed()
        peaks_db.append(20 * np.log10(np.abs(wave).max()))
        nearest.append(scene.distance_m(np.linspace(0, CONFIG.duration_s, 41)).min())
    assert max(peaks_db) < -3 and min(peaks_db) > -40
    assert spearmanr(peaks_db, -np.array(nearest)).statistic > 0.8
    close = sound_at_microphone(CONFIG, at_distance(scene_of("hammer"), CONFIG.near_m)).mixed()
    assert 20 * np.log10(np.abs(close).max()) == pytest.approx(-6, abs=2.5)


def test_classes_sound_different():
    """Mean log spectra of two halves of the clips: each class is nearest to itself."""

    def fingerprint(object_class: str, motion: str):
        wave = sound_at_microphone(CONFIG, at_distance(scene_of(object_class, motion), 5.0)).mixed()
        frames = wave[: len(wave) // 1024 * 1024].reshape(-1, 1024)
        power = (np.abs(np.fft.rfft(frames * np.hanning(1024))) ** 2).mean(axis=0)
        bands = np.add.reduceat(power, np.unique(np.geomspace(1, 500, 24).astype(int)))
        return np.log(bands + 1e-12)

    first = {name: fingerprint(name, "stay") for name in OBJECT_CLASSES}
    second = {name: fingerprint(name, "parallel") for name in OBJECT_CLASSES}
    right = sum(
        min(OBJECT_CLASSES, key=lambda other: float(np.abs(first[name] - second[other]).mean())) == name
        for name in OBJECT_CLASSES
    )
    assert right >= 6
