import numpy as np
import pytest

from dmma_core.evaluation.bootstrap import ConfidenceInterval, mean_of, paired_interval, resample_counts


def test_every_resample_has_as_many_clips_as_the_set():
    counts_RB = np.concatenate(list(resample_counts(13, 2500, seed=0)))
    assert counts_RB.shape == (2500, 13)
    assert (counts_RB.sum(axis=1) == 13).all()
    assert counts_RB.mean(axis=0) == pytest.approx(1, abs=0.1)


def test_interval_of_a_mean_equals_the_normal_theory():
    generator = np.random.default_rng(0)
    first_B = generator.standard_normal(400)
    second_B = first_B + 0.1 + 0.5 * generator.standard_normal(400)
    interval = paired_interval(mean_of(first_B), mean_of(second_B), 400, 10_000, seed=1)
    difference_B = second_B - first_B
    half = 1.96 * difference_B.std(ddof=1) / np.sqrt(400)
    assert interval.difference == pytest.approx(difference_B.mean())
    assert (interval.low, interval.high) == pytest.approx(
        (difference_B.mean() - half, difference_B.mean() + half), abs=0.004
    )


def test_pairing_removes_effects_common_to_both_arms():
    hard_B = 10 * np.random.default_rng(0).standard_normal(30)
    interval = paired_interval(mean_of(hard_B), mean_of(hard_B + 0.25), 30, 1000, seed=0)
    assert (interval.low, interval.high) == pytest.approx((0.25, 0.25))
    assert not interval.contains_zero


def test_the_same_seed_gives_the_same_interval_and_equal_arms_contain_zero():
    values_B = np.random.default_rng(0).standard_normal(20)
    one, two = (paired_interval(mean_of(values_B), mean_of(values_B**2), 20, 500, seed=3) for _ in range(2))
    assert one == two
    assert paired_interval(mean_of(values_B), mean_of(values_B), 20, 500, seed=3).contains_zero


def test_coverage_is_close_to_the_level():
    generator = np.random.default_rng(5)
    held = 0
    for trial in range(200):
        difference_B = generator.standard_normal(40)
        held += paired_interval(mean_of(np.zeros(40)), mean_of(difference_B), 40, 400, seed=trial).contains_zero
    assert 0.88 <= held / 200 <= 0.99


def test_an_undefined_interval_shows_no_difference():
    assert ConfidenceInterval(np.nan, np.nan, np.nan, 0.95).contains_zero


def test_the_interval_of_one_clip_has_no_width():
    alone = paired_interval(mean_of(np.zeros(1)), mean_of(np.ones(1)), 1, 100, seed=0)
    assert (alone.difference, alone.low, alone.high) == (1.0, 1.0, 1.0)
