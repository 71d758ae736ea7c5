"""The training recipe: every setting, apart from data, network and initial weights, that decides what training gives.

It travels whole: in the configuration of `dmma train`, in every checkpoint, and in what is generated and reported.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dmma_core.errors import ConfigError
from dmma_core.training.configs import (
    DropoutConfig,
    EmaConfig,
    FlowConfig,
    LoopConfig,
    OptimConfig,
    ScheduleConfig,
    ValidationConfig,
)

Changes = dict[str, tuple[Any, Any]]
"""Dotted name of a setting -> (value before, value now)."""

# These decide what is written and when, or how long training lasts, but not the weights of any step.
BOOKKEEPING = {
    "recipe.loop.num_steps",
    "recipe.loop.log_every",
    "recipe.loop.validate_every",
    "recipe.loop.checkpoint_every",
    "recipe.loop.keep_checkpoints",
    "recipe.ema.sigma_rel",
    "recipe.ema.snapshot_every",
    "recipe.validation.batch_size",
}
# A checkpoint holds the averages of these lengths and no others.
_UNCHANGEABLE = {"recipe.ema.tracked_sigma_rel"}


@dataclass(frozen=True)
class Recipe:
    """`seed` decides initial weights, sample order, noise, times and dropout. Both arms of a comparison share one recipe."""

    seed: int = 0
    loop: LoopConfig = field(default_factory=LoopConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    ema: EmaConfig = field(default_factory=EmaConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError(f"recipe.seed is {self.seed}.", remedy="Give 0 or more.")


def changes_between(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "recipe") -> Changes:
    """Settings that differ between two recipes given as nested dicts (`config_to_dict`); one that is absent is None."""
    changes: Changes = {}
    for key in sorted({*before, *now}):
        name, old, new = f"{prefix}.{key}", _as_json(before.get(key)), _as_json(now.get(key))
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            changes |= changes_between(old, new, name)
        elif old != new:
            changes[name] = (old, new)
    return changes


def _as_json(value: Any) -> Any:
    """JSON, from which one of the recipes was read, has no tuples."""
    return list(value) if isinstance(value, tuple) else value


def changes_text(changes: Changes) -> str:
    """`recipe.seed 0 (now 1), recipe.optim.learning_rate 0.0001 (now 5e-05)`."""
    return ", ".join(f"{name} {before} (now {now})" for name, (before, now) in changes.items())


def refused_changes(changes: Changes, allowed: Iterable[str]) -> Changes:
    """The changes that a run may not resume with: all but bookkeeping and those that are explicitly allowed."""
    accepted = (BOOKKEEPING | set(allowed)) - _UNCHANGEABLE
    return {name: pair for name, pair in changes.items() if name not in accepted}
