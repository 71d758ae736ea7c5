"""A local Ray that does not start: an error message, and one retry where the start timed out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from ray_jobs.common import places, runtime
from ray_jobs.common.runtime import RayStartError, connect

ROOT = Path(__file__).resolve().parents[3]
LATE = Exception(  # as Ray raises it
    "The current node timed out during startup. This could happen because some of the raylet failed to startup or the GCS "
    "has become overloaded."
)
START = """
import sys
from ray_jobs.common.runtime import connect
from dmma_core.errors import DmmaError
try:
    with connect():
        pass
except DmmaError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("file/below", r"Not a directory|File exists"), ("x" * 100, "path length|too long")],
)
def test_a_temporary_folder_that_ray_cannot_use_is_a_sentence(tmp_path: Path, folder: str, reason: str) -> None:
    (tmp_path / "file").touch()
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_TMPDIR": str(tmp_path / folder)}
    run = subprocess.run((sys.executable, "-c", START), env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("RayStartError: No local Ray could be started (")
    assert folder in line and "RAY_TMPDIR" in line
    assert any(part in line for part in reason.split("|"))


@pytest.mark.parametrize("num_late", [1, 2])
def test_a_late_start_is_retried_once(
    num_late: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ray's own timeout, 30 s, is too long for a test; `ray.init` is replaced by one that is late."""
    starts = []

    def init(**settings: object) -> None:
        starts.append(settings)
        if len(starts) <= num_late:
            raise LATE

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name, stand_in in (("init", init), ("shutdown", lambda: None), ("is_initialized", lambda: False)):
        monkeypatch.setattr(runtime.ray, name, stand_in)
    if num_late == 1:
        with connect(min_cpus=3):
            pass
        assert starts[1]["num_cpus"] == max(3, os.cpu_count() or 1)
    else:
        with (
            pytest.raises(RayStartError, match=r"\(The current node timed out during startup\..*`ray stop`"),
            connect(),
        ):
            raise AssertionError
    assert len(starts) == 2
    assert "retrying once" in caplog.text
    assert ray.init is init


def test_workers_find_a_checkout_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert places.IS_CHECKOUT and places.CONFIG_ROOT == places.ROOT / "configs"
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert runtime._local_environment()["PYTHONPATH"] == os.pathsep.join([str(places.ROOT), "/mine"])
    monkeypatch.delenv("PYTHONPATH")
    assert runtime._local_environment()["PYTHONPATH"] == str(places.ROOT)


def test_an_installed_copy_leaves_the_path_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "IS_CHECKOUT", False)
    monkeypatch.setenv("PYTHONPATH", "/mine")
    assert runtime._local_environment()["PYTHONPATH"] == "/mine"
    monkeypatch.delenv("PYTHONPATH")
    assert "PYTHONPATH" not in runtime._local_environment()
