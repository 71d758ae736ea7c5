import numpy as np
import pytest

from dmma_core.evaluation.metrics.inception import inception_score, inception_scores_of_resamples


def test_inception_score_of_confident_and_equally_frequent_classes_is_their_number():
    assert inception_score(50 * np.eye(6), num_splits=1)[0] == pytest.approx(6)


def test_inception_score_of_one_class_is_one():
    logits_BG = np.tile([9.0, 0.0, 0.0], (12, 1))
    assert inception_score(logits_BG, num_splits=3) == pytest.approx((1.0, 0.0))


def test_more_parts_than_sounds_are_refused():
    with pytest.raises(ValueError, match="3 sounds"):
        inception_score(np.zeros((3, 4)), num_splits=10)


def test_resampled_scores_equal_those_of_the_repeated_rows():
    generator = np.random.default_rng(0)
    logits_BG = 3 * generator.standard_normal((10, 5))
    counts_RB = generator.multinomial(10, np.full(10, 0.1), size=4)
    for counts_B, score in zip(counts_RB, inception_scores_of_resamples(logits_BG, counts_RB), strict=True):
        assert score == pytest.approx(inception_score(np.repeat(logits_BG, counts_B, axis=0), 1, None)[0])
