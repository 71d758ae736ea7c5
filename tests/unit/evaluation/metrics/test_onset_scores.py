import numpy as np
import pytest

from dmma_core.evaluation.metrics.onset_detection import SAMPLE_RATE_HZ
from dmma_core.evaluation.metrics.onset_scores import average_precision, f1_score, score_onsets
from helpers.onsets import CLICKS_S, clicks


def test_right_onsets_score_one_and_wrong_ones_zero():
    right = score_onsets(clicks(CLICKS_S), CLICKS_S, threshold=0.3, tolerance_s=0.1)
    assert (right.accuracy, right.average_precision, right.f1) == (1, 1, 1)
    wrong = score_onsets(clicks(CLICKS_S), [0.8, 2.2], threshold=0.3, tolerance_s=0.1)
    assert (wrong.accuracy, wrong.f1) == (0, 0)


def test_a_missed_onset_costs_recall_unless_counting_stops_as_published():
    known_s = (*CLICKS_S, 2.3)
    all_counted = score_onsets(clicks(CLICKS_S), known_s, 0.3, 0.1)
    assert all_counted.accuracy == 0.75
    assert all_counted.f1 == pytest.approx(6 / 7)
    published = score_onsets(clicks(CLICKS_S), known_s, 0.3, 0.1, stop_when_exhausted=True)
    assert (published.accuracy, published.f1) == (0.75, 1.0)


def test_a_silent_sound_hits_nothing():
    scores = score_onsets(np.zeros(SAMPLE_RATE_HZ, np.float32), CLICKS_S, 0.1, 0.1)
    assert (scores.accuracy, scores.f1) == (0, 0)
    assert scores.expected == (1, 1, 1)


def test_no_known_onset_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        score_onsets(clicks(CLICKS_S), [], 0.1, 0.1)


def test_average_precision_of_a_ranking_computed_by_hand():
    assert average_precision([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision([1, 0], [0.5, 0.5]) == pytest.approx(0.5), "a tie is one step"


def test_f1_by_hand():
    assert f1_score([1, 1, 0, 1], [1, 0, 1, 1]) == pytest.approx(2 / 3)
    assert f1_score([0], [0]) == 0
