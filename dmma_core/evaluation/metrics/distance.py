"""The distance test: whether near objects are loud and far ones soft.

In a free field the level decreases by 20 dB for ten times the distance (ISO 9613-2, geometrical divergence), so the
level of an object's sound should follow 1 / distance. Both metrics use ranks or signs only, not the exact relation or
the absolute level. The value of the true sound is the upper bound, because sources are not steady.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Float = NDArray[np.float64]

SPEED_OF_SOUND_M_S = 343.0
MIN_EXPECTED_CHANGE_DB = 3.0  # below this the sign of the change of level is not meaningful


def heard_distances_m(distance_m_T: NDArray[np.floating], fps: float) -> tuple[Float, Float]:
    """Times [T] in s, and the distance [T] at emission of the sound that arrives at each of them.

    Sound of frame t arrives distance / 343 m/s later; before the first arrival it is the first distance.
    """
    distance_m_T = np.asarray(distance_m_T, np.float64)
    emitted_s = np.arange(len(distance_m_T)) / fps
    heard_T: Float = np.interp(emitted_s, emitted_s + distance_m_T / SPEED_OF_SOUND_M_S, distance_m_T)
    return emitted_s, heard_T


def expected_change_db(distance_m_T: NDArray[np.floating]) -> float:
    """Expected change of level in dB, positive for an approach: slope of -20 log10(distance) times the duration."""
    levels_T = -20 * np.log10(np.asarray(distance_m_T, np.float64))
    return slope(levels_T) * (len(levels_T) - 1)


def level_distance_correlation(level_db_T: NDArray[np.floating], distance_m_T: NDArray[np.floating]) -> float | None:
    """Spearman correlation in [-1, 1] of level and 1 / distance over the frames of a clip; higher is better.

    None if the distance changes by less than MIN_EXPECTED_CHANGE_DB from its smallest to its largest value.
    """
    distance_m_T = np.asarray(distance_m_T, np.float64)
    if 20 * np.log10(distance_m_T.max() / distance_m_T.min()) < MIN_EXPECTED_CHANGE_DB:
        return None
    return spearman(level_db_T, 1 / distance_m_T)


def level_slope_sign_is_right(level_db_T: NDArray[np.floating], distance_m_T: NDArray[np.floating]) -> bool | None:
    """Whether the level rises for an approaching object and falls for a receding one (least-squares slopes).

    None if the distance hardly changes over the clip (MIN_EXPECTED_CHANGE_DB).
    """
    expected_db = expected_change_db(distance_m_T)
    if abs(expected_db) < MIN_EXPECTED_CHANGE_DB:
        return None
    return bool(np.sign(slope(level_db_T)) == np.sign(expected_db))


def spearman(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """Rank correlation in [-1, 1], ties by mean rank; 0 if either side is constant."""
    return float(spearman_of_rows(np.asarray(x)[None], np.asarray(y)[None])[0])


def spearman_of_rows(x_RB: NDArray[np.floating], y_RB: NDArray[np.floating]) -> Float:
    """`spearman` of each row [R]."""
    x_RB, y_RB = rankdata(x_RB, axis=1), rankdata(y_RB, axis=1)
    x_RB, y_RB = x_RB - x_RB.mean(axis=1, keepdims=True), y_RB - y_RB.mean(axis=1, keepdims=True)
    norms_R = np.sqrt((x_RB**2).sum(axis=1) * (y_RB**2).sum(axis=1))
    products_R = (x_RB * y_RB).sum(axis=1)
    correlations_R: Float = np.divide(products_R, norms_R, out=np.zeros_like(products_R), where=norms_R > 0)
    return correlations_R


def slope(values_T: NDArray[np.floating]) -> float:
    """Least-squares slope per frame."""
    frames_T = np.arange(len(values_T)) - (len(values_T) - 1) / 2
    return float((frames_T * np.asarray(values_T, np.float64)).sum() / np.square(frames_T).sum())
