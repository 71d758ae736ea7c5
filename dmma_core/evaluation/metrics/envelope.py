"""Loudness over time: frame-wise RMS, levels in decibels, and the distance between two envelopes (E-L1)."""

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

SILENCE_DBFS = -120.0
_WINDOW, _HOP = 512, 128


def rms_envelope(audio_A: NDArray[np.floating]) -> Float:
    """RMS of windows of 512 samples every 128 samples, centred, edges padded with silence; [1 + A // 128]."""
    centres = np.arange(0, len(audio_A) + 1, _HOP)
    return _rms_around(audio_A, centres, _WINDOW)


def levels_dbfs(
    audio_A: NDArray[np.floating], sample_rate_hz: int, times_s: NDArray[np.floating], window_s: float
) -> Float:
    """RMS level in dBFS (0 = RMS 1.0, at least SILENCE_DBFS) in a window of `window_s` centred on each of `times_s`.

    At the ends of the sound the window is truncated, not padded, so that a steady sound has a constant level.
    """
    centres = np.round(np.asarray(times_s, np.float64) * sample_rate_hz).astype(np.int64)
    rms = _rms_around(audio_A, centres, max(round(window_s * sample_rate_hz), 1), truncate=True)
    levels: Float = 20 * np.log10(rms.clip(min=10 ** (SILENCE_DBFS / 20)))
    return levels


def envelope_l1(generated_A: NDArray[np.floating], reference_A: NDArray[np.floating]) -> float:
    """E-L1: mean absolute difference of the two RMS envelopes, full scale = 1; lower is better.

    Source: Video-Foley (arXiv:2408.11915, section IV-C), also reported by StereoSync; their frames of 512 samples every
    128 are for 16 kHz, which is expected here too. Sounds of unequal length are compared over the shorter one.
    """
    length = min(len(generated_A), len(reference_A))
    difference = rms_envelope(generated_A[:length]) - rms_envelope(reference_A[:length])
    return float(np.abs(difference).mean())


def _rms_around(
    audio_A: NDArray[np.floating], centres: NDArray[np.int64], window: int, truncate: bool = False
) -> Float:
    energy_before = np.concatenate([[0.0], np.cumsum(np.square(np.asarray(audio_A, np.float64)))])
    start = (centres - window // 2).clip(0, len(audio_A))
    end = (centres - window // 2 + window).clip(0, len(audio_A))
    num_samples = (end - start).clip(min=1) if truncate else window
    rms: Float = np.sqrt(((energy_before[end] - energy_before[start]) / num_samples).clip(min=0))
    return rms
