"""Stage 2 of extraction, on an actor pool: one bundle of encoders per actor, loaded once, on a GPU where there is one.

INPUT   the output of `stages.decode`, one block per batch.
OUTPUT  one row per clip: `shard`, `reason`, `detail`, and the columns of the feature row; of a rejected clip only its
        clip_id and source_uri are set.
SIZE    a block is encoded as it comes, never regrouped: which clips share a batch decides the last bits of their
        features, and two runs must agree on them.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dmma_core.data.feature_schema import FeatureSchema
from dmma_core.data.manifest import Clip, Rejected
from dmma_core.encoders.base import EncoderBundle
from dmma_core.storage.media import DecodedClip, FrameRequest
from dmma_core.tensors import Array
from ray_jobs.stages.decode import DecodeStage, unpack_clips

LoadBundle = Callable[[], EncoderBundle]
_CAPTIONS_PER_BATCH = 64


@dataclass(frozen=True)
class BundleDescription:
    """What the driver needs of a bundle without loading it: its schema, its frame requests, and text features."""

    schema: FeatureSchema
    frame_requests: tuple[FrameRequest, ...]
    text: Mapping[str, Array]


def describe_bundle(load: LoadBundle, captions: Mapping[str, str]) -> BundleDescription:
    """Load the bundle on a worker, describe it, and encode `captions` (caption_id to text), each once."""
    bundle = load()
    keys = sorted(captions)
    text: dict[str, Array] = {}
    for start in range(0, len(keys), _CAPTIONS_PER_BATCH):
        batch = keys[start : start + _CAPTIONS_PER_BATCH]
        encoded = bundle.encode_text([captions[key] for key in batch])
        stored = encoded.astype(bundle.schema.text.dtype)
        text |= dict(zip(batch, stored, strict=True))
    return BundleDescription(bundle.schema, tuple(bundle.frame_requests), text)


class EncodeStage:
    """Ray Data callable that turns decoded clips into feature rows."""

    def __init__(self, load: LoadBundle) -> None:
        self._bundle = load()
        self._schema = self._bundle.schema
        self._columns = _output_schema(self._schema)

    def __call__(self, table: pa.Table) -> pa.Table:
        unpacked = unpack_clips(table, self._bundle.frame_requests, self._schema.sample_rate_hz)
        good = [(clip, decoded) for _, clip, decoded in unpacked if isinstance(decoded, DecodedClip)]
        encoded = dict(zip((clip.clip_id for clip, _ in good), self._encode(good), strict=True))
        rows = []
        for shard, clip, decoded in unpacked:
            result = decoded if isinstance(decoded, Rejected) else encoded[clip.clip_id]
            rows.append({"shard": shard, **(_rejected_row(result) if isinstance(result, Rejected) else result)})
        return pa.Table.from_pylist(rows, schema=self._columns)

    def _encode(self, clips: Sequence[tuple[Clip, DecodedClip]]) -> list[dict[str, Any] | Rejected]:
        if not clips:
            return []
        try:
            features = self._bundle.encode_clips([decoded for _, decoded in clips])
        except Exception as error:  # the stage's edge: find the clip that cannot be encoded, keep the others
            if len(clips) > 1:
                return [row for one in clips for row in self._encode([one])]
            logging.getLogger(__name__).warning("%s cannot be encoded: %s", clips[0][0].clip_id, error)
            return [_reject(clips[0][0], "encode_failed", error)]
        return [self._feature_row(clip, values) for (clip, _), values in zip(clips, features, strict=True)]

    def _feature_row(self, clip: Clip, features: Mapping[str, Array]) -> dict[str, Any] | Rejected:
        try:
            return {**self._schema.encode_row(clip, features), "reason": "", "detail": ""}
        except ValueError as error:
            return _reject(clip, "invalid_features", error)


class DecodeAndEncodeStage:
    """Both stages in one actor, for machines without GPUs."""

    def __init__(self, decode: DecodeStage, load: LoadBundle) -> None:
        self._decode, self._encode = decode, EncodeStage(load)

    def __call__(self, table: pa.Table) -> pa.Table:
        return self._encode(self._decode(table))


def _output_schema(schema: FeatureSchema) -> pa.Schema:
    fields = [pa.field("shard", pa.int64()), pa.field("reason", pa.string()), pa.field("detail", pa.string())]
    return pa.schema([*fields, *(field.with_nullable(True) for field in schema.row_schema())])


def _reject(clip: Clip, reason: str, error: Exception) -> Rejected:
    return Rejected(clip.clip_id, clip.source_uri, reason, str(error) or type(error).__name__)


def _rejected_row(row: Rejected) -> dict[str, str]:
    return {"clip_id": row.clip_id, "source_uri": row.source_uri, "reason": row.reason, "detail": row.detail}
