"""What the demo would run; that it runs is the chain benchmark's business."""

from pathlib import Path

import pytest

from dmma_core.config_loading import load_config
from dmma_core.job_configs import DemoConfig
from ray_jobs.common.job import config_path
from ray_jobs.demo import JOB, name_of, steps


def test_every_step_is_a_job_with_settings_that_it_knows(tmp_path: Path) -> None:
    for clips in ("", str(tmp_path)):
        config = DemoConfig(clips=clips, num_steps=5, work_uri=str(tmp_path / "work"))
        names = [job.name for job, _ in steps(config)]
        assert names == ([] if clips else ["render"]) + [
            "clean", "extract", "train", "generate", "generate", "evaluate", "evaluate", "compare",
        ]  # fmt: skip
        for job, settings in steps(config):
            load_config(job.config, config_path(job.name, "tiny"), settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["{}/absent"], "There is no folder {}/absent"),
        (["{}/none"], "holds 0 files, none of them a video"),
        (["{}/some", "captions={}/none.tsv"], "There is no {}/none.tsv"),
        (["num_clips=0"], "num_clips is 0"),
        (["num_steps=0"], "recipe.loop.num_steps is 0"),
    ],
)
def test_a_dry_run_sees_what_the_first_step_would_stumble_over(
    settings: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = str(tmp_path / "videos")
    (tmp_path / "videos" / "some").mkdir(parents=True)
    (tmp_path / "videos" / "some" / "clip.mp4").touch()
    (tmp_path / "videos" / "none").mkdir()
    argv = ["--dry-run", f"work_uri={tmp_path}/work", *(setting.format(videos) for setting in settings)]
    assert JOB.main(argv) != 0
    assert sentence.format(videos) in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_the_choice_of_mlflow_reaches_training_and_comparison(tmp_path: Path) -> None:
    for mlflow in (True, False):
        chain = steps(DemoConfig(work_uri=str(tmp_path), mlflow=mlflow))
        chosen = {job.name: load_config(job.config, config_path(job.name, "tiny"), given) for job, given in chain}
        assert {chosen[name].mlflow for name in ("train", "evaluate", "compare")} == {mlflow}


def test_each_folder_of_videos_has_results_of_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "my clips").mkdir(parents=True)
    first, second = (name_of(DemoConfig(clips=str(tmp_path / name / "my clips"))) for name in ("a", "b"))
    assert first.startswith("my-clips-")
    assert first != second
    assert first == name_of(DemoConfig(clips=str(tmp_path / "a" / "my clips") + "/"))


def test_captions_are_found_in_the_folder_or_beside_it(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()

    def captions() -> str:
        (_, settings), *_ = steps(DemoConfig(clips=str(videos)))
        return next(text for text in settings if text.startswith("captions_uri="))

    assert captions() == "captions_uri="
    (tmp_path / "videos.csv").write_text("id,label\n")
    assert captions() == f"captions_uri={tmp_path}/videos.csv"
    (videos / "captions.tsv").write_text("id\tlabel\n")
    assert captions() == f"captions_uri={videos}/captions.tsv"


def test_nothing_is_started_for_what_the_first_step_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # whoever connects to Ray gets another sentence
    (tmp_path / "none").mkdir()
    (tmp_path / "seconds").mkdir()
    (tmp_path / "seconds" / "seconds.json").write_text('{"clean": "teeth"}')
    for settings, sentence in (
        ([f"{tmp_path}/absent"], "There is no folder"),
        ([f"{tmp_path}/none"], "holds 0 files"),
        ([f"work_uri={tmp_path}/seconds"], "written over: seconds.json"),
    ):
        for more in ([], ["--dry-run"]):
            assert JOB.main([f"work_uri={tmp_path}/work", *settings, *more]) == 1
            assert sentence in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
