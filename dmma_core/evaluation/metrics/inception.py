"""Inception score of a set of sounds under a tagger: high for confident classes per sound and many classes in the set.

Source: Salimans et al. 2016 (arXiv:1606.03498, section 4). Needs no ground truth.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, xlogy

Float = NDArray[np.float64]


def inception_score(
    logits_BG: NDArray[np.floating], num_splits: int = 10, shuffle_seed: int | None = 2020
) -> tuple[float, float]:
    """Mean and population standard deviation over `num_splits` parts of exp(mean KL(p(class|sound) || p(class))).

    Between 1 and the number of classes; higher is better. Part i ends at row floor(i * B / num_splits), after a shuffle
    by NumPy's legacy generator with `shuffle_seed` (None: no shuffle); defaults as in MMAudio's evaluation. ValueError
    for fewer rows than splits.
    """
    if not 1 <= num_splits <= len(logits_BG):
        raise ValueError(f"{len(logits_BG)} sounds cannot be split into {num_splits} parts.")
    logits_BG = np.asarray(logits_BG)
    if shuffle_seed is not None:
        logits_BG = logits_BG[np.random.RandomState(shuffle_seed).permutation(len(logits_BG))]
    edges = [len(logits_BG) * i // num_splits for i in range(num_splits + 1)]
    scores = [_score_of_part(logits_BG[start:end]) for start, end in pairwise(edges)]
    return float(np.mean(scores)), float(np.std(scores))


def inception_scores_of_resamples(logits_BG: NDArray[np.floating], counts_RB: NDArray[np.integer]) -> Float:
    """Scores [R] of resampled sounds with `num_splits=1`: sound b occurs counts_RB[r, b] times in resample r."""
    log_p_BG = log_softmax(np.asarray(logits_BG, np.float64), axis=1)
    weights_RB = counts_RB / counts_RB.sum(axis=1, keepdims=True)
    negative_entropy_B = (np.exp(log_p_BG) * log_p_BG).sum(axis=1)
    marginal_RG = weights_RB @ np.exp(log_p_BG)
    scores_R: Float = np.exp(weights_RB @ negative_entropy_B - xlogy(marginal_RG, marginal_RG).sum(axis=1))
    return scores_R


def _score_of_part(logits_BG: NDArray[np.floating]) -> float:
    return float(inception_scores_of_resamples(logits_BG, np.ones((1, len(logits_BG)), np.int64))[0])
