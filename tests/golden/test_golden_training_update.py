"""The full training step on a batch: dropout, loss, clipping and three AdamW updates equal the published ones."""

import math

import pytest
import torch
from torch import Tensor, nn

from dmma_core.data.batching import ClipBatch
from dmma_core.models.mmaudio_interop import official_shapes, state_to_official
from dmma_core.recipe import DropoutConfig, FlowConfig, OptimConfig, Recipe, ScheduleConfig
from dmma_core.training.optim import build_optimizer, clip_gradients
from dmma_core.training.step import StepNoise, TrainingStep, drop_conditions
from helpers.golden import GoldenFile, fill_tensor, golden_file, golden_names
from helpers.golden_mmdit import TOLERANCE, golden_config, golden_features, golden_network


def batch_of(file: GoldenFile) -> ClipBatch:
    features = golden_features(file)
    return ClipBatch(
        clip_ids=tuple(f"clip-{index}" for index in range(file.meta["batch"])),
        sample_B=torch.arange(file.meta["batch"]),
        has_video_B=features.present_video_B,
        has_text_B=features.present_text_B,
        latent_mean_BLC=file["in.a_mean"],
        latent_std_BLC=file["in.a_std"],
        rgb_BTD=features.rgb_BTD,
        depth_BTD=features.depth_BTD,
        depth_scalars_BTK=features.depth_scalars_BTK,
        sync_BSD=features.sync_BSD,
        text_BND=features.text_BND,
    )


def noise_of_file(file: GoldenFile) -> StepNoise:
    """The published noise; depth is dropped with the video only, so its own uniform value never drops it."""
    return StepNoise(
        posterior_noise_BLC=file["draw.a_randn"],
        prior_BLC=file["draw.x0"],
        time_normal_B=file["draw.t_randn"],
        video_uniform_B=file["draw.u_video"],
        depth_uniform_B=torch.ones_like(file["draw.u_video"]),
        text_uniform_B=file["draw.u_text"],
    )


def optim_of(file: GoldenFile) -> OptimConfig:
    published = file.meta["adamw"]
    return OptimConfig(
        published["lr"], *published["betas"], eps=published["eps"], weight_decay=published["weight_decay"]
    )


NAMES = golden_names("mm_*_train", "deep_*_train", default="mm_tiny_v1_train")
TOLERANCE_OF_UPDATES = 2e-5


@pytest.mark.parametrize("name", NAMES)
def test_published_gradients_give_the_published_updates(name: str) -> None:
    """Our clipping and optimiser alone, three steps, at the strict tolerance for both versions.

    A parameter without a recorded gradient has one of the recorded norm, so that the total norm is the published one.
    """
    file = golden_file(name)
    recorded = {key.removeprefix("grad.") for key in file.names() if key.startswith("grad.")}
    assert recorded == {key.removeprefix("adamw3_delta.") for key in file.names() if key.startswith("adamw3_delta.")}
    assert recorded
    shapes, before = official_shapes(golden_config(file)), dict[str, Tensor]()
    network = nn.ParameterList()
    norms = zip(file.array("param_names").tolist(), file["grad_norms"].tolist(), strict=True)
    for key, norm in norms:
        if math.isfinite(norm):  # the others are not trained
            before[key] = fill_tensor(key, shapes[key], file.meta["salt"])
            parameter = nn.Parameter(before[key].clone())
            parameter.grad = file[f"grad.{key}"] if key in recorded else torch.zeros_like(parameter)
            if key not in recorded:
                parameter.grad.view(-1)[0] = norm
            network.append(parameter)
    optim = optim_of(file)
    optimizer = build_optimizer(network, optim)
    total = float(clip_gradients(network, optim.max_grad_norm))
    assert total == pytest.approx(float(file["total_grad_norm"]), rel=TOLERANCE_OF_UPDATES)
    for _ in range(file.meta["adamw"]["steps"]):
        optimizer.step()
    for key, after in zip(before, network, strict=True):
        if key in recorded:
            expected = file[f"adamw3_delta.{key}"]
            difference = (after.detach() - before[key] - expected).abs()
            # The change is a difference of two float32 weights, accurate to the last bit of the weight.
            last_bit = torch.finfo(torch.float32).eps * before[key].abs()
            assert (difference <= TOLERANCE_OF_UPDATES * expected.abs().max() + last_bit).all(), key


@pytest.mark.parametrize("name", NAMES)
def test_three_updates_of_the_full_network(name: str) -> None:
    """All parts of the step together, from batch to updates.

    AdamW divides a gradient by its own magnitude, so rounding errors of gradients near zero become errors of full
    steps. Such an element may therefore differ by the relative error of its gradient; the norm of a parameter and
    elements with large gradients may not.
    """
    file = golden_file(name)
    model, published, probability = golden_network(file), file.meta["adamw"], file.meta["null_condition_probability"]
    tolerance = TOLERANCE[model.config.version]
    before = {key: value.detach().clone() for key, value in model.state_dict().items()}
    optim = optim_of(file)
    dropout = DropoutConfig(probability, probability, probability)
    flow = FlowConfig(*(file.meta[name] for name in ("t_mean", "t_scale", "min_sigma")))
    recipe = Recipe(optim=optim, schedule=ScheduleConfig("constant", warmup_steps=0), dropout=dropout, flow=flow)
    optimizer = build_optimizer(model, optim)
    step = TrainingStep(model, model, optimizer, recipe)

    kept = drop_conditions(batch_of(file), noise_of_file(file), dropout)
    assert torch.equal(kept.present_video_B, ~file["null_video"])
    assert torch.equal(kept.present_depth_B, ~file["null_video"])
    assert torch.equal(kept.present_text_B, ~file["null_text"])
    result = step(batch_of(file), noise_of_file(file), step=0)
    assert result.is_finite
    assert result.loss == pytest.approx(float(file["mean_loss"]), rel=tolerance)
    assert result.grad_norm == pytest.approx(float(file["total_grad_norm"]), rel=tolerance)
    gradients = {key: torch.zeros_like(value) for key, value in before.items()}
    gradients |= {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    gradients = state_to_official(gradients, model.config)
    for _ in range(published["steps"] - 1):
        optimizer.step()  # the published values re-use the clipped gradient

    weights = state_to_official(before, model.config)
    after = state_to_official(model.state_dict(), model.config)
    norms = dict(zip(file.array("param_names").tolist(), file["adamw3_delta_norms"].tolist(), strict=True))
    for key, norm in norms.items():
        assert float((after[key] - weights[key]).norm()) == pytest.approx(norm, rel=2e-5, abs=1e-12), key
    for key in file.names():
        if key.startswith("adamw3_delta."):
            name, expected = key.removeprefix("adamw3_delta."), file[key]
            # A change of 3e-4 is the difference of two float32 weights: each of three updates rounds them.
            rounding = 4 * 2**-23 * weights[name].abs().max()
            size = gradients[name].abs()
            relative = (tolerance * size.max() / size.clamp_min(1e-30)).clamp_max(1.0)
            allowed = 2e-5 * expected.abs().max() + rounding + relative * expected.abs()
            assert ((after[name] - weights[name] - expected).abs() <= allowed).all(), key
