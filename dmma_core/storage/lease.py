"""A lease on a folder: only one of several jobs writes into it, also if they run on different machines.

    <folder>/LEASE.json    the holder: job, host, process, random token, time of the last heartbeat

The holder renews the file every `period_s` from a thread and removes it at the end. Another job that finds it waits for a
heartbeat, by its own clock. It refuses to start once there is one. It takes the lease over after eight periods without
any, or at once if the holder was a process of the same machine that has ended. If several jobs take over at the same
time, one succeeds (see `conditional`).

Storage cannot stop a job that lost its lease from writing, so a job calls `Lease.require` before it writes a completeness
marker. Within six periods of a renewal no other job can have taken over. Later, for example after a pause of the process
or an outage of the storage, LEASE.json is read. Other processes of the job (workers of a Ray group) get its `LeaseToken`,
which reads it each time. A process that is paused between that check and its write is not detected.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from dmma_core.errors import LeaseHeldError, LeaseLostError, StorageError
from dmma_core.storage import conditional, paths
from dmma_core.storage.conditional import Stored

LEASE = "LEASE.json"
PERIOD_S = 15.0
_DEAD_AFTER = 8  # periods without a heartbeat, by the clock of another job
_SAFE_FOR = 6  # periods since a renewal; fewer, for clocks of different speed
_RELEASE_LIMIT_S = 5.0
_log = logging.getLogger(__name__)


@contextmanager
def held(uri: str, what: str, period_s: float = PERIOD_S) -> Iterator["Lease"]:
    """Hold the lease on the folder `uri` inside the block, for the job `what`.

    Raises LeaseHeldError if another job holds it, StorageError if the storage does not respond.
    """
    lease = Lease(uri, what, period_s)
    lease.acquire()
    renewal = threading.Thread(target=lease.renew_until_released, name="dmma-lease", daemon=True)
    renewal.start()
    try:
        yield lease
    finally:
        lease.ended.set()
        renewal.join(_RELEASE_LIMIT_S)  # it may be waiting for a storage that does not respond
        lease.release()


def require_free(uri: str) -> None:
    """Raise LeaseHeldError if `uri` seems to be held. For a dry run: trusts the holder's clock and changes nothing."""
    if stored := conditional.read(paths.join(uri, LEASE)):
        holder = _Holder.of(uri, stored)
        if not holder.has_ended() and time.time() - holder.heartbeat_unix_s < holder.dead_after_s:
            raise holder.refusal(uri)


@dataclass(frozen=True)
class LeaseToken:
    """Plain values with which another process of the job checks whether the job still holds the folder `uri`."""

    uri: str
    token: str

    def require(self) -> None:
        """Raise LeaseLostError unless the job holds the lease, StorageError if the storage does not respond."""
        stored = conditional.read(paths.join(self.uri, LEASE))
        if stored is None:
            raise _lost(self.uri, f"its {LEASE} is gone")
        holder = _Holder.of(self.uri, stored)
        if holder.token != self.token:
            raise _lost(self.uri, f"it was taken over by {holder}")


class Lease:
    """The lease of one job on one folder. Made by `held`."""

    def __init__(self, uri: str, what: str, period_s: float) -> None:
        self._uri, self._lease_uri = uri, paths.join(uri, LEASE)
        self._holder = _Holder.this_process(what, period_s)
        self._stored: Stored | None = None
        self._renewed_s = float("-inf")
        self._lost: LeaseLostError | None = None
        self.ended = threading.Event()

    @property
    def token(self) -> LeaseToken:
        return LeaseToken(self._uri, self._holder.token)

    def require(self) -> None:
        """Raise LeaseLostError if another job has, or may have, taken over the folder. Usually without a request."""
        silent_s = _clock_s() - self._renewed_s
        if self._lost is None and silent_s > _SAFE_FOR * self._holder.period_s:
            try:
                self.token.require()
            except LeaseLostError as error:
                self._lost = error
            except StorageError as error:
                self._lost = _lost(self._uri, f"no heartbeat could be stored for {silent_s:.0f} s ({error.message})")
        if self._lost:
            raise LeaseLostError(self._lost.message, remedy=self._lost.remedy)

    def acquire(self) -> None:
        """Take the lease, after waiting for a heartbeat if there is a holder. Raises LeaseHeldError, StorageError."""
        while not self._put(None):
            found = conditional.read(self._lease_uri)
            if found is None:  # released meanwhile
                continue
            holder = _Holder.of(self._uri, found)
            if holder.token == self._holder.token:  # written, but the response was lost
                self._stored = found
                return
            newest = self._watch(found, holder)
            if newest is None:
                continue
            if newest != found:
                raise _Holder.of(self._uri, newest).refusal(self._uri)
            if self._put(found):
                _log.warning(
                    "%s was held by %s, which has ended or sends no heartbeat; this job takes over.", self._uri, holder
                )
                return

    def renew_until_released(self) -> None:
        """Store a heartbeat every period. Ends when the lease is released or lost."""
        is_silent = False
        while self._lost is None and not self.ended.wait(self._holder.period_s):
            try:
                self._renew()
                is_silent = False
            except StorageError as error:
                if not is_silent:
                    _log.warning("The lease on %s could not be renewed; retrying. %s", self._uri, error)
                is_silent = True

    def release(self) -> None:
        """Remove LEASE.json if it is still this holder's. If the storage does not respond, only a warning is logged."""
        try:
            while (found := conditional.read(self._lease_uri)) and self._is_own(found):
                if conditional.remove(self._lease_uri, found):
                    return
        except StorageError as error:
            _log.warning(
                "%s could not be removed and expires in %g s. %s", self._lease_uri, self._holder.dead_after_s, error
            )

    def _renew(self) -> None:
        if self._put(self._stored):
            return
        found = conditional.read(self._lease_uri)
        if found and self._is_own(found):  # the response to an earlier request was lost
            self._stored = found
            return
        try:
            self.token.require()
        except LeaseLostError as error:
            self._lost = error
            _log.error("%s", error)

    def _put(self, old: Stored | None) -> bool:
        """Store a heartbeat in place of `old` (None: of no file); False if another process was faster."""
        started_s = _clock_s()
        data = paths.json_bytes(asdict(replace(self._holder, heartbeat_unix_s=time.time())))
        stored = conditional.replace(self._lease_uri, data, old) if old else conditional.create(self._lease_uri, data)
        if stored is None:
            return False
        self._stored, self._renewed_s = stored, started_s
        return True

    def _is_own(self, stored: Stored) -> bool:
        return _Holder.of(self._uri, stored).token == self._holder.token

    def _watch(self, found: Stored, holder: "_Holder") -> Stored | None:
        """The stored lease once it differs from `found`, once its holder has ended, or after `dead_after_s`."""
        if not holder.has_ended():
            _log.info(
                "%s is held by %s: waiting for a heartbeat, %g s at most.", self._uri, holder, holder.dead_after_s
            )
        started_s, newest = _clock_s(), conditional.read(self._lease_uri)
        while newest == found and not holder.has_ended() and _clock_s() - started_s < holder.dead_after_s:
            time.sleep(min(1.0, holder.period_s / 4))
            newest = conditional.read(self._lease_uri)
        return newest


@dataclass(frozen=True)
class _Holder:
    """The contents of LEASE.json."""

    token: str
    what: str
    host: str
    pid: int
    pid_space: str  # machine, boot and container of the process id; "" if unknown
    process_start: str  # process ids are reused
    since_unix_s: float
    heartbeat_unix_s: float
    period_s: float

    @classmethod
    def this_process(cls, what: str, period_s: float) -> "_Holder":
        pid, now_s, pid_space = os.getpid(), time.time(), _pid_space()
        start = _state_and_start(pid)[1] if pid_space else ""
        return cls(uuid4().hex, what, socket.gethostname(), pid, pid_space, start, now_s, now_s, period_s)

    @classmethod
    def of(cls, uri: str, stored: Stored) -> "_Holder":
        """Raises StorageError for invalid contents."""
        try:
            return cls(**json.loads(stored.data))
        except (ValueError, TypeError) as error:
            raise StorageError(
                f"{uri}/{LEASE} is damaged ({error}).", remedy="Delete it, if no job writes into that folder."
            ) from error

    @property
    def dead_after_s(self) -> float:
        return _DEAD_AFTER * self.period_s

    def has_ended(self) -> bool:
        """Whether the holder was a process of this machine that has ended; False if unknown."""
        return bool(self.pid_space) and self.pid_space == _pid_space() and _is_gone(self.pid, self.process_start)

    def refusal(self, uri: str) -> LeaseHeldError:
        return LeaseHeldError(
            f"Another job writes into {uri}: {self}.",
            remedy="Wait until it ends, stop it, or give another folder. "
            f"After {self.dead_after_s:g} s without a heartbeat it counts as dead, and this command takes over.",
        )

    def __str__(self) -> str:
        return (
            f"{self.what} (process {self.pid} on {self.host}, since {_text(self.since_unix_s)}, "
            f"last heartbeat {_text(self.heartbeat_unix_s)})"
        )


def _lost(uri: str, why: str) -> LeaseLostError:
    return LeaseLostError(
        f"This job lost its lease on {uri} and stops writing there: {why}.",
        remedy="If no other job writes there, run the same command again.",
    )


def _clock_s() -> float:
    """Monotonic clock that also counts while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _pid_space() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_gone(pid: int, start: str) -> bool:
    """Whether the process `pid` that started at `start` has ended. False if the system does not report it."""
    try:
        os.kill(pid, 0)
        state, started = _state_and_start(pid)
    except ProcessLookupError:
        return True
    except OSError:  # a process of another user
        return False
    return state in ("Z", "X") or started != start


def _state_and_start(pid: int) -> tuple[str, str]:
    """A process's state and its start time in ticks since boot. Raises OSError."""
    # The name, in parentheses, may contain spaces.
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return state, fields[18]


def _text(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
