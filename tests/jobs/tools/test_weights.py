"""`dmma weights`, against a real web server on loopback and mirrors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dmma_core.errors import StorageError
from dmma_core.storage import paths, weights
from helpers.weights_server import DATA, NAME, SHA256, Server, use_empty_cache, weights_server
from ray_jobs.tools.weights import main


@pytest.fixture
def server() -> Iterator[Server]:
    with weights_server() as started:
        yield started


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    return use_empty_cache(tmp_path / "cache", server, monkeypatch)


@pytest.mark.parametrize("kind", ["local", "gs"])
def test_a_mirror_of_ones_own(
    kind: str,
    cache: Path,
    server: Server,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror = str(tmp_path / "mirror") if kind == "local" else f"{bucket}/weights"
    assert main(["fetch", NAME, "--to", mirror]) == 0
    assert f"{mirror}/mmaudio_small_16k.pth" in capsys.readouterr().out
    before = paths.size_and_version(f"{mirror}/mmaudio_small_16k.pth")
    assert main(["fetch", NAME, "--to", mirror]) == 0
    assert paths.size_and_version(f"{mirror}/mmaudio_small_16k.pth") == before
    monkeypatch.setenv("DMMA_CACHE", str(tmp_path / "another"))
    server.status = 500
    assert main(["fetch", NAME, "--mirror", mirror]) == 0
    (cache / "mmaudio_small_16k.pth").write_bytes(DATA[::-1])
    paths.remove(mirror)
    monkeypatch.setenv("DMMA_CACHE", str(cache))
    assert main(["fetch", NAME, "--to", mirror]) == 1
    assert not paths.exists(f"{mirror}/mmaudio_small_16k.pth")
    assert main(["fetch", NAME, "--to", "https://example.org"]) == 1


@pytest.mark.parametrize("folder", ["gs://bucket/weights", "s3://x"])
def test_a_cache_that_is_no_local_folder_is_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMMA_CACHE", folder)
    for command in (["list"], ["fetch", NAME], ["where", NAME]):
        assert main(command) != 0
        assert f"DMMA_CACHE is {folder}, but the cache" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("DMMA_CACHE", f"file://{tmp_path}")
    assert weights.cache_folder() == tmp_path


def test_the_command(cache: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert main(["where", NAME]) == 1
    assert "Get them with `dmma weights fetch" in capsys.readouterr().err
    assert main(["fetch", NAME]) == 0
    assert "may not be used commercially" in capsys.readouterr().err
    assert main(["verify", "all"]) == 0 and SHA256 in capsys.readouterr().out
    assert main(["where", NAME]) == 0 and capsys.readouterr().out.strip() == str(cache / "mmaudio_small_16k.pth")
    assert main(["list"]) == 0
    listing = capsys.readouterr().out
    assert "here  mmaudio_small_16k" in listing and "CC-BY-NC-4.0" in listing and str(cache) in listing
    (cache / "mmaudio_small_16k.pth").write_bytes(b"x")
    assert main(["verify", NAME]) == 1 and "FAIL" in capsys.readouterr().out
    assert main(["fetch", "midas_v21_small_256", "--offline"]) == 1


@pytest.mark.parametrize("command", ["where", "verify", "fetch", "import"])
def test_a_misspelt_name_is_answered_with_the_near_ones(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "mmaudio_smal_16k"]) == 1
    assert "no published weights 'mmaudio_smal_16k'. Known: mmaudio_small_16k" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file", "file/cache", "/proc/cache"])
def test_a_cache_that_cannot_be_written_is_a_sentence(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DMMA_CACHE", str(tmp_path / place))
    assert main(["list"]) == 0 and "  here  " not in capsys.readouterr().out
    with pytest.raises(StorageError, match=r"cache folder \S+ cannot be written: .* DMMA_CACHE"):
        weights.fetch(NAME)
    assert server.ranges == []
