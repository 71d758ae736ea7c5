"""Check media files on all cores.

INPUT a URI; OUTPUT a FileCheck. One task per file on one CPU, because decoding runs on one thread.
"""

from collections.abc import Iterator, Sequence

from dmma_core.data.cleaning import FileCheck, check_file
from dmma_core.data.cleaning_config import CleaningConfig
from dmma_core.errors import DmmaError
from ray_jobs.common.bounded_tasks import bounded_tasks


def _check(uri: str, config: CleaningConfig) -> FileCheck:
    try:
        return check_file(uri, config)
    except DmmaError:  # the storage does not answer: no fault of the file
        raise
    except Exception as error:  # the stage's edge: an unforeseen failure rejects the file, not the job
        return FileCheck(uri, reason="check_failed", detail=f"{type(error).__name__}: {error}.")


def _killed(call: tuple[str, CleaningConfig], error: Exception) -> FileCheck:
    return FileCheck(
        call[0], reason="check_failed", detail=f"The process that checked it died ({type(error).__name__})."
    )


def check_files(uris: Sequence[str], config: CleaningConfig) -> Iterator[FileCheck]:
    """Results in the order of completion. A file that kills its worker repeatedly is rejected as "check_failed".

    Raises StorageError where the storage does not answer.
    """
    return bounded_tasks(_check, ((uri, config) for uri in uris), when_killed=_killed)
