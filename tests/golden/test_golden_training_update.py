"""The whole training step on a batch of clips: dropout, loss, clipping and three AdamW updates equal the published ones."""

import pytest
import torch

from dmma_core.data.batching import ClipBatch
from dmma_core.models.mmaudio_interop import state_to_official
from dmma_core.training.configs import DropoutConfig, OptimConfig, ScheduleConfig
from dmma_core.training.optim import build_optimizer
from dmma_core.training.step import StepDraws, TrainingStep, drop_conditions
from helpers.golden import GoldenFile, golden_file, golden_names
from helpers.golden_mmdit import TOLERANCE, golden_features, golden_network


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


def draws_of(file: GoldenFile) -> StepDraws:
    """The published draws; depth follows the video, so its own draw never drops it."""
    return StepDraws(
        posterior_noise_BLC=file["draw.a_randn"],
        prior_BLC=file["draw.x0"],
        time_normal_B=file["draw.t_randn"],
        video_uniform_B=file["draw.u_video"],
        depth_uniform_B=torch.ones_like(file["draw.u_video"]),
        text_uniform_B=file["draw.u_text"],
    )


@pytest.mark.parametrize("name", golden_names("mm_*_train", "deep_*_train") or ["mm_tiny_v1_train"])
def test_three_updates(name: str) -> None:
    file = golden_file(name)
    model, published, probability = golden_network(file), file.meta["adamw"], file.meta["null_condition_probability"]
    tolerance = TOLERANCE[model.config.version]
    before = {key: value.detach().clone() for key, value in model.state_dict().items()}
    optim = OptimConfig(
        published["lr"], *published["betas"], eps=published["eps"], weight_decay=published["weight_decay"]
    )
    dropout = DropoutConfig(probability, probability, probability)
    optimizer = build_optimizer(model, optim)
    step = TrainingStep(model, model, optimizer, optim, ScheduleConfig("constant", warmup_steps=0), dropout)

    kept = drop_conditions(batch_of(file), draws_of(file), dropout)
    assert torch.equal(kept.present_video_B, ~file["null_video"])
    assert torch.equal(kept.present_depth_B, ~file["null_video"])
    assert torch.equal(kept.present_text_B, ~file["null_text"])
    result = step(batch_of(file), draws_of(file), step=0)
    assert result.is_finite
    assert result.loss == pytest.approx(float(file["mean_loss"]), rel=tolerance)
    assert result.grad_norm == pytest.approx(float(file["total_grad_norm"]), rel=tolerance)
    gradients = {key: torch.zeros_like(value) for key, value in before.items()}
    gradients |= {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    gradients = state_to_official(gradients, model.config)
    for _ in range(published["steps"] - 1):
        optimizer.step()  # the published figures re-use the clipped gradient

    weights = state_to_official(before, model.config)
    after = state_to_official(model.state_dict(), model.config)
    norms = dict(zip(file.array("param_names").tolist(), file["adamw3_delta_norms"].tolist(), strict=True))
    for key, norm in norms.items():
        assert float((after[key] - weights[key]).norm()) == pytest.approx(norm, rel=2e-5, abs=1e-12), key
    for key in file.names():
        if key.startswith("adamw3_delta."):
            name, expected = key.removeprefix("adamw3_delta."), file[key]
            # A change of 3e-4 is the difference of two float32 weights: each of three updates rounds them. AdamW divides
            # a gradient by its own size, so an element's change takes over its gradient's relative error.
            rounding = 4 * 2**-23 * weights[name].abs().max()
            size = gradients[name].abs()
            relative = (tolerance * size.max() / size.clamp_min(1e-30)).clamp_max(1.0)
            allowed = 2e-5 * expected.abs().max() + rounding + relative * expected.abs()
            assert ((after[name] - weights[name] - expected).abs() <= allowed).all(), key
