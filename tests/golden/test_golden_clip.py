"""CLIP equals the published one: tokens, text hidden states, image embeddings, and the official parameter names."""

import torch
from torch import Tensor

from dmma_core.encoders.clip import DFN5B_VIT_H_14_384, ClipConfig, ClipEncoder, ClipTower
from helpers.golden import (
    GoldenFile,
    assert_close,
    fill_digest,
    fill_state_dict,
    golden_file,
    golden_shapes,
)


def _encoder(golden: GoldenFile, input_size: int | None = None) -> ClipEncoder:
    """The reference file's CLIP, with weights of the fill rule; `input_size` may exceed the patch grid."""
    values = golden.meta["config"]
    vision, text = values["vision_cfg"], values["text_cfg"]
    config = ClipConfig(
        name="golden",
        input_size=input_size or vision["image_size"],
        grid_size=vision["image_size"],
        patch_size=vision["patch_size"],
        embed_dim=values["embed_dim"],
        vision=ClipTower(vision["width"], vision["layers"], vision["head_width"]),
        text=ClipTower(text["width"], text["layers"], text["width"] // text["heads"]),
        vocabulary_size=text["vocab_size"],
        num_tokens=text["context_length"],
        quick_gelu=values["quick_gelu"],
    )
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in ClipEncoder(config).model.state_dict().items()}
    state = fill_state_dict(shapes, golden.meta["salt"])
    assert fill_digest(state) == golden.meta["fill"]["sha256"]
    return ClipEncoder.from_state(config, state, "the reference data")


def test_tokens_and_text_features_are_the_published_ones() -> None:
    golden = golden_file("clip_tiny")
    encoder, texts = _encoder(golden), golden.meta["texts"]
    assert torch.equal(encoder.tokenize(texts), golden["tokens"].long())
    raw_BND, expected_BND = golden["text_hidden_raw"], golden["text_hidden_normalized"]
    with torch.inference_mode():
        assert_close(encoder.text_hidden_states(texts)[: len(raw_BND)], raw_BND)
    features_BND = encoder.encode_text(texts)
    assert_close(features_BND[: len(expected_BND)], expected_BND)
    statistics = golden["text_hidden_normalized_stats"]
    torch.testing.assert_close(_statistics(features_BND), statistics, rtol=2e-5, atol=2e-5)


def test_image_embeddings_are_the_published_ones_also_for_frames_larger_than_the_patch_grid() -> None:
    golden = golden_file("clip_tiny")
    names = [name for name in golden.names() if name.startswith("in.im")]
    assert names
    for name in names:
        normalised_BCHW = golden[name]
        encoder = _encoder(golden, input_size=normalised_BCHW.shape[-1])
        pixels_BCHW = normalised_BCHW * encoder.get_buffer("std_C") + encoder.get_buffer("mean_C")
        assert_close(encoder.encode_pixels(pixels_BCHW), golden[name.replace("in.im", "image_")])


def test_frames_are_normalised_as_published() -> None:
    golden = golden_file("frame_preprocess")
    resized_BCHW = golden["clip.resized_u8"].float() * (1 / 255)
    normalised_BCHW = _encoder(golden_file("clip_tiny")).normalized(resized_BCHW)
    name = next(name for name in golden.names() if name.startswith("clip.normalized_slice"))
    step = resized_BCHW.shape[-1] // golden[name].shape[-1]
    assert_close(normalised_BCHW[:, :, ::step, ::step], golden[name])


def test_full_size_clip_has_the_official_parameters() -> None:
    shapes = golden_shapes("clip_vit_h_14_378_quickgelu")
    with torch.device("meta"):
        encoder = ClipEncoder(DFN5B_VIT_H_14_384)
    assert {key: tuple(value.shape) for key, value in encoder.model.state_dict().items()} == shapes


def _statistics(values: Tensor) -> Tensor:
    wide = values.double()
    std, total = wide.std(correction=0), wide.square().sum()
    return torch.stack([wide.mean(), std, wide.abs().max(), wide.abs().sum(), total])
