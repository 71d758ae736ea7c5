"""The demo: which steps it would run, the names of its folders, and a small one that runs, also after a change."""

import importlib
import io
import re
import shlex
import shutil
from contextlib import chdir, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest

from dmma_core.config_loading import load_config
from dmma_core.data.labels import split_by_hash
from dmma_core.data.manifest import read_manifest
from dmma_core.data.scenes.world import plan_scene
from dmma_core.job_configs import DemoConfig, RenderConfig
from dmma_core.storage import paths
from dmma_core.storage.run_folder import RunFolder
from helpers.clips import write_clip
from ray_jobs.common import cli
from ray_jobs.common.cli import JOBS, module_name
from ray_jobs.common.demo_names import RENDERED_FOLDERS, RUN_FOLDERS, others
from ray_jobs.common.job import config_path
from ray_jobs.demo import ARMS, JOB, Chain, names_of

ROOT = Path(__file__).resolve().parents[2]


def chain_of(config: DemoConfig) -> Chain:
    return Chain(config, *(name.text for name in names_of(config)))


def claim(config: DemoConfig) -> tuple[str, str]:
    """Claim the folders, as a demo does first."""
    data, run = names_of(config)
    for name in (data, run):
        name.claim(config.work_uri)
    return data.text, run.text


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder of files with names of videos."""
    folder = tmp_path / "my clips"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_every_step_is_a_job_with_settings_that_it_knows(videos: Path, tmp_path: Path) -> None:
    for clips in ("", str(videos)):
        chain = chain_of(DemoConfig(clips=clips, num_steps=5, work_uri=str(tmp_path / "work")))
        assert [job.name for job, _ in chain.loaded()] == ([] if clips else ["render"]) + [
            "clean", "extract", "train", "generate", "generate", "evaluate", "evaluate", "compare",
        ]  # fmt: skip


def test_the_plain_demo_is_the_tiny_configurations_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every page may name its folders, and any of its steps can be run alone."""
    monkeypatch.chdir(tmp_path)
    for job, config in chain_of(DemoConfig()).loaded():
        if job.name not in ("generate", "evaluate") or "baseline" not in str(config):  # theirs are of the depth arm
            assert config == load_config(job.config, config_path(job.name, "tiny")), job.name


def test_pages_and_examples_name_what_the_plain_demo_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = {value.partition("=")[2] for _, settings in chain_of(DemoConfig()).steps() for value in settings}
    config = load_config(RenderConfig, config_path("render", "tiny"))
    made.add(f"data/demo/{plan_scene(config.scenes, 0).clip_id}.mp4")
    pages = [
        (ROOT / page).read_text() for page in ("README.md", "infra/local_cluster.sh", "docs/published-networks.md")
    ]
    examples = [getattr(importlib.import_module(module_name(name)), "JOB", JOB).example for name in JOBS]
    folders = "|".join((*RENDERED_FOLDERS, *RUN_FOLDERS))
    named = set(re.findall(rf"\b(?:{folders})/demo\b[\w/.-]*", "\n".join([*pages, *examples])))
    assert len(named) >= 8
    assert named <= made


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
def test_wrong_input_is_noticed_before_ray_starts(
    settings: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray_jobs.demo.connect", lambda **_: pytest.fail("Ray was started"))
    videos = str(tmp_path / "videos")
    (tmp_path / "videos" / "some").mkdir(parents=True)
    (tmp_path / "videos" / "some" / "clip.mp4").touch()
    (tmp_path / "videos" / "none").mkdir()
    argv = [f"work_uri={tmp_path}/work", *(setting.format(videos) for setting in settings)]
    for dry_run in (["--dry-run"], []):
        assert JOB.main([*dry_run, *argv]) != 0
        assert sentence.format(videos) in capsys.readouterr().err
        assert not (tmp_path / "work").exists()


def test_the_choice_of_mlflow_reaches_training_and_comparison(tmp_path: Path) -> None:
    for mlflow in (True, False):
        chain = chain_of(DemoConfig(work_uri=str(tmp_path), mlflow=mlflow))
        chosen = {job.name: config for job, config in chain.loaded()}
        assert {chosen[name].mlflow for name in ("train", "evaluate", "compare")} == {mlflow}


def test_each_folder_of_videos_has_a_name_of_its_own(tmp_path: Path) -> None:
    work = str(tmp_path / "work")
    for name in ("a/my clips", "b/my clips", "demo"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "x.mp4").touch()
    first, second = (DemoConfig(clips=f"{tmp_path}/{name}/my clips", work_uri=work) for name in ("a", "b"))
    assert claim(first) == ("my-clips", "my-clips")
    other = claim(second)
    assert other[0].startswith("my-clips-") and other[1] == other[0]
    assert claim(first) == ("my-clips", "my-clips")
    assert claim(DemoConfig(clips=f"{tmp_path}/a/my clips/", work_uri=work)) == ("my-clips", "my-clips")
    assert claim(DemoConfig(clips=f"{tmp_path}/demo", work_uri=work))[0] == "demo-videos"
    assert claim(DemoConfig(work_uri=work)) == ("demo", "demo")
    assert claim(DemoConfig(num_clips=12, work_uri=work)) == ("demo-12-clips", "demo-12-clips")
    assert claim(DemoConfig(num_clips=12, num_steps=4, work_uri=work)) == ("demo-12-clips", "demo-12-clips-4-steps")


def test_what_changed_gets_another_name_and_what_is_still_valid_keeps_its_own(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = DemoConfig(clips=str(videos), work_uri=str(tmp_path / "work"))
    plain = claim(config)
    more_steps = DemoConfig(clips=str(videos), work_uri=config.work_uri, num_steps=700, mlflow=False)
    assert claim(more_steps) == (plain[0], f"{plain[0]}-700-steps")
    assert claim(replace(more_steps, mlflow=True)) == claim(more_steps)
    seen = {plain}
    for change in (
        lambda: (videos / "c.mp4").write_bytes(b"c"),
        lambda: (videos / "captions.csv").write_text("id,label\na,dog\n"),
        lambda: (videos / "captions.csv").write_text("id,label\na,a cat\n"),
        lambda: (videos / "b.mp4").write_bytes(b"another b"),
    ):
        change()
        names = claim(config)
        assert names not in seen and names[0] == names[1]
        assert claim(config) == names
        seen.add(names)
    assert JOB.main(["--dry-run", f"clips={videos}", f"work_uri={config.work_uri}"]) == 0
    printed = capsys.readouterr().out
    changed = "was created from other inputs (captions, videos); the new folders are named"
    assert f"manifest/{plain[0]} {changed} {names[0]}." in printed
    assert "Of each file the first 4 s are used" in printed


def test_folders_made_by_hand_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "features" / "demo").mkdir(parents=True)
    data, run = claim(DemoConfig(work_uri=str(tmp_path)))
    assert data.startswith("demo-") and run == data
    assert "that no demo created" in names_of(DemoConfig(work_uri=str(tmp_path)))[0].note


def test_own_videos_below_the_work_folder_are_never_among_what_may_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "demo"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "a.mp4").touch()
    mine = DemoConfig(clips="data/mine")
    assert claim(mine) == ("mine", "mine")
    assert claim(DemoConfig(clips=f"{tmp_path}/data/mine/")) == ("mine", "mine")
    (tmp_path / "data" / "mine" / "b.mp4").touch()
    claim(mine)
    assert others(".", "mine", names_of(mine)) == ["manifest/mine", "runs/mine"]
    rendered = DemoConfig()
    assert claim(rendered)[0].startswith("demo-")
    assert others(".", "demo", names_of(rendered)) == []


def test_captions_are_found_in_the_folder_or_beside_it(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()

    def captions() -> str:
        (_, settings), *_ = Chain(DemoConfig(clips=str(videos)), "x", "x").steps()
        return next(text for text in settings if text.startswith("captions_uri="))

    assert captions() == "captions_uri="
    (tmp_path / "videos.csv").write_text("id,label\n")
    assert captions() == f"captions_uri={tmp_path}/videos.csv"
    (videos / "captions.tsv").write_text("id\tlabel\n")
    assert captions() == f"captions_uri={videos}/captions.tsv"


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The work folder of a small demo on own videos, in `clips` there, and what it printed."""
    work = tmp_path_factory.mktemp("work")
    names = [f"IMG_{index:04d}" for index in range(100)]
    by_split = {split: [n for n in names if split_by_hash(n, 0.15, 0.15) == split] for split in ("test", "train")}
    (work / "clips").mkdir()
    for index, name in enumerate([*by_split["test"][:3], *by_split["train"][:4]]):
        write_clip(work / "clips" / f"{name}.mp4", index, 4.2)
    printed = io.StringIO()
    with chdir(work), redirect_stdout(printed):
        assert JOB.main(["clips", "num_steps=2", "mlflow=false"]) == 0
    return work, printed.getvalue()


def test_the_printed_command_makes_a_sound(finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    work, printed = finished
    monkeypatch.chdir(work)
    assert "7 of 7 clips have no caption" in printed
    program, *words = shlex.split(next(line for line in printed.splitlines() if " generate /" in line), comments=True)
    assert shutil.which(program)
    assert cli.main([*words, "sampling.num_steps=1"]) == 0
    assert len(list((work / "generated" / "clips-2-steps" / "depth@2").rglob("*.flac"))) == 1


def test_a_demo_runs_again_after_its_input_has_changed(
    finished: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One video more, a table of captions and other steps; nothing of the first results is touched."""
    work, _ = finished
    monkeypatch.chdir(work)
    first = {path: path.stat().st_mtime_ns for path in work.glob("*/clips*/**/*") if path.is_file()}
    assert len(first) > 20
    write_clip(work / "clips" / "one_more.mp4", 7, 4.2)
    (work / "clips" / "captions.tsv").write_text("id\tlabel\none_more\ta dog barking\n")
    assert JOB.main(["clips", "num_steps=3", "mlflow=false"]) == 0
    data, run = (name.text for name in names_of(DemoConfig(clips="clips", num_steps=3)))
    assert data.startswith("clips-") and run == f"{data}-3-steps"
    assert [clip.caption for clip in read_manifest(f"manifest/{data}").clips if clip.has_text] == ["a dog barking"]
    assert all(RunFolder(f"runs/{run}/{arm}").checkpoint().step == 3 for arm in ARMS)
    assert paths.exists(f"comparison/{run}/report.html")
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert "rm -r manifest/clips features/clips runs/clips-2-steps" in capsys.readouterr().out
