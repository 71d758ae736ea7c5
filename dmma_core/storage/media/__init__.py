"""Video and sound files: decode once for all consumers, write, and mux new sound with existing video."""

from dmma_core.storage.media.decode import DecodedClip, decode_audio, decode_clip, require_decoder
from dmma_core.storage.media.frames import FrameRequest
from dmma_core.storage.media.mux import mux_audio
from dmma_core.storage.media.source import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    length_of,
    local_copy,
    missing_bytes,
    stream_kinds,
)
from dmma_core.storage.media.write import write_audio, write_video

__all__ = [
    "AUDIO_SUFFIXES",
    "VIDEO_SUFFIXES",
    "DecodedClip",
    "FrameRequest",
    "decode_audio",
    "decode_clip",
    "length_of",
    "local_copy",
    "missing_bytes",
    "mux_audio",
    "require_decoder",
    "stream_kinds",
    "write_audio",
    "write_video",
]
