"""Open a media file: local copy, streams, time zero, and whether the file is truncated."""

import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import av

from dmma_core.errors import AbsentError, MediaError, StorageError
from dmma_core.storage import paths

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp")
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")
# Formats that can refer to other files or to the network (playlists) are not opened.
_CONTAINERS = "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,wav,w64,flac,mp3,ogg,aac"
_ONLY_THE_FILE_ITSELF = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
_UNKNOWN_RIFF_BYTES = (0, 0xFFFFFFFF)
_ISO_FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"free", b"skip", b"wide")


@dataclass(frozen=True)
class MediaSource:
    """An open file. `video` and `audio` are its first streams of that kind (cover images are ignored), or None.

    `zero_s` is the container's start: times in DMMA count from there. This keeps the offset between video and sound, and a
    transport stream that starts at 1.4 s starts at 0.
    """

    uri: str
    container: Any
    video: Any
    audio: Any
    zero_s: float


@contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """Local path of `uri`: the file itself, or a temporary copy of a remote one.

    Raises AbsentError if there is no such file, StorageError if it cannot be read, and MediaError "cannot_open" for a named
    pipe, socket or device: opening a pipe would wait for its writer.
    """
    if not paths.is_remote(uri):
        path = paths.filesystem_of(uri)[1]
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            raise MediaError(
                f"{uri} is a pipe, a socket or a device, a file was expected.",
                reason="cannot_open",
                remedy="Give a video or sound file.",
            )
        try:
            with paths.open_read(uri):  # raises for an absent or unreadable file
                pass
        except AbsentError as error:
            if not _has_entries(folder := os.path.dirname(path)):
                raise StorageError(
                    f"There is no {uri}, and its folder {folder} is gone or empty.",
                    remedy="Is its disk mounted? Restore the folder, or run `dmma clean` again without it.",
                ) from error
            raise
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="dmma-media-") as copy:
        with paths.open_read(uri) as remote:
            shutil.copyfileobj(remote, copy)
            copy.flush()
        yield copy.name


def _has_entries(folder: str) -> bool:
    """Whether a local folder exists and is not empty. A lost mount leaves an empty folder, or none."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


@contextmanager
def _readable_or_storage_error(path: str) -> Iterator[None]:
    """Before a MediaError leaves the block, read all bytes of the local file `path`.

    Some of FFmpeg's readers return the same error code for a failing disk and for damaged contents. Raises StorageError
    if the bytes cannot be read: the file is then not at fault.
    """
    try:
        yield
    except MediaError:
        paths.sha256_of(path)
        raise


@contextmanager
def open_media(uri: str) -> Iterator[MediaSource]:
    """Open `uri` for decoding, one thread per stream.

    Raises MediaError "cannot_open", AbsentError if there is no such file, and StorageError if it cannot be read, instead of
    any MediaError of the block.
    """
    with local_copy(uri) as path, _readable_or_storage_error(path):
        try:
            container = av.open(path, container_options=_ONLY_THE_FILE_ITSELF)
        except av.error.FFmpegError as error:
            raise MediaError(
                f"{uri} cannot be opened as video or sound ({error.strerror}).",
                reason="cannot_open",
                remedy="Fetch the file again, or leave it out.",
            ) from error
        with container:
            videos = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
            video = videos[0] if videos else None
            audio = container.streams.audio[0] if container.streams.audio else None
            for stream in (video, audio):
                if stream is not None and stream.codec_context is not None:
                    stream.thread_type = "NONE"
                    stream.codec_context.thread_count = 1
            zero_s = max(0.0, (container.start_time or 0) / av.time_base)
            yield MediaSource(uri, container, video, audio, zero_s)


def stream_kinds(uri: str) -> tuple[bool, bool]:
    """Whether `uri` has a video stream, and whether it has an audio stream. Raises MediaError "cannot_open"."""
    with open_media(uri) as source:
        return source.video is not None, source.audio is not None


def length_of(uri: str) -> float:
    """Duration of `uri` in seconds as stored in its container, 0 if not stored. Raises MediaError "cannot_open"."""
    with open_media(uri) as source:
        return float((source.container.duration or 0) / av.time_base)


def has_discarded_frames(source: MediaSource) -> bool:
    """Whether an edit list (ISO/IEC 14496-12, section 8.6.6) hides frames of the video stream; reads the full file.

    Cutting without re-encoding makes such files: the frames between the last key frame and the cut are stored and marked
    to be decoded but not shown.
    """
    return any(packet.is_discard for packet in source.container.demux(source.video) if packet.size)


def missing_bytes(uri: str) -> int:
    """Bytes that are missing at the end, by the size that the container states: above 0 the file is truncated.

    Supports MP4/MOV (box sizes), RIFF (WAV, AVI) and Matroska/WebM (segment size); 0 for anything else.
    """
    with paths.open_read(uri) as file:
        num_bytes = file.seek(0, 2)
        file.seek(0)
        head = file.read(64)
        if head[4:8] in _ISO_FIRST_BOXES:
            stated_end = _iso_end(file, num_bytes)
        elif head[:4] == b"RIFF":
            (size,) = struct.unpack("<I", head[4:8])
            stated_end = 0 if size in _UNKNOWN_RIFF_BYTES else size + 8
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            stated_end = _matroska_end(head)
        else:
            stated_end = 0
    return max(0, stated_end - num_bytes)


def _iso_end(file: IO[bytes], num_bytes: int) -> int:
    """End of the last top-level box of an MP4 file, by its stated size."""
    position = 0
    while position + 8 <= num_bytes:
        file.seek(position)
        header = file.read(16)
        (size,) = struct.unpack(">I", header[:4])
        if not header[4:8].isalnum():
            break  # not a box: padding after the last one
        if size == 0:
            return num_bytes  # "to the end of the file"
        if size == 1 and len(header) == 16:
            (size,) = struct.unpack(">Q", header[8:])
        if size < 8:
            break
        position += size
    return position


def _matroska_end(head: bytes) -> int:
    """End of the segment of a Matroska file, by its stated size (RFC 8794, section 4: variable-size integers)."""
    header_bytes, position = _matroska_size(head, 4)
    position += header_bytes
    if header_bytes < 0 or head[position : position + 4] != b"\x18\x53\x80\x67":
        return 0
    segment_bytes, start = _matroska_size(head, position + 4)
    return start + segment_bytes if segment_bytes >= 0 else 0


def _matroska_size(data: bytes, position: int) -> tuple[int, int]:
    """Value of the size at `position` (-1: unknown) and the position after it."""
    if position >= len(data) or data[position] == 0:
        return -1, position
    length = 9 - data[position].bit_length()
    value = int.from_bytes(data[position : position + length], "big") & ((1 << 7 * length) - 1)
    return (-1 if value == (1 << 7 * length) - 1 else value), position + length
