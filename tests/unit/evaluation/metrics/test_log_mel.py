import numpy as np
import pytest

from dmma_core.evaluation.metrics.log_mel import log_mel_distance_db, log_mel_levels_db


def test_half_the_amplitude_is_six_decibels_away():
    noise_A = 0.2 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    assert log_mel_distance_db(noise_A / 2, noise_A) == pytest.approx(6.02, abs=0.05)
    assert log_mel_distance_db(noise_A, np.append(noise_A, noise_A)) == pytest.approx(0, abs=0.3)


def test_silence_lies_at_the_floor():
    assert log_mel_levels_db(np.zeros(4096, np.float32)).max() <= -80
