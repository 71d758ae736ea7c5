"""Fixtures that every test folder shares."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.generated import GeneratedPair, write_generated_pair
from helpers.storage_emulator import StorageEmulator, storage_emulator

_SHARED = Path(__file__).resolve().parents[2] / "shared"
_bucket_numbers = itertools.count()


@pytest.fixture(scope="session")
def gs_server() -> Iterator[StorageEmulator]:
    """A storage server on loopback. While it runs, gs:// means this server, here and in every child process."""
    with storage_emulator() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", server.url)
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        yield server


@pytest.fixture
def bucket(gs_server: StorageEmulator) -> str:
    """URI of a new empty bucket."""
    return gs_server.make_bucket(f"bucket-{next(_bucket_numbers)}")


@pytest.fixture(scope="session")
def ray_cluster(gs_server: StorageEmulator) -> Iterator[None]:
    """One local Ray for the whole session: starting it takes seconds. Jobs that connect inside use it.

    Its logical CPUs leave room for two trainers of two workers each beside their controllers.
    """
    from ray_jobs.common.runtime import connect

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the workers: helpers
        with connect(min_cpus=8):
            yield


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """Folder of the reference outputs: DMMA_GOLDEN_DIR, or ../shared/golden beside the project."""
    return _folder("DMMA_GOLDEN_DIR", _SHARED / "golden")


@pytest.fixture(scope="session")
def clips_dir() -> Path:
    """Folder of real clips: DMMA_CLIPS_DIR, or ../shared/clips beside the project."""
    return _folder("DMMA_CLIPS_DIR", _SHARED / "clips")


@pytest.fixture(scope="session")
def generated_pair(tmp_path_factory: pytest.TempPathFactory) -> GeneratedPair:
    """Made sounds of two arms over rendered clips, as `dmma generate` leaves them. Read-only: tests write elsewhere."""
    return write_generated_pair(tmp_path_factory.mktemp("generated-pair"))


def _folder(variable: str, default: Path) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set {variable} to run this test")
    return folder
