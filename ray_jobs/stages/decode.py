"""Stage 1 of extraction, on CPU tasks: a video is opened once and decoded to the input of every encoder.

INPUT   one row per batch of clips: `shard` int64, `clips` list of Clip as structs.
OUTPUT  one row per clip: `shard`, `clip` (struct), `reason` and `detail` (empty strings unless rejected), `audio`
        (float32 bytes) and `frames:<name>` (uint8 bytes of [T, H, W, 3]) for every frame request; null where absent.
        The reason STORAGE_FAILED ends the job instead of rejecting the clip.
SIZE    one task takes one core; its output, batch size times the decoded clip, is one block in the object store.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from dmma_core.data.manifest import Clip, Rejected, arrow_schema_of
from dmma_core.errors import AbsentError, MediaError, StorageError
from dmma_core.storage.media import DecodedClip, FrameRequest, decode_clip

STORAGE_FAILED = "storage_failed"


@dataclass(frozen=True)
class DecodeStage:
    """What to decode of each clip: the frames of all encoders, and sound of `num_samples` at `sample_rate_hz`."""

    frame_requests: tuple[FrameRequest, ...]
    sample_rate_hz: int
    num_samples: int
    decoder: str

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = [
            self._row(shard, Clip(**clip))
            for shard, clips in zip(table["shard"].to_pylist(), table["clips"].to_pylist(), strict=True)
            for clip in clips
        ]
        return pa.Table.from_pylist(rows, schema=self.schema())

    def schema(self) -> pa.Schema:
        frames = [pa.field(_column(request.name), pa.large_binary()) for request in self.frame_requests]
        return pa.schema([*_common_fields(), pa.field("audio", pa.large_binary()), *frames])

    def _row(self, shard: int, clip: Clip) -> dict[str, Any]:
        row = {"shard": shard, "clip": asdict(clip), "reason": "", "detail": ""}
        try:
            decoded = decode_clip(
                clip.source_uri,
                clip.start_s,
                clip.duration_s,
                self.frame_requests if clip.has_video else (),
                self.sample_rate_hz,
                self.num_samples,
                self.decoder,
            )
        except Exception as error:  # the stage's edge: one bad clip must not stop the others
            reason = _reason_of(error)
            return {**row, "reason": reason, "detail": str(error) or type(error).__name__}
        assert decoded.audio_A is not None
        frames = {_column(name): frames_THWC.tobytes() for name, frames_THWC in decoded.frames.items()}
        return {**row, "audio": decoded.audio_A.tobytes(), **frames}


def unpack_clips(
    table: pa.Table, requests: Sequence[FrameRequest], sample_rate_hz: int
) -> list[tuple[int, Clip, DecodedClip | Rejected]]:
    """Rows of `DecodeStage`: shard, clip, and its decoded contents (without copies) or its rejection."""
    clips = [Clip(**clip) for clip in table["clip"].to_pylist()]
    return [
        (table["shard"][index].as_py(), clip, _unpack(table, index, clip, requests, sample_rate_hz))
        for index, clip in enumerate(clips)
    ]


def _unpack(
    table: pa.Table, index: int, clip: Clip, requests: Sequence[FrameRequest], sample_rate_hz: int
) -> DecodedClip | Rejected:
    if reason := table["reason"][index].as_py():
        return Rejected(clip.clip_id, clip.source_uri, reason, table["detail"][index].as_py())
    frames = {}
    for request in requests if clip.has_video else ():
        flat = np.frombuffer(table[_column(request.name)][index].as_buffer(), dtype=np.uint8)
        frames[request.name] = flat.reshape(-1, request.height, request.width, 3)
    audio_A = np.frombuffer(table["audio"][index].as_buffer(), dtype=np.float32)
    return DecodedClip(frames, audio_A, sample_rate_hz)


def _common_fields() -> list[pa.Field]:
    clip = pa.struct(arrow_schema_of(Clip))
    return [
        pa.field("shard", pa.int64()),
        pa.field("clip", clip),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]


def _column(request_name: str) -> str:
    return f"frames:{request_name}"


def _reason_of(error: Exception) -> str:
    if isinstance(error, MediaError):
        return error.reason
    if isinstance(error, AbsentError):
        return "absent"
    return STORAGE_FAILED if isinstance(error, StorageError) else "decode_failed"
