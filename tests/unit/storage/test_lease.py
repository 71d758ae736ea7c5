"""Leases between real processes, on a disk and on a bucket: refusal, death, pause, outage, several takers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmma_core.errors import LeaseHeldError, LeaseLostError, StorageError
from dmma_core.storage import paths
from dmma_core.storage.lease import held, require_free
from helpers.storage_emulator import StorageEmulator

ROOT = Path(__file__).resolve().parents[3]
PERIOD_S = 0.25
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "run") if request.param == "disk" else f"{request.getfixturevalue('bucket')}/run"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes that want the lease on a folder; those that still run at the end are killed."""
    started: list[subprocess.Popen[str]] = []

    def start_one(folder: str, period_s: float = PERIOD_S) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            (sys.executable, "-m", "helpers.hold_lease", folder, str(period_s)),
            cwd=ROOT / "tests",
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "tests"), str(ROOT)))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


def tell(process: "subprocess.Popen[str]", line: str) -> str:
    """Send one line and read the answer."""
    assert process.stdin
    print(line, file=process.stdin, flush=True)
    return said_by(process)


def said_by(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def local(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def as_of_another_machine(uri: str) -> None:
    """Make the holder one of which nothing can be known but its heartbeats."""
    record = paths.read_json(f"{uri}/LEASE.json")
    paths.write_json(f"{uri}/LEASE.json", {**record, "pid_space": "another boot", "host": "elsewhere"})


@contextmanager
def paused(process: "subprocess.Popen[str]") -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_the_second_process_is_refused_with_a_sentence_and_may_follow(folder: str, start: Start) -> None:
    first = start(folder)
    assert said_by(first) == "held"
    second = start(folder)
    said = said_by(second)
    assert said.startswith(f"LeaseHeldError: Another job writes into {folder}: train (process {first.pid} on ")
    assert "last heartbeat 20" in said and "give another folder" in said and "counts as dead" in said
    with pytest.raises(LeaseHeldError, match=f"process {first.pid}"):
        require_free(folder)
    assert tell(first, "mark") == "marked"
    assert tell(first, "end") == ""
    assert not paths.exists(f"{folder}/LEASE.json")
    require_free(folder)
    with held(folder, "extract", PERIOD_S):
        pass


def test_a_killed_holder_of_this_machine_is_followed_at_once(
    local: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(local, 1000.0)
    assert said_by(first) == "held"
    first.kill()
    first.wait()
    require_free(local)
    with held(local, "train", PERIOD_S) as lease:
        lease.require()
    assert f"was left by train (process {first.pid}" in caplog.text


def test_a_process_id_that_was_given_again_is_not_the_holder(local: str) -> None:
    with held(local, "train", 1000.0) as lease:
        record = paths.read_json(f"{local}/LEASE.json")
        paths.write_json(f"{local}/LEASE.json", {**record, "process_start": "1"})
        with held(local, "train", PERIOD_S), pytest.raises(LeaseLostError, match="taken over by train"):
            lease.token.require()


def test_a_dead_holder_of_another_machine_is_followed_once_its_heartbeats_are_missing(
    local: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(local)
    assert said_by(first) == "held"
    first.kill()
    first.wait()
    as_of_another_machine(local)
    begun_s = time.monotonic()
    with held(local, "train", PERIOD_S):
        assert time.monotonic() - begun_s >= 8 * PERIOD_S
    assert "on elsewhere" in caplog.text


def test_a_paused_holder_is_followed_and_writes_nothing_afterwards(folder: str, start: Start) -> None:
    first = start(folder)
    assert said_by(first) == "held"
    with paused(first):
        second = start(folder)
        assert said_by(second) == "held"
    said = tell(first, "mark")
    assert said.startswith(f"LeaseLostError: This job lost its lease on {folder}")
    assert f"taken over by train (process {second.pid}" in said
    assert not paths.exists(f"{folder}/MARKER.json")
    assert tell(second, "mark") == "marked"  # the first one's end left it alone
    assert paths.exists(f"{folder}/LEASE.json")


def test_a_paused_holder_that_nobody_followed_continues(local: str, start: Start) -> None:
    first = start(local)
    assert said_by(first) == "held"
    with paused(first):
        time.sleep(8 * PERIOD_S)
    assert tell(first, "mark") == "marked"


def test_of_several_takers_one_succeeds(folder: str, start: Start) -> None:
    first = start(folder)
    assert said_by(first) == "held"
    with paused(first):
        takers = [start(folder) for _ in range(3)]
        said = [said_by(taker) for taker in takers]
        assert sorted(line.partition(":")[0] for line in said) == ["LeaseHeldError", "LeaseHeldError", "held"]
        assert tell(takers[said.index("held")], "mark") == "marked"


def test_the_lease_survives_a_short_outage_and_is_lost_in_a_long_one(
    bucket: str, gs_server: StorageEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    with held(f"{bucket}/run", "train", PERIOD_S) as lease:
        with gs_server.refusing("LEASE.json"):
            time.sleep(2 * PERIOD_S)
            lease.require()
        time.sleep(2 * PERIOD_S)
        with gs_server.refusing("LEASE.json"):
            time.sleep(7 * PERIOD_S)
            with pytest.raises(LeaseLostError, match=r"no heartbeat could be stored for \d s \(.*Forbidden"):
                lease.require()
        with pytest.raises(LeaseLostError, match="no heartbeat"):  # what is lost stays lost
            lease.require()
    assert caplog.text.count("could not be renewed") == 2


def test_an_outage_at_the_start_is_an_error_and_one_at_the_end_a_warning(
    bucket: str, gs_server: StorageEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    with gs_server.refusing("LEASE.json"), pytest.raises(StorageError, match="Forbidden"), held(bucket, "train"):
        raise AssertionError
    lease = held(bucket, "train", 1000.0)
    lease.__enter__()
    with gs_server.refusing("LEASE.json"):
        lease.__exit__(None, None, None)
    assert "stays behind and counts as dead in 8000 s" in caplog.text


def test_it_is_released_on_errors_and_interrupts(local: str) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), held(local, "train", PERIOD_S):
            assert paths.exists(f"{local}/LEASE.json")
            raise error
        assert not paths.exists(f"{local}/LEASE.json")


def test_a_deleted_or_damaged_lease_is_a_sentence(folder: str) -> None:
    with held(folder, "train", PERIOD_S) as lease:
        token = lease.token
        paths.remove(f"{folder}/LEASE.json")
        with pytest.raises(LeaseLostError, match=r"its LEASE.json is gone. .* run the same command again"):
            token.require()
    paths.write_bytes(f"{folder}/LEASE.json", b"{}")
    with pytest.raises(StorageError, match="damaged .* Delete it, if no job"), held(folder, "train", PERIOD_S):
        raise AssertionError
