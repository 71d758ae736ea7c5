from pathlib import Path

import numpy as np
import pytest

from dmma_core.data.manifest import Clip, Rejected, read_rows
from dmma_core.errors import StorageError
from dmma_core.generation.pipeline import MARKER, GenerationFolder
from dmma_core.storage import media, paths

RATE_HZ = 16_000
PLAN = {"checkpoint_sha256": "c", "weights": "ema", "features_fingerprint": "f", "split": "test"}


def clip_named(clip_id: str, source_uri: str = "", has_video: bool = True) -> Clip:
    return Clip(clip_id, "d", "test", "a bell", "t", source_uri, "s", 0.0, 1.0, has_video, True)


@pytest.fixture
def video_uri(tmp_path: Path) -> str:
    uri = str(tmp_path / "source.mp4")
    frames_THWC = np.random.default_rng(0).integers(0, 255, (25, 32, 32, 3), np.uint8)
    media.write_video(uri, frames_THWC, 25.0, None, RATE_HZ)
    return uri


def folder_at(path: Path, plan: dict = PLAN, with_video: bool = True) -> GenerationFolder:
    return GenerationFolder(str(path), dict(plan), ".flac", with_video)


def test_sound_and_video_of_the_right_length_are_written(tmp_path: Path, video_uri: str) -> None:
    folder = folder_at(tmp_path / "out")
    clip = clip_named("a", video_uri)
    wave_A = (0.1 * np.sin(np.arange(RATE_HZ + 300) / 20)).astype(np.float32)
    assert not folder.is_done(clip)
    folder.write(clip, wave_A, RATE_HZ)
    assert folder.is_done(clip)
    sound_A = media.decode_audio(str(tmp_path / "out" / "a.flac"), RATE_HZ)
    assert sound_A.shape == (RATE_HZ,)
    assert np.abs(sound_A - wave_A[:RATE_HZ]).max() < 1e-3
    muxed_A = media.decode_audio(str(tmp_path / "out" / "a.mp4"), RATE_HZ)
    assert np.abs(muxed_A).max() > 0.05


def test_a_clip_from_the_middle_keeps_its_own_frames(tmp_path: Path, video_uri: str) -> None:
    clip = Clip("a", "d", "test", "a bell", "t", video_uri, "s", 0.4, 0.5, True, True)
    folder_at(tmp_path / "out").write(clip, np.zeros(RATE_HZ, np.float32), RATE_HZ)
    request = media.FrameRequest("x", 25.0, 32, 32, "squash")
    source = media.decode_clip(video_uri, 0.4, 0.5, [request], None).frames["x"]
    assert np.array_equal(
        source, media.decode_clip(str(tmp_path / "out" / "a.mp4"), 0.0, 0.5, [request], None).frames["x"]
    )


def test_a_clip_without_video_gets_no_video_file(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "out")
    clip = clip_named("b", has_video=False)
    folder.write(clip, np.zeros(RATE_HZ, np.float32), RATE_HZ)
    assert folder.is_done(clip)
    assert not (tmp_path / "out" / "b.mp4").exists()


def test_if_the_video_cannot_be_written_the_sound_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "disk").mkdir()
    folder = folder_at(tmp_path / "out")
    for clip_id, source, reason in (
        ("gone", "absent.mp4", "There is no"),
        ("lost", "disk/lost.mp4", "Is its disk mounted"),
        ("text", "text.mp4", "cannot be opened"),
    ):
        folder.write(clip_named(clip_id, str(tmp_path / source)), np.zeros(RATE_HZ, np.float32), RATE_HZ)
        assert f"{clip_id}: the sound is written, but not the video with it" in caplog.text
        assert reason in caplog.text
        assert len(media.decode_audio(str(tmp_path / "out" / f"{clip_id}.flac"), RATE_HZ)) == RATE_HZ
    assert not list((tmp_path / "out").glob("*.mp4"))


def test_one_folder_never_mixes_two_plans(tmp_path: Path) -> None:
    folder_at(tmp_path).claim([])
    folder_at(tmp_path).claim([])
    with pytest.raises(StorageError, match="another checkpoint or other settings"):
        folder_at(tmp_path, {**PLAN, "checkpoint_sha256": "other"}).claim([])


def test_the_marker_lists_sounds_and_the_failures_have_reasons(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.claim([])
    failures = [Rejected("b", "b.mp4", "cannot_open", "Gone.")]
    folder.complete(["b", "a"], failures, training={"step": 3})
    record = paths.read_json(str(tmp_path / MARKER))
    assert record["clips"] == ["a"]
    assert record["num_failures"] == 1
    assert read_rows(str(tmp_path / "failures.parquet"), Rejected) == failures


def test_the_videos_of_a_split_are_never_overwritten(tmp_path: Path, video_uri: str) -> None:
    clips = [clip_named("a", f"{tmp_path}/a.mp4"), clip_named("source", video_uri)]
    with pytest.raises(StorageError, match=r"source\.mp4 would be overwritten, but it is the input"):
        folder_at(tmp_path).check(clips)
    folder_at(tmp_path).claim([])  # claimed, and then the videos are moved there
    for attempt in (folder_at(tmp_path).check, folder_at(tmp_path).claim):
        with pytest.raises(StorageError, match="it is the input"):
            attempt(clips)
    folder_at(tmp_path, with_video=False).claim(clips)
    folder_at(tmp_path / "other").claim(clips)
