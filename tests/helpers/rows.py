"""Small feature rows whose values identify their clip."""

from collections.abc import Sequence

import numpy as np

from dmma_core.data.feature_schema import TENSORS, FeatureSchema
from dmma_core.data.feature_store import complete_features, plan_shards, write_captions, write_shard
from dmma_core.data.manifest import Clip, Manifest, caption_id_of, write_manifest
from dmma_core.tensors import Array, TensorSpec

SCHEMA = FeatureSchema(
    bundle="rows",
    tensors=tuple(TensorSpec(name, (2, 3)) for name in TENSORS),
    text=TensorSpec("text", (2, 2)),
    encoders={"clip": "c0", "depth": "d0"},
    depth_scalar_names=("a", "b", "c"),
    sample_rate_hz=16_000,
    num_samples=16_000,
    duration_s=1.0,
)


def make_clip(index: int, split: str | None = None) -> Clip:
    """Clip number `index`; every fourth is a test clip unless `split` is given."""
    caption = f"caption {index % 3}"
    return Clip(
        clip_id=f"clip-{index:04d}",
        dataset="rows",
        split=split or ("test" if index % 4 == 3 else "train"),
        caption=caption,
        caption_id=caption_id_of(caption),
        source_uri=f"/videos/{index}.mp4",
        source_sha256="0" * 64,
        start_s=0.25,
        duration_s=1.0,
        has_video=True,
        has_text=True,
    )


def make_features(index: int) -> dict[str, Array]:
    """Tensor number t of clip `index` is filled with index + t/8, exact in float16."""
    return {spec.name: np.full(spec.shape, index + t / 8, np.float32) for t, spec in enumerate(SCHEMA.tensors)}


def make_row(clip: Clip) -> dict[str, object]:
    return SCHEMA.encode_row(clip, make_features(int(clip.clip_id[-4:])))


def write_text(uri: str, clips: Sequence[Clip]) -> None:
    """Text features of caption number n are filled with n."""
    captions = {clip.caption_id: clip.caption for clip in clips}
    text = {key: np.full(SCHEMA.text.shape, float(caption[-1])) for key, caption in captions.items()}
    write_captions(uri, SCHEMA, captions, text)


def write_features(uri: str, num_clips: int, clips_per_shard: int = 4) -> Manifest:
    """A complete feature set at `uri`, its manifest at `uri`-manifest."""
    clips = [make_clip(index) for index in range(num_clips)]
    manifest = write_manifest(f"{uri}-manifest", "rows", clips, [])
    shards = plan_shards(manifest, clips_per_shard)
    for shard in shards:
        write_shard(uri, shard, SCHEMA, [make_row(clip) for clip in shard.clips], [])
    write_text(uri, clips)
    complete_features(uri, manifest, SCHEMA, shards)
    return manifest
