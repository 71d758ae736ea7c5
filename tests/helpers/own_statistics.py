"""Outputs of small networks whose weights follow the fill rule, and their statistics: they need no reference data.

They detect changes. That the functions are the published ones is tested with the reference data.
`tests/golden/regenerate.py` writes `tests/golden/own_statistics.json` from them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dmma_core.encoders.clip import TINY as TINY_CLIP
from dmma_core.encoders.clip import ClipEncoder
from dmma_core.encoders.depth import DepthConfig, DepthEncoder, depth_scalars
from dmma_core.encoders.dpt import TINY_DPT, Dpt
from dmma_core.encoders.synchformer import TINY_RANDOM, SynchformerEncoder
from dmma_core.flow.methods import METHODS
from dmma_core.flow.solver import integrate
from dmma_core.generation.sampler import sample_latents
from dmma_core.generation.sampling_config import SamplingConfig
from dmma_core.models.audio_codec.bigvgan import BigVgan, BigVganConfig
from dmma_core.models.audio_codec.mel import MEL_16K, MEL_44K, MelSpectrogram
from dmma_core.models.audio_codec.vae import Vae, VaeConfig
from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.embeddings import DepthFusion
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from helpers.golden import fill_module, fill_state_dict, fill_tensor

FILE = Path(__file__).resolve().parents[1] / "golden" / "own_statistics.json"
SALT = "own"
STATISTICS = ("mean", "std", "largest", "sum_of_magnitudes", "sum_of_squares", "mean_with_sines")
LOOSE = ("flow network v2", "depth")
"""Prefixes of the names for which the reference data allow 1e-3 instead of 2e-5 of the largest magnitude."""

_FLOW = MMDiTConfig(
    latent_width=8,
    latent_length=12,
    rgb_width=16,
    rgb_length=4,
    sync_width=12,
    sync_length=8,
    text_width=16,
    text_length=5,
    hidden_width=64,
    num_heads=2,
    num_joint_blocks=2,
    num_fused_blocks=1,
    feed_forward_multiple=32,
)
_FLOW_NETWORKS = {
    "v1": _FLOW,
    "v2": replace(_FLOW, version=2),
    "DeepMMAudio": replace(_FLOW, depth="rgb_like", fusion="deepmmaudio"),
    "depth concat": replace(_FLOW, depth="both", num_depth_scalars=3),
    "depth gated": replace(_FLOW, depth="both", num_depth_scalars=3, fusion="gated"),
}


def noise(name: str, *shape: int) -> Tensor:
    """Standard normal input that depends only on `name`."""
    return 10 * fill_tensor(f"input:{name}", shape, SALT)  # the rule scales values without a role by a tenth


def bytes_of(name: str, *shape: int) -> Tensor:
    """A uint8 image or video that depends only on `name`."""
    return (128 + 64 * noise(name, *shape)).clamp(0, 255).to(torch.uint8)


def statistics(values: Tensor) -> list[float]:
    """The numbers named by STATISTICS, in double precision.

    The last one, mean(x_i sin(i)), depends on the order of values.
    """
    wide = values.double().flatten()
    sines = torch.arange(len(wide), dtype=torch.float64).sin()
    magnitudes = wide.abs()
    numbers = (
        wide.mean(),
        wide.std(correction=0),
        magnitudes.max(),
        magnitudes.sum(),
        wide.square().sum(),
        (wide * sines).mean(),
    )
    return [float(number) for number in numbers]


@torch.inference_mode()
def own_outputs() -> Mapping[str, Tensor]:
    """Every output by name. About five seconds on one core."""
    parts: tuple[Callable[[], Iterator[tuple[str, Tensor]]], ...] = (_flow_networks, _solvers, _audio, _visual)
    return {name: value for part in parts for name, value in part()}


def _flow_networks() -> Iterator[tuple[str, Tensor]]:
    present_B = torch.ones(2, dtype=torch.bool)
    for name, config in _FLOW_NETWORKS.items():
        model = MMDiT(config)
        fill_module(model, SALT)
        if isinstance(model.depth_fusion, DepthFusion):
            model.depth_fusion.set_scalar_statistics(torch.tensor([1.0, 0.0, -1.0]), torch.tensor([2.0, 1.0, 0.5]))
        features = ConditionFeatures(
            rgb_BTD=noise("rgb", 2, config.rgb_length, config.rgb_width),
            depth_BTD=noise("depth", 2, config.rgb_length, config.rgb_width),
            depth_scalars_BTK=noise("depth scalars", 2, config.rgb_length, config.num_depth_scalars),
            sync_BSD=noise("sync", 2, config.sync_length, config.sync_width),
            text_BND=noise("text", 2, config.text_length, config.text_width),
            present_video_B=present_B,
            present_depth_B=present_B,
            present_text_B=present_B,
        )
        latent_BLC = noise("latent", 2, config.latent_length, config.latent_width)
        negative_BND = noise("negative text", 1, config.text_length, config.text_width)
        prefix = f"flow network {name}"
        yield f"{prefix}: velocity", model(latent_BLC, torch.tensor([0.2, 0.7]), features)
        yield (
            f"{prefix}: sampled",
            sample_latents(model, features, latent_BLC, SamplingConfig(num_steps=5), negative_BND),
        )
        if name.startswith("depth"):
            on_depth = SamplingConfig(num_steps=3, guidance_depth=7.0)
            yield f"{prefix}: guided on depth", sample_latents(model, features, latent_BLC, on_depth)


def _solvers() -> Iterator[tuple[str, Tensor]]:
    def field(state: Tensor, time: Tensor) -> Tensor:
        return torch.sin(3 * state) * (1 + time) - state / 2

    for method in METHODS:
        yield f"solver {method}", integrate(field, noise("state", 3, 7, 4), method, 25)


def _audio() -> Iterator[tuple[str, Tensor]]:
    for name, config in (("16k", MEL_16K), ("44k", MEL_44K)):
        yield f"mel {name}", MelSpectrogram(config)(0.1 * noise("wave", 1, 8192))
    vae_config = VaeConfig(num_mels=12, latent_channels=3, hidden_channels=8)
    state = fill_state_dict(Vae(vae_config).official_shapes(), SALT)
    statistics_of_bins = {"data_mean": torch.full((1, 12, 1), -2.0), "data_std": torch.full((1, 12, 1), 3.0)}
    vae = Vae.from_official(vae_config, {**state, **statistics_of_bins})
    posterior = vae.encode(noise("mel", 2, 20, 12))
    yield "vae: mean", posterior.mean_BLC
    yield "vae: std", posterior.std_BLC
    yield "vae: decoded", vae.decode(noise("codec latent", 2, 10, 3))
    for final in ("tanh", "clamp"):
        vocoder_config = BigVganConfig(6, 16, upsample_rates=(4, 2), upsample_taps=(8, 4), final=final)
        vocoder = BigVgan.from_official(
            vocoder_config, fill_state_dict(BigVgan(vocoder_config).official_shapes(), SALT)
        )
        yield f"vocoder {final}", vocoder(0.2 * noise("vocoder mel", 2, 11, 6))


def _visual() -> Iterator[tuple[str, Tensor]]:
    synchformer = SynchformerEncoder(TINY_RANDOM).eval()
    fill_module(synchformer, SALT)
    side = TINY_RANDOM.image_size
    yield "synchformer", synchformer.encode_frames(bytes_of("sync frames", 2, 25, side, side, 3))
    clip = ClipEncoder(TINY_CLIP).eval()
    fill_module(clip.model, SALT)
    yield "clip: images", clip.encode_images(bytes_of("frames", 3, TINY_CLIP.input_size, TINY_CLIP.input_size, 3))
    yield "clip: text", clip.encode_text(["", "A dog barks, far away."])
    network = Dpt(TINY_DPT)
    fill_module(network, SALT)
    config = DepthConfig(TINY_DPT.name, network.image_size, network.size_multiple, normalization="per_frame")
    depth = DepthEncoder(config, network).eval()
    maps_THW = depth.inverse_depth(bytes_of("depth frames", 3, 96, 128, 3))
    yield "depth: maps", maps_THW
    yield "depth: images", depth.images(maps_THW, 64)
    yield "depth: scalars", depth_scalars(maps_THW, 8.0)
