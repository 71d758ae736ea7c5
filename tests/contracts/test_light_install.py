"""Without extras DMMA is light: its command line works where only the declared base dependencies are."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ray_jobs.common.cli import JOB_PACKAGES, JOBS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_all_they_need(requirements: list[str]) -> Iterator[str]:
    """The names of the required distributions and, recursively, of theirs."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name
            yield from with_all_they_need(distribution(requirement.name).requires or [])


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of links to the packages that `pip install dmma` brings, and to nothing else."""
    folder = tmp_path_factory.mktemp("site-packages")
    for name in set(with_all_they_need(PROJECT["dependencies"])):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            (folder / top).symlink_to(Path(str(installed.locate_file(top))))
    return folder


def dmma(light: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(light)])}
    command = [sys.executable, "-S", "-m", "ray_jobs.common.cli", *words]  # -S: without this environment's packages
    return subprocess.run(command, cwd=light, env=environment, capture_output=True, text=True)


def test_the_commands_are_listed(light: Path) -> None:
    done = dmma(light, "--help")
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in JOBS)


def test_a_job_prints_what_it_needs(light: Path) -> None:
    done = dmma(light, "demo")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("dmma demo needs packages that are not installed here (")
    assert line.endswith("). Install them: pip install 'dmma[jobs]'.")
    assert all(name in line for name in ("ray", "torch", "mlflow"))


def test_what_jobs_need_is_what_the_extra_installs() -> None:
    needed = {normalised(Requirement(text).name) for text in PROJECT["optional-dependencies"]["jobs"]}
    distributions = packages_distributions()
    for package in JOB_PACKAGES:
        assert {normalised(name) for name in distributions[package]} & needed, package
    found = {normalised(name) for package in JOB_PACKAGES for name in distributions[package]}
    assert needed <= found
