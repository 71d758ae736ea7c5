"""Write video and sound files, and put new sound under an untouched picture stream. Every write is atomic."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import IO, Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from dmma_core.errors import MediaError
from dmma_core.storage import paths
from dmma_core.storage.media.source import open_media

_SOUND_FORMATS = {".wav": "WAV", ".flac": "FLAC"}
# Rates of the AAC encoder (ISO/IEC 14496-3, table 1.18).
_AAC_RATES_HZ = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_AAC_BITS_PER_S = 160_000


def write_video(
    uri: str,
    frames_THWC: NDArray[np.uint8],
    fps: float,
    audio_A: NDArray[np.float32] | None = None,
    sample_rate_hz: int = 0,
) -> None:
    """Write an .mp4: H.264 (4:2:0) pictures and, where `audio_A` is given, mono AAC sound that starts with them.

    frames_THWC: uint8 RGB. An odd height or width grows by one row or column, a copy of the last one, because 4:2:0
    has one colour sample per two by two pixels. The same input gives the same bytes. Raises MediaError "cannot_write".
    """
    if frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3 or frames_THWC.dtype != np.uint8 or not len(frames_THWC):
        raise _cannot_write(uri, f"frames have shape {frames_THWC.shape} and type {frames_THWC.dtype}")
    height, width = frames_THWC.shape[1:3]
    if height % 2 or width % 2:
        frames_THWC = np.pad(frames_THWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    rate = Fraction(fps).limit_denominator(1001)
    with _writing(uri) as file, av.open(file, "w", format="mp4") as output:
        # No B-frames: then decoding times equal presentation times and the file needs no edit list for its pictures.
        video = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "18", "bf": "0"})
        video.height, video.width, video.pix_fmt = frames_THWC.shape[1], frames_THWC.shape[2], "yuv420p"
        video.thread_type, video.codec_context.thread_count = "NONE", 1
        video.codec_context.time_base = 1 / rate
        audio = None if audio_A is None else _add_aac(uri, output, sample_rate_hz)
        for index, frame_HWC in enumerate(frames_THWC):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_HWC), format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if audio is not None and audio_A is not None:
            _encode_sound(output, audio, audio_A, sample_rate_hz)


def write_audio(uri: str, audio_A: NDArray[np.float32], sample_rate_hz: int) -> None:
    """Write mono sound as 16-bit .wav or .flac, by the suffix; values beyond [-1, 1] are clipped.

    Raises MediaError "cannot_write" for another suffix, another shape, or values that are not finite.
    """
    suffix = uri[uri.rfind(".") :].lower()
    if suffix not in _SOUND_FORMATS:
        raise _cannot_write(uri, f"the suffix {suffix} is none of {', '.join(_SOUND_FORMATS)}")
    _check_sound(uri, audio_A)
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.clip(audio_A, -1.0, 1.0), sample_rate_hz, format=_SOUND_FORMATS[suffix], subtype="PCM_16"
    )
    paths.write_bytes(uri, buffer.getvalue())


def mux_audio(
    video_uri: str,
    audio_A: NDArray[np.float32],
    sample_rate_hz: int,
    out_uri: str,
    start_s: float = 0.0,
    duration_s: float | None = None,
) -> None:
    """Write an .mp4 with the picture packets of `video_uri`, copied untouched, and `audio_A` as its only sound.

    The result begins `start_s` after the time zero of the source; packets before it that later pictures refer to are
    kept and hidden by an edit list. With `duration_s` both end that much later: the sound exactly, the pictures up to
    the few packets that earlier pictures refer to. Raises MediaError "no_video", "cannot_open" or "cannot_write".
    """
    _check_sound(out_uri, audio_A)
    with open_media(video_uri) as source:
        if source.video is None:
            raise MediaError(f"{video_uri} has no video stream.", reason="no_video", remedy="Give a video file.")
        packets, rotation = _picture_packets(source.container, source.video, source.zero_s + start_s, duration_s)
        with _writing(out_uri) as file, av.open(file, "w", format="mp4") as output:
            video = output.add_stream_from_template(source.video, opaque=True)
            if rotation:
                video.set_display_rotation(rotation)
            audio = _add_aac(out_uri, output, sample_rate_hz)
            for packet in packets:
                packet.stream = video
                output.mux(packet)
            if duration_s is not None:
                audio_A = audio_A[: round(duration_s * sample_rate_hz)]
            _encode_sound(output, audio, audio_A, sample_rate_hz)


def _picture_packets(container: Any, video: Any, zero_s: float, duration_s: float | None) -> tuple[list[Any], float]:
    """Packets in decoding order with times from `zero_s` on, and the display rotation.

    From the last key frame that is shown no later than time 0, up to the last packet shown before `duration_s`.
    """
    shift = round(zero_s / video.time_base)
    packets = []
    rotation = None
    for packet in container.demux(video):
        if not packet.size:
            continue
        if rotation is None:
            frames = packet.decode()
            rotation = frames[0].rotation if frames else None
        packet.pts = None if packet.pts is None else packet.pts - shift
        packet.dts = None if packet.dts is None else packet.dts - shift
        packets.append(packet)
    shown_first = max((p for p in packets if p.pts is not None and p.pts <= 0), key=lambda p: p.pts, default=None)
    if shown_first is not None:
        shown_first.pts = (
            0  # a picture that began before time 0 is shown from there on; players would skip it otherwise
        )
    times = [packet.dts if packet.pts is None else packet.pts for packet in packets]
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe and times[i] <= 0]
    first, last = keys[-1] if keys else 0, len(packets)
    if duration_s is not None:
        shown = [i for i, time in enumerate(times) if time < duration_s / video.time_base]
        last = max(shown[-1] if shown else 0, first) + 1
    return packets[first:last], rotation or 0


def _add_aac(uri: str, output: Any, sample_rate_hz: int) -> Any:
    if sample_rate_hz not in _AAC_RATES_HZ:
        raise _cannot_write(uri, f"AAC has no sample rate of {sample_rate_hz} Hz")
    return output.add_stream("aac", rate=sample_rate_hz, layout="mono", bit_rate=_AAC_BITS_PER_S)


def _encode_sound(output: Any, stream: Any, audio_A: NDArray[np.float32], sample_rate_hz: int) -> None:
    samples = np.ascontiguousarray(np.clip(audio_A, -1.0, 1.0)[None], dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, 0, Fraction(1, sample_rate_hz)
    output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def _check_sound(uri: str, audio_A: NDArray[np.float32]) -> None:
    if audio_A.ndim != 1 or not len(audio_A):
        raise _cannot_write(uri, f"the sound has shape {audio_A.shape}, mono samples [A] were expected")
    if not np.isfinite(audio_A).all():
        raise _cannot_write(uri, "the sound holds values that are not numbers")


@contextmanager
def _writing(uri: str) -> Iterator[IO[bytes]]:
    """Atomic write to `uri`; what the encoder refuses becomes a sentence."""
    with paths.open_write(uri) as file:
        try:
            yield file
        except (av.error.FFmpegError, ValueError) as error:
            raise _cannot_write(uri, str(error)) from error


def _cannot_write(uri: str, why: str) -> MediaError:
    return MediaError(f"{uri} cannot be written: {why}.", reason="cannot_write", remedy="Check what is to be written.")
