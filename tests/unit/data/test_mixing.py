from collections import Counter

import pytest

from dmma_core.data.mixing import SampleOrder, Source
from dmma_core.errors import ConfigError

SOURCES = (Source(0, [2, 3, 5], repeats=3), Source(1, [7, 11]))


def test_an_epoch_has_every_row_as_often_as_requested() -> None:
    order = SampleOrder(SOURCES, seed=4)
    assert len(order) == 11
    expected = Counter({(0, row): 3 for row in (2, 3, 5)} | {(1, row): 1 for row in (7, 11)})
    for epoch in range(3):
        assert Counter(order[epoch * 11 + position] for position in range(11)) == expected


def test_samples_can_be_read_in_any_order() -> None:
    """Exact resuming needs this: the order is a pure function of the sample number."""
    in_sequence = [SampleOrder(SOURCES, seed=4)[sample] for sample in range(60)]
    order = SampleOrder(SOURCES, seed=4)
    jumping = {sample: order[sample] for sample in (59, 0, 33, 10, 11, 12, 58, 1)}
    assert all(in_sequence[sample] == value for sample, value in jumping.items())


def test_epochs_and_seeds_differ() -> None:
    rows = [Source(0, range(50))]
    order = SampleOrder(rows, seed=0)
    first, second = ([order[epoch * 50 + i] for i in range(50)] for epoch in (0, 1))
    other_seed = [SampleOrder(rows, seed=1)[i] for i in range(50)]
    assert first != second and first != other_seed and sorted(first) == sorted(second) == sorted(other_seed)


def test_the_shuffle_is_uniform() -> None:
    order = SampleOrder([Source(0, range(4))], seed=9)
    firsts = Counter(order[4 * epoch][1] for epoch in range(2000))
    assert all(abs(firsts[row] - 500) < 5 * (2000 * 0.25 * 0.75) ** 0.5 for row in range(4))


def test_no_training_clips_is_an_error() -> None:
    with pytest.raises(ConfigError, match="No clip is left"):
        SampleOrder([Source(0, [])], seed=0)
