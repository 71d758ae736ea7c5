"""Noise is a function of (seed, sample number); condition dropout; a diverged step changes nothing."""

from dataclasses import replace

import pytest
import torch

from dmma_core.data.batching import ClipBatch, collate
from dmma_core.data.feature_store import FeatureStore
from dmma_core.recipe import DropoutConfig
from dmma_core.training.arm import new_state
from dmma_core.training.step import StepNoise, TrainingStep, drop_conditions, noise_of, training_noise
from helpers.features import write_feature_set
from helpers.training import ALONE, small_plan


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_feature_set(tmp_path_factory.mktemp("data") / "features", num_clips=6, num_val=2)


def batch_of(store: FeatureStore, samples: list[int]) -> ClipBatch:
    return collate([store], [(0, sample % 6) for sample in samples], samples)


def rows(noise: StepNoise, picks: list[int]) -> list[torch.Tensor]:
    return [value[picks] for value in vars(noise).values()]


def test_noise_does_not_depend_on_the_batch(store: FeatureStore) -> None:
    full = training_noise(batch_of(store, [40, 41, 42, 43]), seed=7)
    part = training_noise(batch_of(store, [43, 41]), seed=7)
    assert all(torch.equal(a, b) for a, b in zip(rows(full, [3, 1]), rows(part, [0, 1]), strict=True))


def test_noise_differs_between_samples_and_seeds(store: FeatureStore) -> None:
    noise = training_noise(batch_of(store, [0, 1]), seed=7)
    other = training_noise(batch_of(store, [0, 1]), seed=8)
    for value, another in zip(vars(noise).values(), vars(other).values(), strict=True):
        assert not torch.equal(value[0], value[1])
        assert not torch.equal(value, another)
    assert not torch.equal(noise.posterior_noise_BLC, noise.prior_BLC)


def test_noise_has_its_distributions() -> None:
    noise = noise_of([(1, sample) for sample in range(4000)], latent_length=5, latent_channels=4)
    for normal in (noise.posterior_noise_BLC, noise.prior_BLC, noise.time_normal_B):
        assert abs(float(normal.mean())) < 0.05
        assert abs(float(normal.std()) - 1) < 0.05
    groups = torch.stack([noise.video_uniform_B, noise.depth_uniform_B, noise.text_uniform_B]) < 0.1
    assert (groups.float().mean(dim=1) - 0.1).abs().max() < 0.02
    assert (torch.corrcoef(groups.float()) - torch.eye(3)).abs().max() < 0.06, "the groups are dropped together"


def noise_with_uniforms(batch: ClipBatch, video: list[float], depth: list[float], text: list[float]) -> StepNoise:
    made = training_noise(batch, seed=0)
    return replace(
        made,
        video_uniform_B=torch.tensor(video),
        depth_uniform_B=torch.tensor(depth),
        text_uniform_B=torch.tensor(text),
    )


@pytest.mark.parametrize(("together", "depth_kept"), [(True, [False, False, True]), (False, [True, False, True])])
def test_depth_is_dropped_alone_and_with_the_video(store: FeatureStore, together: bool, depth_kept: list[bool]) -> None:
    batch = batch_of(store, [0, 1, 2])
    noise = noise_with_uniforms(batch, video=[0.05, 0.5, 0.5], depth=[0.5, 0.05, 0.5], text=[0.5, 0.5, 0.05])
    kept = drop_conditions(batch, noise, DropoutConfig(depth_with_video=together))
    assert kept.present_video_B.tolist() == [False, True, True]
    assert kept.present_depth_B.tolist() == depth_kept
    assert kept.present_text_B.tolist() == [True, True, False]


def test_a_clip_without_video_never_has_video_or_depth(store: FeatureStore) -> None:
    batch = replace(batch_of(store, [0, 1]), has_video_B=torch.tensor([False, True]))
    kept = drop_conditions(batch, training_noise(batch, 0), DropoutConfig(video=0, depth=0, text=0))
    assert kept.present_video_B.tolist() == kept.present_depth_B.tolist() == [False, True]
    assert kept.present_text_B.all()


def test_a_step_that_is_not_finite_changes_nothing(store: FeatureStore, tmp_path) -> None:
    plan = small_plan(tmp_path, store, "both")
    state = new_state(plan, store, ALONE)
    step = TrainingStep(state.model, state.model, state.optimizer, plan.recipe)
    batch = batch_of(store, [0, 1])
    assert step(batch, training_noise(batch, 0), 0).is_finite
    before = {key: value.clone() for key, value in state.model.state_dict().items()}
    broken = replace(batch, latent_mean_BLC=torch.full_like(batch.latent_mean_BLC, torch.inf))
    assert not step(broken, training_noise(batch, 0), 1).is_finite
    assert all(torch.equal(value, before[key]) for key, value in state.model.state_dict().items())


def test_every_parameter_gets_a_gradient(store: FeatureStore, tmp_path) -> None:
    """With all conditions dropped in some clips and present in others, no parameter is left out: workers wait for each one's gradient."""
    plan = small_plan(tmp_path, store, "both")
    state = new_state(plan, store, ALONE)
    everything = dict.fromkeys(("video", "depth", "text"), 0.5)
    step = TrainingStep(
        state.model, state.model, state.optimizer, replace(plan.recipe, dropout=DropoutConfig(**everything))
    )
    batch = batch_of(store, list(range(6)))
    step(batch, training_noise(batch, 0), 0)
    assert not [key for key, value in state.model.named_parameters() if value.requires_grad and value.grad is None]
