"""Fréchet distance between two sets of embeddings.

Source: Heusel et al. 2017 (arXiv:1706.08500, section 3): both sets are modelled as Gaussians; covariances are unbiased
(divided by B - 1), as in the evaluation of MMAudio (Cheng et al. 2024, section 5.1).
"""

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def frechet_distance(generated_BD: NDArray[np.floating], reference_BD: NDArray[np.floating]) -> float:
    """|mu_g - mu_r|^2 + tr(S_g + S_r - 2 (S_g S_r)^(1/2)), at least 0; lower is better.

    Both sets need at least two rows, else ValueError; their numbers of rows may differ. The trace of the root is the
    nuclear norm of S_g^(1/2) S_r^(1/2), which is exact even if a covariance is singular (fewer clips than dimensions).
    """
    mean_g_D, root_g_DD = _mean_and_root(generated_BD)
    mean_r_D, root_r_DD = _mean_and_root(reference_BD)
    trace_of_root = np.linalg.svd(root_g_DD @ root_r_DD, compute_uv=False).sum()
    distance = (
        np.square(mean_g_D - mean_r_D).sum()
        + np.square(root_g_DD).sum()  # the trace of S is the squared Frobenius norm of its symmetric root
        + np.square(root_r_DD).sum()
        - 2 * trace_of_root
    )
    return max(float(distance), 0.0)


def frechet_distances_of_resamples(
    generated_BD: NDArray[np.floating], reference_BD: NDArray[np.floating], counts_RB: NDArray[np.integer]
) -> Float:
    """Fréchet distances [R] of resampled clips: in resample r, clip b occurs counts_RB[r, b] times on both sides.

    The rows of both sets belong to the same clips. Equals `frechet_distance` of the repeated rows.
    """
    mean_g_RD, covariance_g_RDD = _weighted_moments(generated_BD, counts_RB)
    mean_r_RD, covariance_r_RDD = _weighted_moments(reference_BD, counts_RB)
    eigenvalues_RD, vectors_RDD = np.linalg.eigh(covariance_r_RDD)
    scaled_RDD = vectors_RDD * np.sqrt(eigenvalues_RD.clip(min=0))[:, None, :]
    product_RDD = scaled_RDD.transpose(0, 2, 1) @ covariance_g_RDD @ scaled_RDD
    roots_RD = np.sqrt(np.linalg.eigvalsh(product_RDD).clip(min=0))
    traces_R = np.trace(covariance_g_RDD, axis1=1, axis2=2) + np.trace(covariance_r_RDD, axis1=1, axis2=2)
    distances_R: Float = np.square(mean_g_RD - mean_r_RD).sum(axis=1) + traces_R - 2 * roots_RD.sum(axis=1)
    return distances_R.clip(min=0)


def _mean_and_root(embeddings_BD: NDArray[np.floating]) -> tuple[Float, Float]:
    """Mean [D] and symmetric root of the covariance [D, D]."""
    if embeddings_BD.ndim != 2 or len(embeddings_BD) < 2:
        raise ValueError(f"A Fréchet distance needs at least two embeddings, got shape {embeddings_BD.shape}.")
    x_BD = np.asarray(embeddings_BD, np.float64)
    mean_D = x_BD.mean(axis=0)
    _, singular, rows = np.linalg.svd((x_BD - mean_D) / np.sqrt(len(x_BD) - 1), full_matrices=False)
    root_DD: Float = (rows.T * singular) @ rows
    return mean_D, root_DD


def _weighted_moments(x_BD: NDArray[np.floating], counts_RB: NDArray[np.integer]) -> tuple[Float, Float]:
    """Means [R, D] and unbiased covariances [R, D, D] of x's rows repeated by `counts_RB`."""
    x_BD, num_clips = np.asarray(x_BD, np.float64), len(x_BD)
    centred_BD = x_BD - x_BD.mean(axis=0)  # avoids cancellation in the covariance
    weights_RB = counts_RB.astype(np.float64)
    mean_RD = weights_RB @ centred_BD / num_clips
    products_BDD = (centred_BD[:, :, None] * centred_BD[:, None, :]).reshape(num_clips, -1)
    second_RDD = (weights_RB @ products_BDD).reshape(len(weights_RB), x_BD.shape[1], x_BD.shape[1])
    outer_RDD = mean_RD[:, :, None] * mean_RD[:, None, :]
    covariance_RDD = (second_RDD - num_clips * outer_RDD) / (num_clips - 1)
    return mean_RD + x_BD.mean(axis=0), covariance_RDD
