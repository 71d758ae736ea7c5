import numpy as np
import pytest

from dmma_core.evaluation.metrics.onset_detection import HOP_SAMPLES, SAMPLE_RATE_HZ, detect_onsets
from helpers.onsets import CLICKS_S, clicks


def test_clicks_are_found_within_two_hops():
    found_s = detect_onsets(clicks(CLICKS_S), threshold=0.3) / SAMPLE_RATE_HZ
    assert found_s == pytest.approx(CLICKS_S, abs=2 * HOP_SAMPLES / SAMPLE_RATE_HZ)


@pytest.mark.parametrize("length", [0, 100, 22_050])
def test_silence_and_nothing_have_no_onsets(length):
    assert len(detect_onsets(np.zeros(length, np.float32), threshold=0.1)) == 0
