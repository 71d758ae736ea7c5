"""Resampling by a windowed sinc, as in the published feature extraction before the mel spectrogram.

A sinc with 64 zero crossings per side and a Kaiser window: the settings of torchaudio's "kaiser best" recipe.
"""

from functools import lru_cache
from math import ceil, gcd

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Samples = NDArray[np.float32]

_NUM_ZERO_CROSSINGS = 64
_ROLLOFF = 0.9475937167399596  # cutoff as a share of the lower Nyquist frequency
_KAISER_BETA = 14.769656459379492
# Output samples per set of filters, and periods per matmul. They bound memory for rates with a small common divisor
# (44,099 and 16,000 Hz repeat only after a second).
_SAMPLES_PER_BLOCK = 128
_PERIODS_PER_BLOCK = 512


def resample(audio_A: Samples, rate_hz: int, new_rate_hz: int) -> Samples:
    """Samples [A] at another rate, without delay, padded with silence; the new length is ceil(A * new_rate / rate)."""
    divisor = gcd(rate_hz, new_rate_hz)
    rate, new_rate = rate_hz // divisor, new_rate_hz // divisor
    if rate == new_rate or not len(audio_A):
        return audio_A
    length = -(-len(audio_A) * new_rate // rate)
    repeats = -(-_SAMPLES_PER_BLOCK // new_rate)  # several short periods are merged into one
    rate, new_rate = repeats * rate, repeats * new_rate
    num_periods = -(-length // new_rate)
    reach = _reach(rate, new_rate)
    padded_A = np.pad(audio_A, (reach, max(0, num_periods * rate - len(audio_A)) + reach + 1))
    resampled_RP = np.empty((num_periods, new_rate), dtype=np.float32)
    num_phases = min(new_rate, length)
    for first in range(0, num_phases, _SAMPLES_PER_BLOCK):
        last = min(first + _SAMPLES_PER_BLOCK, num_phases)
        filters_KP = _filters(rate, new_rate, first, last)
        windows_RK = sliding_window_view(padded_A[first * rate // new_rate :], len(filters_KP))[::rate]
        for row in range(0, num_periods, _PERIODS_PER_BLOCK):
            rows = slice(row, min(row + _PERIODS_PER_BLOCK, num_periods))
            resampled_RP[rows, first:last] = np.ascontiguousarray(windows_RK[rows]) @ filters_KP
    return resampled_RP.reshape(-1)[:length]


def _reach(rate: int, new_rate: int) -> int:
    """Half length of a filter in input samples."""
    return ceil(_NUM_ZERO_CROSSINGS * rate / (min(rate, new_rate) * _ROLLOFF))


@lru_cache(maxsize=16)
def _filters(rate: int, new_rate: int, first: int, last: int) -> Samples:
    """Filters [K, P] of the outputs `first` to `last` of a period; the first tap is `reach` before output `first`."""
    reach, start = _reach(rate, new_rate), first * rate // new_rate
    inputs_K = np.arange(start - reach, (last - 1) * rate // new_rate + reach + 1, dtype=np.int64)
    distance_KP = (inputs_K[:, None] * new_rate - np.arange(first, last) * rate) / (rate * new_rate)
    crossings_KP = distance_KP * (min(rate, new_rate) * _ROLLOFF)
    inside_KP = np.abs(crossings_KP) < _NUM_ZERO_CROSSINGS
    crossings = crossings_KP[inside_KP]
    window = np.i0(_KAISER_BETA * np.sqrt(1 - (crossings / _NUM_ZERO_CROSSINGS) ** 2)) / np.i0(_KAISER_BETA)
    filters_KP = np.zeros(crossings_KP.shape, dtype=np.float32)
    filters_KP[inside_KP] = np.sinc(crossings) * window * (min(rate, new_rate) * _ROLLOFF / rate)
    return filters_KP
