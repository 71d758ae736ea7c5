"""A wheel is complete: what it installs works in an empty folder, outside any checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from helpers.distributions import ROOT, build, copy_sources

DATA = ("*.yaml", "*.safetensors", "*.json", "*.j2")


def data_of_the_checkout() -> set[str]:
    """Names of all files that are data of the code, as an installed copy has them."""
    found = {
        file
        for folder in ("dmma_core", "ray_jobs", "configs")
        for suffix in DATA
        for file in (ROOT / folder).rglob(suffix)
    }
    names = {str(file.relative_to(ROOT)) for file in found}
    return {f"dmma_{name}" if name.startswith("configs/") else name for name in names}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_sources(tmp_path_factory.mktemp("source") / "dmma")


@pytest.fixture(scope="module")
def installed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(build(source, "wheel", tmp_path_factory.mktemp("wheel"))).extractall(folder)
    return folder


def dmma(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from ray_jobs.common.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_all_code_and_data_are_inside(installed: Path) -> None:
    files = {str(file.relative_to(installed)) for file in installed.rglob("*") if file.is_file()}
    code = {str(file.relative_to(ROOT)) for name in ("dmma_core", "ray_jobs") for file in (ROOT / name).rglob("*.py")}
    data = data_of_the_checkout()
    assert {"dmma_configs/train/tiny.yaml", "dmma_core/evaluation/report/page.html.j2"} <= data
    assert sum(name.endswith(".safetensors") for name in data) >= 3
    assert code | data <= files
    assert {name.partition("/")[0].partition("-")[0] for name in files} == {
        "dmma",
        "dmma_configs",
        "dmma_core",
        "ray_jobs",
    }


def test_a_source_archive_has_the_data_too(source: Path, tmp_path: Path) -> None:
    with tarfile.open(build(source, "sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name.replace("dmma_configs/", "configs/") for name in data_of_the_checkout()} <= names


def test_an_installed_copy_finds_its_configurations(installed: Path, tmp_path: Path) -> None:
    done = dmma(installed, tmp_path, "render", "--config", "tiny", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "num_clips: 240" in done.stdout and "Dry run: all checks passed" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_installed_copy_lists_its_configurations(installed: Path, tmp_path: Path) -> None:
    done = dmma(installed, tmp_path, "clean", "--config", "absent")
    assert done.returncode == 2
    assert "There is no configuration file absent. Give a path, or one of: mmaudio, tiny." in done.stderr
