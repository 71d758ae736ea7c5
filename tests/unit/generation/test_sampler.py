from dataclasses import replace

import pytest
import torch

from dmma_core.errors import ConfigError
from dmma_core.generation.sampler import noise_for, sample_latents
from dmma_core.generation.sampling_config import SamplingConfig
from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.initialisation import initialise
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.presets import mmdit_config

LENGTHS = {"latent_length": 31, "rgb_length": 8, "sync_length": 8}


@pytest.fixture(scope="module")
def model() -> MMDiT:
    network = MMDiT(mmdit_config("tiny", depth="both", num_depth_scalars=3, **LENGTHS))
    initialise(network, seed=0)
    network.set_latent_statistics(torch.full((40,), 2.0), torch.full((40,), 3.0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # gates and the last layer start at zero: give them other values
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def features_of(num_clips: int) -> ConditionFeatures:
    generator = torch.Generator().manual_seed(5)
    present_B = torch.ones(num_clips, dtype=torch.bool)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(num_clips, *shape, generator=generator)

    return ConditionFeatures(
        random(8, 64), random(8, 64), random(8, 3), random(8, 64), random(77, 64), present_B, present_B, present_B
    )


def test_a_clips_noise_depends_on_its_id_and_the_seed_alone() -> None:
    together = noise_for(["a", "b"], seed=1, shape=(5, 4))
    alone = noise_for(["b"], seed=1, shape=(5, 4))
    assert torch.equal(together[1:], alone)
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(alone, noise_for(["b"], seed=2, shape=(5, 4)))


def test_a_clip_sounds_the_same_in_any_batch(model: MMDiT) -> None:
    how = SamplingConfig(num_steps=4, guidance=3.0)
    features = features_of(2)
    first = ConditionFeatures(*(getattr(features, name)[:1] for name in features.__dataclass_fields__))
    noise_BLC = noise_for(["a", "b"], 0, (31, 40))
    with torch.inference_mode():
        both = sample_latents(model, features, noise_BLC, how)
        one = sample_latents(model, first, noise_BLC[:1], how)
    assert both.shape == (2, 31, 40)
    torch.testing.assert_close(both[:1], one, rtol=1e-4, atol=1e-4)


def test_guidance_on_depth_alone_changes_only_what_depth_adds(model: MMDiT) -> None:
    noise_BLC = noise_for(["a"], 0, (31, 40))
    features = features_of(1)
    without = replace(features, present_depth_B=torch.tensor([False]))
    strong, plain = (
        SamplingConfig(num_steps=2, guidance=2.0, guidance_depth=6.0),
        SamplingConfig(num_steps=2, guidance=2.0),
    )
    with torch.inference_mode():
        torch.testing.assert_close(
            sample_latents(model, without, noise_BLC, strong),
            sample_latents(model, without, noise_BLC, plain),
            rtol=1e-4,
            atol=1e-3,
        )
        changed = sample_latents(model, features, noise_BLC, strong) - sample_latents(model, features, noise_BLC, plain)
    assert changed.abs().max() > 1e-3


def test_latents_come_back_in_the_codecs_scale(model: MMDiT) -> None:
    silent = MMDiT(model.config)
    initialise(silent, seed=0)  # zero velocity: the noise stays what it is
    silent.set_latent_statistics(torch.full((40,), 2.0), torch.full((40,), 3.0))
    noise_BLC = noise_for(["a"], 0, (31, 40))
    with torch.inference_mode():
        latent_BLC = sample_latents(silent, features_of(1), noise_BLC, SamplingConfig(num_steps=2))
    torch.testing.assert_close(latent_BLC, noise_BLC * 3 + 2)


@pytest.mark.parametrize("how", [{"solver": "newton"}, {"guidance": -1.0}, {"num_steps": 0}])
def test_impossible_settings_are_refused_before_anything_is_loaded(how: dict) -> None:
    with pytest.raises(ConfigError):
        SamplingConfig(**how)


def test_deepmmaudio_is_not_guided_on_depth_alone() -> None:
    network = MMDiT(mmdit_config("tiny", depth="rgb_like", fusion="deepmmaudio", **LENGTHS))
    how = SamplingConfig(guidance=2.0, guidance_depth=6.0)
    with pytest.raises(ConfigError, match="depth alone"):
        sample_latents(network, features_of(1), noise_for(["a"], 0, (31, 40)), how)
