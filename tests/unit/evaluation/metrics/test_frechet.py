import numpy as np
import pytest

from dmma_core.evaluation.metrics.frechet import frechet_distance, frechet_distances_of_resamples


def test_shifted_and_scaled_set_has_the_closed_form_distance():
    x_BD = np.random.default_rng(0).standard_normal((50, 3))
    covariance_DD = np.cov(x_BD.T)
    shift_D = np.array([1.0, -2.0, 0.5])
    # y = 2x + shift: the root of S * 4S is 2S, so the trace part is tr(S + 4S - 4S).
    expected = np.sum((x_BD.mean(0) + shift_D) ** 2) + np.trace(covariance_DD)
    assert frechet_distance(2 * x_BD + shift_D, x_BD) == pytest.approx(expected)


def test_a_set_has_no_distance_from_itself_even_with_fewer_clips_than_dimensions():
    x_BD = np.random.default_rng(1).standard_normal((5, 40))
    assert frechet_distance(x_BD, x_BD) == pytest.approx(0, abs=1e-9)


def test_one_clip_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        frechet_distance(np.zeros((1, 4)), np.zeros((9, 4)))


def test_resamples_equal_the_distance_of_the_repeated_rows():
    generator = np.random.default_rng(2)
    x_BD, y_BD = generator.standard_normal((20, 6)), generator.standard_normal((20, 6)) + 0.5
    counts_RB = generator.multinomial(20, np.full(20, 1 / 20), size=7)
    distances_R = frechet_distances_of_resamples(x_BD, y_BD, counts_RB)
    for counts_B, distance in zip(counts_RB, distances_R, strict=True):
        rows = np.repeat(np.arange(20), counts_B)
        assert distance == pytest.approx(frechet_distance(x_BD[rows], y_BD[rows]), rel=1e-6)
