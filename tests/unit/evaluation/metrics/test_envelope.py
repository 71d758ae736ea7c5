import numpy as np
import pytest

from dmma_core.evaluation.metrics.envelope import SILENCE_DBFS, envelope_l1, levels_dbfs, rms_envelope

RATE_HZ = 16_000


def test_rms_of_a_steady_sound_is_its_value():
    envelope = rms_envelope(np.full(4096, 0.25))
    assert len(envelope) == 1 + 4096 // 128
    assert envelope[4:-4] == pytest.approx(0.25)
    assert envelope[0] == pytest.approx(0.25 * np.sqrt(0.5)), "half of the first window lies before the sound"


def test_envelope_l1_of_two_levels_is_their_difference():
    quiet, loud = np.full(160_000, 0.1), np.full(160_000, -0.3)
    assert envelope_l1(quiet, loud) == pytest.approx(0.2, rel=1e-2)
    assert envelope_l1(loud, loud[:-5000]) == pytest.approx(0, abs=1e-3)


def test_level_of_a_full_scale_sine_is_minus_three_dbfs_also_at_the_ends():
    times_s = np.arange(RATE_HZ) / RATE_HZ
    levels = levels_dbfs(np.sin(2 * np.pi * 1000 * times_s), RATE_HZ, np.array([0.0, 0.5, 0.999]), 0.2)
    assert levels == pytest.approx(-3.01, abs=0.05)


def test_silence_has_the_lowest_level():
    assert levels_dbfs(np.zeros(1000), RATE_HZ, np.array([0.01]), 0.02) == pytest.approx(SILENCE_DBFS)
