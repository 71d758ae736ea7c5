"""On a GPU the networks compute what they compute on a CPU, and training resumes where it stopped.

pytest -m gpu tests/gpu
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from dmma_core.generation.sampler import noise_for, sample_latents
from dmma_core.generation.sampling_config import SamplingConfig
from dmma_core.models.audio_codec.mmaudio_codec import MODES
from dmma_core.models.audio_codec.vae import Vae
from dmma_core.models.mmdit import MMDiT
from dmma_core.storage.media import decode_clip
from dmma_core.storage.metrics_log import read_metrics
from dmma_core.storage.run_folder import MODEL, RunFolder
from dmma_core.training.arm import train_arm
from dmma_core.training.step import autocast
from dmma_core.training.workers import Workers
from helpers.clips import write_clip
from helpers.conditions import random_features, shaken, short_config
from helpers.features import write_feature_set
from helpers.random_bundle import load_random_bundle
from helpers.training import small_plan, with_recipe

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def gpu() -> Iterator[torch.device]:
    """The first GPU, with matmuls in full float32."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device("cuda")
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def require_close(found: torch.Tensor, expected: torch.Tensor, share: float) -> None:
    """`share` of the largest magnitude."""
    assert float((found.float().cpu() - expected).abs().max()) <= share * float(expected.abs().max())


@pytest.mark.parametrize("depth", ["off", "both"])
def test_the_flow_network(depth: str, gpu: torch.device) -> None:
    model = shaken(MMDiT(short_config(depth)))
    features, latent, time = random_features(model.config), torch.randn(2, 31, 40), torch.rand(2)
    with torch.inference_mode():
        expected = model(latent, time, features)
        model.to(gpu)
        inputs = latent.to(gpu), time.to(gpu), features.to(gpu)
        require_close(model(*inputs), expected, 1e-3)
        with autocast(gpu):
            require_close(model(*inputs), expected, 0.05)


def test_sampling(gpu: torch.device) -> None:
    model = shaken(MMDiT(short_config("both")))
    model.set_latent_statistics(torch.zeros(40), torch.ones(40))
    features, noise = random_features(model.config, 1), noise_for(["clip"], 0, (31, 40))
    how = SamplingConfig(num_steps=5, guidance_depth=2.0)
    with torch.inference_mode():
        expected = sample_latents(model, features, noise, how)
        found = sample_latents(model.to(gpu), features.to(gpu), noise.to(gpu), how)
    require_close(found, expected, 5e-3)


def test_training_stops_and_resumes(gpu: torch.device, tmp_path: Path) -> None:
    store = write_feature_set(tmp_path / "features")
    straight, stopped = (small_plan(tmp_path, store, "both", arm=arm, num_steps=6) for arm in ("straight", "stopped"))
    assert train_arm(straight, Workers(gpu))
    assert train_arm(with_recipe(stopped, loop={"num_steps": 4}), Workers(gpu))
    assert train_arm(stopped, Workers(gpu))
    expected, found = (RunFolder(plan.run_uri).checkpoint().read(MODEL) for plan in (straight, stopped))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    losses = [
        point["train/loss"] for point in read_metrics(RunFolder(stopped.run_uri).metrics) if "train/loss" in point
    ]
    assert all(torch.tensor(losses).isfinite())


def test_a_bundle_encodes(gpu: torch.device, tmp_path: Path) -> None:
    bundle, video = load_random_bundle(1.0), str(write_clip(tmp_path / "clip.mp4", seed=0, duration_s=1.0))
    schema = bundle.schema
    clip = decode_clip(video, 0.0, 1.0, bundle.frame_requests, schema.sample_rate_hz, schema.num_samples)
    (expected,) = bundle.encode_clips([clip])
    for part in (bundle.clip, bundle.depth, bundle.synchformer, bundle.codec):
        assert isinstance(part, nn.Module)
        part.to(gpu)
    (found,) = bundle.encode_clips([clip])
    for name, value in expected.items():
        require_close(torch.from_numpy(found[name]), torch.from_numpy(value), 1e-2)


def test_the_audio_autoencoder(gpu: torch.device) -> None:
    config = MODES["16k"].vae
    vae = Vae(config)
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.randn(shape, generator=generator) / max(1, torch.Size(shape[1:]).numel()) ** 0.5
        for key, shape in vae.official_shapes().items()
    }
    state |= {"data_mean": torch.zeros(1, config.num_mels, 1), "data_std": torch.ones(1, config.num_mels, 1)}
    vae = Vae.from_official(config, state)
    latent = torch.randn(1, 16, config.latent_channels, generator=generator)
    with torch.inference_mode():
        expected = vae.decode(latent)
        require_close(vae.to(gpu).decode(latent.to(gpu)), expected, 1e-3)
