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
    """Starts processes that request the lease on a folder; those that still run at the end are killed."""
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


def send(process: "subprocess.Popen[str]", line: str) -> str:
    """Send one line and read the reply."""
    assert process.stdin
    print(line, file=process.stdin, flush=True)
    return output_of(process)


def output_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def local(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def as_of_another_machine(uri: str) -> None:
    """Make the holder one of which only the heartbeats are known."""
    record = paths.read_json(f"{uri}/LEASE.json")
    paths.write_json(f"{uri}/LEASE.json", {**record, "pid_space": "another boot", "host": "elsewhere"})


@contextmanager
def paused(process: "subprocess.Popen[str]") -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_the_second_process_is_refused_with_a_message_and_may_take_over_later(folder: str, start: Start) -> None:
    first = start(folder)
    assert output_of(first) == "held"
    second = start(folder)
    output = output_of(second)
    assert output.startswith(f"LeaseHeldError: Another job writes into {folder}: train (process {first.pid} on ")
    assert "last heartbeat 20" in output and "give another folder" in output and "counts as dead" in output
    with pytest.raises(LeaseHeldError, match=f"process {first.pid}"):
        require_free(folder)
    assert send(first, "mark") == "marked"
    assert send(first, "end") == ""
    assert not paths.exists(f"{folder}/LEASE.json")
    require_free(folder)
    with held(folder, "extract", PERIOD_S):
        pass


def test_a_killed_holder_of_this_machine_is_replaced_at_once(
    local: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(local, 1000.0)
    assert output_of(first) == "held"
    first.kill()
    first.wait()
    require_free(local)
    with held(local, "train", PERIOD_S) as lease:
        lease.require()
    assert f"was held by train (process {first.pid}" in caplog.text


def test_a_reused_process_id_is_not_the_holder(local: str) -> None:
    with held(local, "train", 1000.0) as lease:
        record = paths.read_json(f"{local}/LEASE.json")
        paths.write_json(f"{local}/LEASE.json", {**record, "process_start": "1"})
        with held(local, "train", PERIOD_S), pytest.raises(LeaseLostError, match="taken over by train"):
            lease.token.require()


def test_a_dead_holder_of_another_machine_is_replaced_once_its_heartbeats_are_missing(
    local: str, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    first = start(local)
    assert output_of(first) == "held"
    first.kill()
    first.wait()
    as_of_another_machine(local)
    started_s = time.monotonic()
    with held(local, "train", PERIOD_S):
        assert time.monotonic() - started_s >= 8 * PERIOD_S
    assert "on elsewhere" in caplog.text


def test_a_paused_holder_is_replaced_and_writes_nothing_afterwards(folder: str, start: Start) -> None:
    first = start(folder)
    assert output_of(first) == "held"
    with paused(first):
        second = start(folder)
        assert output_of(second) == "held"
    output = send(first, "mark")
    assert output.startswith(f"LeaseLostError: This job lost its lease on {folder}")
    assert f"taken over by train (process {second.pid}" in output
    assert not paths.exists(f"{folder}/MARKER.json")
    assert send(second, "mark") == "marked"  # the end of the first one did not remove it
    assert paths.exists(f"{folder}/LEASE.json")


def test_a_paused_holder_that_nobody_replaced_continues(local: str, start: Start) -> None:
    first = start(local)
    assert output_of(first) == "held"
    with paused(first):
        time.sleep(8 * PERIOD_S)
    assert send(first, "mark") == "marked"


def test_of_several_takers_one_succeeds(folder: str, start: Start) -> None:
    first = start(folder)
    assert output_of(first) == "held"
    with paused(first):
        takers = [start(folder) for _ in range(3)]
        output = [output_of(taker) for taker in takers]
        assert sorted(line.partition(":")[0] for line in output) == ["LeaseHeldError", "LeaseHeldError", "held"]
        assert send(takers[output.index("held")], "mark") == "marked"


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
    assert "could not be removed and expires in 8000 s" in caplog.text


def test_it_is_released_on_errors_and_interrupts(local: str) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), held(local, "train", PERIOD_S):
            assert paths.exists(f"{local}/LEASE.json")
            raise error
        assert not paths.exists(f"{local}/LEASE.json")


def test_a_deleted_or_damaged_lease_is_reported(folder: str) -> None:
    with held(folder, "train", PERIOD_S) as lease:
        token = lease.token
        paths.remove(f"{folder}/LEASE.json")
        with pytest.raises(LeaseLostError, match=r"its LEASE.json is gone. .* run the same command again"):
            token.require()
    paths.write_bytes(f"{folder}/LEASE.json", b"{}")
    with pytest.raises(StorageError, match="damaged .* Delete it, if no job"), held(folder, "train", PERIOD_S):
        raise AssertionError
