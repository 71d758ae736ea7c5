"""Which commit a record names, in real repositories, installed copies and archives."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from dmma_core.provenance import fingerprint, git_commit, provenance
from helpers.distributions import build, copy_sources

ROOT = Path(__file__).resolve().parents[2]
ASK = "from dmma_core.provenance import git_commit; print(git_commit())"


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    done = subprocess.run(("git", *identity, *words), cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit_all(folder: Path) -> str:
    """Make the folder a repository of all that is in it; returns the commit."""
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "All")
    return git(folder, "rev-parse", "HEAD")


def copy_package(folder: Path) -> Path:
    """The two files that provenance needs, as in an installed copy or a checkout."""
    (folder / "dmma_core").mkdir(parents=True)
    for name in ("__init__.py", "provenance.py"):
        shutil.copy(ROOT / "dmma_core" / name, folder / "dmma_core")
    return folder


def commit_named_in(folder: Path, **variables: str) -> str:
    """The commit that a new process reports which imports the package from `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DMMA_", "GIT_"))}
    environment = {**kept, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    command = [sys.executable, "-c", ASK]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_fingerprint_is_of_contents_not_of_order() -> None:
    assert fingerprint({"a": 1, "b": [1.5, "ä"]}) == fingerprint({"b": [1.5, "ä"], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"a": float("nan")})


def test_provenance_names_code_and_libraries() -> None:
    record = provenance()
    assert record["git_commit"] == git_commit()
    assert record["libraries"]["torch"] != "absent"


def test_a_checkout_names_its_commit_and_marks_changed_files(tmp_path: Path) -> None:
    commit = commit_all(copy_package(tmp_path))
    assert commit_named_in(tmp_path, DMMA_GIT_COMMIT="of-another-tree") == commit
    assert commit_named_in(tmp_path, GIT_DIR=str(ROOT / ".git")) == commit  # as git sets it while a hook runs
    (tmp_path / "notes.txt").write_text("not tracked")
    assert commit_named_in(tmp_path) == commit
    (tmp_path / "dmma_core" / "__init__.py").write_text("changed = True\n")
    assert commit_named_in(tmp_path) == commit + "+dirty"


def test_an_installed_copy_does_not_name_the_repository_it_lies_in(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").touch()
    commit_all(tmp_path)
    inside = copy_package(tmp_path / "venv" / "site-packages")
    assert commit_named_in(inside) == "unknown"
    at_the_root = copy_package(tmp_path)
    assert commit_named_in(at_the_root) == "unknown"  # as one file among others that nobody tracks


def test_a_copy_without_git_names_its_stamp_then_the_variable(tmp_path: Path) -> None:
    copy = copy_package(tmp_path)
    assert commit_named_in(copy, DMMA_GIT_COMMIT="0123abc+dirty") == "0123abc+dirty"
    (copy / "dmma_core" / "_commit.txt").write_text("4567def\n")
    assert commit_named_in(copy, DMMA_GIT_COMMIT="0123abc") == "4567def"


def test_wheels_and_source_archives_carry_the_commit(tmp_path: Path) -> None:
    source = copy_sources(tmp_path / "source", leave_out="*.safetensors")
    commit = commit_all(source)
    wheel = build(source, "wheel", tmp_path / "wheel")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    assert commit_named_in(tmp_path / "installed") == commit
    assert git(source, "status", "--porcelain", "--untracked-files=no") == ""
    assert not (source / "dmma_core" / "_commit.txt").exists()

    archive = build(source, "sdist", tmp_path / "archive")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    rebuilt = build(tmp_path / archive.name.removesuffix(".tar.gz"), "wheel", tmp_path / "rebuilt")
    zipfile.ZipFile(rebuilt).extractall(tmp_path / "reinstalled")
    assert commit_named_in(tmp_path / "reinstalled") == commit
