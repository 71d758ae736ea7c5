"""Check media files on all cores.

INPUT a URI; OUTPUT a FileCheck. One task per file on one CPU, because decoding runs on one thread; a window of tasks is
in flight, so that a million files do not fill the scheduler.
"""

from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayError, RayTaskError

from dmma_core.data.cleaning import CleaningConfig, FileCheck, check_file
from dmma_core.errors import DmmaError

_IN_FLIGHT_PER_CPU = 4


def _check(uri: str, config: CleaningConfig) -> FileCheck:
    try:
        return check_file(uri, config)
    except DmmaError:  # the storage does not answer: that says nothing about the file
        raise
    except Exception as error:  # the stage's edge: an unforeseen failure rejects the file, not the job
        return FileCheck(uri, reason="check_failed", detail=f"{type(error).__name__}: {error}.")


def check_files(uris: Sequence[str], config: CleaningConfig) -> Iterator[FileCheck]:
    """Results in the order of completion. A file that kills its worker again and again is rejected as "check_failed".

    Raises StorageError where the storage does not answer.
    """
    task = ray.remote(num_cpus=1, max_retries=2)(_check)
    window = _IN_FLIGHT_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(uris)
    running: dict[ray.ObjectRef, str] = {}
    while True:
        while len(running) < window and (uri := next(waiting, None)) is not None:
            running[task.remote(uri, config)] = uri
        if not running:
            return
        finished, _ = ray.wait(list(running), num_returns=1)
        for reference in finished:
            uri = running.pop(reference)
            try:
                yield ray.get(reference)
            except RayTaskError:
                raise
            except RayError as error:  # the worker process died
                yield FileCheck(uri, reason="check_failed", detail=f"Its check ended with {type(error).__name__}.")
