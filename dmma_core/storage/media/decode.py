"""Decode a clip once for all its consumers: frames at several rates and sizes, and the sound, in one pass.

Decoding runs from the start of the file (PyAV, one thread): this handles edit lists, variable frame rates and
B-frames. Only requested frames are converted to RGB.
"""

import importlib.util
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from dmma_core.errors import ConfigError, MediaError
from dmma_core.storage.media.frames import TIME_TOLERANCE_S, FrameRequest, FrameSampler, FrameSink, upright_rgb
from dmma_core.storage.media.sound import SoundTrack
from dmma_core.storage.media.source import MediaSource, has_discarded_frames, local_copy, open_media

# If a stream ends early, the last frame is repeated and the sound padded with silence for at most this long: the streams
# of one file rarely end on the same millisecond.
MAX_MISSING_S = 0.1
MAX_DAMAGED_SHARE = 0.02
_DECORD_BATCH = 16


@dataclass(frozen=True)
class DecodedClip:
    """What `decode_clip` returns.

    `frames[name]` is uint8 [T, H, W, 3] RGB with T = floor(fps * duration). `audio_A` is float32 mono in [-1, 1] at
    `sample_rate_hz`, or None if none was requested (the rate is then 0). `num_damaged_packets` were skipped or decoded
    with visible errors; more than 2 % are an error.
    """

    frames: Mapping[str, NDArray[np.uint8]]
    audio_A: NDArray[np.float32] | None
    sample_rate_hz: int
    num_damaged_packets: int = 0


def require_decoder(name: str) -> None:
    """Raise ConfigError unless this is "pyav", or "decord" with the extra of that name installed."""
    if name not in ("pyav", "decord"):
        raise ConfigError(f"There is no decoder {name!r}.", remedy='Use "pyav" or "decord".')
    if name == "decord" and importlib.util.find_spec("decord") is None:
        raise ConfigError(
            "decoder is decord, which is not installed here.",
            remedy="Install it with pip install 'dmma[decord]', or use decoder=pyav.",
        )


def decode_clip(
    uri: str,
    start_s: float,
    duration_s: float,
    frame_requests: Sequence[FrameRequest],
    sample_rate_hz: int | None,
    num_samples: int | None = None,
    decoder: str = "pyav",
) -> DecodedClip:
    """Decode `duration_s` seconds from `start_s` on: all requested frames, and the mono sound at `sample_rate_hz`.

    The frame at time t is the last one with a timestamp not after t. (A reader that takes the first frame not before t
    instead, as the demo of MMAudio does, is up to one frame later.) Sound is the mean of the channels,
    placed by its timestamps and resampled; its length is exactly `num_samples`, by default duration * rate.
    `decoder` is "pyav", or "decord" (for the video stream only), which refuses files with edit lists.

    Raises MediaError with the reason "cannot_open", "no_video", "no_audio" (requested, but absent), "too_short",
    "damaged", "unsupported" or "edit_list"; AbsentError if there is no such file; StorageError if it cannot be
    read; ConfigError as require_decoder does.
    """
    require_decoder(decoder)
    samplers = [FrameSampler(request, start_s, duration_s) for request in frame_requests]
    if sample_rate_hz and num_samples is None:
        num_samples = round(duration_s * sample_rate_hz)
    with open_media(uri) as source:
        if decoder == "decord" and samplers:
            _sample_with_decord(source, samplers)
        decoding = Decoding(source, [] if decoder == "decord" else samplers, start_s, start_s + duration_s)
        decoding.run(with_sound=bool(sample_rate_hz))
        audio_A = None
        if sample_rate_hz:
            decoding.check_sound_reaches(start_s + duration_s)
            audio_A = decoding.sound.cut(start_s, num_samples, sample_rate_hz)
    frames = {sampler.request.name: sampler.frames_THWC for sampler in samplers}
    return DecodedClip(frames, audio_A, sample_rate_hz or 0, decoding.num_damaged)


def decode_audio(
    uri: str, sample_rate_hz: int, start_s: float = 0.0, duration_s: float | None = None
) -> NDArray[np.float32]:
    """Mono sound as float32 [A] in [-1, 1], from `start_s` on; `duration_s` None means to the end.

    Same rules and errors as `decode_clip`.
    """
    if duration_s is not None:
        clip = decode_clip(uri, start_s, duration_s, [], sample_rate_hz)
        assert clip.audio_A is not None
        return clip.audio_A
    with open_media(uri) as source:
        decoding = Decoding(source, [], start_s, float("inf"))
        decoding.run(with_sound=True)
        decoding.check_sound_reaches(start_s)
        return decoding.sound.cut(start_s, None, sample_rate_hz)


class Decoding:
    """One pass over an open file, up to `end_s`, that feeds the frame sinks and the sound track."""

    def __init__(self, source: MediaSource, sinks: Sequence[FrameSink], start_s: float, end_s: float) -> None:
        self._source, self._sinks, self._end_s = source, sinks, end_s
        self.sound = SoundTrack(source.uri, from_s=max(0, int(start_s) - 1), until_s=end_s)
        self.num_damaged = self._num_packets = 0
        self._shown: Any = None  # the last frame; it is shown until the next one starts
        self._shown_s = self._frame_end_s = 0.0
        self._packet_dts: deque[int] = deque()

    def run(self, with_sound: bool) -> None:
        video, audio = self._source.video, self._source.audio
        if self._sinks and video is None:
            raise _missing_stream(self._source.uri, "video")
        if with_sound and audio is None:
            raise _missing_stream(self._source.uri, "audio")
        waiting = {s.index for s in (video if self._sinks else None, audio if with_sound else None) if s is not None}
        for packet in self._packets([self._source.container.streams[index] for index in sorted(waiting)]):
            if packet.stream_index not in waiting:
                continue
            is_video = video is not None and packet.stream_index == video.index
            for frame in self._decode(packet):
                if is_video:
                    self._add_frame(frame, packet.stream)
                else:
                    time_s = None if frame.pts is None else float(frame.pts * frame.time_base) - self._source.zero_s
                    self.sound.add(frame, time_s)
            if all(sink.done for sink in self._sinks) if is_video else self.sound.is_complete:
                waiting.discard(packet.stream_index)
                if not waiting:
                    break
        self._check_damage()
        self._repeat_last_frame()

    def _packets(self, streams: Sequence[Any]) -> Iterator[Any]:
        if not streams:
            return
        packets = self._source.container.demux(streams)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:  # the container is damaged here
                self.num_damaged += 1
                return
            if packet is None:
                return
            yield packet

    def _decode(self, packet: Any) -> list[Any]:
        """Frames that `packet` completes; a packet that cannot be decoded is counted and skipped."""
        self._num_packets += packet.size > 0
        if packet.size and packet.pts is None and packet.dts is not None:
            self._packet_dts.append(packet.dts)
        try:
            frames = packet.decode()
        except av.error.EOFError:  # the decoder was flushed already
            return []
        except av.error.FFmpegError:
            self.num_damaged += 1
            if packet.pts is None and self._packet_dts:
                self._packet_dts.pop()
            return []
        self.num_damaged += sum(bool(frame.is_corrupt) for frame in frames)
        return list(frames)

    def _add_frame(self, frame: Any, stream: Any) -> None:
        time_s = self._time_of(frame, stream)
        if self._shown is not None:
            if time_s <= self._shown_s:
                return  # the timestamps run backwards: keep the earlier frame
            self._show(until_s=time_s)
        duration_s = float((frame.duration or 0) * frame.time_base)
        if self._shown is not None and not duration_s:
            duration_s = time_s - self._shown_s
        self._shown, self._shown_s, self._frame_end_s = frame, time_s, time_s + duration_s

    def _time_of(self, frame: Any, stream: Any) -> float:
        if self._packet_dts:
            # Packets without presentation times (AVI): the n-th frame shown has the n-th decoding time.
            return float(self._packet_dts.popleft() * stream.time_base) - self._source.zero_s
        if frame.pts is None:
            return self._frame_end_s
        return float(frame.pts * frame.time_base) - self._source.zero_s

    def _show(self, until_s: float) -> None:
        requesting = [sink for sink in self._sinks if sink.num_requested(until_s)]
        if not requesting:
            return
        rgb_HWC = upright_rgb(self._shown)
        for sink in requesting:
            sink.add(rgb_HWC, until_s)

    def _repeat_last_frame(self) -> None:
        if all(sink.done for sink in self._sinks):
            return
        if self._shown is None:
            raise MediaError(
                f"No frame of {self._source.uri} can be decoded.", reason="damaged", remedy="Leave it out."
            )
        if self._end_s - self._frame_end_s > MAX_MISSING_S:
            raise _too_short(self._source.uri, "video", self._frame_end_s, self._end_s)
        self._show(until_s=float("inf"))

    def check_sound_reaches(self, end_s: float) -> None:
        if end_s - self.sound.end_s > MAX_MISSING_S:
            raise _too_short(self._source.uri, "sound", self.sound.end_s, end_s)

    def _check_damage(self) -> None:
        if self.num_damaged > MAX_DAMAGED_SHARE * self._num_packets:
            raise MediaError(
                f"{self.num_damaged} of {self._num_packets} packets of {self._source.uri} are damaged.",
                reason="damaged",
                remedy="Fetch the file again, or leave it out.",
            )


def _missing_stream(uri: str, kind: str) -> MediaError:
    return MediaError(f"{uri} has no {kind} stream.", reason=f"no_{kind}", remedy="Leave it out.")


def _too_short(uri: str, stream: str, end_s: float, needed_s: float) -> MediaError:
    return MediaError(
        f"The {stream} of {uri} ends at {end_s:.2f} s, needed are {needed_s:.2f} s.",
        reason="too_short",
        remedy="Leave it out, or request a shorter duration.",
    )


def _sample_with_decord(source: MediaSource, samplers: Sequence[FrameSampler]) -> None:
    """Fill the samplers with decord. It counts the hidden frames of an edit list as shown, so such files are refused."""
    import decord  # an extra: it has no wheels for ARM, and bundles its own FFmpeg

    if source.video is None:
        raise _missing_stream(source.uri, "video")
    with open_media(source.uri) as second:
        if has_discarded_frames(second):
            raise MediaError(
                f"{source.uri} has an edit list that hides frames; decord would return wrong frames.",
                reason="edit_list",
                remedy="Use decoder=pyav.",
            )
    with local_copy(source.uri) as path:
        try:
            reader = decord.VideoReader(path, num_threads=1)
            times_s = reader.get_frame_timestamp(np.arange(len(reader)))
        except (decord.DECORDError, RuntimeError) as error:
            raise MediaError(
                f"decord cannot read {source.uri} ({str(error).splitlines()[0]}).",
                reason="cannot_open",
                remedy="Use decoder=pyav.",
            ) from error
        end_s = float(times_s[-1, 1]) - source.zero_s
        until_s = np.append(times_s[1:, 0] - source.zero_s, np.inf)
        last_s = max(sampler.last_time_s for sampler in samplers)
        if last_s - end_s > MAX_MISSING_S:
            raise _too_short(source.uri, "video", end_s, last_s)
        num_read = min(len(until_s), int(np.searchsorted(until_s, last_s + TIME_TOLERANCE_S, side="right")) + 1)
        for first in range(0, num_read, _DECORD_BATCH):
            indices = range(first, min(first + _DECORD_BATCH, num_read))
            for index, rgb_HWC in zip(indices, reader.get_batch(list(indices)).asnumpy(), strict=True):
                for sampler in samplers:
                    sampler.add(rgb_HWC, float(until_s[index]))
