"""Where an artefact came from: code version, library versions, time, and fingerprints of its inputs."""

import hashlib
import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = ("dmma", "torch", "ray", "open_clip_torch", "timm", "av", "pyarrow", "mlflow", "numpy")


def fingerprint(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`: equal contents, equal fingerprint, on any machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def git_commit() -> str:
    """Commit of the source tree this package runs from, with `+dirty` if files differ; "unknown" outside git."""
    root = Path(__file__).resolve().parent.parent
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def provenance() -> dict[str, Any]:
    """The record every artefact carries: when, by which code, with which libraries."""
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _git(root: Path, *args: str) -> str:
    run = subprocess.run(("git", "-C", str(root), *args), capture_output=True, text=True, timeout=10, check=True)
    return run.stdout.strip()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
