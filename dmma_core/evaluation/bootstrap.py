"""Paired bootstrap over clips: confidence intervals of the difference between two arms.

Source: Efron and Tibshirani 1993, chapters 13 (percentile interval) and 8.3 (paired resampling). Both arms use the same
resampled clips, so effects of a clip that are common to both arms cancel.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Counts = NDArray[np.int64]
Statistic = Callable[[Counts], Float]
"""Maps counts [R, B] (how often each clip occurs in each resample) to values [R]."""

_CHUNK_VALUES = 1 << 22


@dataclass(frozen=True)
class ConfidenceInterval:
    """A difference and its percentile interval at `level` (0.95 = from 2.5 % to 97.5 %)."""

    difference: float
    low: float
    high: float
    level: float

    @property
    def contains_zero(self) -> bool:
        """Whether the interval does not exclude zero; True for an undefined one (NaN)."""
        return not (self.low > 0.0 or self.high < 0.0)


def resample_counts(num_clips: int, num_resamples: int, seed: int) -> Iterator[Counts]:
    """Counts [R', B] in chunks, `num_resamples` rows in total. A seed gives the same resamples for every metric."""
    generator = np.random.default_rng(seed)
    chunk = max(1, min(_CHUNK_VALUES // num_clips, 1000))
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        sampled = generator.integers(0, num_clips, size=(size, num_clips))
        flat = (sampled + np.arange(size)[:, None] * num_clips).ravel()
        yield np.bincount(flat, minlength=size * num_clips).reshape(size, num_clips)


def paired_interval(
    first: Statistic, second: Statistic, num_clips: int, num_resamples: int, seed: int, level: float = 0.95
) -> ConfidenceInterval:
    """`second` minus `first` on all clips, with the percentile interval of the difference over resampled clips.

    Resamples on which a statistic is undefined (NaN) are ignored. One clip resamples to itself: its interval has no width
    and no meaning.
    """
    every_clip_once = np.ones((1, num_clips), np.int64)
    difference = float((second(every_clip_once) - first(every_clip_once))[0])
    chunks = [second(counts) - first(counts) for counts in resample_counts(num_clips, num_resamples, seed)]
    low, high = np.nanquantile(np.concatenate(chunks), [(1 - level) / 2, (1 + level) / 2])
    return ConfidenceInterval(difference, float(low), float(high), level)


def mean_of(values_B: NDArray[np.floating]) -> Statistic:
    """The mean of per-clip values as a statistic of resampled clips."""
    values_B = np.asarray(values_B, np.float64)

    def statistic(counts_RB: Counts) -> Float:
        means_R: Float = counts_RB @ values_B / counts_RB.sum(axis=1)
        return means_R

    return statistic
