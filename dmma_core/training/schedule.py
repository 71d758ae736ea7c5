"""The learning rate as a pure function of the step: linear warm-up, then constant or step decay."""

from dmma_core.recipe import ScheduleConfig


def learning_rate(config: ScheduleConfig, base_rate: float, step: int) -> float:
    """Learning rate of optimiser step `step` (0, 1, …)."""
    if step < config.warmup_steps:
        return base_rate * (step + 1) / (config.warmup_steps + 1)
    if config.kind == "constant":
        return base_rate
    num_decays = sum(step - config.warmup_steps >= decay_step for decay_step in config.decay_steps)
    return float(base_rate * config.decay_factor**num_decays)
