"""Two folders of sounds as `dmma generate` writes them, for tests of evaluation: rendered clips, made sounds.

The sounds are not a network's: each arm plays the true sound of another clip of the same set, at a level that ignores the
distance ("baseline") or follows it ("depth"), with noise. Features are zeros; nothing here reads them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmma_core.config_loading import config_to_dict
from dmma_core.data.feature_store import FeatureStore, complete_features, plan_shards, write_captions, write_shard
from dmma_core.data.manifest import Clip, Rejected, caption_id_of, write_manifest, write_rows
from dmma_core.data.scenes import SceneConfig, finish, read_truth, render_block, unfinished_blocks
from dmma_core.provenance import provenance
from dmma_core.recipe import Recipe
from dmma_core.storage import media, paths
from helpers.features import synthetic_schema

RATE_HZ = 16_000


@dataclass(frozen=True)
class GeneratedPair:
    """URIs of the two folders, of the feature set and of the folder of rendered clips."""

    baseline: str
    depth: str
    features: str
    clips: str


NUM_CLIPS = 32  # enough to conclude something from


def write_generated_pair(
    folder: Path, num_clips: int = NUM_CLIPS, duration_s: float = 2.0, side: int = 64
) -> GeneratedPair:
    """Render clips, give them zero features in split "test", and write the sounds of both arms."""
    settings = SceneConfig(num_clips=num_clips, seed=5, height=side, width=side, duration_s=duration_s)
    clips_uri = str(folder / "clips")
    for block in unfinished_blocks(settings, clips_uri):
        render_block(settings, clips_uri, block)
    finish(settings, clips_uri)
    store = write_zero_features(folder / "features", clips_uri, duration_s)
    uris = {arm: write_sounds(folder, arm, store, clips_uri) for arm in ("baseline", "depth")}
    return GeneratedPair(uris["baseline"], uris["depth"], store.uri, clips_uri)


def write_zero_features(folder: Path, clips_uri: str, duration_s: float) -> FeatureStore:
    schema = synthetic_schema(duration_s)
    truths = read_truth(clips_uri)
    clips = [
        Clip(
            clip_id=clip_id,
            dataset="rendered",
            split="test",
            caption=truth.caption,
            caption_id=caption_id_of(truth.caption),
            source_uri=paths.join(clips_uri, f"{clip_id}.mp4"),
            source_sha256=paths.sha256_of(paths.join(clips_uri, f"{clip_id}.mp4")),
            start_s=0.0,
            duration_s=duration_s,
            has_video=True,
            has_text=True,
        )
        for clip_id, truth in truths.items()
    ]
    manifest = write_manifest(f"{folder}-manifest", "rendered", clips, [])
    shards = plan_shards(manifest, clips_per_shard=64)
    zeros = {spec.name: np.zeros(spec.shape, np.float16) for spec in schema.tensors}
    for shard in shards:
        write_shard(str(folder), shard, schema, [schema.encode_row(clip, zeros) for clip in shard.clips], [])
    captions = {clip.caption_id: clip.caption for clip in clips}
    text = {key: np.zeros(schema.text.shape, np.float16) for key in captions}
    write_captions(str(folder), schema, captions, text)
    complete_features(str(folder), manifest, schema, shards)
    return FeatureStore(str(folder))


def write_sounds(folder: Path, arm: str, store: FeatureStore, clips_uri: str) -> str:
    """One arm's folder: sounds and marker, as `dmma generate` leaves them."""
    uri = str(folder / "generated" / arm)
    truths = read_truth(clips_uri)
    rng = np.random.default_rng(len(arm))
    for clip, other in zip(store.clips, store.clips[1:] + store.clips[:1], strict=True):
        donor_A = media.decode_audio(other.source_uri, RATE_HZ, 0.0, clip.duration_s)
        sound_A = donor_A / max(float(np.sqrt(np.mean(donor_A**2))), 1e-6) * 0.03
        if arm == "depth":
            times_s = np.arange(len(sound_A)) / RATE_HZ
            truth = truths[clip.clip_id]
            distance_m_A = np.interp(times_s, np.arange(len(truth.distance_m)) / truth.fps, truth.distance_m)
            sound_A = sound_A * 8.0 / distance_m_A
        noisy_A = sound_A + 0.001 * rng.standard_normal(len(sound_A))
        media.write_audio(paths.join(uri, f"{clip.clip_id}.flac"), noisy_A.astype(np.float32), RATE_HZ)
    write_rows(paths.join(uri, "failures.parquet"), Rejected, [])
    record = {
        "schema_version": 2,
        "checkpoint_uri": str(folder / "runs" / arm / "checkpoints" / "step=000000100"),
        "checkpoint_sha256": "0" * 64,
        "weights": "ema",
        "step": 100,
        "arm": arm,
        "sampling": {"solver": "euler", "num_steps": 25, "guidance": 4.5, "seed": 1},
        "bundle": "tiny",
        "sample_rate_hz": RATE_HZ,
        "duration_s": store.schema.duration_s,
        "features_uri": store.uri,
        "features_fingerprint": store.fingerprint,
        "split": "test",
        "audio_suffix": ".flac",
        "clips": sorted(clip.clip_id for clip in store.clips),
        "num_failures": 0,
        "fingerprint": arm,
        "training": {
            "step": 100,
            "samples": 1600,
            "recipe": config_to_dict(Recipe()),
            "recipe_changes": [],
            "model": {"depth": "both" if arm == "depth" else "off", "fusion": "concat", "hidden_width": 32},
            "features_fingerprint": store.fingerprint,
            "init_sha256": "",
            "validation": {"loss": 1.0, "lowest_step": 100, "lowest_loss": 1.0},
            "source": None,
            "provenance": provenance(),
            "choice": "best",
            "overfitting": "",
        },
    }
    paths.write_json(paths.join(uri, "GENERATION.json"), record)
    return uri
