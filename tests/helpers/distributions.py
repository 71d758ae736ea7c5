"""Wheels and source archives of this project, built offline by the setuptools of the running Python."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "dmma_core", "ray_jobs", "configs")


def copy_sources(folder: Path, leave_out: str = "") -> Path:
    """What a distribution is built from, copied: builds leave files beside their sources."""
    folder.mkdir(parents=True)
    for path in (ROOT / name for name in SOURCES):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=shutil.ignore_patterns("__pycache__", leave_out))
        else:
            shutil.copy(path, folder)
    return folder


def build(source: Path, kind: str, folder: Path) -> Path:
    """The "wheel" or "sdist" of `source`, the only file in `folder`."""
    code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, folder], cwd=source, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built
