"""The bundle: rows that fit their schema, absent parts, and error messages for what is missing."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from dmma_core.encoders.bundle import Bundle, load_bundle, load_depth
from dmma_core.encoders.bundle_options import parse_bundle_name
from dmma_core.encoders.clip import tiny_clip
from dmma_core.encoders.depth import tiny_depth
from dmma_core.encoders.loading import fill_with_random_weights
from dmma_core.errors import ConfigError, WeightsError
from dmma_core.storage.media import DecodedClip
from dmma_core.storage.tensor_files import write_tensors
from helpers.random_bundle import load_random_bundle

DURATION_S = 1.0
VISUAL = ("rgb", "depth", "depth_scalars", "sync")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_random_bundle(DURATION_S)


def _clip(bundle: Bundle, seed: int, with_audio: bool = True) -> DecodedClip:
    rng = np.random.default_rng(seed)
    frames = {
        request.name: rng.integers(
            0, 256, (request.num_frames(DURATION_S), request.height, request.width, 3), dtype=np.uint8
        )
        for request in bundle.frame_requests
    }
    audio_A = rng.normal(0, 0.1, bundle.schema.num_samples).astype(np.float32)
    return DecodedClip(frames, audio_A if with_audio else None, 16_000 if with_audio else 0)


def test_every_row_fits_the_schema_and_does_not_depend_on_its_neighbours(bundle: Bundle) -> None:
    clips = [_clip(bundle, seed) for seed in range(3)]
    rows = bundle.encode_clips(clips)
    for clip, row in zip(clips, rows, strict=True):
        (alone,) = bundle.encode_clips([clip])
        for spec in bundle.schema.tensors:
            assert len(spec.to_bytes(row[spec.name])) == spec.num_bytes
            np.testing.assert_allclose(row[spec.name], alone[spec.name], atol=2e-5)
    assert not np.allclose(rows[0]["rgb"], rows[1]["rgb"])


def test_every_linear_layer_uses_the_fast_matmul(bundle: Bundle) -> None:
    parts = (bundle.clip, bundle.depth, bundle.synchformer, bundle.codec)
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Linear)]
    plain = [layer for layer in layers if type(layer) is nn.Linear]
    assert layers and not plain


def test_lengths_are_those_of_eight_and_twenty_five_frames_per_second(bundle: Bundle) -> None:
    shapes = {spec.name: spec.shape for spec in bundle.schema.tensors}
    assert shapes["rgb"][0] == shapes["depth"][0] == shapes["depth_scalars"][0] == 8
    assert shapes["sync"][0] == 16 and shapes["latent_mean"] == (32, 40)


def test_a_clip_without_video_has_zeros_and_one_without_audio_no_latents(bundle: Bundle) -> None:
    full, silent = _clip(bundle, 1), _clip(bundle, 1, with_audio=False)
    sound_only = DecodedClip({}, full.audio_A, 16_000)
    complete, without_sound, without_video = bundle.encode_clips([full, silent, sound_only])
    assert set(without_sound) == set(VISUAL) and set(without_video) == set(complete)
    for name in VISUAL:
        np.testing.assert_allclose(without_sound[name], complete[name], atol=2e-5)
        assert not without_video[name].any() and without_video[name].shape == complete[name].shape
    np.testing.assert_allclose(without_video["latent_mean"], complete["latent_mean"], atol=2e-5)
    assert bundle.encode_clips([]) == []


def test_text_features_fit_the_caption_table(bundle: Bundle) -> None:
    text_BND = bundle.encode_text(["a dog barks", "a car passes"])
    assert text_BND.shape == (2, *bundle.schema.text.shape)
    assert len(bundle.schema.text.to_bytes(text_BND[0])) == bundle.schema.text.num_bytes


def test_wrong_lengths_are_refused(bundle: Bundle) -> None:
    clip = _clip(bundle, 2)
    short = {**clip.frames, "rgb": clip.frames["rgb"][:-1]}
    with pytest.raises(ValueError, match="'rgb' frames have the shape"):
        bundle.encode_clips([DecodedClip(short, clip.audio_A, 16_000)])
    assert clip.audio_A is not None
    with pytest.raises(ValueError, match="samples at 16000 Hz, expected"):
        bundle.encode_clips([DecodedClip(clip.frames, clip.audio_A[:-1], 16_000)])
    for duration_s, message in ((0.5, "too short"), (-1.0, "too short"), (float("nan"), "cannot last nan s")):
        with pytest.raises(ConfigError, match=message):
            load_random_bundle(duration_s)


def test_published_bundles_name_the_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMMA_CACHE", str(tmp_path))
    for name in ("mmaudio_16k", "mmaudio_44k"):
        with pytest.raises(WeightsError, match="dmma weights fetch mmaudio_vae"):
            load_bundle(name, DURATION_S)
    for network in ("dpt_hybrid_384", "dpt_large_384", "midas_v21_small_256", "depth_anything_v2_small"):
        with pytest.raises(WeightsError, match=f"dmma weights fetch .*{network.removeprefix('midas_')}"):
            load_depth(parse_bundle_name(f"tiny+{network}"))


def test_weights_from_files_and_no_fall_back_without_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no encoder bundle 'huge'"):
        load_bundle("huge", DURATION_S)
    with pytest.raises(ConfigError, match=r"has no weights for 'clipp'. Its roles are clip, depth"):
        load_bundle("tiny", DURATION_S, weights={"clipp": "x"})
    paths = {"clip": str(tmp_path / "clip.safetensors"), "depth": str(tmp_path / "depth.safetensors")}
    with pytest.raises(WeightsError, match="dmma pretrain-tiny"):
        load_bundle("tiny", DURATION_S, weights=paths)
    clip, depth = fill_with_random_weights(tiny_clip(), "c"), fill_with_random_weights(tiny_depth(), "d")
    write_tensors(paths["clip"], {name: value.half() for name, value in clip.model.state_dict().items()})
    write_tensors(paths["depth"], {name: value.half() for name, value in depth.network.state_dict().items()})
    first, second = (load_bundle("tiny", DURATION_S, weights=paths) for _ in range(2))
    assert first.schema == second.schema
    raw = load_bundle("tiny+per_clip+raw_scaled", DURATION_S, weights=paths)
    assert raw.schema.bundle == "tiny+raw_scaled"
    again = load_bundle(raw.schema.bundle, DURATION_S, weights=paths)  # as generation does, from a feature set's schema
    assert again.schema == raw.schema
    changed = {role for role in raw.schema.encoders if raw.schema.encoders[role] != first.schema.encoders[role]}
    assert changed == {"depth"}
    assert not any(value.requires_grad for value in raw.clip.parameters())
