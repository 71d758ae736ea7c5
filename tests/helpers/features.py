"""A synthetic feature set in the tiny bundle's dimensions: random numbers with a learnable structure, for tests only.

The latents depend on the conditions (class by text and rgb, level by depth), so a network that learns them lowers its
validation loss. No encoder is used; the fingerprints in the schema are "synthetic".
"""

from math import ceil, floor
from pathlib import Path

import numpy as np

from dmma_core.data.feature_schema import FeatureSchema
from dmma_core.data.feature_store import FeatureStore, complete_features, plan_shards, write_captions, write_shard
from dmma_core.data.manifest import Clip, caption_id_of, write_manifest
from dmma_core.tensors import Array, TensorSpec

_CAPTIONS = ("bouncing ball", "hammer on anvil", "galloping horse", "church bell")
_SCALARS = ("mean", "max", "std", "centre")
_LATENT_CHANNELS = 40
_WIDTH = 64
_TEXT_TOKENS = 77


def synthetic_schema(duration_s: float = 1.0, encoder: str = "synthetic") -> FeatureSchema:
    """The tiny bundle's shapes for clips of `duration_s`; `encoder` is the fingerprint of every encoder."""
    latent_length = ceil(duration_s * 16_000 / 512)
    num_frames = floor(8 * duration_s)
    num_sync = 8 * ((floor(25 * duration_s) - 16) // 8 + 1)
    return FeatureSchema(
        bundle="tiny",
        tensors=(
            TensorSpec("latent_mean", (latent_length, _LATENT_CHANNELS)),
            TensorSpec("latent_std", (latent_length, _LATENT_CHANNELS)),
            TensorSpec("rgb", (num_frames, _WIDTH)),
            TensorSpec("depth", (num_frames, _WIDTH)),
            TensorSpec("depth_scalars", (num_frames, len(_SCALARS))),
            TensorSpec("sync", (num_sync, _WIDTH)),
        ),
        text=TensorSpec("text", (_TEXT_TOKENS, _WIDTH)),
        encoders=dict.fromkeys(("clip", "depth", "synchformer", "codec"), encoder),
        depth_scalar_names=_SCALARS,
        sample_rate_hz=16_000,
        num_samples=latent_length * 512,
        duration_s=duration_s,
    )


def write_feature_set(
    folder: Path | str,
    num_clips: int = 12,
    num_val: int = 4,
    num_test: int = 0,
    duration_s: float = 1.0,
    seed: int = 0,
    encoder: str = "synthetic",
    has_video: bool = True,
) -> FeatureStore:
    """Write `num_clips` training, `num_val` validation and `num_test` test clips and open the result.

    `<folder>` becomes the feature set, `<folder>-manifest` its manifest.
    """
    schema = synthetic_schema(duration_s, encoder)
    splits = ["train"] * num_clips + ["val"] * num_val + ["test"] * num_test
    clips = [_clip(index, split, duration_s, has_video) for index, split in enumerate(splits)]
    manifest = write_manifest(f"{folder}-manifest", "synthetic", clips, [])
    shards = plan_shards(manifest, clips_per_shard=64)
    for shard in shards:
        rows = [schema.encode_row(clip, _features(clip, schema, seed)) for clip in shard.clips]
        write_shard(str(folder), shard, schema, rows, [])
    captions = {caption_id_of(text): text for text in (*_CAPTIONS, "")}
    text = {key: _unit(np.random.default_rng(row), (_TEXT_TOKENS, _WIDTH)) for row, key in enumerate(captions)}
    write_captions(str(folder), schema, captions, text)
    complete_features(str(folder), manifest, schema, shards)
    return FeatureStore(str(folder))


def _clip(index: int, split: str, duration_s: float, has_video: bool) -> Clip:
    caption = _CAPTIONS[index % len(_CAPTIONS)]
    return Clip(
        clip_id=f"clip-{index:05d}",
        dataset="synthetic",
        split=split,
        caption=caption,
        caption_id=caption_id_of(caption),
        source_uri=f"synthetic/{index}.mp4",
        source_sha256="0" * 64,
        start_s=0.0,
        duration_s=duration_s,
        has_video=has_video,
        has_text=True,
    )


def _features(clip: Clip, schema: FeatureSchema, seed: int) -> dict[str, Array]:
    """The class determines the latent's direction and the visual features, a level per clip its loudness and depth."""
    kind = _CAPTIONS.index(clip.caption)
    of_class = np.random.default_rng((seed, kind))
    of_clip = np.random.default_rng((seed, int(clip.clip_id.rsplit("-", 1)[-1]), 1))
    level = of_clip.uniform(-1, 1)
    shape = schema.spec("latent_mean").shape
    beat = np.sin(np.linspace(0, 2 * np.pi * (kind + 2), shape[0]))[:, None]
    latent = of_class.standard_normal(shape[1]) * (beat + level) + 2 * of_class.standard_normal(shape[1])
    look = of_class.standard_normal(_WIDTH)
    depth_look = np.random.default_rng((seed, 99)).standard_normal(_WIDTH)

    def noisy(name: str, base: Array) -> Array:
        value = base + 0.3 * of_clip.standard_normal(schema.spec(name).shape)
        return (value / np.linalg.norm(value, axis=-1, keepdims=True)).astype(np.float32)

    visual = float(clip.has_video)
    return {
        "latent_mean": (latent + 0.1 * of_clip.standard_normal(shape)).astype(np.float32),
        "latent_std": np.full(shape, 0.05, dtype=np.float32),
        "rgb": visual * noisy("rgb", look),
        "depth": visual * noisy("depth", level * depth_look),
        "depth_scalars": np.full(schema.spec("depth_scalars").shape, visual * level, dtype=np.float32),
        "sync": visual * noisy("sync", look),
    }


def _unit(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    value = generator.standard_normal(shape)
    return (value / np.linalg.norm(value, axis=-1, keepdims=True)).astype(np.float32)
