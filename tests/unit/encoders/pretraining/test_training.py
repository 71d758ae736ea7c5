"""Pre-training of the tiny encoders: samples, learning, metrics, files, and the weights in the package."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dmma_core.data.scenes import OBJECT_CLASSES, SceneConfig, render_clip
from dmma_core.encoders import clip as clip_module
from dmma_core.encoders import depth as depth_module
from dmma_core.encoders.bundle import load_bundle
from dmma_core.encoders.clip import tiny_clip
from dmma_core.encoders.depth import tiny_depth
from dmma_core.encoders.pretraining.config import PretrainingConfig
from dmma_core.encoders.pretraining.data import SIDE, Samples, join_samples, sample_clips, sample_scenes
from dmma_core.encoders.pretraining.files import CARD, PACKAGE_FOLDER, rounded_to_half, save_tiny
from dmma_core.encoders.pretraining.metrics import THRESHOLDS, clip_metrics, depth_metrics
from dmma_core.encoders.pretraining.training import CLASS_CAPTIONS, train_clip, train_depth
from dmma_core.errors import ConfigError
from dmma_core.storage import paths
from dmma_core.storage.media import decode_clip, write_video

SCENES = sample_scenes(seed=9, num_clips=16)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return join_samples([sample_clips(SCENES, range(0, 8)), sample_clips(SCENES, range(8, 16))])


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_samples_are_frames_depth_and_labels_of_the_clips(samples):
    assert samples.frames_BTHWC.shape == (16, 6, SIDE, SIDE, 3)
    assert samples.inverse_depth_BTHW.shape == (16, 6, SIDE, SIDE)
    clip = render_clip(SCENES, 5)
    assert OBJECT_CLASSES[samples.class_B[5]] == clip.truth.object_class
    np.testing.assert_array_equal(samples.audio_BA[5], clip.audio_A)
    assert samples.inverse_depth_BTHW.min() >= 0.0099 and samples.inverse_depth_BTHW.max() < 0.8


def test_depth_training_lowers_the_error_and_repeats(samples):
    config = PretrainingConfig(num_clips=16, num_tagger_clips=16, num_depth_steps=12, depth_batch_size=4)
    one, two = train_depth(samples, config), train_depth(samples, config)
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key])
    few = train_depth(samples, replace(config, num_depth_steps=1))
    errors = [depth_metrics(encoder, samples, samples)["median_relative_error"] for encoder in (few, one)]
    assert errors[1] < errors[0]


def test_clip_training_learns_captions_of_seen_frames(samples):
    config = PretrainingConfig(num_clips=16, num_tagger_clips=16, num_clip_steps=40, clip_batch_size=16)
    depth = tiny_depth(str(depth_module.TINY_WEIGHTS))
    trained = train_clip(samples, depth, config)
    assert clip_metrics(trained, depth, samples)["frame_top1"] > 1.5 / len(CLASS_CAPTIONS)


class _Oracle(nn.Module):
    """Returns prepared maps and ignores its input; stands in for a network with known outputs."""

    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

    def __init__(self, maps_BHW: torch.Tensor) -> None:
        super().__init__()
        self.maps_BHW, self.place = maps_BHW, 0

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        self.place += len(pixels_BCHW)
        return self.maps_BHW[self.place - len(pixels_BCHW) : self.place]


def test_metrics_of_a_perfect_a_scaleless_and_a_constant_network(samples):
    truth = torch.from_numpy(samples.inverse_depth_BTHW.astype(np.float32)).flatten(0, 1)

    def metrics_of(maps: torch.Tensor) -> dict[str, float]:
        encoder = tiny_depth()
        encoder.network = _Oracle(maps)
        return depth_metrics(encoder, samples, samples)

    perfect = metrics_of(truth)
    assert perfect["spearman"] == pytest.approx(1) and perfect["object_pearson"] == pytest.approx(1)
    assert perfect["median_relative_error"] == pytest.approx(0, abs=1e-6)
    scaleless = metrics_of(truth / truth.mean((1, 2), keepdim=True) * torch.rand(len(truth), 1, 1))
    assert scaleless["spearman"] == pytest.approx(1)  # rank correlation within a frame does not depend on the scale
    assert scaleless["object_pearson"] < 0.9


def test_files_are_half_precision_and_load_unchanged(tmp_path: Path):
    clip, depth = rounded_to_half(tiny_clip()), rounded_to_half(tiny_depth())
    save_tiny(tmp_path, clip, depth, {"note": "untrained"})
    card = paths.read_json(str(tmp_path / CARD))
    assert card["note"] == "untrained" and set(card["files"]) == {"clip.safetensors", "depth.safetensors"}
    again = tiny_depth(str(tmp_path / "depth.safetensors"))
    frames = torch.randint(0, 255, (2, SIDE, SIDE, 3), dtype=torch.uint8)
    assert torch.equal(again.inverse_depth(frames), depth.inverse_depth(frames))
    assert tiny_clip(str(tmp_path / "clip.safetensors")).fingerprint() == clip.fingerprint()


def test_the_weights_of_the_package_are_those_of_the_card_and_reach_the_thresholds():
    card = paths.read_json(str(PACKAGE_FOLDER / CARD))
    assert PACKAGE_FOLDER == clip_module.TINY_WEIGHTS.parent == depth_module.TINY_WEIGHTS.parent
    for name, record in card["files"].items():
        assert paths.sha256_of(str(PACKAGE_FOLDER / name)) == record["sha256"]
    for (role, name), bar in THRESHOLDS.items():
        assert card["unseen"][role][name] >= bar, (role, name)
    package = PACKAGE_FOLDER.parents[1]
    assert sum(path.stat().st_size for path in package.rglob("*.safetensors")) <= 3_000_000


def test_the_tiny_bundle_recognises_class_and_distance_of_new_clips_from_video_files(tmp_path: Path):
    """End to end: rendered, encoded as mp4, decoded as the bundle requests, encoded to features."""
    scenes = SceneConfig(num_clips=24, seed=777)
    bundle = load_bundle("tiny", scenes.duration_s)
    text_ND = bundle.clip.pooled_text_embeddings(CLASS_CAPTIONS).detach().numpy()
    hits, foreground, distance_m = [], [], []
    for index in range(0, 24):
        clip = render_clip(scenes, index)
        uri = str(tmp_path / "clip.mp4")
        write_video(uri, clip.frames_THWC, scenes.fps, clip.audio_A, scenes.sample_rate_hz)
        decoded = decode_clip(
            uri, 0.0, scenes.duration_s, bundle.frame_requests, bundle.schema.sample_rate_hz, bundle.schema.num_samples
        )
        features = bundle.encode_clips([decoded])[0]
        best = (features["rgb"].mean(axis=0) @ text_ND.T).argmax()
        hits.append(OBJECT_CLASSES[best] == clip.truth.object_class)
        if clip.truth.motion in ("approach", "recede"):
            column = bundle.schema.depth_scalar_names.index("log_foreground")
            foreground.append(np.diff(features["depth_scalars"][[4, -4], column])[0])
            distance_m.append(-np.diff(clip.truth.distance_m[[12, -12]])[0])
    assert np.mean(hits) >= 0.8
    assert len(foreground) >= 6
    assert np.mean(np.sign(foreground) == np.sign(distance_m)) >= 0.8


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="num_depth_steps"):
        PretrainingConfig(num_depth_steps=0)
    with pytest.raises(ConfigError, match="num_tagger_clips"):
        PretrainingConfig(num_clips=10)
