"""Encoder bundles by name: decoded clips and captions in, feature rows out.

"tiny" is for CPUs: the same classes at small size, with weights in the package. "mmaudio_16k" and
"mmaudio_44k" are the published encoders of MMAudio and DeepMMAudio with the published weights.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dmma_core.data.feature_schema import FeatureSchema
from dmma_core.encoders import clip as clip_module
from dmma_core.encoders import depth as depth_module
from dmma_core.encoders.bundle_options import (
    TRANSFORMERS_NETWORKS,
    TRANSFORMERS_PREFIX,
    BundleOptions,
    parse_bundle_name,
)
from dmma_core.encoders.clip import ClipEncoder, full_clip, tiny_clip
from dmma_core.encoders.depth import SCALAR_NAMES, DepthEncoder, midas_depth, tiny_depth
from dmma_core.encoders.dpt import TINY_DPT
from dmma_core.encoders.synchformer import (
    SEGMENT_FRAMES,
    SynchformerEncoder,
    full_synchformer,
    num_sync_features,
    tiny_random_synchformer,
)
from dmma_core.encoders.transformers_depth import cached_network, transformers_depth
from dmma_core.errors import ConfigError, WeightsError
from dmma_core.models.audio_codec.codec import AudioCodec
from dmma_core.models.audio_codec.mmaudio_codec import MMAudioCodec
from dmma_core.models.audio_codec.spectral import SpectralCodec
from dmma_core.storage import paths
from dmma_core.storage.media import DecodedClip, FrameRequest
from dmma_core.storage.state_dicts import read_state_dict
from dmma_core.storage.weights import path_of
from dmma_core.tensors import Array, TensorSpec

RGB_FPS = 8.0
SYNC_FPS = 25.0
_ROLES = ("clip", "depth", "synchformer", "vae", "vocoder")


class Bundle:
    """CLIP, depth network, Synchformer and audio codec as one `EncoderBundle`.

    The depth network receives the same frames as CLIP, as in DeepMMAudio.
    """

    def __init__(
        self,
        name: str,
        duration_s: float,
        clip: ClipEncoder,
        depth: DepthEncoder,
        synchformer: SynchformerEncoder,
        codec: AudioCodec,
    ) -> None:
        self.clip, self.depth, self.synchformer, self.codec = clip, depth, synchformer, codec
        if not isfinite(duration_s):
            raise ConfigError(f"Clips cannot last {duration_s} s.", remedy="Use a finite number of seconds.")
        side, sync_side = clip.config.input_size, synchformer.config.image_size
        self.frame_requests = (
            FrameRequest("rgb", RGB_FPS, side, side, fit="squash"),
            FrameRequest("sync", SYNC_FPS, sync_side, sync_side, fit="crop"),
        )
        num_rgb, num_sync = (request.num_frames(duration_s) for request in self.frame_requests)
        if num_sync < SEGMENT_FRAMES:
            raise ConfigError(
                f"Clips of {duration_s} s are too short: sync features need {SEGMENT_FRAMES} frames at {SYNC_FPS:g} fps.",
                remedy=f"Use at least {SEGMENT_FRAMES / SYNC_FPS} s.",
            )
        latents = (codec.latent_length(duration_s), codec.latent_channels)
        self.schema = FeatureSchema(
            bundle=name,
            tensors=(
                TensorSpec("latent_mean", latents),
                TensorSpec("latent_std", latents),
                TensorSpec("rgb", (num_rgb, clip.config.embed_dim)),
                TensorSpec("depth", (num_rgb, clip.config.embed_dim)),
                TensorSpec("depth_scalars", (num_rgb, len(SCALAR_NAMES))),
                TensorSpec("sync", (num_sync_features(num_sync), synchformer.config.width)),
            ),
            text=TensorSpec("text", (clip.config.num_tokens, clip.config.text.width)),
            encoders={
                "clip": clip.fingerprint(),
                "depth": depth.fingerprint(),
                "synchformer": synchformer.fingerprint(),
                "codec": codec.fingerprint(),
            },
            depth_scalar_names=SCALAR_NAMES,
            sample_rate_hz=codec.sample_rate_hz,
            num_samples=codec.num_samples(duration_s),
            duration_s=duration_s,
        )

    def encode_clips(self, clips: Sequence[DecodedClip]) -> list[Mapping[str, Array]]:
        """float32 features of several clips at once, one mapping per clip with the tensors of `schema`.

        A clip without frames has zero visual features. A clip without audio (decoded for generation) has no latents:
        its mapping lacks `latent_mean` and `latent_std`. Raises ValueError for frames or audio of another length.
        """
        rows: list[dict[str, Array]] = [{} for _ in clips]
        with_frames = [index for index, clip in enumerate(clips) if clip.frames]
        with_audio = [index for index, clip in enumerate(clips) if clip.audio_A is not None]
        for row in rows:
            row.update({spec.name: np.zeros(spec.shape, np.float32) for spec in self.schema.tensors[2:]})
        if with_frames:
            visual = self._encode_frames(*(self._stack(clips, with_frames, request) for request in self.frame_requests))
            self._fill(rows, with_frames, visual)
        if with_audio:
            self._fill(rows, with_audio, self._encode_audio([clips[index] for index in with_audio]))
        return list(rows)

    def encode_text(self, captions: Sequence[str]) -> Array:
        """float32 text features [len(captions), N, D]."""
        return _numpy(self.clip.encode_text(captions))

    def _encode_frames(self, rgb_BTHWC: Tensor, sync_BTHWC: Tensor) -> dict[str, Tensor]:
        shape = rgb_BTHWC.shape[:2]
        frames_THWC = rgb_BTHWC.flatten(0, 1)
        inverse_depth_THW = self.depth.inverse_depth(frames_THWC)
        maps = torch.split(inverse_depth_THW, shape[1])
        images_TCHW = torch.cat([self.depth.images(maps_THW, rgb_BTHWC.shape[2]) for maps_THW in maps])
        return {
            "rgb": self.clip.encode_images(frames_THWC).reshape(*shape, -1),
            "depth": self.clip.encode_pixels(images_TCHW).reshape(*shape, -1),
            "depth_scalars": torch.stack([depth_module.depth_scalars(maps_THW, RGB_FPS) for maps_THW in maps]),
            "sync": self.synchformer.encode_frames(sync_BTHWC),
        }

    @torch.inference_mode()
    def _encode_audio(self, clips: Sequence[DecodedClip]) -> dict[str, Tensor]:
        schema = self.schema
        for clip in clips:
            assert clip.audio_A is not None
            if (len(clip.audio_A), clip.sample_rate_hz) != (schema.num_samples, schema.sample_rate_hz):
                raise ValueError(
                    f"A clip has {len(clip.audio_A)} samples at {clip.sample_rate_hz} Hz, expected "
                    f"{schema.num_samples} at {schema.sample_rate_hz} Hz."
                )
        wave_BA = torch.from_numpy(np.stack([clip.audio_A for clip in clips if clip.audio_A is not None]))
        posterior = self.codec.encode(wave_BA.to(self.clip.device))
        return {"latent_mean": posterior.mean_BLC, "latent_std": posterior.std_BLC}

    def _stack(self, clips: Sequence[DecodedClip], indices: Sequence[int], request: FrameRequest) -> Tensor:
        num_frames = request.num_frames(self.schema.duration_s)
        expected = (num_frames, request.height, request.width, 3)
        for index in indices:
            if clips[index].frames[request.name].shape != expected:
                shape = clips[index].frames[request.name].shape
                raise ValueError(f"A clip's {request.name!r} frames have the shape {shape}, expected {expected}.")
        return torch.from_numpy(np.stack([clips[index].frames[request.name] for index in indices]))

    def _fill(self, rows: list[dict[str, Array]], indices: Sequence[int], features: Mapping[str, Tensor]) -> None:
        for name, batch in features.items():
            for index, value in zip(indices, _numpy(batch), strict=True):
                rows[index][name] = value


def load_bundle(
    name: str,
    duration_s: float,
    device: str = "cpu",
    *,
    weights: Mapping[str, str] | None = None,
    with_vocoder: bool = True,
) -> Bundle:
    """Build the bundle of the full name `name` (see `bundle_options`) for clips of `duration_s` on `device`.

    `weights` maps a role ("clip", "depth", "synchformer", "vae", "vocoder") to a local file that replaces the
    registered one. The vocoder of the published codecs is needed for decoding only, so not for extraction. Raises
    ConfigError for an unknown name, option or role, and WeightsError for weights that are missing or do not fit: there
    is no fall-back to random weights.
    """
    options = parse_bundle_name(name)
    files = {role: paths.absolute(file) for role, file in (weights or {}).items()}
    roles = ("clip", "depth") if options.bundle == "tiny" else _ROLES
    if unknown := sorted(set(files) - set(roles)):
        raise ConfigError(
            f"The bundle {options.bundle} has no weights for {unknown[0]!r}.",
            remedy=f"Its roles are {', '.join(roles)}.",
        )
    load = _load_tiny if options.bundle == "tiny" else partial(_load_mmaudio, with_vocoder=with_vocoder)
    clip, synchformer, codec = load(options, files)
    bundle = Bundle(options.name, duration_s, clip, load_depth(options, files.get("depth")), synchformer, codec)
    for part in (bundle.clip, bundle.depth, bundle.synchformer, bundle.codec):
        part.to(device).eval().requires_grad_(False)
    return bundle


def load_depth(options: BundleOptions, file: str | None = None) -> DepthEncoder:
    """The depth encoder of a bundle; `file` replaces the registered weights."""
    network = options.depth_network
    settings = (options.normalization, options.raw_scale, options.half_precision)
    if network == TINY_DPT.name:
        return tiny_depth(_packaged("depth", file, depth_module.TINY_WEIGHTS), *settings)
    if network in TRANSFORMERS_NETWORKS:
        return transformers_depth(file or _folder_of(network), *settings)
    if network.startswith(TRANSFORMERS_PREFIX):
        return transformers_depth(file or cached_network(network.removeprefix(TRANSFORMERS_PREFIX)), *settings)
    return midas_depth(file or path_of(f"midas_{network.removeprefix('midas_')}"), network, *settings)


_Parts = tuple[ClipEncoder, SynchformerEncoder, AudioCodec]


def _load_tiny(options: BundleOptions, files: Mapping[str, str]) -> _Parts:
    clip = tiny_clip(_packaged("clip", files.get("clip"), clip_module.TINY_WEIGHTS))
    return clip, tiny_random_synchformer(), SpectralCodec()


def _load_mmaudio(options: BundleOptions, files: Mapping[str, str], with_vocoder: bool) -> _Parts:
    mode = options.bundle.removeprefix("mmaudio_")
    vocoder = {"16k": "bigvgan_16k", "44k": "bigvgan_v2_44k"}[mode]

    def file(role: str, registered: str) -> str:
        return files.get(role) or path_of(registered)

    codec = MMAudioCodec(
        mode,
        read_state_dict(file("vae", f"mmaudio_vae_{mode}")),
        read_state_dict(file("vocoder", vocoder)) if with_vocoder else None,
    )
    clip = full_clip(file("clip", "clip_dfn5b_h14_384"))
    return clip, full_synchformer(file("synchformer", "synchformer")), codec


def _folder_of(network: str) -> str:
    """Cache folder of a transformers network. Raises WeightsError where one of its files is missing."""
    parts = [path_of(network + part) for part in ("", "_config", "_preprocessor")]
    return str(Path(parts[0]).parent)


def _packaged(role: str, file: str | None, default: Path) -> str:
    path = Path(file) if file else default
    if not path.is_file():
        raise WeightsError(
            f"The tiny {role} weights {path} are missing.", remedy="Train them with `dmma pretrain-tiny`."
        )
    return str(path)


def _numpy(tensor: Tensor) -> Array:
    array: Array = tensor.float().cpu().numpy()
    return array
