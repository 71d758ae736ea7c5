"""Depth networks, MiDaS' resize and the published depth video."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dmma_core.encoders.depth import DepthConfig, DepthEncoder, midas_size, resize_like_midas
from dmma_core.encoders.dpt import DPT_HYBRID_384, DPT_LARGE_384, Dpt
from dmma_core.encoders.midas_small import MidasSmall
from helpers.golden import (
    GoldenFile,
    assert_close,
    fill_digest,
    fill_state_dict,
    golden_file,
    golden_shapes,
    is_filled,
    thinned,
)

DPT_TOLERANCE = 1e-3  # relative to the largest value, as in the reference data for DPT

Network = Dpt | MidasSmall


def _encoder(network: Network, official: str, golden: GoldenFile) -> DepthEncoder:
    """The network with weights of the fill rule, in the encoder that extraction uses."""
    shapes = golden_shapes(official)
    state = fill_state_dict(shapes, golden.meta["salt"])
    assert fill_digest(state) == golden.meta["fill"]["sha256"]
    own = network.state_dict()
    network.load({**state, **{key: own[key] for key in shapes if not is_filled(key)}}, "the reference data")
    return DepthEncoder(DepthConfig(official, network.image_size, network.size_multiple), network).eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "official", "build"),
    [
        ("midas_dpt_hybrid", "midas_dpt_hybrid_384", lambda: Dpt(DPT_HYBRID_384)),
        ("midas_dpt_large", "midas_dpt_large_384", lambda: Dpt(DPT_LARGE_384)),
        ("midas_small", "midas_v21_small_256", MidasSmall),
    ],
)
def test_inverse_depth_and_taps_are_the_published_ones(name: str, official: str, build: Callable[[], Network]) -> None:
    golden = golden_file(name)
    network = build()
    encoder, maps_of_taps = _encoder(network, official, golden), list[list[Tensor]]()
    network.scratch.register_forward_pre_hook(lambda _, arguments: maps_of_taps.append(arguments[0]))
    inputs = [key for key in golden.names() if key.startswith("in.image_u8")]
    assert inputs
    for key in inputs:
        suffix = key.removeprefix("in.image_u8")
        with torch.inference_mode():
            assert_close(encoder(golden[key].float() / 255), golden[f"depth{suffix}"], DPT_TOLERANCE)
        for index, map_BCHW in enumerate(maps_of_taps.pop(), start=1):
            name = f"layer{index}{suffix}.slice"
            if name in golden:
                assert_close(map_BCHW[:, ::16, ::6, ::6], golden[name], DPT_TOLERANCE)


@pytest.mark.slow
def test_per_frame_depth_video_is_the_published_one() -> None:
    golden = golden_file("depth_video")
    filled = _encoder(Dpt(DPT_HYBRID_384), "midas_dpt_hybrid_384", golden)
    clips_BTCHW = golden["in.clip_u8"]
    size = clips_BTCHW.shape[-1]
    encoder = DepthEncoder(replace(filled.config, size=size), filled.network)
    raw_min, raw_max = golden["raw_min"].flatten(), golden["raw_max"].flatten()
    for index, clip_TCHW in enumerate(clips_BTCHW):
        inverse_depth_THW = encoder.inverse_depth(clip_TCHW.permute(0, 2, 3, 1))
        rows = slice(index * len(clip_TCHW), (index + 1) * len(clip_TCHW))
        tolerance = DPT_TOLERANCE * raw_max.max().item()
        torch.testing.assert_close(inverse_depth_THW.amin((1, 2)), raw_min[rows], atol=tolerance, rtol=0)
        torch.testing.assert_close(inverse_depth_THW.amax((1, 2)), raw_max[rows], atol=tolerance, rtol=0)
        images_TCHW = encoder.images(inverse_depth_THW, size)
        for channel_THW in images_TCHW.unbind(1):
            assert_close(channel_THW, golden["depth_video_ch0"][index], DPT_TOLERANCE)


@pytest.mark.parametrize("name", ["dpt", "default", "small"])
def test_the_resize_of_midas_is_reproduced_without_opencv(name: str) -> None:
    golden = golden_file("midas_transform")
    settings = golden.meta[name]
    size = int(settings["resize"].split("x")[0].split()[0])
    how = "upper_bound" if "upper_bound" in settings["resize"] else "minimal"
    config = DepthConfig(name, size, 32, resize=how)
    resized_BCHW = resize_like_midas(golden["in.image_u8"][None], config)
    assert list(resized_BCHW.shape) == golden[f"{name}_transform.shape"].tolist()
    mean, std = (torch.tensor(settings[key]).view(-1, 1, 1) for key in ("mean", "std"))
    normalised_BCHW = (resized_BCHW - mean) / std
    key = golden.key_of(f"{name}_transform")
    assert_close(thinned(normalised_BCHW, key), golden[key])


def test_output_sizes_are_those_of_midas() -> None:
    golden = golden_file("midas_transform")
    config = DepthConfig("dpt", 384, 32)
    for (height, width), expected in zip(
        golden["size_table_hw_in"].tolist(), golden["size_table_hw_out"].tolist(), strict=True
    ):
        if min(expected) == 0:
            with pytest.raises(ValueError, match="too narrow"):
                midas_size(height, width, config)
        else:
            assert list(midas_size(height, width, config)) == expected, (height, width)
