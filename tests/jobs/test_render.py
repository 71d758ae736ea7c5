"""The render job on a real local Ray: locally, again after a stop, on a bucket, and with settings that cannot be."""

from pathlib import Path

import pytest

from dmma_core.data.scenes import SceneConfig, read_truth, render_block, unfinished_blocks
from dmma_core.storage import paths
from ray_jobs.render import JOB

SMALL = ["scenes.num_clips=10", "scenes.seed=4", "scenes.height=64", "scenes.width=64", "scenes.duration_s=1.0"]


def test_clips_captions_truth_and_marker(ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "clips")
    assert JOB.main([f"out_uri={out}", *SMALL]) == 0
    assert "10 rendered clips" in capsys.readouterr().out
    truths = read_truth(f"{out}/truth.parquet")
    assert len(truths) == 10 and all(paths.exists(f"{out}/{clip_id}.mp4") for clip_id in truths)
    assert len(paths.read_text(f"{out}/captions.tsv").splitlines()) == 11
    assert paths.read_json(f"{out}/RENDER.json")["num_clips"] == 10
    before = paths.read_bytes(f"{out}/truth.parquet")
    assert JOB.main([f"out_uri={out}", *SMALL]) == 0  # nothing is left to do
    assert paths.read_bytes(f"{out}/truth.parquet") == before


def test_finished_blocks_are_kept_and_truth_does_not_depend_on_the_way(ray_cluster: None, tmp_path: Path) -> None:
    straight, stopped = str(tmp_path / "straight"), str(tmp_path / "stopped")
    config = SceneConfig(num_clips=10, seed=4, height=64, width=64, duration_s=1.0)
    first, _ = unfinished_blocks(config, stopped)
    render_block(config, stopped, first)
    stamps = {path.name: path.stat().st_mtime_ns for path in Path(stopped).glob("*.mp4")}
    for out in (straight, stopped):
        assert JOB.main([f"out_uri={out}", *SMALL]) == 0
    assert all((Path(stopped) / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    assert paths.read_bytes(f"{straight}/truth.parquet") == paths.read_bytes(f"{stopped}/truth.parquet")


def test_on_a_bucket(ray_cluster: None, bucket: str) -> None:
    assert JOB.main([f"out_uri={bucket}/clips", *SMALL]) == 0
    assert len(read_truth(f"{bucket}/clips/truth.parquet")) == 10
    assert len(paths.list_files(f"{bucket}/clips", ".mp4")) == 10


def test_another_seed_in_the_same_folder_is_refused(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path)
    unfinished_blocks(SceneConfig(num_clips=10, seed=3), out)
    assert JOB.main([f"out_uri={out}", *SMALL]) == 2
    assert "other settings" in capsys.readouterr().err


def test_dry_run_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert JOB.main(["--config", "tiny", "--dry-run", f"out_uri={tmp_path}/new"]) == 0
    assert "Render 240 clips" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.*"))
    assert JOB.main([f"out_uri={tmp_path}", "scenes.width=31"]) == 2
    assert "width is 31" in capsys.readouterr().err


def test_a_folder_of_other_clips_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "captions.tsv").write_text("id\tlabel\n")
    for more in ([], ["--dry-run"]):
        assert JOB.main([f"out_uri={tmp_path}", *SMALL, *more]) == 1
        assert "overwritten: captions.tsv" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["captions.tsv"]
