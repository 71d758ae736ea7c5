"""The train job's choice of the weights that arms start from. Needs no Ray: the arms are trained in this process."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import CheckpointError, ConfigError, IncompleteError
from dmma_core.job_configs import ArmConfig, TrainConfig
from dmma_core.recipe import LoopConfig, Recipe, ScheduleConfig, ValidationConfig
from dmma_core.storage.run_folder import RunFolder
from dmma_core.training.arm import train_arm
from dmma_core.training.normalisation import normalisation_of, stored_normalisation
from helpers.features import write_feature_set
from helpers.training import ALONE
from ray_jobs.train import NORMALISATION, arm_plans, plan


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return write_feature_set(tmp_path / "features", num_clips=9, num_val=3)


def config_of(store: FeatureStore, comparison_uri: Path, num_steps: int, **settings: object) -> TrainConfig:
    stored_normalisation(f"{comparison_uri}/{NORMALISATION}", store)  # the job's first file: the folder is its own
    every = {"log_every": 2, "validate_every": 2, "checkpoint_every": 2}
    return TrainConfig(
        features_uri=store.uri,
        comparison_uri=str(comparison_uri),
        preset="tiny",
        mlflow=False,
        recipe=Recipe(
            loop=LoopConfig(num_steps=num_steps, batch_size=4, keep_checkpoints=1, **every),
            schedule=ScheduleConfig(warmup_steps=1, decay_steps=()),
            validation=ValidationConfig(num_times=1),
        ),
        **settings,  # type: ignore[arg-type]
    )


def test_initial_weights_whose_run_was_trained_further_or_deleted(store: FeatureStore, tmp_path: Path) -> None:
    only_baseline = {"baseline": ArmConfig()}
    first = config_of(store, tmp_path / "first", 2, arms=only_baseline)
    assert train_arm(arm_plans(first, store, normalisation_of(store))[0], ALONE)
    fine = config_of(store, tmp_path / "fine", 2, init_uri=str(tmp_path / "first" / "baseline"))
    baseline, _ = arm_plans(fine, store, normalisation_of(store))
    assert train_arm(baseline, ALONE)
    depth = arm_plans(fine, store, normalisation_of(store))[1]
    assert depth.init == baseline.init is not None

    longer = replace(first, recipe=replace(first.recipe, loop=replace(first.recipe.loop, num_steps=4)))
    assert train_arm(arm_plans(longer, store, normalisation_of(store))[0], ALONE)
    with pytest.raises(CheckpointError, match="Another arm started from other weights"):
        arm_plans(fine, store, normalisation_of(store))
    with pytest.raises(IncompleteError, match="step 2, only of 4"):
        arm_plans(replace(fine, init_step=2), store, None)

    shutil.rmtree(tmp_path / "first")
    with pytest.raises(IncompleteError, match="no complete checkpoint"):
        arm_plans(fine, store, normalisation_of(store))  # the arm with depth has still to start
    resumed = replace(fine, only=["baseline"], recipe=replace(fine.recipe, loop=replace(fine.recipe.loop, num_steps=4)))
    assert "resuming at step 2" in "\n".join(plan(resumed))
    assert train_arm(arm_plans(resumed, store, normalisation_of(store))[0], ALONE)
    assert RunFolder(baseline.run_uri).checkpoint().step == 4


def test_arms_of_a_seed_are_not_given_other_initial_weights_afterwards(store: FeatureStore, tmp_path: Path) -> None:
    config = config_of(store, tmp_path / "runs", 2, arms={"baseline": ArmConfig()})
    assert train_arm(arm_plans(config, store, normalisation_of(store))[0], ALONE)
    with pytest.raises(CheckpointError, match="from other initial weights than the given ones"):
        plan(replace(config, init_uri=str(tmp_path / "runs" / "baseline")))


def test_a_step_needs_its_run() -> None:
    with pytest.raises(ConfigError, match="init_step is given without init_uri"):
        TrainConfig(init_step=3)
