"""Write small video and audio files of unusual kinds with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def counting_frames(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames [T, H, W, 3] of one grey level each, 40 + 4 * index, so that a decoded frame shows its index."""
    levels = (40 + 4 * np.arange(num_frames)).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def indices_of(frames_THWC: np.ndarray) -> list[int]:
    """Indices of decoded counting frames."""
    return [round((frame.mean() - 40) / 4) for frame in frames_THWC.astype(np.float64)]


def moving_frames(num_frames: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A bright bar that moves to the right over a grey gradient."""
    frames = np.tile(np.linspace(60, 120, width, dtype=np.uint8)[None, None, :, None], (num_frames, height, 1, 3))
    for index in range(num_frames):
        left = index * 2 % (width - 8)
        frames[index, :, left : left + 8] = 230
    return frames


def tone(duration_s: float, sample_rate_hz: int, frequency_hz: float = 440.0, peak: float = 0.5) -> np.ndarray:
    time_A = np.arange(round(duration_s * sample_rate_hz)) / sample_rate_hz
    return (peak * np.sin(2 * np.pi * frequency_hz * time_A)).astype(np.float32)


def make_video(
    path: Path,
    frames_THWC: np.ndarray,
    times_s: list[float] | None = None,
    fps: int = 25,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int = 0,
    sound_AC: np.ndarray | None = None,
    sample_rate_hz: int = 44_100,
    sound_start_s: float = 0.0,
    pix_fmt: str = "yuv420p",
    sound_codec: str = "aac",
) -> str:
    """Write a file whose frames have the given times (or `fps`), in the suffix's format; audio is float [A, channels]."""
    with av.open(str(path), "w") as output:
        video = output.add_stream(codec, rate=fps, options=options or {})
        video.height, video.width, video.pix_fmt = *frames_THWC.shape[1:3], pix_fmt
        ticks = fps if times_s is None else 1000
        video.codec_context.time_base = Fraction(1, ticks)
        video.codec_context.thread_count = 1
        if rotation:
            video.set_display_rotation(rotation)
        if sound_AC is not None:
            layout = {1: "mono", 2: "stereo"}[sound_AC.shape[1]]
            audio = output.add_stream(sound_codec, rate=sample_rate_hz, layout=layout)
        times_s = times_s or [index / fps for index in range(len(frames_THWC))]
        for frame_HWC, time_s in zip(frames_THWC, times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = round(time_s * ticks), Fraction(1, ticks)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if sound_AC is not None:
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(sound_AC.T.astype(np.float32)), format="fltp", layout=layout
            )
            frame.sample_rate, frame.time_base = sample_rate_hz, Fraction(1, sample_rate_hz)
            frame.pts = round(sound_start_s * sample_rate_hz)
            output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
    return str(path)


def make_sound_at(path: Path, pieces: list[tuple[float, np.ndarray]], sample_rate_hz: int) -> str:
    """Write 16-bit PCM whose packets, mono float [A] each, bear the given start times in s, rounded as the container does.

    One video frame at 0 s sets the time zero of the file.
    """
    with av.open(str(path), "w") as output:
        video = output.add_stream("mpeg4", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio = output.add_stream("pcm_s16le", rate=sample_rate_hz, layout="mono")
        output.mux(video.encode(av.VideoFrame.from_ndarray(counting_frames(1)[0], format="rgb24")))
        output.mux(video.encode(None))
        for start_s, sound_A in pieces:
            samples = np.round(32767 * sound_A).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = sample_rate_hz, Fraction(1, sample_rate_hz)
            frame.pts = round(start_s * sample_rate_hz)
            output.mux(audio.encode(frame))
        output.mux(audio.encode(None))
    return str(path)


def cut_without_encoding(source: str, path: Path, start_s: float) -> str:
    """Stream copy from the key frame before `start_s`, hidden before `start_s` by an edit list, as by cutting tools."""
    with av.open(source) as file, av.open(str(path), "w") as output:
        video_in = file.streams.video[0]
        video = output.add_stream_from_template(video_in, opaque=True)
        shift = round(start_s / video_in.time_base)
        file.seek(shift, stream=video_in)
        for packet in file.demux(video_in):
            if packet.size:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = video
                output.mux(packet)
    return str(path)
