"""The clean job on a real local Ray: a folder with broken files, locally and on a bucket, and again after a stop."""

from pathlib import Path

import pytest

from dmma_core.data.manifest import read_manifest
from dmma_core.storage import paths
from helpers.media import make_video, moving_frames, tone
from ray_jobs.clean import JOB

RULES = ["cleaning.duration_s=1.0", "cleaning.val_fraction=0.3", "cleaning.test_fraction=0.3"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(12):
        sound = tone(1.1, 16_000, 200.0 + 50 * index)[:, None]
        make_video(
            folder / f"-clip_{index:02d}.mp4", moving_frames(30)[index % 3 :], sound_AC=sound, sample_rate_hz=16_000
        )
    (folder / "broken.mp4").write_bytes(b"\x00" * 1000)
    make_video(folder / "mute.mp4", moving_frames(30))
    (folder / "captions.tsv").write_text("id\tlabel\n" + "".join(f"-clip_{i:02d}.mp4\tbar {i}\n" for i in range(12)))
    return folder


def settings(videos_uri: str, out_uri: str) -> list[str]:
    return [f"videos_uri={videos_uri}", f"captions_uri={videos_uri}/captions.tsv", f"out_uri={out_uri}", *RULES]


def test_good_files_become_clips_and_broken_ones_are_listed(
    ray_cluster: None, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "manifest")
    assert JOB.main(settings(str(videos), out)) == 0
    manifest = read_manifest(out)
    assert [clip.clip_id for clip in manifest.clips] == [f"-clip_{index:02d}" for index in range(12)]
    assert [clip.caption for clip in manifest.clips] == [f"bar {index}" for index in range(12)]
    assert [(row.clip_id, row.reason) for row in manifest.rejected] == [("broken", "cannot_open"), ("mute", "no_audio")]
    printed = capsys.readouterr().out
    assert "2 files rejected: 1 cannot_open, 1 no_audio." in printed
    assert f"  no_audio: mute: {videos}/mute.mp4 has no audio stream." in printed
    assert f"The full list: {out}/rejected.parquet" in printed
    assert f"0 of 12 clips have no caption; 12 captions from {videos}/captions.tsv." in printed
    assert "Of each file the first 1 s are used" in printed


def test_running_again_over_a_half_written_manifest_gives_the_same(
    ray_cluster: None, videos: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "manifest")
    assert JOB.main(settings(str(videos), out)) == 0
    before = read_manifest(out).fingerprint
    paths.remove(f"{out}/MANIFEST.json")
    (tmp_path / "manifest" / "part-00000.parquet").write_bytes(b"half")
    assert JOB.main(settings(str(videos), out)) == 0
    assert read_manifest(out).fingerprint == before


def test_a_bucket_works_like_a_folder(ray_cluster: None, videos: Path, bucket: str) -> None:
    for name in ("-clip_00.mp4", "-clip_01.mp4", "broken.mp4", "captions.tsv"):
        paths.write_bytes(f"{bucket}/videos/{name}", (videos / name).read_bytes())
    assert JOB.main(settings(f"{bucket}/videos", f"{bucket}/manifest")) == 0
    manifest = read_manifest(f"{bucket}/manifest")
    assert [clip.source_uri for clip in manifest.clips] == [f"{bucket}/videos/-clip_0{i}.mp4" for i in (0, 1)]
    assert [(row.reason, row.detail) for row in manifest.rejected] == [
        (
            "cannot_open",
            f"{bucket}/videos/broken.mp4 cannot be opened as video or sound (Invalid data found when processing input).",
        )
    ]


def test_dry_run_counts_and_changes_nothing(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert JOB.main([*settings(str(videos), str(tmp_path / "manifest")), "--dry-run"]) == 0
    assert "Check 14 files" in capsys.readouterr().out
    assert JOB.main([f"videos_uri={videos}", "captions_uri=", f"out_uri={tmp_path}/manifest", "--dry-run"]) == 0
    assert "14 of 14 clips have no caption: file names contain no captions." in capsys.readouterr().out
    assert not (tmp_path / "manifest" / "MANIFEST.json").exists()


def test_a_folder_without_media_is_refused_before_ray_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray_jobs.clean.connect", None)  # not to be called
    (tmp_path / "notes.txt").touch()
    for videos_uri, sentence in ((f"{tmp_path}/absent", "There is no folder"), (str(tmp_path), "none of them a video")):
        for more in ([], ["--dry-run"]):
            assert JOB.main([f"videos_uri={videos_uri}", f"out_uri={tmp_path}/manifest", *more]) == 1
            assert sentence in capsys.readouterr().err
    assert not (tmp_path / "manifest").exists()


def test_no_good_file_at_all_is_an_error_with_the_reason(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\x00" * 100)
    assert JOB.main([f"videos_uri={tmp_path}", f"out_uri={tmp_path}/manifest"]) != 0
    assert "None of the 1 files" in capsys.readouterr().err
    assert read_manifest(f"{tmp_path}/manifest").rejected[0].reason == "cannot_open"
    assert JOB.main([f"videos_uri={tmp_path}/absent", f"out_uri={tmp_path}/manifest"]) != 0
    assert "no folder" in capsys.readouterr().err


def test_a_manifest_is_not_written_over_other_files(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No Ray is started for it, and nothing is changed."""
    (tmp_path / "part-00000.parquet").write_bytes(b"features of another job")
    for more in ([], ["--dry-run"]):
        assert JOB.main([*settings(str(videos), str(tmp_path)), *more]) == 1
        assert "overwritten: part-00000.parquet" in capsys.readouterr().err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"features of another job"]
