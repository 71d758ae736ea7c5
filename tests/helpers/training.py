"""Small real training runs: the tiny network on a synthetic feature set of one-second clips."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dmma_core.data.feature_store import FeatureStore
from dmma_core.models.presets import config_for_features
from dmma_core.recipe import (
    EmaConfig,
    LoopConfig,
    OptimConfig,
    Recipe,
    ScheduleConfig,
    ValidationConfig,
)
from dmma_core.training.arm import ArmPlan
from dmma_core.training.ema import EmaSnapshot, combine_snapshots, solve_synthesis
from dmma_core.training.normalisation import normalisation_of
from dmma_core.training.workers import Workers

ALONE = Workers(torch.device("cpu"))


def small_plan(folder: Path, store: FeatureStore, depth: str = "off", arm: str = "arm", **loop: int) -> ArmPlan:
    """A plan for `<folder>/<arm>`: one joint and one fused block of width 32, four clips a step, intervals of two."""
    model = replace(
        config_for_features("tiny", store.schema, depth),
        hidden_width=32,
        num_joint_blocks=2,
        num_fused_blocks=1,
        feed_forward_multiple=32,
    )
    intervals = {"num_steps": 4, "batch_size": 4, "log_every": 2, "validate_every": 2, "checkpoint_every": 2}
    return ArmPlan(
        arm=arm,
        run_uri=str(folder / arm),
        features_uri=store.uri,
        stop_uri=str(folder / "STOP"),
        model=model,
        init=None,
        normalisation=normalisation_of(store),
        recipe=Recipe(
            seed=3,
            loop=LoopConfig(**{**intervals, **loop}),
            optim=OptimConfig(learning_rate=1e-3),
            schedule=ScheduleConfig(warmup_steps=2, decay_steps=(3,)),
            ema=EmaConfig(snapshot_every=2),
            validation=ValidationConfig(num_times=2, batch_size=3),
        ),
    )


def with_recipe(plan: ArmPlan, **parts: Any) -> ArmPlan:
    """The plan with other settings of its recipe: `loop={"num_steps": 7}` changes entries, `seed=4` a value."""
    given = {
        name: replace(getattr(plan.recipe, name), **value) if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return replace(plan, recipe=replace(plan.recipe, **given))


def synthesised(snapshots: Sequence[EmaSnapshot], sigma_rel: float, step: int | None = None) -> dict[str, torch.Tensor]:
    """The EMA of length `sigma_rel` at `step` (default: the last snapshot's)."""
    steps = [snapshot.step for snapshot in snapshots]
    synthesis = solve_synthesis(steps, list(snapshots[0].averages), sigma_rel, step or max(steps))
    return combine_snapshots(snapshots, [synthesis])[0]
