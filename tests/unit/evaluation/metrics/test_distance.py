import numpy as np
import pytest

from dmma_core.evaluation.metrics import distance

FPS = 25.0
APPROACH_M_T = np.linspace(20, 4, 100)


def _level(distance_m_T, noise_db=0.0):
    noise_T = noise_db * np.random.default_rng(0).standard_normal(len(distance_m_T))
    return -20 * np.log10(distance_m_T) - 30 + noise_T


def test_level_of_a_free_field_has_correlation_one_and_its_reverse_minus_one():
    assert distance.level_distance_correlation(_level(APPROACH_M_T), APPROACH_M_T) == pytest.approx(1)
    assert distance.level_distance_correlation(_level(APPROACH_M_T[::-1]), APPROACH_M_T) == pytest.approx(-1)


def test_noise_lowers_the_correlation_but_not_the_sign():
    level_T = _level(APPROACH_M_T, noise_db=6)
    assert 0.3 < distance.level_distance_correlation(level_T, APPROACH_M_T) < 0.95
    assert distance.level_slope_sign_is_right(level_T, APPROACH_M_T) is True


def test_wrong_direction_is_detected_and_a_constant_level_is_not_right():
    assert distance.level_slope_sign_is_right(_level(APPROACH_M_T[::-1]), APPROACH_M_T) is False
    assert distance.level_slope_sign_is_right(np.full(100, -30.0), APPROACH_M_T) is False


def test_an_object_that_stays_or_comes_back_has_no_direction():
    assert distance.level_slope_sign_is_right(_level(APPROACH_M_T), np.full(100, 5.0)) is None
    assert distance.level_distance_correlation(_level(APPROACH_M_T), np.full(100, 5.0)) is None
    there_and_back_m_T = np.concatenate([APPROACH_M_T, APPROACH_M_T[::-1]])
    assert distance.level_slope_sign_is_right(_level(there_and_back_m_T), there_and_back_m_T) is None
    assert distance.level_distance_correlation(_level(there_and_back_m_T), there_and_back_m_T) == pytest.approx(1)


def test_heard_distance_includes_the_travel_time_of_sound():
    times_s, heard_m_T = distance.heard_distances_m(APPROACH_M_T, FPS)
    speed_m_s = (APPROACH_M_T[0] - APPROACH_M_T[-1]) / times_s[-1]
    # d(t) = d0 - v t is heard at t + d / c, so at time s the emission was at (s - d0 / c) / (1 - v / c).
    emitted_s = (times_s - APPROACH_M_T[0] / 343) / (1 - speed_m_s / 343)
    late = slice(3, None)
    np.testing.assert_allclose(heard_m_T[late], (APPROACH_M_T[0] - speed_m_s * emitted_s)[late], atol=1e-6)


def test_expected_change_of_halved_distance_is_about_six_decibels():
    geometric_m_T = np.geomspace(8, 4, 50)
    assert distance.expected_change_db(geometric_m_T) == pytest.approx(20 * np.log10(2))


def test_spearman_with_ties_and_of_a_constant():
    assert distance.spearman(np.array([1, 2, 2, 4]), np.array([1, 3, 3, 9])) == pytest.approx(1)
    assert distance.spearman(np.ones(4), np.arange(4)) == 0
