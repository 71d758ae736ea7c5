"""Mux new sound with the video stream of a file: copied if MP4 players support its codec, else encoded again."""

import logging
import math
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from dmma_core.errors import MediaError
from dmma_core.storage.media.decode import Decoding
from dmma_core.storage.media.frames import Image
from dmma_core.storage.media.source import MediaSource, open_media
from dmma_core.storage.media.write import add_aac, add_h264, check_sound, encode_frame, encode_sound, writing

_COPIED_CODECS = ("h264", "hevc", "av1", "vp9", "mpeg4")
_TIME_BASE = Fraction(1, 90_000)
_log = logging.getLogger(__name__)


class _NotCopiedError(Exception):
    """The video packets cannot be copied; the text is the reason."""


def mux_audio(
    video_uri: str,
    audio_A: NDArray[np.float32],
    sample_rate_hz: int,
    out_uri: str,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> None:
    """Write an .mp4 with the video stream of `video_uri` and `audio_A`, mono, as its only sound.

    The result starts `start_s` after the time zero of the source. Video packets are copied unchanged; packets before the
    start that later frames refer to are kept and hidden by an edit list. With `duration_s` both streams end that much
    later: the sound exactly, the video up to the few packets that earlier frames refer to. If the packets cannot be copied
    (ProRes, DNxHD, VP8, WMV, …), the video is encoded again as H.264 and this is logged.

    Raises MediaError "no_video", "cannot_open" or "cannot_write", and if the video is encoded again those of `decode_clip`.
    """
    check_sound(out_uri, audio_A)
    if duration_s is not None:
        audio_A = audio_A[: round(duration_s * sample_rate_hz)]
    try:
        with open_media(video_uri) as source:
            _copy(_with_video(source), audio_A, sample_rate_hz, out_uri, start_s, duration_s)
    except _NotCopiedError as reason:
        _log.info("%s: the video stream of %s is encoded again, as H.264: %s.", out_uri, video_uri, reason)
        with open_media(video_uri) as source:
            _encode_again(source, audio_A, sample_rate_hz, out_uri, start_s, duration_s)


def _with_video(source: MediaSource) -> MediaSource:
    if source.video is None:
        raise MediaError(f"{source.uri} has no video stream.", reason="no_video", remedy="Give a video file.")
    return source


def _copy(
    source: MediaSource,
    audio_A: NDArray[np.float32],
    sample_rate_hz: int,
    out_uri: str,
    start_s: float,
    duration_s: float | None,
) -> None:
    codec = source.video.codec_context
    if codec is None or codec.codec.canonical_name not in _COPIED_CODECS:
        raise _NotCopiedError(f"MP4 players do not support {codec.codec.canonical_name if codec else 'its codec'}")
    try:
        packets, rotation = _video_packets(source.container, source.video, source.zero_s + start_s, duration_s)
    except av.error.FFmpegError as error:
        raise _NotCopiedError(f"its packets cannot be read ({error.strerror})") from error
    with writing(out_uri) as file, av.open(file, "w", format="mp4") as output:
        video = output.add_stream_from_template(source.video, opaque=True)
        if rotation:
            video.set_display_rotation(rotation)
        audio = add_aac(out_uri, output, sample_rate_hz)
        for packet in packets:
            packet.stream = video
            try:
                output.mux(packet)
            except av.error.FFmpegError as error:
                raise _NotCopiedError(f"MP4 does not accept its packets ({error.strerror})") from error
        encode_sound(output, audio, audio_A, sample_rate_hz)


def _video_packets(container: Any, video: Any, zero_s: float, duration_s: float | None) -> tuple[list[Any], float]:
    """Packets in decoding order with times from `zero_s` on, and the display rotation.

    From the last key frame that is shown no later than time 0, up to the last packet shown before `duration_s`.
    """
    shift = round(zero_s / video.time_base)
    end = float("inf") if duration_s is None else duration_s / video.time_base
    packets: list[Any] = []
    rotation = None
    for packet in container.demux(video):
        if not packet.size:
            continue
        if rotation is None:
            frames = packet.decode()
            rotation = frames[0].rotation if frames else None
        if packet.pts is None and packet.dts is None:
            raise _NotCopiedError("its packets have no times")
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        if packet.is_keyframe and _time_of(packet) <= 0:
            packets.clear()
        packets.append(packet)
        if packet.dts is not None and packet.dts >= end:
            break  # no packet is shown before it is decoded
    shown_first = max((p for p in packets if p.pts is not None and p.pts <= 0), key=lambda p: p.pts, default=None)
    if shown_first is not None:
        # A frame that started before time 0 is shown from time 0 on; players would skip it otherwise.
        shown_first.pts = 0
    last = max((index for index, packet in enumerate(packets) if _time_of(packet) < end), default=0)
    return packets[: last + 1], rotation or 0


def _time_of(packet: Any) -> int:
    """When a packet is shown, or decoded if its container (AVI) stores no presentation time."""
    time: int = packet.dts if packet.pts is None else packet.pts
    return time


def _encode_again(
    source: MediaSource,
    audio_A: NDArray[np.float32],
    sample_rate_hz: int,
    out_uri: str,
    start_s: float,
    duration_s: float | None,
) -> None:
    with writing(out_uri) as file, av.open(file, "w", format="mp4") as output:
        # Without a duration only the start must be reached; everything up to the end of the file is encoded.
        end_s = start_s if duration_s is None else start_s + duration_s
        encoder = _VideoEncoder(output, source, start_s, float("inf") if duration_s is None else end_s)
        audio = add_aac(out_uri, output, sample_rate_hz)
        Decoding(source, [encoder], start_s, end_s).run(with_sound=False)
        encoder.flush()
        encode_sound(output, audio, audio_A, sample_rate_hz)


class _VideoEncoder:
    """Encodes every frame that is shown from `start_s` to `end_s` into a new stream of `output`, upright."""

    def __init__(self, output: Any, source: MediaSource, start_s: float, end_s: float) -> None:
        self._output, self._start_s, self._end_s = output, start_s, end_s
        self._rate = source.video.average_rate or Fraction(25)
        self._shown_until_s = start_s
        self._stream: Any = None

    @property
    def done(self) -> bool:
        return self._shown_until_s >= self._end_s

    def num_requested(self, until_s: float) -> int:
        return int(not self.done and until_s - self._shown_until_s > 2 * float(_TIME_BASE))

    def add(self, rgb_HWC: Image, until_s: float) -> None:
        if self._stream is None:
            height, width = rgb_HWC.shape[:2]
            self._stream = add_h264(self._output, height, width, self._rate, _TIME_BASE)
        pts = math.floor((self._shown_until_s - self._start_s) / _TIME_BASE)
        encode_frame(self._output, self._stream, rgb_HWC, pts)
        self._shown_until_s = until_s

    def flush(self) -> None:
        self._output.mux(self._stream.encode(None))
