"""The validation loss is a fixed number for fixed weights, independent of batches and workers."""

from pathlib import Path

import pytest
import torch

from dmma_core.data.feature_store import FeatureStore
from dmma_core.recipe import FlowConfig, Recipe, ValidationConfig
from dmma_core.training.arm import new_state
from dmma_core.training.validation import validation_loss
from dmma_core.training.workers import Workers
from helpers.features import write_feature_set
from helpers.training import ALONE, small_plan


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_feature_set(tmp_path_factory.mktemp("data") / "features", num_clips=4, num_val=5)


def test_does_not_depend_on_batches_or_workers(store: FeatureStore, tmp_path: Path) -> None:
    model = new_state(small_plan(tmp_path, store, "both"), store, ALONE).model
    recipe = Recipe(validation=ValidationConfig(num_times=3, batch_size=2))
    loss = validation_loss(model, store, recipe, ALONE)
    other = Recipe(validation=ValidationConfig(num_times=3, batch_size=5))
    assert validation_loss(model, store, other, ALONE) == pytest.approx(loss, rel=1e-6)
    # Nothing is predicted yet: the loss is the target's power, that of noise plus that of normalised latents.
    assert loss == pytest.approx(2.0, abs=0.4)


def test_another_seed_is_another_grid(store: FeatureStore, tmp_path: Path) -> None:
    model = new_state(small_plan(tmp_path, store), store, ALONE).model
    one, another = (Recipe(seed=seed, validation=ValidationConfig(num_times=2)) for seed in (0, 1))
    assert validation_loss(model, store, one, ALONE) != validation_loss(model, store, another, ALONE)


def test_other_times_are_another_loss(store: FeatureStore, tmp_path: Path) -> None:
    """The grid follows the distribution of times and the path that the recipe names."""
    model = new_state(small_plan(tmp_path, store), store, ALONE).model
    with torch.no_grad():  # at first nothing is predicted, whatever the time
        for parameter in model.parameters():
            parameter.add_(0.05)
    flows = (FlowConfig(), FlowConfig(time_mean=-1.0), FlowConfig(time_scale=2.0), FlowConfig(min_sigma=0.3))
    assert len({validation_loss(model, store, Recipe(flow=flow), ALONE) for flow in flows}) == len(flows)


def test_number_of_clips_is_limited(store: FeatureStore, tmp_path: Path) -> None:
    model = new_state(small_plan(tmp_path, store), store, ALONE).model
    one, two = (validation_loss(model, store, Recipe(validation=ValidationConfig(max_clips=n)), ALONE) for n in (1, 2))
    assert one != two
    assert Workers(ALONE.device).any(True)
