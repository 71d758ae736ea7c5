"""The tiny encoder bundle with random weights: the real classes, no trained file, deterministic."""

import os
from collections.abc import Mapping, Sequence

from dmma_core.encoders.bundle import Bundle
from dmma_core.encoders.clip import tiny_clip
from dmma_core.encoders.depth import tiny_depth
from dmma_core.encoders.loading import fill_with_random_weights
from dmma_core.encoders.synchformer import tiny_random_synchformer
from dmma_core.models.audio_codec.spectral import SpectralCodec
from dmma_core.storage.media import DecodedClip
from dmma_core.tensors import Array


def load_random_bundle(duration_s: float, seed: str = "test") -> Bundle:
    """The features are meaningless but have all properties that storing and reading need."""
    clip = fill_with_random_weights(tiny_clip(), f"{seed} clip")
    depth = fill_with_random_weights(tiny_depth(), f"{seed} depth")
    bundle = Bundle("tiny_random_weights", duration_s, clip, depth, tiny_random_synchformer(), SpectralCodec())
    for part in (bundle.clip, bundle.depth, bundle.synchformer, bundle.codec):
        part.eval().requires_grad_(False)
    return bundle


class FatalBundle(Bundle):
    """Its process dies on every clip without frames, as on a file that crashes a native library."""

    def encode_clips(self, clips: Sequence[DecodedClip]) -> list[Mapping[str, Array]]:
        if not all(clip.frames for clip in clips):
            os._exit(1)
        return super().encode_clips(clips)


def load_fatal_bundle(duration_s: float) -> Bundle:
    bundle = load_random_bundle(duration_s)
    bundle.__class__ = FatalBundle
    return bundle
