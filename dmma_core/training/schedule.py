"""The learning rate as a pure function of the step: linear warm-up, then constant or step decay."""

from dataclasses import dataclass

from dmma_core.errors import ConfigError

KINDS = ("step", "constant")


@dataclass(frozen=True)
class ScheduleConfig:
    """`kind` is "step" or "constant". All numbers are optimiser steps.

    `decay_steps` are counted from the END of the warm-up: with a warm-up of 1,000 the rate drops in step 241,000, as in
    the published training runs (MMAudio supplement, training details; the milestones there are 240k and 270k).
    """

    kind: str = "step"
    warmup_steps: int = 1_000
    decay_steps: tuple[int, ...] = (240_000, 270_000)
    decay_factor: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"schedule.kind is {self.kind!r}.", remedy=f"Use one of: {', '.join(KINDS)}.")
        if self.warmup_steps < 0 or list(self.decay_steps) != sorted(self.decay_steps):
            raise ConfigError(
                f"schedule has warmup_steps {self.warmup_steps} and decay_steps {list(self.decay_steps)}.",
                remedy="Give a warm-up of 0 or more and ascending decay steps.",
            )
        if not 0 < self.decay_factor <= 1:
            raise ConfigError(f"schedule.decay_factor is {self.decay_factor}.", remedy="Give a number in (0, 1].")


def learning_rate(config: ScheduleConfig, base_rate: float, step: int) -> float:
    """Rate in force during optimiser step `step` (0, 1, …)."""
    if step < config.warmup_steps:
        return base_rate * (step + 1) / (config.warmup_steps + 1)
    if config.kind == "constant":
        return base_rate
    num_decays = sum(step - config.warmup_steps >= decay_step for decay_step in config.decay_steps)
    return float(base_rate * config.decay_factor**num_decays)
