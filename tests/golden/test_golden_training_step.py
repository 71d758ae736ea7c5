"""One training step's loss and gradients equal the published ones, mapped through the published names."""

from dataclasses import replace

import pytest
import torch

from dmma_core.flow.path import flow_loss, interpolate, logit_normal_times
from dmma_core.models.mmaudio_interop import state_to_official
from helpers.golden import assert_close, golden_file, golden_names
from helpers.golden_mmdit import TOLERANCE, golden_features, golden_network


@pytest.mark.parametrize("name", golden_names("mm_*_train", "deep_*_train", default="mm_tiny_v1_train"))
def test_loss_and_gradients(name: str) -> None:
    file = golden_file(name)
    model, meta = golden_network(file), file.meta
    tolerance = TOLERANCE[model.config.version]
    probability = meta["null_condition_probability"]
    absent_video_B, absent_text_B = (file[f"draw.u_{group}"] < probability for group in ("video", "text"))
    assert torch.equal(absent_video_B, file["null_video"])
    assert torch.equal(absent_text_B, file["null_text"])
    features = replace(
        golden_features(file),
        present_video_B=~absent_video_B,
        present_depth_B=~absent_video_B,
        present_text_B=~absent_text_B,
    )
    data = model.normalize(file["in.a_mean"] + file["in.a_std"] * file["draw.a_randn"])
    assert_close(data, file["x1_normalized"])
    noise = file["draw.x0"]
    time = logit_normal_times(file["draw.t_randn"], meta["t_mean"], meta["t_scale"])
    assert_close(time, file["t"])
    velocity = model(interpolate(noise, data, time, meta["min_sigma"]), time, features)
    loss = flow_loss(velocity, noise, data, meta["min_sigma"])
    assert_close(loss.detach(), file["loss"], tolerance)
    loss.mean().backward()

    gradients = {
        key: parameter.grad if parameter.grad is not None else torch.full_like(parameter, torch.nan)
        for key, parameter in model.named_parameters()
    }
    for buffer in ("latent_mean", "latent_std"):
        gradients[buffer] = torch.full_like(getattr(model, buffer), torch.nan)
    official = state_to_official(gradients, model.config)
    norms = {key: value.norm() for key, value in official.items()}
    expected = dict(zip(file.array("param_names").tolist(), file["grad_norms"], strict=True))
    assert set(expected) == set(norms)
    frozen = {key for key, value in expected.items() if value.isnan()}
    assert frozen == {key for key, value in norms.items() if value.isnan()}
    trained = sorted(set(norms) - frozen)
    total = torch.stack([norms[key] for key in trained]).norm()
    assert_close(total, file["total_grad_norm"], tolerance)
    assert_close(
        torch.stack([norms[key] for key in trained]), torch.stack([expected[key] for key in trained]), tolerance
    )
    for key in file.names():
        if key.startswith("grad."):
            assert_close(official[key.removeprefix("grad.")], file[key], tolerance)
