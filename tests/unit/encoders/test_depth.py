"""Depth: normalisations against their definitions, scalars against a scene of known distances, network sizes."""

import math
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dmma_core.encoders.clip import TINY_WEIGHTS as CLIP_WEIGHTS
from dmma_core.encoders.clip import tiny_clip
from dmma_core.encoders.depth import (
    MIDAS_VARIANTS,
    NORMALIZATIONS,
    SCALAR_NAMES,
    TINY_WEIGHTS,
    DepthConfig,
    DepthEncoder,
    depth_images,
    depth_scalars,
    midas_depth,
    midas_size,
    normalized_depth,
    resize_like_midas,
    tiny_depth,
)
from dmma_core.encoders.dpt import TINY_DPT, Dpt
from dmma_core.encoders.loading import fill_with_random_weights
from dmma_core.errors import ConfigError, WeightsError

FPS = 8.0
UNITLESS = ("log_foreground_per_s", "relative_std")


@pytest.fixture(scope="module")
def encoder() -> DepthEncoder:
    return fill_with_random_weights(tiny_depth(), "depth")


def _config(normalization: str = "per_frame", **settings: float) -> DepthConfig:
    return DepthConfig("test", 96, 32, normalization=normalization, raw_scale=2.0, **settings)  # type: ignore[arg-type]


def _scene(distances_m: list[float], object_size: int = 12) -> Tensor:
    """Inverse depth of a wall 50 m away behind a ground plane, with a square object that moves across, [T, 48, 48]."""
    ground_H = (torch.arange(48) / 48 - 0.3).clamp_min(0) * 0.7
    background_HW = ground_H.clamp_min(1 / 50)[:, None].expand(48, 48)
    frames = []
    for index, distance_m in enumerate(distances_m):
        frame_HW = background_HW.clone()
        left = 2 + 3 * index
        patch = frame_HW[4 : 4 + object_size, left : left + object_size]
        patch.copy_(patch.clamp_min(1 / distance_m))
        frames.append(frame_HW)
    return torch.stack(frames)


def test_normalisations_follow_their_definitions() -> None:
    maps_THW = torch.tensor([[[0.0, 1.0], [1.0, 2.0]], [[1.0, 3.0], [2.0, 5.0]]])
    frame = normalized_depth(maps_THW, _config("per_frame"))
    torch.testing.assert_close(frame, torch.tensor([[[0, 0.5], [0.5, 1]], [[0, 0.5], [0.25, 1]]]))
    torch.testing.assert_close(normalized_depth(maps_THW, _config("per_clip")), maps_THW / 5)
    torch.testing.assert_close(normalized_depth(maps_THW, _config("raw_scaled")), (maps_THW / 2).clamp(max=1))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_flat_map_and_an_empty_clip_stay_finite(normalization: str) -> None:
    flat_THW = torch.zeros(2, 4, 4)
    assert normalized_depth(flat_THW, _config(normalization)).eq(0).all()
    assert normalized_depth(flat_THW[:0], _config(normalization)).shape == (0, 4, 4)
    assert depth_scalars(flat_THW, FPS).isfinite().all()
    assert depth_scalars(flat_THW[:1], FPS).shape == (1, len(SCALAR_NAMES))
    assert depth_scalars(flat_THW[:0], FPS).shape == (0, len(SCALAR_NAMES))


def test_only_per_clip_and_raw_scaled_show_approach() -> None:
    maps_THW = torch.tensor([1.0, 0.5])[:, None, None] * torch.linspace(0.1, 1, 16).reshape(1, 4, 4)
    brightness = {name: normalized_depth(maps_THW, _config(name)).mean((1, 2)) for name in NORMALIZATIONS}
    torch.testing.assert_close(brightness["per_frame"][0], brightness["per_frame"][1])
    assert brightness["per_clip"][0] > 1.5 * brightness["per_clip"][1]
    assert brightness["raw_scaled"][0] > 1.5 * brightness["raw_scaled"][1]


def test_depth_images_have_three_equal_channels_of_the_requested_size() -> None:
    depth_THW = torch.linspace(0, 1, 2 * 64 * 64).reshape(2, 64, 64)
    assert torch.equal(depth_images(depth_THW, 64)[:, 1], depth_THW)
    images_TCHW = depth_images(depth_THW, 32)
    assert images_TCHW.shape == (2, 3, 32, 32)
    assert torch.equal(images_TCHW[:, 0], images_TCHW[:, 2])
    torch.testing.assert_close(images_TCHW[:, 0].mean(), depth_THW.mean(), atol=1e-3, rtol=0)


def test_scalars_follow_the_distance_of_the_moving_object() -> None:
    distances_m = [20.0, 14.0, 10.0, 7.0, 5.0, 4.0, 3.0]
    scalars_TK = depth_scalars(_scene(distances_m), FPS)
    assert scalars_TK.shape == (len(distances_m), len(SCALAR_NAMES)) and scalars_TK.isfinite().all()
    foreground_T = scalars_TK[:, SCALAR_NAMES.index("log_foreground")]
    expected_T = -torch.tensor(distances_m).log()
    torch.testing.assert_close(foreground_T, expected_T, atol=0.35, rtol=0)
    assert all(later > earlier for earlier, later in pairwise(foreground_T.tolist()))
    change_T = scalars_TK[:, SCALAR_NAMES.index("log_foreground_per_s")]
    assert change_T.min() > 0
    torch.testing.assert_close(change_T[1], (foreground_T[2] - foreground_T[0]) * FPS / 2)
    retreat_TK = depth_scalars(_scene(distances_m[::-1]), FPS)
    assert retreat_TK[:, SCALAR_NAMES.index("log_foreground_per_s")].max() < 0


def test_another_unit_only_shifts_the_logarithms_and_keeps_the_relative_spread() -> None:
    maps_THW = _scene([8.0, 6.0, 4.0])
    shift_TK = depth_scalars(100 * maps_THW, FPS) - depth_scalars(maps_THW, FPS)
    expected_K = torch.tensor([0.0 if name in UNITLESS else math.log(100) for name in SCALAR_NAMES])
    torch.testing.assert_close(shift_TK, expected_K.expand_as(shift_TK), atol=1e-3, rtol=0)


def test_a_still_clip_has_the_mean_of_the_full_frame_and_no_change() -> None:
    maps_THW = _scene([9.0]).expand(4, -1, -1)
    scalars_TK = depth_scalars(maps_THW, FPS)
    foreground_T = scalars_TK[:, SCALAR_NAMES.index("log_foreground")]
    torch.testing.assert_close(foreground_T, maps_THW.log().mean((1, 2)))
    assert scalars_TK[:, SCALAR_NAMES.index("log_foreground_per_s")].abs().max() == 0


def test_maps_are_batched_not_negative_and_of_the_networks_size(encoder: DepthEncoder) -> None:
    frames_THWC = torch.randint(0, 256, (5, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    maps_THW = encoder.inverse_depth(frames_THWC)
    assert maps_THW.shape == (5, 96, 96) and maps_THW.dtype == torch.float32 and maps_THW.min() >= 0
    one_by_one = torch.cat([encoder.inverse_depth(frame_HWC[None]) for frame_HWC in frames_THWC])
    torch.testing.assert_close(maps_THW, one_by_one, atol=1e-5, rtol=1e-5)
    assert encoder.inverse_depth(frames_THWC[:, :48]).shape == (5, *midas_size(48, 96, encoder.config))
    assert encoder.inverse_depth(frames_THWC[:0]).shape == (0, 96, 96)


def test_half_precision_errors_of_maps_scalars_and_embeddings_are_of_rounding_size() -> None:
    """bfloat16 rounds a value by up to 2^-9 of itself; some ten layers in a row add up to a few times that."""
    allowed = 8 * 2**-9
    coarse_TCHW = torch.rand(6, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    smooth_TCHW = torch.nn.functional.interpolate(coarse_TCHW, (96, 96), mode="bicubic").clamp(0, 1)
    frames_THWC = (255 * smooth_TCHW).byte().permute(0, 2, 3, 1)
    full, half = (tiny_depth(str(TINY_WEIGHTS), half_precision=value) for value in (False, True))
    full_THW, half_THW = full.inverse_depth(frames_THWC), half.inverse_depth(frames_THWC)
    assert half_THW.dtype == torch.float32
    difference = (full_THW - half_THW).abs().max()
    assert 0 < difference < allowed * full_THW.max()
    # A level's logarithm errs by the map's error, relative to that level. A rate is the difference of two over 2 / fps.
    full_TK, half_TK = depth_scalars(full_THW, FPS), depth_scalars(half_THW, FPS)
    level_of = {"log_foreground_per_s": "log_foreground", "relative_std": "log_mean"}
    log_levels_TK = full_TK[:, [SCALAR_NAMES.index(level_of.get(name, name)) for name in SCALAR_NAMES]]
    allowed_TK = allowed * (full_TK[:, [SCALAR_NAMES.index("log_max")]] - log_levels_TK).exp()
    allowed_TK[:, SCALAR_NAMES.index("log_foreground_per_s")] *= FPS
    assert ((full_TK - half_TK).abs() < allowed_TK).all()
    clip = tiny_clip(str(CLIP_WEIGHTS))
    full_TD, half_TD = (
        clip.encode_pixels(encoder.images(maps_THW, 96)) for encoder, maps_THW in ((full, full_THW), (half, half_THW))
    )
    assert (full_TD - half_TD).norm(dim=-1).max() < 2 * allowed  # of vectors of length 1; the range stretches the maps


def test_the_fingerprint_depends_on_exactly_what_changes_features(encoder: DepthEncoder) -> None:
    config = DepthConfig("test", 96, 32, raw_scale=2.0)
    changes: list[dict[str, Any]] = [
        {},
        *({"normalization": name} for name in NORMALIZATIONS if name != config.normalization),
        {"name": "other"},
        {"size": 128},
        {"size_multiple": 16},
        {"raw_scale": 3.0},
        {"resize": "upper_bound"},
        {"half_precision": True},
        {"architecture": "other"},
    ]
    assert {key for change in changes for key in change} == {field.name for field in fields(config)} - {
        "frames_per_batch"
    }
    prints = [DepthEncoder(replace(config, **change), encoder.network).fingerprint() for change in changes]
    other = fill_with_random_weights(Dpt(TINY_DPT), "depth")
    other.mean = (0.4, 0.5, 0.5)
    prints.append(DepthEncoder(config, other).fingerprint())
    assert len(set(prints)) == len(prints)
    assert DepthEncoder(replace(config, frames_per_batch=1), encoder.network).fingerprint() == prints[0]


def test_the_tiny_network_trains_and_is_small(encoder: DepthEncoder) -> None:
    inverse_depth_BHW = encoder(torch.rand(1, 3, 96, 96))
    inverse_depth_BHW.square().sum().backward()
    unused = {name for name, value in encoder.network.named_parameters() if value.grad is None}
    encoder.zero_grad()
    assert unused == {"pretrained.model.norm.weight", "pretrained.model.norm.bias"}  # after the last tap
    assert sum(value.numel() for value in encoder.parameters()) < 350_000


def test_sizes_of_narrow_images_and_the_upper_bound() -> None:
    config = DepthConfig("x", 384, 32, resize="upper_bound")
    assert midas_size(1080, 1920, config) == (224, 384)
    with pytest.raises(ValueError, match="too narrow"):
        midas_size(1, 5000, config)


def test_a_frame_of_the_networks_size_is_not_resampled() -> None:
    frames_THWC = torch.randint(0, 256, (1, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    pixels_BCHW = resize_like_midas(frames_THWC, _config())
    assert torch.equal((pixels_BCHW * 255).round().byte().permute(0, 2, 3, 1), frames_THWC)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="per_video"):
        _config("per_video")
    with pytest.raises(ConfigError, match="raw_scaled needs a scale"):
        DepthConfig("dpt_hybrid_384", 384, 32, normalization="raw_scaled")
    with pytest.raises(ConfigError, match="dpt_huge"):
        midas_depth("none.pt", variant="dpt_huge")
    assert set(MIDAS_VARIANTS) == {"dpt_hybrid_384", "dpt_large_384", "midas_v21_small_256"}
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="cannot be loaded into midas_v21_small_256"):
        midas_depth(str(tmp_path / "other.pt"), variant="midas_v21_small_256")
    with pytest.raises(ValueError, match="multiples of 32"):
        fill_with_random_weights(tiny_depth(), "x").network(torch.zeros(1, 3, 100, 96))
    assert TINY_DPT.patch_size == 8
