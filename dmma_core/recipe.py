"""The training recipe: every training setting, apart from data, network and initial weights.

The full recipe is stored in the configuration of `dmma train`, in every checkpoint, and in generated sets and reports.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dmma_core.errors import ConfigError

Changes = dict[str, tuple[Any, Any]]
"""Dotted name of a setting -> (value before, value now)."""

# They decide what is written and when, or how long training lasts, but not the weights of any step.
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
SCHEDULES = ("step", "constant")
MAX_SIGMA_REL = 0.28  # a flat profile has sigma_rel 0.289


@dataclass(frozen=True)
class LoopConfig:
    """Lengths and intervals, in optimiser steps. `batch_size` is the number of clips in one step over all workers.

    A checkpoint is also written at the end and at a requested stop. The validation loss is also measured before the
    first and after the last step. The newest `keep_checkpoints` are kept.
    """

    num_steps: int = 300_000
    batch_size: int = 512
    log_every: int = 50
    validate_every: int = 1_000
    checkpoint_every: int = 5_000
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"recipe.loop.{name} is {value}.", remedy="Give a number of 1 or more.")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW as in the published runs: betas 0.9/0.95, weight decay 1e-6 on everything (biases and norms included).

    With a second beta of 0.999 the published training diverged occasionally. `eps` is 1e-6 because steps run in bfloat16
    autocast on a GPU. `max_grad_norm` bounds the total gradient norm.
    """

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-6
    weight_decay: float = 1e-6
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "eps", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"recipe.optim.{name} is {getattr(self, name)}.", remedy="Give a number above 0.")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1) or self.weight_decay < 0:
            raise ConfigError(
                f"recipe.optim has betas {self.beta1}, {self.beta2} and weight_decay {self.weight_decay}.",
                remedy="Give betas in [0, 1) and a weight decay of 0 or more.",
            )


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
        if self.kind not in SCHEDULES:
            raise ConfigError(f"recipe.schedule.kind is {self.kind!r}.", remedy=f"Use one of: {', '.join(SCHEDULES)}.")
        if self.warmup_steps < 0 or list(self.decay_steps) != sorted(self.decay_steps):
            raise ConfigError(
                f"recipe.schedule has warmup_steps {self.warmup_steps} and decay_steps {list(self.decay_steps)}.",
                remedy="Give a warm-up of 0 or more and ascending decay steps.",
            )
        if not 0 < self.decay_factor <= 1:
            raise ConfigError(
                f"recipe.schedule.decay_factor is {self.decay_factor}.", remedy="Give a number in (0, 1]."
            )


@dataclass(frozen=True)
class DropoutConfig:
    """Probabilities with which conditions are replaced by their empty tokens, so that guidance can be used later.

    `video` drops rgb and sync together; `text` is independent. `depth` is dropped on its own, so that guidance on depth
    alone is trained. With `depth_with_video` it is dropped with the video too: "no video" then means no visual condition.
    """

    video: float = 0.1
    depth: float = 0.1
    text: float = 0.1
    depth_with_video: bool = True

    def __post_init__(self) -> None:
        for name in ("video", "depth", "text"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"recipe.dropout.{name} is {getattr(self, name)}.", remedy="Give a probability.")


@dataclass(frozen=True)
class FlowConfig:
    """How training samples times in (0, 1) and the path from noise to data (MMAudio, section 3.2).

    Times are logit-normal: the logit of a time is normal with mean `time_mean` and standard deviation `time_scale`. The path
    at time t is (1 - (1 - min_sigma) t) noise + t data, so `min_sigma` is the share of noise that remains at time 1.
    """

    time_mean: float = 0.0
    time_scale: float = 1.0
    min_sigma: float = 0.0

    def __post_init__(self) -> None:
        if self.time_scale <= 0:
            raise ConfigError(
                f"recipe.flow.time_scale is {self.time_scale}.", remedy="Give a number above 0; 1 is usual."
            )
        if not 0 <= self.min_sigma < 1:
            raise ConfigError(
                f"recipe.flow.min_sigma is {self.min_sigma}.", remedy="Give a number in [0, 1); 0 is usual."
            )


@dataclass(frozen=True)
class EmaConfig:
    """Averages of the lengths `tracked_sigma_rel` are tracked; checkpoints hold the one of length `sigma_rel`.

    A snapshot of the tracked averages is stored every `snapshot_every` steps. `dmma weights average` computes averages
    of other lengths from the snapshots.
    """

    tracked_sigma_rel: tuple[float, ...] = (0.05, 0.1)
    sigma_rel: float = 0.05
    snapshot_every: int = 5_000

    def __post_init__(self) -> None:
        if self.snapshot_every < 1:
            raise ConfigError(
                f"recipe.ema.snapshot_every is {self.snapshot_every}.", remedy="Give a number of 1 or more."
            )
        tracked = ", ".join(map(str, self.tracked_sigma_rel))
        if not tracked or len(set(self.tracked_sigma_rel)) < len(self.tracked_sigma_rel):
            raise ConfigError(
                f"recipe.ema.tracked_sigma_rel is [{tracked}].", remedy="Give one or more different numbers."
            )
        for value in self.tracked_sigma_rel:
            check_sigma_rel(value)
        if self.sigma_rel not in self.tracked_sigma_rel:
            raise ConfigError(
                f"recipe.ema.sigma_rel is {self.sigma_rel}, which is not tracked while training ({tracked} are).",
                remedy="Give one of these, or add it to recipe.ema.tracked_sigma_rel of a new run; "
                "`dmma weights average` computes averages of other lengths after training.",
            )


@dataclass(frozen=True)
class ValidationConfig:
    """The first `max_clips` clips (by clip_id) of the split "val", each at `num_times` times, with fixed noise.

    The times are the midpoints, in probability, of `num_times` equal parts of the training's distribution of times.
    """

    max_clips: int = 512
    num_times: int = 4
    batch_size: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"recipe.validation.{name} is {value}.", remedy="Give a number of 1 or more.")


def check_sigma_rel(value: float) -> None:
    """Raise ConfigError unless `value` is a possible length of an average."""
    if not 0 < value <= MAX_SIGMA_REL:
        raise ConfigError(
            f"A length sigma_rel of an average is {value}.", remedy=f"Give a number in (0, {MAX_SIGMA_REL}]."
        )


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
        name = f"{prefix}.{key}" if prefix else key
        old, new = _as_json(before.get(key)), _as_json(now.get(key))
        if isinstance(old, Mapping | None) and isinstance(new, Mapping | None) and old != new:
            changes |= changes_between(old or {}, new or {}, name)
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
    """The changes with which a run cannot resume: all but bookkeeping and explicitly allowed ones."""
    accepted = (BOOKKEEPING | set(allowed)) - _UNCHANGEABLE
    return {name: pair for name, pair in changes.items() if name not in accepted}
