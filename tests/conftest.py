"""Fixtures that every test folder shares."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.generated import GeneratedPair, write_generated_pair
from helpers.golden import NO_DATA
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
def clips_dir() -> Path:
    """Folder of real clips: DMMA_CLIPS_DIR, or ../shared/clips beside the project."""
    folder = Path(os.environ.get("DMMA_CLIPS_DIR", _SHARED / "clips"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set DMMA_CLIPS_DIR to run this test")
    return folder


@pytest.fixture(scope="session")
def generated_pair(tmp_path_factory: pytest.TempPathFactory) -> GeneratedPair:
    """Synthetic sounds of two arms for rendered clips, as `dmma generate` writes them. Read-only: tests write elsewhere."""
    return write_generated_pair(tmp_path_factory.mktemp("generated-pair"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print at the end, in one line, how many golden tests were skipped because the reference data are absent."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NO_DATA in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} golden tests skipped: {NO_DATA} (set DMMA_GOLDEN_DIR)", yellow=True
        )
