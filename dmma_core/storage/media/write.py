"""Write video and sound files. Every write is atomic."""

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
    """Write an .mp4: H.264 (4:2:0) video and, if `audio_A` is given, mono AAC sound with the same start.

    frames_THWC: uint8 RGB. An odd height or width is padded by a copy of the last row or column, because 4:2:0
    has one colour sample per two by two pixels. The same input gives the same bytes. Raises MediaError "cannot_write".
    """
    if frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3 or frames_THWC.dtype != np.uint8 or not len(frames_THWC):
        raise cannot_write(uri, f"frames have shape {frames_THWC.shape} and type {frames_THWC.dtype}")
    rate = Fraction(fps).limit_denominator(1001)
    with writing(uri) as file, av.open(file, "w", format="mp4") as output:
        height, width = frames_THWC.shape[1:3]
        video = add_h264(output, height, width, rate, time_base=1 / rate)
        audio = None if audio_A is None else add_aac(uri, output, sample_rate_hz)
        for index, frame_HWC in enumerate(frames_THWC):
            encode_frame(output, video, frame_HWC, index)
        output.mux(video.encode(None))
        if audio is not None and audio_A is not None:
            encode_sound(output, audio, audio_A, sample_rate_hz)


def write_audio(uri: str, audio_A: NDArray[np.float32], sample_rate_hz: int) -> None:
    """Write mono sound as 16-bit .wav or .flac, by the suffix; values beyond [-1, 1] are clipped.

    Raises MediaError "cannot_write" for another suffix, another shape, or values that are not finite.
    """
    suffix = uri[uri.rfind(".") :].lower()
    if suffix not in _SOUND_FORMATS:
        raise cannot_write(uri, f"the suffix {suffix} is none of {', '.join(_SOUND_FORMATS)}")
    check_sound(uri, audio_A)
    buffer = io.BytesIO()
    soundfile.write(
        buffer, np.clip(audio_A, -1.0, 1.0), sample_rate_hz, format=_SOUND_FORMATS[suffix], subtype="PCM_16"
    )
    paths.write_bytes(uri, buffer.getvalue())


def add_h264(output: Any, height: int, width: int, rate: Fraction, time_base: Fraction) -> Any:
    """A stream of H.264 (4:2:0) for frames of this size, padded to an even height and width."""
    # Without B-frames decoding times equal presentation times, and the video needs no edit list.
    video = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "18", "bf": "0"})
    video.height, video.width, video.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
    video.thread_type, video.codec_context.thread_count = "NONE", 1
    video.codec_context.time_base = time_base
    return video


def encode_frame(output: Any, video: Any, rgb_HWC: NDArray[np.uint8], pts: int) -> None:
    """Add one RGB frame at `pts`, counted in the stream's time base."""
    height, width = rgb_HWC.shape[:2]
    if height % 2 or width % 2:
        rgb_HWC = np.pad(rgb_HWC, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb_HWC), format="rgb24")
    frame.pts, frame.time_base = pts, video.codec_context.time_base
    output.mux(video.encode(frame))


def add_aac(uri: str, output: Any, sample_rate_hz: int) -> Any:
    if sample_rate_hz not in _AAC_RATES_HZ:
        raise cannot_write(uri, f"AAC has no sample rate of {sample_rate_hz} Hz")
    return output.add_stream("aac", rate=sample_rate_hz, layout="mono", bit_rate=_AAC_BITS_PER_S)


def encode_sound(output: Any, stream: Any, audio_A: NDArray[np.float32], sample_rate_hz: int) -> None:
    samples = np.ascontiguousarray(np.clip(audio_A, -1.0, 1.0)[None], dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = sample_rate_hz, 0, Fraction(1, sample_rate_hz)
    output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def check_sound(uri: str, audio_A: NDArray[np.float32]) -> None:
    if audio_A.ndim != 1 or not len(audio_A):
        raise cannot_write(uri, f"the sound has shape {audio_A.shape}, mono samples [A] were expected")
    if not np.isfinite(audio_A).all():
        raise cannot_write(uri, "the sound contains values that are not finite")


@contextmanager
def writing(uri: str) -> Iterator[IO[bytes]]:
    """Atomic write to `uri`; errors of the encoder become MediaError "cannot_write"."""
    with paths.open_write(uri) as file:
        try:
            yield file
        except (av.error.FFmpegError, ValueError) as error:
            raise cannot_write(uri, str(error)) from error


def cannot_write(uri: str, why: str) -> MediaError:
    return MediaError(f"{uri} cannot be written: {why}.", reason="cannot_write", remedy="Check what is to be written.")
