"""The training loop: steps, points of the metrics log, validation, checkpoints, and a requested stop.

Independent of Ray and MLflow: batches come from an iterator, all output goes through `LoopEvents`.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch

from dmma_core.data.batching import ClipBatch
from dmma_core.errors import TrainingError
from dmma_core.recipe import Recipe
from dmma_core.storage.metrics_log import MetricsPoint
from dmma_core.training.checkpoint import TrainingState
from dmma_core.training.step import StepNoise, StepResult, TrainingStep
from dmma_core.training.workers import Workers

_log = logging.getLogger(__name__)


class LoopEvents(Protocol):
    """Callbacks of the loop. `log` and `save_*` are called by every worker; only one needs to write."""

    def log(self, point: MetricsPoint) -> None:
        """A point of the metrics log, counters included."""

    def save_checkpoint(self, state: TrainingState) -> None: ...

    def save_snapshot(self, state: TrainingState) -> None: ...

    def should_stop(self) -> bool:
        """Whether this worker was asked to stop; called after every step, so it must be fast."""


@dataclass
class _Interval:
    """Sums since the last logged point; validation and checkpoints do not count as training time."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    waited_s: float = 0.0
    samples: int = 0


def run_training(
    step: TrainingStep,
    state: TrainingState,
    batches: Iterator[tuple[ClipBatch, StepNoise]],
    validate: Callable[[], float],
    recipe: Recipe,
    events: LoopEvents,
    workers: Workers,
) -> bool:
    """Train from `state` up to the recipe's `num_steps`; False if a stop was requested earlier.

    `batches`, with their noise, are on the workers' device and start at sample `state.samples`. Raises TrainingError if a
    loss or the gradient is not finite; no checkpoint is changed then.
    """
    config = recipe.loop
    started_s = time.monotonic() - state.wall_s
    interval, saved_step, stopped = _Interval(), state.step if state.step else None, False

    def log(values: MetricsPoint) -> None:
        state.wall_s = time.monotonic() - started_s
        counters: MetricsPoint = {"step": state.step, "samples": state.samples, "wall_s": round(state.wall_s, 3)}
        events.log({**counters, "unix_s": round(time.time(), 3), **values})

    def log_validation() -> None:
        loss = validate()
        if not math.isfinite(loss):
            raise _diverged(f"validation loss {loss}", state, saved_step, recipe.optim.learning_rate)
        state.record_validation(loss)
        assert state.lowest is not None
        log({"val/loss": loss, "val/above_lowest_percent": 100 * (loss / state.lowest[1] - 1)})

    if state.step == 0:
        log_validation()
    while state.step < config.num_steps and not stopped:
        step_started_s = time.monotonic()
        batch, noise = next(batches)
        interval.waited_s += time.monotonic() - step_started_s
        result = step(batch, noise, state.step)
        if not result.is_finite:
            found = f"loss {result.loss}, gradient norm {result.grad_norm}"
            raise _diverged(found, state, saved_step, result.learning_rate)
        state.step += 1
        state.samples += config.batch_size
        state.ema.update(dict(state.model.named_parameters()))
        interval.losses.append(result.loss)
        interval.samples += config.batch_size
        interval.seconds += time.monotonic() - step_started_s

        is_last = state.step == config.num_steps
        if state.step % config.log_every == 0 or is_last:
            log(_training_values(interval, result, workers))
            interval = _Interval()
        if state.step % recipe.ema.snapshot_every == 0:
            events.save_snapshot(state)
        if state.step % config.validate_every == 0 or is_last:
            log_validation()
        stopped = workers.any(events.should_stop()) and not is_last
        if state.step % config.checkpoint_every == 0 or is_last or stopped:
            state.wall_s = time.monotonic() - started_s
            events.save_checkpoint(state)
            saved_step = state.step
    return not stopped


def _training_values(interval: _Interval, last: StepResult, workers: Workers) -> MetricsPoint:
    """Means over the interval and the workers."""
    loss, waited_s, seconds = workers.total(
        sum(interval.losses) / len(interval.losses), interval.waited_s, interval.seconds
    )
    values: MetricsPoint = {
        "train/loss": loss / workers.size,
        "train/grad_norm": last.grad_norm,
        "train/learning_rate": last.learning_rate,
        "train/samples_per_s": interval.samples * workers.size / seconds,
        "train/data_wait_percent": 100 * waited_s / seconds,
    }
    if workers.device.type == "cuda":
        values["train/peak_memory_mib"] = torch.cuda.max_memory_allocated(workers.device) / 2**20
    return values


def _diverged(found: str, state: TrainingState, saved_step: int | None, rate: float) -> TrainingError:
    kept = f"The checkpoint of step {saved_step} is intact." if saved_step else "No checkpoint had been written yet."
    return TrainingError(
        f"Training diverged in step {state.step} (sample {state.samples}): {found}, learning rate {rate:.3g}. {kept}",
        remedy=f"Run again with a lower recipe.optim.learning_rate (for example {rate / 2:.2g}) or a longer "
        "recipe.schedule.warmup_steps; if it diverges at the same sample again, check that clip's features.",
    )
