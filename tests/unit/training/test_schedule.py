"""Learning rate: warm-up, decay counted from its end, and invalid settings."""

import pytest

from dmma_core.errors import ConfigError
from dmma_core.recipe import ScheduleConfig
from dmma_core.training.schedule import learning_rate


def test_warm_up_rises_to_the_base_rate() -> None:
    config = ScheduleConfig("constant", warmup_steps=4)
    rates = [learning_rate(config, 1.0, step) for step in range(6)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_decay_counts_from_the_end_of_the_warm_up() -> None:
    config = ScheduleConfig("step", warmup_steps=10, decay_steps=(5, 8), decay_factor=0.5)
    assert [learning_rate(config, 1.0, step) for step in (14, 15, 17, 18)] == [1.0, 0.5, 0.5, 0.25]


@pytest.mark.parametrize(
    "settings",
    [{"kind": "cosine"}, {"warmup_steps": -1}, {"decay_steps": (5, 3)}, {"decay_factor": 0.0}],
)
def test_invalid_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError, match=r"schedule"):
        ScheduleConfig(**settings)
