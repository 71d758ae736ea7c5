"""Interface of an encoder bundle: all encoders that turn a decoded clip into a feature row.

`dmma_core.encoders.bundle` builds the bundles by name ("tiny", "mmaudio_16k", "mmaudio_44k").
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from dmma_core.data.feature_schema import FeatureSchema
from dmma_core.models.audio_codec.codec import AudioCodec
from dmma_core.storage.media import DecodedClip, FrameRequest
from dmma_core.tensors import Array


class EncoderBundle(Protocol):
    """All encoders of one feature set. `schema` describes exactly what `encode_clips` returns."""

    @property
    def schema(self) -> FeatureSchema: ...

    @property
    def frame_requests(self) -> tuple[FrameRequest, ...]: ...

    @property
    def codec(self) -> AudioCodec: ...

    def encode_clips(self, clips: Sequence[DecodedClip]) -> list[Mapping[str, Array]]:
        """Features of several clips at once, one mapping per clip with the tensors of `schema`.

        A clip without video has zero visual features.
        """

    def encode_text(self, captions: Sequence[str]) -> Array:
        """Text features [len(captions), N, D]."""
