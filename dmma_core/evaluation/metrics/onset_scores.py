"""Agreement of the onsets of a generated sound with known onsets: accuracy, average precision, F1.

Source: Du et al. 2023 (CondFoleyGen, arXiv:2301.05220, section 4), in the form of MMAudio's onset evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmma_core.evaluation.metrics.onset_detection import SAMPLE_RATE_HZ, detect_onsets

Float = NDArray[np.float64]

_CONFIDENCE_RADIUS = int(0.05 * SAMPLE_RATE_HZ)
_SUPPRESSION_S = 0.05


@dataclass(frozen=True)
class OnsetScores:
    """Scores of one clip, each in [0, 1], higher is better.

    `accuracy` is the share of known onsets that are matched; `average_precision` and `f1` also count false onsets.
    `expected` and `confidence` are the pairs that they are computed from: 1 or 0 for a known or a false onset, and the
    confidence of the detected onset (0 if none was found).
    """

    accuracy: float
    average_precision: float
    f1: float
    expected: tuple[int, ...]
    confidence: tuple[float, ...]


def score_onsets(
    audio_A: NDArray[np.floating],
    known_onsets_s: Sequence[float],
    threshold: float,
    tolerance_s: float,
    stop_when_exhausted: bool = False,
) -> OnsetScores:
    """Match the onsets of a sound at SAMPLE_RATE_HZ with at least one known onset (ValueError without any).

    Each known onset, in order of time, is matched to the most confident free detection nearer than `tolerance_s`. The
    confidence of an onset is the largest value of the sound, scaled to [0, 1], within 0.05 s. The published script
    stops once every detection is matched, so that later missed onsets do not lower average precision and F1;
    `stop_when_exhausted=True` does the same, for comparison with published values.
    """
    if not len(known_onsets_s):
        raise ValueError("Onset scores need at least one known onset.")
    audio_A = np.asarray(audio_A)
    scaled_A = audio_A - audio_A.min(initial=0.0)
    if len(audio_A):
        scaled_A = (audio_A - audio_A.min()) / (audio_A.max() - audio_A.min() + 1e-6)
    detected = suppress_neighbours(detect_onsets(audio_A, threshold), scaled_A)
    free = [int(onset) for onset in detected]
    expected: list[int] = []
    confidence: list[float] = []
    num_hits = 0
    for known_s in known_onsets_s:
        known = known_s * SAMPLE_RATE_HZ
        near = [onset for onset in free if abs(onset - known) < tolerance_s * SAMPLE_RATE_HZ]
        expected.append(1)
        if not near:
            confidence.append(0.0)
            continue
        matched = max(near, key=lambda onset: float(scaled_A[min(onset, len(scaled_A) - 1)]))
        confidence.append(_confidence(matched, scaled_A))
        num_hits += 1
        free.remove(matched)
        if stop_when_exhausted and not free:
            break
    for onset in free:
        expected.append(0)
        confidence.append(_confidence(onset, scaled_A))
    return OnsetScores(
        accuracy=num_hits / len(known_onsets_s),
        average_precision=average_precision(expected, confidence),
        f1=f1_score(expected, [int(value > 0) for value in confidence]),
        expected=tuple(expected),
        confidence=tuple(confidence),
    )


def suppress_neighbours(onsets: NDArray[np.integer], scaled_A: NDArray[np.floating]) -> NDArray[np.int64]:
    """Keep the most confident of onsets nearer than 0.05 s (samples at SAMPLE_RATE_HZ).

    As in the published script, the onset after a suppressed one is skipped in the same pass and may remain; a stricter
    suppression would not reproduce the published scores.
    """
    confidences = [_confidence(int(onset), scaled_A) for onset in onsets]
    waiting = [int(onset) for onset in onsets]
    kept: list[int] = []
    for index in np.argsort(confidences)[::-1]:
        current = int(onsets[index])
        if current not in waiting:
            continue
        kept.append(current)
        waiting.remove(current)
        position = 0
        while position < len(waiting):
            if abs(waiting[position] - current) < _SUPPRESSION_S * SAMPLE_RATE_HZ:
                del waiting[position]
            position += 1
    return np.array(sorted(kept), np.int64)


def average_precision(expected: Sequence[int], confidence: Sequence[float]) -> float:
    """Sum of precision times increase of recall, by descending confidence; equal confidences form one step."""
    order = np.argsort(-np.asarray(confidence, np.float64), kind="stable")
    truth = np.asarray(expected, np.float64)[order]
    ranked = np.asarray(confidence, np.float64)[order]
    if truth.sum() == 0:
        return 0.0
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(truth)[ends]
    precision, recall = hits / (ends + 1), hits / truth.sum()
    return float((precision * np.diff(recall, prepend=0.0)).sum())


def f1_score(expected: Sequence[int], predicted: Sequence[int]) -> float:
    """Harmonic mean of precision and recall of label 1; 0 if neither side contains it."""
    hits = sum(e and p for e, p in zip(expected, predicted, strict=True))
    total = sum(expected) + sum(predicted)
    return 2 * hits / total if total else 0.0


def _confidence(onset: int, scaled_A: NDArray[np.floating]) -> float:
    window = scaled_A[max(onset - _CONFIDENCE_RADIUS, 0) : onset + _CONFIDENCE_RADIUS]
    return float(window.max(initial=0.0))
