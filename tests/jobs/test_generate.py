"""The job generate for a single video, by its command line, with a network of random weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dmma_core.config_loading import config_to_dict
from dmma_core.encoders.bundle import load_bundle
from dmma_core.encoders.clip import tiny_clip
from dmma_core.encoders.loading import fill_with_random_weights
from dmma_core.models.initialisation import initialise
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.presets import config_for_features
from dmma_core.storage import media, paths
from dmma_core.storage.run_folder import MARKER, SCHEMA_VERSION, RunFolder
from dmma_core.storage.tensor_files import write_tensors
from ray_jobs import generate

DURATION_S = 1.0
FPS, RATE_HZ = 25, 16_000


@pytest.fixture(scope="module")
def run_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose only checkpoint holds a random network."""
    return write_run(tmp_path_factory.mktemp("runs") / "random-depth", {})


def write_run(path: Path, encoder_weights: dict[str, str]) -> str:
    folder = RunFolder(str(path))
    schema = load_bundle("tiny", DURATION_S, weights=encoder_weights).schema
    model = MMDiT(config_for_features("tiny", schema, "both"))
    initialise(model, seed=0)
    channels = model.config.latent_width
    model.set_latent_statistics(torch.zeros(channels), torch.ones(channels))
    uri = folder.checkpoint_uri(3)
    write_tensors(paths.join(uri, "ema.safetensors"), model.state_dict())
    record = {
        "schema_version": SCHEMA_VERSION,
        "step": 3,
        "arm": "depth",
        "model": config_to_dict(model.config),
        "features": schema.to_dict(),
        "files": {"ema.safetensors": paths.sha256_of(paths.join(uri, "ema.safetensors"))},
    }
    paths.write_json(paths.join(uri, MARKER), record)
    return folder.uri


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two seconds in which every frame differs, in the working folder."""
    monkeypatch.chdir(tmp_path)
    grey = np.linspace(10, 240, 2 * FPS).astype(np.uint8)
    media.write_video("moving.mp4", np.broadcast_to(grey[:, None, None, None], (2 * FPS, 64, 64, 3)).copy(), FPS)
    return "moving.mp4"


def _made(pattern: str = "*") -> list[Path]:
    return sorted(Path("generated").glob(f"random-depth@3/{pattern}"))


def test_one_video_from_its_middle_and_every_prompt_beside_the_others(run_uri: str, video: str) -> None:
    settings = [video, "--run", run_uri, "start_s=0.5", "sampling.num_steps=2"]
    assert generate.JOB.main(["--dry-run", *settings, "--prompt", "a bell"]) == 0
    assert not _made("*/*.flac")
    for prompt in ("a bell", "a drum", "a bell"):
        assert generate.JOB.main([*settings, "--prompt", prompt]) == 0
    bell, drum = _made()
    sounds = [media.decode_audio(str(folder / "moving.flac"), RATE_HZ) for folder in (bell, drum)]
    assert all(len(sound_A) == DURATION_S * RATE_HZ and np.abs(sound_A).max() > 0 for sound_A in sounds)
    request = media.FrameRequest("x", FPS, 64, 64, "squash")
    source, muxed = (
        media.decode_clip(uri, start_s, DURATION_S, [request], None).frames["x"]
        for uri, start_s in ((video, 0.5), (str(bell / "moving.mp4"), 0.0))
    )
    assert np.array_equal(source, muxed)


def test_arms_of_one_name_in_two_comparisons_have_places_of_their_own(run_uri: str, video: str, tmp_path: Path) -> None:
    for comparison in ("first", "second"):
        arm = tmp_path / "runs" / comparison / "depth"
        shutil.copytree(run_uri, arm)
        paths.write_json(str(arm.parent / "comparison.json"), {})
        assert generate.JOB.main([video, "--run", f"runs/{comparison}/depth", "sampling.num_steps=1"]) == 0
    assert [path.parts[1:3] for path in sorted(Path("generated").rglob("*.flac"))] == [
        ("first", "depth@3"),
        ("second", "depth@3"),
    ]


def test_a_run_on_encoders_of_ones_own_is_generated_with_them(
    video: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = fill_with_random_weights(tiny_clip(), "own")
    write_tensors(str(tmp_path / "clip.safetensors"), clip.model.state_dict())
    run_uri = write_run(tmp_path / "random-depth", {"clip": str(tmp_path / "clip.safetensors")})
    settings = [video, "--run", run_uri, "sampling.num_steps=1"]
    assert generate.JOB.main(settings) != 0
    assert "encoders differ. Use the same bundle with the same encoder_weights" in capsys.readouterr().err
    assert generate.JOB.main([*settings, f"encoder_weights.clip={tmp_path}/clip.safetensors"]) == 0
    assert len(_made("*/*.flac")) == 1


def test_settings_that_cannot_work_are_sentences(run_uri: str, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    for settings, sentence in (
        ([video, "--run", run_uri, "sampling.solver=newton"], "no solver 'newton'"),
        ([video, "--run", run_uri, "sampling.guidance=-1"], "guidance scale is negative"),
        ([video, "--run", run_uri, "start_s=1.5"], "ends"),
        (["--run", run_uri], "either a video or features_uri"),
        (["--run", run_uri, "--prompt", "a bell"], "without a video"),
        ([video, "--run", run_uri, "batch_size=0"], "batch_size is 0"),
        ([video, "--run", f"{run_uri}-absent"], "no complete checkpoint. Run `dmma train`"),
        ([video, "--run", run_uri, "step=7"], "no complete checkpoint of step 7, only of "),
        ([video, "--run", run_uri.rpartition("/")[0]], f"no complete checkpoint. Give one of its runs: {run_uri}"),
    ):
        assert generate.JOB.main(settings) != 0
        assert sentence in capsys.readouterr().err


def test_a_dry_run_opens_the_video(run_uri: str, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    media.write_audio("sound.wav", np.zeros(RATE_HZ, np.float32), RATE_HZ)
    for file, sentence in (
        ("sound.wav", "has no video stream"),
        (__file__, "cannot be opened"),
        ("none.mp4", "There is no"),
    ):
        assert generate.JOB.main([file, "--run", run_uri, "--dry-run"]) != 0
        assert sentence in capsys.readouterr().err
    assert generate.JOB.main([video, "--run", run_uri, "--dry-run"]) == 0


def test_a_users_files_are_never_written_over(run_uri: str, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("moving.flac").write_bytes(b"another recording")
    Path("away").mkdir()
    Path("away/plan.json").write_text("{}")
    kept = {path: path.read_bytes() for path in Path().rglob("*.*")}
    here = Path.cwd()
    for out, sentence in (
        (".", "moving.mp4 would be overwritten, but it is the input moving.mp4"),
        (str(here), "it is the input"),
        (f"file://{here}/away/..", "it is the input"),
        ("away", "made with another checkpoint"),
    ):
        for more in ([], ["--dry-run"]) if out == "." else (["--dry-run"],):
            assert generate.JOB.main([video, "--run", run_uri, "--out", out, "sampling.num_steps=1", *more]) == 1
            assert sentence in capsys.readouterr().err
    assert generate.JOB.main([video, "--run", run_uri, "--out", ".", "with_video=false", "sampling.num_steps=1"]) == 1
    assert (
        "was not written by this job and holds files that would be overwritten: moving.flac" in capsys.readouterr().err
    )
    assert {path: path.read_bytes() for path in Path().rglob("*.*")} == kept


def test_only_failures_are_mentioned(run_uri: str, video: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.JOB.main([video, "--run", run_uri, "--out", "new", "sampling.num_steps=1"]) == 0
    printed = capsys.readouterr().out
    assert "new: sound for 1 of 1 clips." in printed
    assert "failures" not in printed
