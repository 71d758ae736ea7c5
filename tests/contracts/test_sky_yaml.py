"""The shipped SkyPilot tasks pass SkyPilot's own parser, validator and optimizer, offline."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.sky_catalog import write_catalog

ROOT = Path(__file__).resolve().parents[2]
CHECK = Path(__file__).with_name("check_sky_yaml.py")


def sky_plan(home: Path, task: Path, *envs: str) -> subprocess.CompletedProcess[str]:
    write_catalog(home)
    environment = {**os.environ, "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    return subprocess.run(
        [sys.executable, str(CHECK), str(task), *envs], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_train_depth_is_priced_on_two_a100(tmp_path: Path) -> None:
    done = sky_plan(tmp_path, ROOT / "sky" / "train_depth.yaml", "BUCKET=b")
    assert done.returncode == 0, done.stderr
    rented = json.loads(done.stdout.splitlines()[-1])
    assert (rented["instance_type"], rented["region"]) == ("a2-ultragpu-2g", "us-central1")
    assert rented["dollars_an_hour"] == pytest.approx(2 * (1.09962 + 1.8462))


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text((ROOT / "sky" / "train_depth.yaml").read_text() + "\nautodown: true\n")
    done = sky_plan(tmp_path, broken, "BUCKET=b")
    assert done.returncode != 0
    assert "autodown" in done.stderr


def test_the_folder_of_tasks_does_not_hide_skypilot() -> None:
    assert not list((ROOT / "sky").glob("**/*.py"))
