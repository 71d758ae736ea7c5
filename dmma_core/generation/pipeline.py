"""Generation: checkpoint and features in, waveforms and files out."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmma_core.config_loading import config_from_dict, config_to_dict
from dmma_core.data.feature_schema import FeatureSchema
from dmma_core.data.manifest import Clip, Rejected, write_rows
from dmma_core.encoders.base import EncoderBundle
from dmma_core.encoders.bundle import load_bundle
from dmma_core.errors import MediaError, StorageError
from dmma_core.generation.sampler import noise_for, sample_latents
from dmma_core.generation.sampling_config import SamplingConfig
from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.provenance import fingerprint, provenance
from dmma_core.storage import media, paths
from dmma_core.storage.overwriting import refuse_overwriting
from dmma_core.storage.run_folder import Checkpoint
from dmma_core.tensors import Array, device_named

SCHEMA_VERSION = 2
MARKER = "GENERATION.json"
_PLAN = "plan.json"
_FAILURES = "failures.parquet"

log = logging.getLogger(__name__)


class SoundGenerator:
    """The network of one checkpoint with the encoder bundle of its features.

    `weights` selects the averaged network ("ema") or the last one ("model"). `encoder_weights` are files that replace
    the bundle's own (see `load_bundle`). Raises SchemaError if they are not the encoders of the checkpoint's features.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        weights: str = "ema",
        device: str = "auto",
        encoder_weights: Mapping[str, str] | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.device = device_named(device)
        self.schema = FeatureSchema.from_dict(checkpoint.record["features"])
        self.bundle: EncoderBundle = load_bundle(
            self.schema.bundle,
            duration_s=self.schema.duration_s,
            device=str(self.device),
            weights=encoder_weights,
        )
        self.custom_vocoder = (encoder_weights or {}).get("vocoder")
        self.bundle.schema.require_equal(self.schema, checkpoint.uri)
        config = config_from_dict(MMDiTConfig, checkpoint.record["model"], checkpoint.uri)
        self.model = MMDiT(config)
        checkpoint.load_into(self.model, f"{weights}.safetensors")
        self.model.to(self.device).eval()

    def generate(
        self,
        clip_ids: Sequence[str],
        features: Sequence[Mapping[str, Array]],
        clips: Sequence[Clip],
        sampling: SamplingConfig,
    ) -> list[NDArray[np.float32]]:
        """Mono waveforms in [-1, 1] for several clips. `features` are rows of the feature store, `text` included."""
        conditions = stack_features(features, clips).to(self.device)
        negative_BND = self._negative_text(sampling.negative_prompt, len(clip_ids))
        shape = self.schema.spec("latent_mean").shape
        noise_BLC = noise_for(clip_ids, sampling.seed, shape).to(self.device)
        with torch.inference_mode():
            latent_BLC = sample_latents(self.model, conditions, noise_BLC, sampling, negative_BND)
            wave_BA = self.bundle.codec.decode(latent_BLC.float()).cpu()
        return [wave_A.numpy() for wave_A in wave_BA]

    def _negative_text(self, prompt: str, batch_size: int) -> Tensor | None:
        if not prompt:
            return None
        text_BND = torch.from_numpy(self.bundle.encode_text([prompt]).astype(np.float32)).to(self.device)
        return text_BND.expand(batch_size, -1, -1)


def stack_features(features: Sequence[Mapping[str, Array]], clips: Sequence[Clip]) -> ConditionFeatures:
    """Rows as one float32 batch; missing conditions of a clip are marked as absent."""

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([row[name] for row in features]).astype(np.float32))

    has_video_B = torch.tensor([clip.has_video for clip in clips])
    return ConditionFeatures(
        rgb_BTD=stack("rgb"),
        depth_BTD=stack("depth"),
        depth_scalars_BTK=stack("depth_scalars"),
        sync_BSD=stack("sync"),
        text_BND=stack("text"),
        present_video_B=has_video_B,
        present_depth_B=has_video_B,
        present_text_B=torch.tensor([clip.has_text for clip in clips]),
    )


@dataclass(frozen=True)
class GenerationFolder:
    """The output folder of a set of sounds: `<clip_id>.flac`, `<clip_id>.mp4`, failures.parquet, GENERATION.json last.

    `plan` describes everything that decides the sounds. A folder with another plan is refused, so that one folder never
    mixes the sounds of two checkpoints or settings; with the same plan, finished clips are kept.
    """

    uri: str
    plan: dict[str, object]
    audio_suffix: str
    with_video: bool

    @property
    def failures_uri(self) -> str:
        return paths.join(self.uri, _FAILURES)

    def check(self, clips: Sequence[Clip]) -> None:
        """Raise StorageError if the folder has another plan, or if writing `clips` would overwrite other files."""
        plan_uri = paths.join(self.uri, _PLAN)
        is_own = paths.exists(plan_uri)
        names = {_PLAN, _FAILURES, MARKER, *(name for clip in clips for name in self._names(clip))}
        refuse_overwriting(self.uri, names, is_own, [clip.source_uri for clip in clips])
        if is_own and paths.read_json(plan_uri) != self.plan:
            raise StorageError(
                f"{self.uri} holds sounds made with another checkpoint or other settings.",
                remedy="Give another out_uri, or delete that folder.",
            )

    def claim(self, clips: Sequence[Clip]) -> None:
        """Write the plan into the folder. Raises StorageError as `check` does."""
        self.check(clips)
        paths.write_json(paths.join(self.uri, _PLAN), self.plan)

    def is_done(self, clip: Clip) -> bool:
        return all(paths.exists(uri) for uri in self._uris(clip))

    def write(self, clip: Clip, wave_A: NDArray[np.float32], sample_rate_hz: int) -> None:
        """Write the sound and the video with it. Raises MediaError or StorageError if the sound cannot be written.

        If only the video cannot be written, the sound is kept and a warning names the clip and the reason.
        """
        cut_A = wave_A[: round(clip.duration_s * sample_rate_hz)]
        audio_uri, *video_uris = self._uris(clip)
        media.write_audio(audio_uri, cut_A, sample_rate_hz)
        for video_uri in video_uris:
            try:
                media.mux_audio(clip.source_uri, cut_A, sample_rate_hz, video_uri, clip.start_s, clip.duration_s)
            except (MediaError, StorageError) as error:
                log.warning("%s: the sound is written, but not the video with it: %s", clip.clip_id, error)

    def complete(self, clip_ids: Sequence[str], failures: Sequence[Rejected], training: Mapping[str, object]) -> None:
        """Write the list of failures and the marker; `training` records how the network was trained."""
        write_rows(self.failures_uri, Rejected, failures)
        failed = {row.clip_id for row in failures}
        record = {
            **self.plan,
            "schema_version": SCHEMA_VERSION,
            "training": training,
            "audio_suffix": self.audio_suffix,
            "clips": sorted(clip_id for clip_id in clip_ids if clip_id not in failed),
            "num_failures": len(failures),
            "provenance": provenance(),
        }
        record["fingerprint"] = fingerprint({key: record[key] for key in (*self.plan, "clips")})
        paths.write_json(paths.join(self.uri, MARKER), record)

    def _names(self, clip: Clip) -> list[str]:
        suffixes = [self.audio_suffix, ".mp4"] if self.with_video and clip.has_video else [self.audio_suffix]
        return [f"{clip.clip_id}{suffix}" for suffix in suffixes]

    def _uris(self, clip: Clip) -> list[str]:
        return [paths.join(self.uri, name) for name in self._names(clip)]


def generation_plan(
    generator: SoundGenerator, sampling: SamplingConfig, weights: str, **source: object
) -> dict[str, object]:
    """Everything that decides the sounds of a folder, as plain JSON values."""
    record = generator.checkpoint.record
    # The fingerprint of the features covers the other encoders, but not the vocoder.
    vocoder = {"vocoder_sha256": paths.sha256_of(generator.custom_vocoder)} if generator.custom_vocoder else {}
    return {
        "checkpoint_uri": generator.checkpoint.uri,
        "checkpoint_sha256": record["files"][f"{weights}.safetensors"],
        "weights": weights,
        "step": record["step"],
        "arm": record["arm"],
        "sampling": config_to_dict(sampling),
        "bundle": generator.schema.bundle,
        "sample_rate_hz": generator.schema.sample_rate_hz,
        "duration_s": generator.schema.duration_s,
        **vocoder,
        **source,
    }


def write_sounds(
    generator: SoundGenerator,
    folder: GenerationFolder,
    rows: Iterable[tuple[Clip, Mapping[str, Array]]],
    sampling: SamplingConfig,
    batch_size: int,
) -> Iterator[Rejected | None]:
    """Generate and write every missing clip; yields None per written clip, a Rejected row per failure."""
    for batch in _chunks(((clip, row) for clip, row in rows if not folder.is_done(clip)), batch_size):
        clips = [clip for clip, _ in batch]
        waves = generator.generate([clip.clip_id for clip in clips], [row for _, row in batch], clips, sampling)
        for clip, wave_A in zip(clips, waves, strict=True):
            try:
                folder.write(clip, wave_A, generator.schema.sample_rate_hz)
                yield None
            except MediaError as error:
                log.warning("%s: %s", clip.clip_id, error)
                yield Rejected(clip.clip_id, clip.source_uri, error.reason, str(error))


def _chunks(
    items: Iterable[tuple[Clip, Mapping[str, Array]]], size: int
) -> Iterator[list[tuple[Clip, Mapping[str, Array]]]]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
