"""Cleaning: every kind of bad file is found with its reason and its measured value; good files pass."""

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmma_core.data.cleaning import (
    FileCheck,
    captions_text,
    check_file,
    cut_text,
    find_media,
    level_dbfs,
    select_clips,
)
from dmma_core.data.cleaning_config import CleaningConfig
from dmma_core.data.labels import LabelTable
from dmma_core.data.manifest import read_manifest, write_manifest
from dmma_core.errors import ConfigError, MediaError, StorageError
from dmma_core.storage.media import stream_kinds, write_audio
from helpers.media import make_video, moving_frames, tone

RULES = CleaningConfig(duration_s=1.0)
RATE = 44_100
NOISE = {"crf": "30"}


def sound(duration_s: float = 1.2, peak: float = 0.5) -> np.ndarray:
    return tone(duration_s, RATE, peak=peak)[:, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    make_video(root / "good.mp4", moving_frames(30), sound_AC=sound())
    (root / "sub").mkdir()
    make_video(root / "sub" / "also_good.mkv", moving_frames(30, 50, 70), sound_AC=sound(peak=0.05))
    still = np.random.default_rng(0).integers(0, 255, (1, 48, 64, 3), dtype=np.uint8).repeat(30, axis=0)
    make_video(root / "still.mp4", still, sound_AC=sound(), options=NOISE)
    make_video(root / "black.mp4", np.zeros((30, 48, 64, 3), np.uint8), sound_AC=sound())
    make_video(root / "mute.mp4", moving_frames(30))
    make_video(root / "silent.mp4", moving_frames(30), sound_AC=sound(peak=1e-4))
    partly = sound()
    partly[int(0.1 * RATE) : int(0.95 * RATE)] = 0
    make_video(root / "partly.mp4", moving_frames(30), sound_AC=partly)
    make_video(root / "short.mp4", moving_frames(20), sound_AC=sound())
    make_video(root / "short_sound.mp4", moving_frames(30), sound_AC=sound(0.6))
    write_audio(str(root / "only_sound.wav"), sound()[:, 0], RATE)
    (root / "empty.mp4").touch()
    (root / "garbage.avi").write_bytes(b"no video " * 500)
    (root / "notes.txt").write_text("not a video")
    full = (root / "good.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(full[: len(full) // 2])
    shutil.copy(root / "good.mp4", root / "sub" / "copy.mp4")
    make_video(root / "sub" / "good.mkv", moving_frames(31), sound_AC=sound())
    return root


EXPECTED = {
    "good.mp4": "",
    "sub/also_good.mkv": "",
    "still.mp4": "still_picture",
    "black.mp4": "black",
    "mute.mp4": "no_audio",
    "silent.mp4": "silent",
    "partly.mp4": "silent",
    "short.mp4": "too_short",
    "short_sound.mp4": "too_short",
    "only_sound.wav": "no_video",
    "empty.mp4": "cannot_open",
    "garbage.avi": "cannot_open",
    "cut.mp4": "truncated",
    "sub/copy.mp4": "duplicate_bytes",
    "sub/good.mkv": "duplicate_id",
}
DETAILS = {
    "silent.mp4": "-83.0 dBFS",
    "partly.mp4": "0.80 s in a row, allowed are 0.75 s",
    "short.mp4": "ends at 0.80 s, needed are 1.00 s",
    "short_sound.mp4": "The sound of",
    "cut.mp4": "bytes are missing",
    "black.mp4": "99 % of its pixels",
    "still.mp4": "No pixel changes by more than",
}


def test_every_file_gets_its_reason_and_the_measured_value(folder: Path) -> None:
    checks = [check_file(uri, RULES) for uri in find_media(str(folder))]
    clips, rejected = select_clips(checks, "set", RULES, None, None)
    found = {row.source_uri: row for row in rejected}
    reasons = {name: found[str(folder / name)].reason if str(folder / name) in found else "" for name in EXPECTED}
    assert reasons == EXPECTED
    assert {clip.clip_id for clip in clips} == {"good", "also_good"}
    assert len(checks) == len(EXPECTED)
    for name, text in DETAILS.items():
        assert text in found[str(folder / name)].detail, found[str(folder / name)].detail
    good = next(clip for clip in clips if clip.clip_id == "also_good")
    assert (good.caption, good.has_text, good.has_video, good.duration_s) == ("also good", True, True, 1.0)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("still.mp4", {"still_range": 0.0}),
        ("black.mp4", {"black_level": 0.0, "still_range": 0.0}),
        ("mute.mp4", {"require_audio": False}),
        ("silent.mp4", {"silence_dbfs": None}),
        ("silent.mp4", {"silence_dbfs": -90.0}),
        ("partly.mp4", {"max_silent_share": 1.0}),
        ("short.mp4", {"duration_s": 0.8}),
        ("only_sound.wav", {"require_video": False}),
    ],
)
def test_every_check_can_be_disabled(folder: Path, name: str, change: dict[str, float]) -> None:
    check = check_file(str(folder / name), replace(RULES, **change))
    assert check.reason == "", check.detail
    assert check.has_video == (name != "only_sound.wav")


def test_duplicates_may_stay_but_ids_are_unique(folder: Path) -> None:
    checks = [check_file(str(folder / name), RULES) for name in ("good.mp4", "sub/copy.mp4", "sub/good.mkv")]
    clips, rejected = select_clips(checks, "set", replace(RULES, check_duplicates=False), None, None)
    assert [clip.clip_id for clip in clips] == ["good", "copy"]
    assert [row.reason for row in rejected] == ["duplicate_id"]


def test_the_manifest_depends_on_the_files_alone(folder: Path, tmp_path: Path) -> None:
    checks = [check_file(uri, RULES) for uri in find_media(str(folder))]
    shuffled = [checks[index] for index in np.random.default_rng(0).permutation(len(checks))]
    written = [
        write_manifest(str(tmp_path / str(number)), "set", *select_clips(order, "set", RULES, None, None))
        for number, order in enumerate((checks, shuffled))
    ]
    assert written[0].fingerprint == written[1].fingerprint
    assert read_manifest(str(tmp_path / "0")).clips == read_manifest(str(tmp_path / "1")).clips


def test_captions_and_splits_come_from_tables() -> None:
    checks = [FileCheck(f"/v/{name}.mp4", sha256=name, has_video=True) for name in ("a", "b", "c")]
    labels = LabelTable({"a": "dog"}, {"a": "test"})
    clips, _ = select_clips(checks, "set", replace(RULES, val_fraction=0, test_fraction=0), labels, None)
    assert [(clip.caption, clip.has_text, clip.split) for clip in clips] == [
        ("dog", True, "test"),
        ("", False, "train"),
        ("", False, "train"),
    ]
    clips, rejected = select_clips(checks, "set", RULES, None, LabelTable({}, {"a": "val", "c": "train"}))
    assert [(clip.clip_id, clip.split) for clip in clips] == [("a", "val"), ("c", "train")]
    assert [(row.clip_id, row.reason) for row in rejected] == [("b", "no_split")]


def test_a_split_that_the_hash_leaves_empty_gets_a_clip_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    checks = [FileCheck(f"/v/{name}.mp4", sha256=name, has_video=True) for name in ("a", "b", "c", "d")]
    rules = replace(RULES, val_fraction=0.001, test_fraction=0.001)
    clips, _ = select_clips(checks, "set", rules, None, None)
    assert sorted(clip.split for clip in clips) == ["test", "train", "train", "val"]
    assert "With 4 clips the hash of the ids leaves a split empty" in caplog.text
    caplog.clear()
    clips, _ = select_clips(checks, "set", rules, LabelTable({}, {"a": "test"}), None)
    assert sorted(clip.split for clip in clips) == ["test", "train", "train", "train"]
    assert not caplog.text


def test_the_used_part_of_each_file_is_reported(folder: Path) -> None:
    checks = [check_file(str(folder / name), RULES) for name in ("good.mp4", "sub/also_good.mkv", "mute.mp4")]
    assert [round(check.length_s, 1) for check in checks] == [1.2, 1.2, 0.0]
    assert cut_text(RULES, checks) == (
        "Of each file the first 1 s are used (cleaning.start_s and cleaning.duration_s change it)."
    )
    shorter = CleaningConfig(start_s=0.1, duration_s=0.4)
    assert cut_text(shorter, checks).startswith("Of each file 0.1 to 0.5 s are used")
    assert cut_text(shorter, checks).endswith("; 2 files are longer.")


def test_the_source_of_captions_is_reported() -> None:
    captions = {"a": "", "b": "dog barking", "c": ""}
    assert captions_text(captions, None) == (
        '2 of 3 clips have no caption; 1 captions from file names, for example "dog barking".'
    )
    assert captions_text(captions, "x.tsv") == "2 of 3 clips have no caption; 1 captions from x.tsv."
    assert captions_text({"a": ""}, None) == "1 of 1 clips have no caption: file names contain no captions."


def test_level_of_a_sine_is_its_rms() -> None:
    levels = level_dbfs(tone(1.0, 16_000, 400.0, peak=1.0), 16_000)
    assert np.abs(levels + 3.01).max() < 0.01


def test_a_folder_without_media_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(StorageError, match="1 files, none of them"):
        find_media(str(tmp_path))
    with pytest.raises(StorageError, match="no folder"):
        find_media(str(tmp_path / "absent"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"duration_s": 0},
        {"silence_dbfs": 3.0},
        {"max_silent_share": 0.0},
        {"val_fraction": 0.5, "test_fraction": 0.5},
        {"require_video": False, "require_audio": False},
    ],
)
def test_invalid_criteria_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        CleaningConfig(**wrong)  # type: ignore[arg-type]


def test_real_clips_are_rejected_for_the_reasons_their_list_gives(clips_dir: Path) -> None:
    """Compared with the list of the real clips, if present: streams, levels, lengths and damage as noted by hand."""
    table = clips_dir.parent / "clips.tsv"
    if not table.exists():
        pytest.skip(f"{table} is absent")
    with table.open(encoding="utf-8") as file:
        listed = list(csv.DictReader(file, delimiter="\t"))
    rules = CleaningConfig(duration_s=4.0)
    for row in listed:
        # The large good ones would only take time.
        if row["resolution"] in ("1280x720", "2048x1080") and not row["note"] and row["has_audio"] == "1":
            continue
        if row["note"].startswith("DAMAGED"):
            expected = "damaged"
        elif row["has_audio"] == "0":
            expected = "no_audio"
        elif float(row["peak_dB"]) < -60:
            expected = "silent"
        else:
            expected = ""
        check = check_file(str(clips_dir / row["file"]), rules)
        assert check.reason == expected, (row["file"], check.detail)


def test_a_named_pipe_is_rejected_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (uri,) = find_media(str(tmp_path))
    check = check_file(uri, RULES)
    assert (check.reason, check.detail) == (
        "cannot_open",
        f"{uri} is a pipe, a socket or a device, a file was expected.",
    )
    with pytest.raises(MediaError, match="is a pipe"):
        stream_kinds(uri)
