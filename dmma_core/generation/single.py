"""Features of one video, from the same encoders, without a feature set."""

import posixpath
from collections.abc import Mapping

from dmma_core.data.manifest import Clip, caption_id_of
from dmma_core.encoders.base import EncoderBundle
from dmma_core.errors import MediaError
from dmma_core.storage import media, paths
from dmma_core.tensors import Array


def clip_of_video(video_uri: str, prompt: str, start_s: float, duration_s: float) -> Clip:
    """The clip of `duration_s` seconds of a video from `start_s` on; its id is the file's stem.

    Raises MediaError "cannot_open" or "no_video", StorageError if the file is absent.
    """
    if not media.stream_kinds(video_uri)[0]:
        raise MediaError(f"{video_uri} has no video stream.", reason="no_video", remedy="Give a video.")
    return Clip(
        clip_id=posixpath.splitext(posixpath.basename(video_uri))[0],
        dataset="single",
        split="test",
        caption=prompt,
        caption_id=caption_id_of(prompt),
        source_uri=video_uri,
        source_sha256=paths.sha256_of(video_uri),
        start_s=start_s,
        duration_s=duration_s,
        has_video=True,
        has_text=bool(prompt),
    )


def features_of_clip(bundle: EncoderBundle, clip: Clip) -> Mapping[str, Array]:
    """The features as in a row of the feature store, `text` included. Raises MediaError for a bad video."""
    decoded = media.decode_clip(clip.source_uri, clip.start_s, clip.duration_s, bundle.frame_requests, None)
    (features,) = bundle.encode_clips([decoded])
    return {**features, "text": bundle.encode_text([clip.caption])[0]}
