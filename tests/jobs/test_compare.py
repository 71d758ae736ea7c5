"""The jobs evaluate and compare, from generated folders to the page, by their command lines."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from helpers.generated import NUM_CLIPS, GeneratedPair
from ray_jobs import compare, evaluate


def _settings(folder: Path) -> list[str]:
    return [
        f"baseline_report_uri={folder}/baseline.json",
        f"depth_report_uri={folder}/depth.json",
        f"out_uri={folder}/comparison",
        "num_resamples=300",
        "num_examples=1",
    ]


@pytest.fixture(scope="module")
def reports(generated_pair: GeneratedPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs-compare")
    for arm, uri in (("baseline", generated_pair.baseline), ("depth", generated_pair.depth)):
        settings = [f"generated_uri={uri}", f"report_uri={folder}/{arm}.json"]
        assert evaluate.JOB.main(["--dry-run", *settings]) == 0
        assert not (folder / f"{arm}.json").exists()
        assert evaluate.JOB.main(settings) == 0
    return folder


def test_compare_writes_tables_and_page(reports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.JOB.main(["--dry-run", *_settings(reports)]) == 0
    assert not (reports / "comparison").exists() or not any((reports / "comparison").iterdir())
    assert compare.JOB.main(_settings(reports)) == 0
    printed = capsys.readouterr().out
    table = json.loads((reports / "comparison" / "table.json").read_text())
    page = (reports / "comparison" / "report.html").read_text()
    assert table["verdict"] in printed
    assert (reports / "comparison" / "table.md").read_text() in printed
    assert len(table["clip_ids"]) == NUM_CLIPS
    assert page.count("data:video/mp4;base64,") == 3
    sounds = reports / "comparison" / "sounds"
    assert len(list(sounds.glob("*.wav"))) == 3
    assert all(path.with_suffix(".png").read_bytes().startswith(b"\x89PNG") for path in sounds.glob("*.wav"))
    assert "The loss curves are not shown" in page, "the made runs logged no losses"


def test_a_folder_is_of_one_comparison_and_holds_no_stale_sounds(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*_settings(reports), f"out_uri={tmp_path}/out", "mlflow=false"]
    assert compare.JOB.main([*settings, "num_examples=2"]) == 0
    sounds = tmp_path / "out" / "sounds"
    shown = {path.name for path in sounds.iterdir()}
    assert len(shown) == 12
    assert compare.JOB.main([*settings, "num_examples=1", "name=again"]) == 0, "the same reports write it anew"
    assert {path.name for path in sounds.iterdir()} < shown
    assert len(list(sounds.iterdir())) == 6
    page = (tmp_path / "out" / "report.html").read_text()
    assert "again" in page
    assert all(link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="([^"]*)"', page))
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    shutil.copy(reports / "depth.safetensors", tmp_path / "other.safetensors")
    record = json.loads((reports / "depth.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({**record, "generation_fingerprint": "of other sounds"}))
    for argv in (["--dry-run"], []):
        assert compare.JOB.main([*argv, *settings, f"depth_report_uri={tmp_path}/other.json"]) == 1
        assert "Give another out_uri" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_reports_made_with_relative_paths_serve_from_everywhere(
    generated_pair: GeneratedPair, reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(generated_pair.depth).parent)
    relative = os.path.relpath(tmp_path)
    assert evaluate.JOB.main(["generated_uri=depth", f"report_uri={relative}/depth.json", "mlflow=false"]) == 0
    record = json.loads((tmp_path / "depth.json").read_text())
    row = record["rows"][0]
    places = (record["generated_uri"], record["features_uri"], record["run_uri"], row["sound_uri"], row["source_uri"])
    assert all(place.startswith("/") for place in places)
    monkeypatch.chdir(tmp_path)
    settings = [*_settings(reports), "depth_report_uri=depth.json", "out_uri=out", "mlflow=false"]
    assert compare.JOB.main(settings) == 0
    assert json.loads((tmp_path / "out" / "table.json").read_text())["reports"][1] == f"{tmp_path}/depth.json"


def test_without_mlflow_nothing_goes_there(
    reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nobody answers
    settings = [*_settings(reports), f"out_uri={tmp_path}/comparison", "num_examples=0"]
    assert compare.JOB.main(["--dry-run", *settings]) == 1
    assert "MLflow at http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert compare.JOB.main(["--dry-run", *settings, "mlflow=false"]) == 0
    assert compare.JOB.main([*settings, "mlflow=false"]) == 0
    assert "MLflow" not in capsys.readouterr().err
    assert compare.JOB.main(settings) == 0
    assert f"The values of {tmp_path}/comparison" in capsys.readouterr().err


def test_a_missing_report_and_other_clips_end_with_a_sentence(
    reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.JOB.main([*_settings(reports), f"depth_report_uri={tmp_path}/none.json"]) == 1
    assert "There is no" in capsys.readouterr().err
    record = json.loads((reports / "depth.json").read_text())
    record["clip_ids"] = record["clip_ids"][:-1]
    (tmp_path / "fewer.json").write_text(json.dumps(record))
    assert compare.JOB.main([*_settings(reports), f"depth_report_uri={tmp_path}/fewer.json"]) == 1
    assert "different clips" in capsys.readouterr().err


def test_evaluate_needs_a_finished_generation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.JOB.main([f"generated_uri={tmp_path}", f"report_uri={tmp_path}/x.json"]) == 1
    assert "dmma generate" in capsys.readouterr().err
    assert evaluate.JOB.main([f"report_uri={tmp_path}/x.txt"]) == 2


def test_neither_job_writes_over_other_files(reports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("baseline", "depth"):
        for suffix in (".json", ".safetensors"):
            (tmp_path / name).with_suffix(suffix).write_bytes((reports / name).with_suffix(suffix).read_bytes())
    for suffix in (".json", ".safetensors"):
        (tmp_path / "depth").with_suffix(suffix).rename((tmp_path / "table").with_suffix(suffix))
    (tmp_path / "weights.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (tmp_path / "own.json").write_text("[1]")
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    comparison = [
        *_settings(tmp_path),
        f"depth_report_uri={tmp_path}/table.json",
        f"out_uri={tmp_path}",
        "mlflow=false",
    ]
    generated = json.loads((reports / "depth.json").read_text())["generated_uri"]
    for job, settings, sentence in (
        (compare, comparison, f"{tmp_path}/table.json would be overwritten, but it is the input"),
        (evaluate, [f"generated_uri={generated}", f"report_uri={tmp_path}/own.json"], "overwritten: own.json"),
        (
            evaluate,
            [f"generated_uri={generated}", f"report_uri={tmp_path}/weights.json"],
            "overwritten: weights.safetensors",
        ),
        (
            evaluate,
            [f"generated_uri={generated}", f"report_uri={generated}/GENERATION.json"],
            "overwritten: GENERATION.json",
        ),
    ):
        for more in ([], ["--dry-run"]):
            assert job.JOB.main([*settings, *more]) == 1
            assert sentence in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_what_was_interrupted_is_written_again(reports: Path, tmp_path: Path) -> None:
    record = json.loads((reports / "depth.json").read_text())
    (tmp_path / "depth.safetensors").write_bytes((reports / "depth.safetensors").read_bytes())
    settings = [f"generated_uri={record['generated_uri']}", f"report_uri={tmp_path}/depth.json"]
    assert evaluate.JOB.main(settings) == 0
    settings = [*_settings(reports), f"out_uri={tmp_path}/comparison", "mlflow=false", "num_examples=0"]
    assert compare.JOB.main(settings) == 0
    (tmp_path / "comparison" / "report.html").unlink()
    assert compare.JOB.main(settings) == 0
