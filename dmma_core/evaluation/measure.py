"""Per-clip metrics: a sound against the true sound and, for rendered clips, against the known scene."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dmma_core.evaluation.evaluator_config import EvaluatorConfig
from dmma_core.evaluation.metrics.distance import (
    heard_distances_m,
    level_distance_correlation,
    level_slope_sign_is_right,
)
from dmma_core.evaluation.metrics.envelope import envelope_l1, levels_dbfs
from dmma_core.evaluation.metrics.log_mel import log_mel_distance_db
from dmma_core.evaluation.metrics.onset_detection import SAMPLE_RATE_HZ as ONSET_RATE_HZ
from dmma_core.evaluation.metrics.onset_detection import detect_onsets
from dmma_core.evaluation.metrics.onset_scores import score_onsets
from dmma_core.storage import media

Float = NDArray[np.float32]

RATE_HZ = 16_000
_ONSETS = ("onset_accuracy", "onset_ap", "onset_f1")


@dataclass(frozen=True)
class Sound:
    """A mono sound at the two sample rates of the metrics: RATE_HZ, and that of onset detection."""

    audio_A: Float
    onset_audio_A: Float


@dataclass(frozen=True)
class KnownScene:
    """Ground truth of a rendered clip: distance in metres [T] at `fps`, and the times of its audible onsets in s."""

    distance_m_T: Float
    fps: float
    onset_s: Sequence[float]


@dataclass
class ClipMetrics:
    """Values by metric, and the reason for every metric without a value."""

    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def record(self, name: str, value: float | bool | None, reason: str) -> None:
        if value is None:
            self.missing[name] = reason
        else:
            self.values[name] = float(value)


def load_sound(uri: str, start_s: float, duration_s: float) -> Sound:
    """Read `duration_s` seconds of audio from any media file. Raises MediaError if it is unusable or shorter."""
    rates_hz = (RATE_HZ, ONSET_RATE_HZ)
    return Sound(*(media.decode_audio(uri, rate_hz, start_s, duration_s) for rate_hz in rates_hz))


def measure_clip(sound: Sound, true_sound: Sound, scene: KnownScene | None, config: EvaluatorConfig) -> ClipMetrics:
    """All per-clip metrics that need no network. `true_sound` measured against itself is the upper bound."""
    measured = ClipMetrics()
    measured.values["envelope_l1"] = envelope_l1(sound.audio_A, true_sound.audio_A)
    measured.values["log_mel_distance_db"] = log_mel_distance_db(sound.audio_A, true_sound.audio_A)
    _measure_onsets(measured, sound, true_sound, scene, config)
    _measure_distance(measured, sound, scene, config)
    return measured


def clip_levels_dbfs(audio_A: Float, num_frames: int, fps: float, window_s: float) -> NDArray[np.float64]:
    """Level in dBFS at every frame of a clip, [T], in windows of `window_s`."""
    return levels_dbfs(audio_A, RATE_HZ, np.arange(num_frames) / fps, window_s)


def _measure_onsets(
    measured: ClipMetrics, sound: Sound, true_sound: Sound, scene: KnownScene | None, config: EvaluatorConfig
) -> None:
    if scene is not None:
        known_s, suffix, unused = list(scene.onset_s), "", "_vs_detected"
        reason, unused_reason = "no onset in the clip", "the onsets are known"
    else:
        detected = detect_onsets(true_sound.onset_audio_A, config.onset_threshold)
        known_s, suffix, unused = (detected / ONSET_RATE_HZ).tolist(), "_vs_detected", ""
        reason, unused_reason = "no onset detected in the true sound", "the onsets of a real clip are unknown"
    for name in _ONSETS:
        measured.missing[name + unused] = unused_reason
    if not known_s:
        for name in _ONSETS:
            measured.missing[name + suffix] = reason
        return
    scores = score_onsets(sound.onset_audio_A, known_s, config.onset_threshold, config.onset_tolerance_s)
    for name, value in zip(_ONSETS, (scores.accuracy, scores.average_precision, scores.f1), strict=True):
        measured.values[name + suffix] = value


def _measure_distance(measured: ClipMetrics, sound: Sound, scene: KnownScene | None, config: EvaluatorConfig) -> None:
    if scene is None:
        for name in ("distance_spearman", "distance_slope_sign"):
            measured.missing[name] = "the distance in a real clip is unknown"
        return
    _, heard_m_T = heard_distances_m(scene.distance_m_T, scene.fps)
    level_T = clip_levels_dbfs(sound.audio_A, len(heard_m_T), scene.fps, config.level_window_s)
    measured.record(
        "distance_spearman", level_distance_correlation(level_T, heard_m_T), "the distance hardly changes in the clip"
    )
    measured.record(
        "distance_slope_sign",
        level_slope_sign_is_right(level_T, heard_m_T),
        "the object neither approaches nor recedes",
    )
    measured.values["mean_level_dbfs"] = float(level_T.mean())
    measured.values["mean_inverse_distance_per_m"] = float((1 / heard_m_T).mean())
