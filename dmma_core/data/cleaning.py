"""Which files of a folder become clips: every file is decoded and measured; rejected files are listed with the reason.

Reasons, in this order of precedence: cannot_open, truncated, damaged, unsupported, no_video, no_audio, too_short,
silent, black, still_picture; then, among the files that passed: duplicate_bytes, duplicate_id, no_split; check_failed is
a defect of the check itself.
"""

import collections
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dmma_core.data.cleaning_config import CleaningConfig
from dmma_core.data.labels import LabelTable, caption_from_name, clip_id_of, split_by_hash, splits_by_hash
from dmma_core.data.manifest import REJECTED, Clip, Rejected, caption_id_of
from dmma_core.errors import MediaError, StorageError
from dmma_core.storage import paths
from dmma_core.storage.media import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    FrameRequest,
    decode_clip,
    length_of,
    local_copy,
    missing_bytes,
    stream_kinds,
)

_log = logging.getLogger(__name__)

REASONS = (
    *("cannot_open", "truncated", "damaged", "unsupported", "no_video", "no_audio", "too_short", "silent", "black"),
    *("still_picture", "duplicate_bytes", "duplicate_id", "no_split", "check_failed"),
)
# Frames of the check for black and still video. At 5 per second common periods (ticking, blinking) are not aliased to 0.
_CHECK_FRAMES = FrameRequest("check", fps=5, height=64, width=64, fit="squash")
_CHECK_RATE_HZ = 16_000
_LEVEL_WINDOW_S = 0.05
_BLACK_PERCENTILE = 99.0
_MAX_EXAMPLES = 4
_LONGER_S = 0.5  # a file counts as longer than the cut beyond this


@dataclass(frozen=True)
class FileCheck:
    """Result of `check_file`. `reason` is empty for a good file; `sha256` is empty if the file could not be read.

    `length_s` is the duration that the container states, 0 if it states none.
    """

    uri: str
    sha256: str = ""
    has_video: bool = False
    reason: str = ""
    detail: str = ""
    length_s: float = 0.0


def find_media(folder_uri: str) -> list[str]:
    """URIs of all video and sound files below a folder, absolute and sorted. StorageError if there are none."""
    root = folder_uri if paths.is_remote(folder_uri) else paths.filesystem_of(folder_uri)[1]
    files = paths.list_files(root)
    found = [uri for uri in files if uri.lower().endswith(VIDEO_SUFFIXES + AUDIO_SUFFIXES)]
    if not found:
        raise StorageError(
            f"{folder_uri} holds {len(files)} files, none of them a video or sound file.",
            remedy=f"Known suffixes: {' '.join(VIDEO_SUFFIXES + AUDIO_SUFFIXES)}.",
        )
    if len(found) < len(files):
        _log.info("%s: %d files with other suffixes are ignored.", folder_uri, len(files) - len(found))
    return found


def check_file(uri: str, config: CleaningConfig) -> FileCheck:
    """Open, decode and measure one file. A bad file is a result, never an error.

    Raises StorageError if a remote storage does not respond.
    """
    sha256, length_s = "", 0.0
    try:
        with local_copy(uri) as path:
            sha256 = paths.sha256_of(path)
            try:
                has_video, problems = _problems(path, config)
                length_s = 0.0 if problems else length_of(path)
            except MediaError as error:
                has_video, problems = False, [(error.reason, error.message)]
            problems = [(reason, detail.replace(path, uri)) for reason, detail in problems]
    except (StorageError, MediaError) as error:
        if paths.is_remote(uri):
            raise
        has_video, problems = False, [("cannot_open", error.message)]
    if not problems:
        return FileCheck(uri, sha256, has_video, length_s=length_s)
    (reason, detail), *others = sorted(problems, key=lambda problem: REASONS.index(problem[0]))
    if others:
        detail += f" Also: {', '.join(other for other, _ in others)}."
    return FileCheck(uri, sha256, has_video, reason, detail)


def select_clips(
    checks: Iterable[FileCheck],
    dataset: str,
    config: CleaningConfig,
    labels: LabelTable | None,
    splits: LabelTable | None,
) -> tuple[list[Clip], list[Rejected]]:
    """Clips of the good files, and a rejected row for every other file.

    The clip id is the file's name without suffix. `labels` gives captions (without it they are made from file names with
    words) and, optionally, splits. If `splits` is given, only its splits are used, and files that it does not list are
    rejected as "no_split". The result depends on the files only, not on the order of `checks`.
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
            reason, detail = "no_split", f"The table of splits does not list {clip_id!r}."
        if reason:
            rejected.append(Rejected(clip_id, check.uri, reason, detail))
            continue
        uri_of_bytes[check.sha256] = check.uri
        caption = labels.captions.get(clip_id, "") if labels is not None else caption_from_name(clip_id)
        clips[clip_id] = Clip(
            clip_id=clip_id,
            dataset=dataset,
            split="",
            caption=caption,
            caption_id=caption_id_of(caption),
            source_uri=check.uri,
            source_sha256=check.sha256,
            start_s=config.start_s,
            duration_s=config.duration_s,
            has_video=check.has_video,
            has_text=bool(caption),
        )
    split_of = _splits_of(clips, config, labels, splits)
    return [replace(clip, split=split_of[clip.clip_id]) for clip in clips.values()], rejected


def count_by(values: Iterable[str]) -> str:
    """ "12 no_audio, 3 silent": how often each value occurs, the most frequent first."""
    counts = collections.Counter(values)
    return ", ".join(f"{n} {value}" for value, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def rejected_lines(rejected: Sequence[Rejected], what: str, folder_uri: str) -> list[str]:
    """Lines with the counts of the reasons, an example of the most frequent ones, and the place of the full list."""
    if not rejected:
        return []
    first = {row.reason: row for row in reversed(rejected)}
    frequent = collections.Counter(row.reason for row in rejected).most_common(_MAX_EXAMPLES)
    return [
        f"{len(rejected)} {what} rejected: {count_by(row.reason for row in rejected)}.",
        *(f"  {reason}: {first[reason].clip_id}: {first[reason].detail}" for reason, _ in frequent),
        f"The full list: {paths.join(folder_uri, REJECTED)}",
    ]


def _splits_of(
    clip_ids: Iterable[str], config: CleaningConfig, labels: LabelTable | None, splits: LabelTable | None
) -> dict[str, str]:
    """Splits by the tables; for clips without one by the hash of the id."""
    given: Mapping[str, str] = splits.splits if splits is not None else labels.splits if labels is not None else {}
    by_hash = {
        clip: split_by_hash(clip, config.val_fraction, config.test_fraction, config.split_seed) for clip in clip_ids
    }
    if any(clip_id in given for clip_id in by_hash):
        return {**by_hash, **{clip_id: given[clip_id] for clip_id in by_hash if clip_id in given}}
    filled = splits_by_hash(by_hash, config.val_fraction, config.test_fraction, config.split_seed)
    if moved := [clip_id for clip_id in by_hash if filled[clip_id] != by_hash[clip_id]]:
        _log.warning(
            "With %d clips the hash of the ids leaves a split empty; %s instead.",
            len(by_hash),
            ", ".join(f"{clip_id} is in {filled[clip_id]}" for clip_id in sorted(moved)),
        )
    return filled


def _problems(path: str, config: CleaningConfig) -> tuple[bool, list[tuple[str, str]]]:
    """Whether the file has a video stream, and its problems (reason, message). A decoding error ends the check."""
    if config.check_truncated and (missing := missing_bytes(path)):
        return False, [
            ("truncated", f"{path} is truncated: by the size that it states, {missing} bytes are missing at its end.")
        ]
    has_video, has_audio = stream_kinds(path)
    problems = []
    if config.require_video and not has_video:
        problems.append(("no_video", f"{path} has no video stream."))
    if config.require_audio and not has_audio:
        problems.append(("no_audio", f"{path} has no audio stream."))
    requests = [_CHECK_FRAMES] if has_video else []
    try:
        clip = decode_clip(path, config.start_s, config.duration_s, requests, _CHECK_RATE_HZ if has_audio else None)
    except MediaError as error:
        return has_video, [*problems, (error.reason, error.message)]
    if clip.audio_A is not None and config.require_audio and config.silence_dbfs is not None:
        problems += _silence(clip.audio_A, config.silence_dbfs, config.max_silent_share)
    if has_video and config.require_video:
        problems += _black_or_still(clip.frames[_CHECK_FRAMES.name], config)
    return has_video, problems


def level_dbfs(audio_A: NDArray[np.float32], sample_rate_hz: int) -> NDArray[np.float64]:
    """RMS level of consecutive windows of 50 ms in dB relative to full scale 1; digital silence is -inf."""
    window = round(_LEVEL_WINDOW_S * sample_rate_hz)
    windows = audio_A[: len(audio_A) // window * window].reshape(-1, window).astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(np.square(windows).mean(axis=1)))


def _silence(audio_A: NDArray[np.float32], silence_dbfs: float, max_share: float) -> list[tuple[str, str]]:
    levels = level_dbfs(audio_A, _CHECK_RATE_HZ)
    silent = levels < silence_dbfs
    if silent.all():
        loudest = levels.max(initial=-np.inf)
        measured = f"{loudest:.1f} dBFS" if np.isfinite(loudest) else "no signal"
        return [("silent", f"Its loudest 50 ms have {measured}, silence is below {silence_dbfs:g} dBFS.")]
    longest_s = _longest_run(silent) * _LEVEL_WINDOW_S
    allowed_s = max_share * len(levels) * _LEVEL_WINDOW_S
    if longest_s > allowed_s + 1e-6:
        detail = f"It stays below {silence_dbfs:g} dBFS for {longest_s:.2f} s in a row, allowed are {allowed_s:.2f} s."
        return [("silent", detail)]
    return []


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))


def _black_or_still(frames_THWC: NDArray[np.uint8], config: CleaningConfig) -> list[tuple[str, str]]:
    """Problems "black" and "still_picture"."""
    brightness = float(np.percentile(frames_THWC.max(axis=3), _BLACK_PERCENTILE)) if len(frames_THWC) else 255.0
    if brightness < config.black_level:
        detail = f"99 % of its pixels are at most {brightness:.0f} of 255, black is below {config.black_level:g}."
        return [("black", detail)]
    changes = float(np.ptp(frames_THWC.mean(axis=3), axis=0).max()) if len(frames_THWC) > 1 else 255.0
    if changes < config.still_range:
        detail = f"No pixel changes by more than {changes:.1f} of 255, moving video by {config.still_range:g}."
        return [("still_picture", detail)]
    return []


def captions_text(captions: Mapping[str, str], table_uri: str | None) -> str:
    """How many clips have a caption, and its source. `captions` holds the caption of every clip id, "" for none."""
    named = sorted(caption for caption in captions.values() if caption)
    missing = f"{len(captions) - len(named)} of {len(captions)} clips have no caption"
    source = table_uri or "file names"
    if not named:
        return f"{missing}: {source} {'lists none of them' if table_uri else 'contain no captions'}."
    example = f', for example "{named[0]}"' if not table_uri else ""
    return f"{missing}; {len(named)} captions from {source}{example}."


def cut_text(config: CleaningConfig, checks: Iterable[FileCheck] = ()) -> str:
    """Which part of each file is used, and how many good files are longer."""
    end_s = config.start_s + config.duration_s
    num_longer = sum(not check.reason and check.length_s > end_s + _LONGER_S for check in checks)
    part = f"the first {config.duration_s:g} s" if config.start_s == 0 else f"{config.start_s:g} to {end_s:g} s"
    longer = f"; {num_longer} files are longer" if num_longer else ""
    return f"Of each file {part} are used (cleaning.start_s and cleaning.duration_s change it){longer}."


def warn_about(clips: Sequence[Clip]) -> None:
    """Log a warning where splits are empty."""
    if empty := {"train", "val", "test"} - {clip.split for clip in clips}:
        _log.warning("No clip is in the split %s.", " or ".join(sorted(empty)))
