"""Metrics of a set of clips, as statistics of resampled clips: one function for the value and its bootstrap."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmma_core.evaluation.bootstrap import Counts, Float, Statistic
from dmma_core.evaluation.metric_specs import NETWORK
from dmma_core.evaluation.metrics.distance import spearman_of_rows
from dmma_core.evaluation.metrics.frechet import frechet_distances_of_resamples
from dmma_core.evaluation.metrics.inception import inception_scores_of_resamples

_NO_DISTANCE = "fewer than three clips with known distance"


@dataclass(frozen=True)
class SetArrays:
    """Inputs of the set metrics, rows in the order of the clip ids.

    Embeddings [B, D] and logits [B, G] of the measured sounds, embeddings [B, D] of the true ones, mean level in dBFS
    and mean 1/distance [B] (NaN for a clip without known distance).
    """

    embedding_BD: NDArray[np.floating]
    logits_BG: NDArray[np.floating]
    true_embedding_BD: NDArray[np.floating]
    level_dbfs_B: NDArray[np.floating]
    inverse_distance_B: NDArray[np.floating]


def set_statistics(arrays: SetArrays) -> tuple[dict[str, Statistic], Mapping[str, str]]:
    """Statistics by metric name, and the reason for each that cannot be computed."""
    missing: dict[str, str] = {}
    statistics: dict[str, Statistic] = {
        f"IS_{NETWORK}": lambda counts_RB: inception_scores_of_resamples(arrays.logits_BG, counts_RB)
    }
    if len(arrays.embedding_BD) >= 2:
        statistics[f"FD_{NETWORK}"] = lambda counts_RB: frechet_distances_of_resamples(
            arrays.embedding_BD, arrays.true_embedding_BD, counts_RB
        )
    else:
        missing[f"FD_{NETWORK}"] = "a Fréchet distance needs at least two clips"
    known = np.isfinite(arrays.inverse_distance_B)
    if known.sum() >= 3:
        statistics["distance_spearman_across_clips"] = lambda counts_RB: _spearman_of_resamples(
            arrays.level_dbfs_B, arrays.inverse_distance_B, counts_RB
        )
    else:
        missing["distance_spearman_across_clips"] = _NO_DISTANCE
    return statistics, missing


def value_of(statistic: Statistic, num_clips: int) -> float:
    """The statistic of the set, with every clip once."""
    return float(statistic(np.ones((1, num_clips), np.int64))[0])


def _spearman_of_resamples(x_B: NDArray[np.floating], y_B: NDArray[np.floating], counts_RB: Counts) -> Float:
    """Rank correlation of the repeated clips of each resample; clips with NaN are ignored."""
    known = np.isfinite(y_B)
    x_B, y_B, counts_RB = np.asarray(x_B)[known], np.asarray(y_B)[known], counts_RB[:, known]
    values = np.full(len(counts_RB), np.nan)
    # Resamples are grouped by their number of known clips; usually all clips of a set are known or none.
    for total in np.unique(counts_RB.sum(axis=1)):
        rows = np.flatnonzero(counts_RB.sum(axis=1) == total)
        if total < 2:
            continue
        sampled_RB = np.stack([np.repeat(np.arange(len(x_B)), counts) for counts in counts_RB[rows]])
        values[rows] = spearman_of_rows(x_B[sampled_RB], y_B[sampled_RB])
    return values
