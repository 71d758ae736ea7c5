"""Settings of the evaluator. Separate from it, so that reading a configuration loads no network code."""

from dataclasses import dataclass

from dmma_core.errors import ConfigError


@dataclass(frozen=True)
class EvaluatorConfig:
    """Settings of the metrics; reports are comparable only if they are equal.

    `onset_threshold` (0 to 1) and `onset_tolerance_s`: see metrics.onset_scores; the published evaluation uses one number
    (0.1 or 0.3) for both. `level_window_s`: window of the levels of the distance test; the
    default spans at least one event of most impulsive sources.
    """

    onset_threshold: float = 0.1
    onset_tolerance_s: float = 0.1
    level_window_s: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.onset_threshold <= 1:
            raise ConfigError(f"onset_threshold is {self.onset_threshold}.", remedy="Use a number from 0 to 1.")
        for name in ("onset_tolerance_s", "level_window_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}.", remedy="Use a number of seconds above 0.")
