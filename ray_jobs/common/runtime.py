"""Connect a job to Ray: to the cluster it was submitted to, or to a local Ray that ends with the job."""

import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import ray

from dmma_core.errors import ConfigError, DmmaError
from ray_jobs.common import places

_log = logging.getLogger(__name__)
_MIN_OBJECT_STORE_BYTES = 256 << 20

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (only its free space is read)
# Variables that are set already always win.
_LOCAL_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


class RayStartError(DmmaError):
    """A local Ray did not start."""


@contextmanager
def connect(min_cpus: int = 0) -> Iterator[None]:
    """Connect to Ray inside the block; nested use is a no-op.

    With RAY_ADDRESS set (as `ray job submit` does) the job joins that cluster with its tokens and resources. Otherwise
    a local Ray is started on this machine's CPUs and GPUs and shut down at the end. Its CPUs are logical: `min_cpus`
    raises their number above the number of cores, for processes that mostly wait (several trainers).

    Raises ConfigError when the cluster of RAY_ADDRESS cannot be reached, RayStartError when no local Ray can be started.
    """
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    with _environment({} if address else _local_environment()):
        with _signal_handler_kept():
            if address:
                _join(address)
            else:
                _start_local(max(os.cpu_count() or 1, min_cpus))
        try:
            yield
        finally:
            ray.shutdown()


def is_cluster_given() -> bool:
    """Whether `connect` joins a cluster, or is connected already, rather than starting a local Ray."""
    return ray.is_initialized() or bool(os.environ.get("RAY_ADDRESS"))


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise a DmmaError of a Ray worker as itself: its message, without the tracebacks of both processes."""
    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, DmmaError) and not isinstance(cause, ray.exceptions.RayError):
                raise cause from None
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise


def _start_local(num_cpus: int, may_retry: bool = True) -> None:
    """Start a local Ray; a start that timed out, as on a busy machine, is retried once."""
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=_object_store_bytes(),
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except Exception as error:  # the edge to Ray, which raises a plain Exception where a node is late
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        ray.shutdown()
        if may_retry and "timed out" in reason.lower():
            _log.warning("Ray did not start in time (%s); retrying once.", reason)
            _start_local(num_cpus, may_retry=False)
            return
        raise RayStartError(
            f"No local Ray could be started ({reason[:300]}).",
            remedy=f"Free memory and the folder {os.environ.get('RAY_TMPDIR') or tempfile.gettempdir()} (RAY_TMPDIR sets "
            "another one), or stop another Ray on this machine (`ray stop`). Then run the same command again.",
        ) from error


def _join(address: str) -> None:
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"RAY_ADDRESS is {address}, the address for submitting jobs to a cluster.",
            remedy="Submit the job there with `ray job submit`, or unset RAY_ADDRESS to run on this machine.",
        )
    try:
        ray.init(address=address, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(
            f"The Ray cluster of RAY_ADDRESS={address} cannot be joined ({error}).",
            remedy="Check that it runs, or unset RAY_ADDRESS to run on this machine.",
        ) from error


@contextmanager
def _signal_handler_kept() -> Iterator[None]:
    """Restore this process's own handler of SIGTERM, which ray.init replaces by one that exits at once."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _local_environment() -> dict[str, str]:
    """Variables for the local Ray and its workers, which inherit them: quiet settings, and a checkout on the path.

    An installed copy is on the path already, and site-packages must not come before the standard library.
    """
    path = [str(places.ROOT)] if places.IS_CHECKOUT else []
    path += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    settings = {name: value for name, value in _LOCAL_ENVIRONMENT.items() if name not in os.environ}
    if not any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        # Even a local Ray listens on every network interface and runs the code that it receives, so ray.init requires a
        # token unless RAY_AUTH_MODE is set otherwise. This one leaves no file in the user's home, unlike Ray's own.
        settings["RAY_AUTH_TOKEN"] = _token()
    return {**settings, "PYTHONPATH": os.pathsep.join(path)} if path else settings


@cache  # Ray reads it once a process, so a second local Ray of the same process must have the same one
def _token() -> str:
    return secrets.token_hex(32)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*variables, "RAY_AUTH_MODE")}  # ray.init sets the latter
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _object_store_bytes() -> int:
    """A sixteenth of the memory (512 MiB of 8 GiB), and no more than shared memory holds: beyond it Ray uses the disk."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shared = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else memory
    return max(_MIN_OBJECT_STORE_BYTES, min(memory // 16, shared * 3 // 4))
