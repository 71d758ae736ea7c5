"""Without reference data the golden tests are skipped with a notice; with incomplete data CI fails."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.golden import NO_DATA, golden_json

ROOT = Path(__file__).resolve().parents[2]


def test_absent_data_are_one_line_at_the_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/golden/test_golden_schedule.py"]
    environment = {**os.environ, "DMMA_GOLDEN_DIR": str(tmp_path / "absent"), "CI": "true"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^4 golden tests skipped: no golden data \(set DMMA_GOLDEN_DIR\)$", done.stdout, re.MULTILINE)


def test_incomplete_data_fail_in_ci_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMMA_GOLDEN_DIR", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"absent\.json is not in"):
        golden_json("absent")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match=NO_DATA):
        golden_json("absent")
