"""Folders of rendered clips: determinism, files, resuming, reading back, and errors."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmma_core.data.scenes import (
    SceneConfig,
    check_settings,
    complete_render,
    is_rendered,
    read_render_marker,
    read_truth,
    render_block,
    render_clip,
    unfinished_blocks,
)
from dmma_core.data.scenes.dataset import truth_bytes
from dmma_core.errors import ConfigError, DmmaError, IncompleteError, SchemaError
from dmma_core.storage import paths
from dmma_core.storage.media import FrameRequest, decode_clip

CONFIG = SceneConfig(num_clips=10, seed=7, height=64, width=64, duration_s=2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    uri = str(tmp_path_factory.mktemp("scenes"))
    for block in unfinished_blocks(CONFIG, uri):
        render_block(CONFIG, uri, block)
    complete_render(CONFIG, uri)
    return uri


def test_the_same_clip_has_the_same_bytes():
    one, two = render_clip(CONFIG, 4), render_clip(replace(CONFIG, num_clips=99), 4)
    np.testing.assert_array_equal(one.frames_THWC, two.frames_THWC)
    np.testing.assert_array_equal(one.audio_A, two.audio_A)
    assert truth_bytes([one.truth]) == truth_bytes([two.truth])
    other_seed = render_clip(replace(CONFIG, seed=8), 4)
    assert not np.array_equal(one.frames_THWC, other_seed.frames_THWC)


def test_two_renderings_have_the_same_bytes(folder, tmp_path):
    again = str(tmp_path)
    for block in unfinished_blocks(CONFIG, again):
        render_block(CONFIG, again, block)
    complete_render(CONFIG, again)
    assert paths.read_bytes(f"{again}/truth.parquet") == paths.read_bytes(f"{folder}/truth.parquet")
    assert read_render_marker(again)["fingerprint"] == read_render_marker(folder)["fingerprint"]


def test_the_folder_holds_videos_captions_truth_and_marker(folder):
    with Path(folder, "captions.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    truths = read_truth(f"{folder}/truth.parquet")
    assert [row["id"] for row in rows] == list(truths) and len(rows) == CONFIG.num_clips
    for row in rows:
        assert Path(folder, f"{row['id']}.mp4").is_file()
        assert row["label"] == truths[row["id"]].caption
    assert read_render_marker(folder)["num_clips"] == CONFIG.num_clips
    assert not Path(folder, "truth-parts").exists()


def test_truth_is_read_back_unchanged(folder):
    truth, read = render_clip(CONFIG, 9).truth, list(read_truth(folder).values())[9]
    assert (read.clip_id, read.object_class, read.motion, read.index) == (
        truth.clip_id,
        truth.object_class,
        truth.motion,
        9,
    )
    for name in ("distance_m", "position_m", "contact_s", "onset_s", "depth_m"):
        found, expected = getattr(read, name), getattr(truth, name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_the_video_decodes_to_the_rendered_frames_and_sound(folder):
    clip = render_clip(CONFIG, 2)
    request = FrameRequest("all", CONFIG.fps, CONFIG.height, CONFIG.width)
    decoded = decode_clip(
        f"{folder}/{clip.truth.clip_id}.mp4", 0.0, CONFIG.duration_s, [request], CONFIG.sample_rate_hz
    )
    frames = decoded.frames["all"]
    assert frames.shape == clip.frames_THWC.shape
    assert np.abs(frames.astype(float) - clip.frames_THWC).mean() < 6
    assert decoded.audio_A is not None and len(decoded.audio_A) == CONFIG.num_samples
    lag = np.correlate(decoded.audio_A, clip.audio_A, mode="full").argmax() - (CONFIG.num_samples - 1)
    assert abs(lag) <= 16
    ratio = np.sqrt(np.mean(decoded.audio_A**2) / np.mean(clip.audio_A**2))
    assert ratio == pytest.approx(1, abs=0.1)


def test_rendering_resumes_after_the_last_finished_block(tmp_path):
    uri = str(tmp_path)
    first, second = unfinished_blocks(CONFIG, uri)
    render_block(CONFIG, uri, first)
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.mp4")}
    assert unfinished_blocks(CONFIG, uri) == [second]
    assert not is_rendered(uri)
    render_block(CONFIG, uri, second)
    complete_render(CONFIG, uri)
    assert is_rendered(uri) and unfinished_blocks(CONFIG, uri) == []
    assert all(Path(uri, name).stat().st_mtime_ns == stamp for name, stamp in written.items())


def test_other_settings_in_the_same_folder_are_refused(folder):
    with pytest.raises(ConfigError, match="seed"):
        check_settings(replace(CONFIG, seed=8), folder)
    check_settings(CONFIG, folder)


def test_unfinished_and_foreign_folders_are_refused(tmp_path, folder):
    with pytest.raises(IncompleteError, match=r"RENDER\.json"):
        read_render_marker(str(tmp_path))
    with pytest.raises(DmmaError, match="truth"):
        read_truth(str(tmp_path))
    (tmp_path / "truth.parquet").write_bytes(b"no parquet")
    with pytest.raises(SchemaError, match="Parquet"):
        read_truth(str(tmp_path))
    with pytest.raises(ConfigError, match="clip number"):
        render_clip(CONFIG, -1)
