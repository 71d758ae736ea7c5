"""Properties of the flow network that hold for any weights."""

from dataclasses import fields, replace

import pytest
import torch

from dmma_core.errors import ConfigError
from dmma_core.flow.guidance import guidance_weights, guided_velocity
from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.mmdit import Conditions, MMDiT
from helpers.conditions import random_features, shaken, short_config

DEPTHS = [("rgb_like", "concat"), ("rgb_like", "sum"), ("scalars", "gated"), ("both", "concat"), ("both", "gated")]


def latents(model: MMDiT, batch_size: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    shape = (batch_size, model.config.latent_length, model.config.latent_width)
    return torch.randn(shape, generator=generator), torch.rand(batch_size, generator=generator)


@pytest.mark.parametrize(("depth", "fusion"), [("off", "concat"), *DEPTHS])
def test_every_parameter_is_trained(depth: str, fusion: str) -> None:
    model = shaken(MMDiT(short_config(depth, fusion)))
    features = random_features(model.config)
    one_of_two_B = torch.tensor([True, False])
    features = replace(
        features, present_video_B=one_of_two_B, present_depth_B=~one_of_two_B, present_text_B=one_of_two_B
    )
    model(*latents(model), features).square().mean().backward()
    last = model.config.num_joint_blocks - 1
    unused = [f"joint_blocks.{last}.{stream}.q_norm.weight" for stream in ("rgb", "text")]  # their outputs are unused
    for name, parameter in model.named_parameters():
        if name == "empty_text":  # set from the text encoder, not trained
            continue
        assert parameter.grad is not None, name
        if name in unused:
            continue
        assert parameter.grad.abs().max() > 0, name


@torch.inference_mode()
def test_clips_of_a_batch_are_independent() -> None:
    model = shaken(MMDiT(short_config("both")))
    features, (latent, time) = random_features(model.config), latents(model)
    together = model(latent, time, features)
    second = ConditionFeatures(**{field.name: getattr(features, field.name)[1:] for field in fields(features)})
    torch.testing.assert_close(model(latent[1:], time[1:], second), together[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("depth", "fusion"), DEPTHS)
@torch.inference_mode()
def test_absent_conditions_do_not_change_the_result(depth: str, fusion: str) -> None:
    model = shaken(MMDiT(short_config(depth, fusion)))
    one, other = random_features(model.config, seed=1), random_features(model.config, seed=2)
    absent_B = torch.zeros(2, dtype=torch.bool)
    inputs = latents(model)
    groups = {
        "present_depth_B": ("depth_BTD", "depth_scalars_BTK"),
        "present_video_B": ("rgb_BTD", "sync_BSD"),
        "present_text_B": ("text_BND",),
    }
    for flag, names in groups.items():
        changed = replace(one, **{name: getattr(other, name) for name in names})
        assert not torch.allclose(model(*inputs, one), model(*inputs, changed)), flag
        hidden, hidden_changed = replace(one, **{flag: absent_B}), replace(changed, **{flag: absent_B})
        assert torch.equal(model(*inputs, hidden), model(*inputs, hidden_changed)), flag


@torch.inference_mode()
def test_empty_conditions_are_those_of_clips_without_conditions() -> None:
    model = shaken(MMDiT(short_config("both")))
    absent_B = torch.zeros(3, dtype=torch.bool)
    features = replace(
        random_features(model.config, 3), present_video_B=absent_B, present_depth_B=absent_B, present_text_B=absent_B
    )
    latent, time = latents(model, 3)
    expected = model(latent, time, features)
    torch.testing.assert_close(model.velocity(latent, time, model.empty_conditions(3)), expected, atol=1e-5, rtol=1e-4)
    text_BND = features.text_BND[:1]
    negative = model.empty_conditions(3, text_BND)
    given = replace(features, text_BND=text_BND.expand(3, -1, -1), present_text_B=~absent_B)
    torch.testing.assert_close(model.velocity(latent, time, negative), model(latent, time, given), atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_branches_in_one_batch_equal_branches_one_by_one() -> None:
    model = shaken(MMDiT(short_config("both")))
    features, (latent, time) = random_features(model.config), latents(model)
    weights = guidance_weights(4.5, 2.0)
    stacked = model.branch_conditions(features, list(weights))
    guided = guided_velocity(model.velocity, latent, time, stacked, weights)
    alone = {branch: model.velocity(latent, time, model.branch_conditions(features, [branch])) for branch in weights}
    empty, without, full = alone["empty"], alone["without_depth"], alone["full"]
    expected = empty + 4.5 * (without - empty) + 2.0 * (full - without)
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)
    scalar_time = guided_velocity(model.velocity, latent, torch.tensor(0.25), stacked, weights)
    vector_time = guided_velocity(model.velocity, latent, torch.full((2,), 0.25), stacked, weights)
    torch.testing.assert_close(scalar_time, vector_time)


def test_tables_cached_while_sampling_work_in_training() -> None:
    model = shaken(MMDiT(short_config()))
    model.set_lengths(latent_length=29, rgb_length=8, sync_length=16)
    features = random_features(model.config)
    with torch.inference_mode():
        sampled = model(*latents(model), features)
    trained = model(*latents(model), features)
    trained.sum().backward()
    torch.testing.assert_close(trained.detach(), sampled)


@torch.inference_mode()
def test_another_duration_needs_set_lengths() -> None:
    model = shaken(MMDiT(short_config()))
    longer = replace(model.config, latent_length=62, rgb_length=16, sync_length=40)
    with pytest.raises(ConfigError, match=r"rgb features are \(16, 64\), but the network is set to \(8, 64\)"):
        model.embed_conditions(random_features(longer))
    model.set_lengths(62, 16, 40)
    assert model(*latents(model), random_features(longer)).shape == (2, 62, 40)
    with pytest.raises(ConfigError, match="multiple of 8"):
        model.set_lengths(62, 16, 41)


def test_latent_statistics_normalise_without_changing_the_argument() -> None:
    model = MMDiT(short_config())
    assert model.latent_mean.isnan().all()
    mean, std = torch.randn(40), torch.rand(40) + 0.5
    model.set_latent_statistics(mean, std)
    latent = torch.randn(2, 31, 40)
    kept = latent.clone()
    torch.testing.assert_close(model.unnormalize(model.normalize(latent)), latent)
    torch.testing.assert_close(model.normalize(latent), (latent - mean) / std)
    assert torch.equal(latent, kept)


def test_stacked_conditions_keep_their_order() -> None:
    model = shaken(MMDiT(short_config()))
    with torch.inference_mode():
        parts = [model.embed_conditions(random_features(model.config, seed=seed)) for seed in (1, 2)]
    stacked = Conditions.stack(parts)
    assert torch.equal(stacked.rgb_BTE[:2], parts[0].rgb_BTE)
    assert torch.equal(stacked.global_BE[2:], parts[1].global_BE)


@pytest.mark.parametrize(
    "wrong",
    [{"depth": "yes"}, {"fusion": "mean"}, {"version": 3}, {"sync_length": 12}, {"depth": "scalars"}, {"num_heads": 3}],
)
def test_impossible_configurations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(short_config(), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["autocast", "cast"])
def test_half_precision_stays_near_float32(how: str) -> None:
    """Time frequencies and rotations stay float32, so bfloat16 adds rounding errors only."""
    model = shaken(MMDiT(short_config("both")))
    features, (latent, time) = random_features(model.config), latents(model)
    expected = model(latent, time, features).detach()
    if how == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            velocity = model(latent, time, features)
        velocity.float().square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)
    else:
        cast = {field.name: getattr(features, field.name) for field in fields(features)}
        cast = {name: value.bfloat16() if value.is_floating_point() else value for name, value in cast.items()}
        velocity = model.bfloat16()(latent.bfloat16(), time, ConditionFeatures(**cast))
    difference = (velocity.detach().float() - expected).square().mean().sqrt()
    assert difference < 0.05 * expected.square().mean().sqrt()
