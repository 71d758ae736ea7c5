"""Which files of a folder become clips: every file is decoded and measured; what fails is listed with its reason.

Reasons, in this order of precedence: cannot_open, truncated, damaged, unsupported, no_video, no_audio, too_short,
silent, black, still_picture; then, among the files that passed: duplicate_bytes, duplicate_id, no_split; check_failed is
a defect of the check itself.
"""

import collections
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmma_core.data.cleaning_config import CleaningConfig
from dmma_core.data.labels import LabelTable, caption_from_name, clip_id_of, split_by_hash
from dmma_core.data.manifest import REJECTED, Clip, Rejected, caption_id_of
from dmma_core.errors import MediaError, StorageError
from dmma_core.storage import paths
from dmma_core.storage.media import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    FrameRequest,
    decode_clip,
    local_copy,
    missing_bytes,
    stream_kinds,
)

_log = logging.getLogger(__name__)

REASONS = (
    *("cannot_open", "truncated", "damaged", "unsupported", "no_video", "no_audio", "too_short", "silent", "black"),
    *("still_picture", "duplicate_bytes", "duplicate_id", "no_split", "check_failed"),
)
# Five pictures a second: no common period of ticking or blinking things fits it so well that they seem to stand still.
_LOOK = FrameRequest("look", fps=5, height=64, width=64, fit="squash")
_LISTEN_RATE_HZ = 16_000
_LEVEL_WINDOW_S = 0.05
_BLACK_PERCENTILE = 99.0
_MAX_EXAMPLES = 4


@dataclass(frozen=True)
class FileCheck:
    """What `check_file` found. `reason` is empty for a good file; `sha256` is empty where it could not be read."""

    uri: str
    sha256: str = ""
    has_video: bool = False
    reason: str = ""
    detail: str = ""


def find_media(folder_uri: str) -> list[str]:
    """URIs of all video and sound files below a folder, absolute and sorted. StorageError where there are none."""
    root = folder_uri if paths.is_remote(folder_uri) else paths.filesystem_of(folder_uri)[1]
    files = paths.list_files(root)
    found = [uri for uri in files if uri.lower().endswith(VIDEO_SUFFIXES + AUDIO_SUFFIXES)]
    if not found:
        raise StorageError(
            f"{folder_uri} holds {len(files)} files, none of them a video or sound file.",
            remedy=f"Known suffixes: {' '.join(VIDEO_SUFFIXES + AUDIO_SUFFIXES)}.",
        )
    if len(found) < len(files):
        _log.info("%s: %d files with other suffixes are left alone.", folder_uri, len(files) - len(found))
    return found


def check_file(uri: str, config: CleaningConfig) -> FileCheck:
    """Open, decode and measure one file. What is wrong with the file is the result, never an error.

    Raises StorageError where a remote storage does not answer.
    """
    sha256 = ""
    try:
        with local_copy(uri) as path:
            sha256 = paths.sha256_of(path)
            try:
                has_video, problems = _problems(path, config)
            except MediaError as error:
                has_video, problems = False, [(error.reason, error.message)]
            problems = [(reason, detail.replace(path, uri)) for reason, detail in problems]
    except (StorageError, MediaError) as error:
        if paths.is_remote(uri):
            raise
        has_video, problems = False, [("cannot_open", error.message)]
    if not problems:
        return FileCheck(uri, sha256, has_video)
    (reason, detail), *others = sorted(problems, key=lambda problem: REASONS.index(problem[0]))
    if others:
        detail += f" Besides: {', '.join(other for other, _ in others)}."
    return FileCheck(uri, sha256, has_video, reason, detail)


def select_clips(
    checks: Iterable[FileCheck],
    dataset: str,
    config: CleaningConfig,
    labels: LabelTable | None,
    splits: LabelTable | None,
) -> tuple[list[Clip], list[Rejected]]:
    """Make clips of the good files and a rejected row of every other one.

    The clip id is the file's name without suffix. `labels` gives captions (without it they come from the file names) and
    may give splits; `splits`, where given, decides alone, and files that it does not name are rejected as "no_split".
    The result depends on the files only, not on the order of `checks`.
    """
    clips: dict[str, Clip] = {}
    uri_of_bytes: dict[str, str] = {}
    rejected = []
    for check in sorted(checks, key=lambda check: check.uri):
        clip_id = clip_id_of(check.uri)
        reason, detail = check.reason, check.detail
        if not reason and config.check_duplicates and check.sha256 in uri_of_bytes:
            reason, detail = "duplicate_bytes", f"It has the same bytes as {uri_of_bytes[check.sha256]}."
        elif not reason and clip_id in clips:
            reason, detail = "duplicate_id", f"{clips[clip_id].source_uri} has the same clip id {clip_id!r}."
        elif not reason and splits is not None and clip_id not in splits.splits:
            reason, detail = "no_split", f"The table of splits does not name {clip_id!r}."
        if reason:
            rejected.append(Rejected(clip_id, check.uri, reason, detail))
            continue
        uri_of_bytes[check.sha256] = check.uri
        caption = labels.captions.get(clip_id, "") if labels is not None else caption_from_name(clip_id)
        clips[clip_id] = Clip(
            clip_id=clip_id,
            dataset=dataset,
            split=_split_of(clip_id, config, labels, splits),
            caption=caption,
            caption_id=caption_id_of(caption),
            source_uri=check.uri,
            source_sha256=check.sha256,
            start_s=config.start_s,
            duration_s=config.duration_s,
            has_video=check.has_video,
            has_text=bool(caption),
        )
    return list(clips.values()), rejected


def count_by(values: Iterable[str]) -> str:
    """ "12 no_audio, 3 silent": how often each value occurs, the most frequent first."""
    counts = collections.Counter(values)
    return ", ".join(f"{n} {value}" for value, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def rejected_lines(rejected: Sequence[Rejected], what: str, folder_uri: str) -> list[str]:
    """How many were rejected for which reasons, an example of the most frequent ones, and where all of them are listed."""
    if not rejected:
        return []
    first = {row.reason: row for row in reversed(rejected)}
    frequent = collections.Counter(row.reason for row in rejected).most_common(_MAX_EXAMPLES)
    return [
        f"{len(rejected)} {what} rejected: {count_by(row.reason for row in rejected)}.",
        *(f"  {reason}: {first[reason].clip_id}: {first[reason].detail}" for reason, _ in frequent),
        f"The whole list: {paths.join(folder_uri, REJECTED)}",
    ]


def _split_of(clip_id: str, config: CleaningConfig, labels: LabelTable | None, splits: LabelTable | None) -> str:
    given: Mapping[str, str] = splits.splits if splits is not None else labels.splits if labels is not None else {}
    by_hash = split_by_hash(clip_id, config.val_fraction, config.test_fraction, config.split_seed)
    return given.get(clip_id, by_hash)


def _problems(path: str, config: CleaningConfig) -> tuple[bool, list[tuple[str, str]]]:
    """Whether the file has pictures, and all problems found, as (reason, sentence). The first grave one ends the search."""
    if config.check_truncated and (missing := missing_bytes(path)):
        return False, [("truncated", f"{path} is cut off: by its own account {missing} bytes are missing at its end.")]
    has_video, has_audio = stream_kinds(path)
    problems = []
    if config.require_video and not has_video:
        problems.append(("no_video", f"{path} has no video stream."))
    if config.require_audio and not has_audio:
        problems.append(("no_audio", f"{path} has no audio stream."))
    looks = [_LOOK] if has_video else []
    try:
        clip = decode_clip(path, config.start_s, config.duration_s, looks, _LISTEN_RATE_HZ if has_audio else None)
    except MediaError as error:
        return has_video, [*problems, (error.reason, error.message)]
    if clip.audio_A is not None and config.require_audio and config.silence_dbfs is not None:
        problems += _silence(clip.audio_A, config.silence_dbfs, config.max_silent_share)
    if has_video and config.require_video:
        problems += _sameness(clip.frames["look"], config)
    return has_video, problems


def level_dbfs(audio_A: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float64]:
    """RMS level of consecutive windows of 50 ms in dB relative to full scale 1; digital silence is -inf."""
    window = round(_LEVEL_WINDOW_S * sample_rate_hz)
    windows = audio_A[: len(audio_A) // window * window].reshape(-1, window).astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(np.square(windows).mean(axis=1)))


def _silence(audio_A: NDArray[np.float32], silence_dbfs: float, max_share: float) -> list[tuple[str, str]]:
    levels = level_dbfs(audio_A, _LISTEN_RATE_HZ)
    silent = levels < silence_dbfs
    if silent.all():
        loudest = levels.max(initial=-np.inf)
        measured = f"{loudest:.1f} dBFS" if np.isfinite(loudest) else "no signal at all"
        return [("silent", f"Its loudest 50 ms have {measured}, silence is below {silence_dbfs:g} dBFS.")]
    longest_s = _longest_run(silent) * _LEVEL_WINDOW_S
    allowed_s = max_share * len(levels) * _LEVEL_WINDOW_S
    if longest_s > allowed_s + 1e-6:
        detail = f"It stays below {silence_dbfs:g} dBFS for {longest_s:.2f} s on end, allowed are {allowed_s:.2f} s."
        return [("silent", detail)]
    return []


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _sameness(frames_THWC: NDArray[np.uint8], config: CleaningConfig) -> list[tuple[str, str]]:
    """Black or still picture."""
    brightness = float(np.percentile(frames_THWC.max(axis=3), _BLACK_PERCENTILE)) if len(frames_THWC) else 255.0
    if brightness < config.black_level:
        detail = f"99 % of its pixels are at most {brightness:.0f} of 255, black is below {config.black_level:g}."
        return [("black", detail)]
    changes = float(np.ptp(frames_THWC.mean(axis=3), axis=0).max()) if len(frames_THWC) > 1 else 255.0
    if changes < config.still_range:
        detail = f"No pixel changes by more than {changes:.1f} of 255, a moving picture by {config.still_range:g}."
        return [("still_picture", detail)]
    return []


def warn_about(clips: Sequence[Clip]) -> None:
    """Log what a person should know before going on: clips without text, empty splits."""
    without_text = sum(not clip.has_text for clip in clips)
    if without_text:
        _log.warning("%d of %d clips have no caption.", without_text, len(clips))
    if empty := {"train", "val", "test"} - {clip.split for clip in clips}:
        _log.warning("No clip is in the split %s.", " or ".join(sorted(empty)))
