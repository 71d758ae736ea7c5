"""Where an artefact came from: code version, library versions, time, and fingerprints of its inputs."""

import hashlib
import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

COMMIT_FILE = "_commit.txt"  # beside this file in wheels and source archives; setup.py writes it
_COMMIT_VARIABLE = "DMMA_GIT_COMMIT"
_GIT_OF_THE_CALLER = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set in hooks; they would override the folder
_LIBRARIES = ("dmma", "torch", "ray", "open_clip_torch", "timm", "av", "pyarrow", "mlflow", "numpy")


def fingerprint(value: Any) -> str:
    """sha256 (hex) of the canonical JSON of `value`: equal contents, equal fingerprint, on any machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache  # once a process: an edit made later is not the code that runs
def git_commit() -> str:
    """Commit of the code of this package, with `+dirty` if tracked files differ from it; "unknown" if no source has it.

    The first of: the git checkout of this package; the stamp that the build wrote into an installed copy; the environment
    variable DMMA_GIT_COMMIT, which infra/submit.sh sets because Ray copies the project without `.git`.
    """
    return _checkout_commit() or _stamped_commit() or os.environ.get(_COMMIT_VARIABLE, "").strip() or "unknown"


def provenance() -> dict[str, Any]:
    """The provenance record of an artefact: time, commit, and library versions."""
    return {
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _checkout_commit() -> str:
    """Commit of the repository that tracks this file at its root; an installed copy may lie in another repository."""
    root = Path(__file__).resolve().parent.parent
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel")).resolve() != root:
            return ""
        _git(root, "ls-files", "--error-unmatch", "dmma_core/provenance.py")
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _stamped_commit() -> str:
    stamp = Path(__file__).with_name(COMMIT_FILE)
    return stamp.read_text().strip() if stamp.is_file() else ""


def _git(root: Path, *args: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_OF_THE_CALLER}
    command = ("git", "-C", str(root), *args)
    run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
    return run.stdout.strip()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"
