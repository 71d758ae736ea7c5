"""Kullback-Leibler divergence between a tagger's class distributions for the true and the generated sound of a clip.

Source: Iashin and Rahtu 2021 (arXiv:2110.08791, section 4); direction and averaging as in MMAudio's evaluation.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax


def kl_divergences(
    generated_logits_BG: NDArray[np.floating], reference_logits_BG: NDArray[np.floating]
) -> NDArray[np.float64]:
    """KL(reference || generated) of the softmax distributions, one value per clip [B] in nats; lower is better.

    Rows of both arrays belong to the same clips; ValueError for unequal shapes. The value of a set is the mean.
    """
    if generated_logits_BG.shape != reference_logits_BG.shape:
        raise ValueError(f"Logits of shapes {generated_logits_BG.shape} and {reference_logits_BG.shape} are not pairs.")
    log_reference_BG = log_softmax(np.asarray(reference_logits_BG, np.float64), axis=1)
    log_generated_BG = log_softmax(np.asarray(generated_logits_BG, np.float64), axis=1)
    divergences_B: NDArray[np.float64] = (np.exp(log_reference_BG) * (log_reference_BG - log_generated_BG)).sum(axis=1)
    return divergences_B
