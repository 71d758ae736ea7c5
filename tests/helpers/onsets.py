"""Sounds whose onsets are known."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dmma_core.evaluation.metrics.onset_detection import SAMPLE_RATE_HZ

CLICKS_S = (0.5, 1.1, 1.8)


def clicks(times_s: Sequence[float], duration_s: float = 2.5) -> NDArray[np.float32]:
    """Bursts of decaying noise at `times_s` over a faint hiss: float32 [A] at the rate of the onset detector."""
    generator = np.random.default_rng(0)
    audio_A = 1e-4 * generator.standard_normal(int(duration_s * SAMPLE_RATE_HZ))
    decay_A = np.exp(-np.arange(4000) / 800) * generator.standard_normal(4000)
    for time_s in times_s:
        start = int(time_s * SAMPLE_RATE_HZ)
        audio_A[start : start + 4000] += 0.3 * decay_A
    return audio_A.astype(np.float32)
