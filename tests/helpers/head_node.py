"""A separate Ray head node, as on a rented cluster, accessed by HTTP only."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT_S = 90


@dataclass(frozen=True)
class HeadNode:
    """`submit` hands a job to this node by the project's own script. Ray's own files are in `folder`."""

    address: str
    environment: dict[str, str]
    folder: Path

    def submit(self, *command: str) -> subprocess.CompletedProcess[str]:
        submit = [ROOT / "infra" / "submit.sh", "--", sys.executable, "-m", *command]
        environment = {**self.environment, "RAY_ADDRESS": self.address}
        return subprocess.run(submit, env=environment, capture_output=True, text=True)


@contextmanager
def head_node(num_cpus: int = 6) -> Iterator[HeadNode]:
    """Start it by the project's script, on free ports, with a token; afterwards stop it and no other process."""
    port, job_port, agent_port = (_free_port() for _ in range(3))
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:  # a short path, because Ray creates sockets in it
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN_PATH")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_PORT": str(port),
            "RAY_JOB_PORT": str(job_port),
            "RAY_AGENT_PORT": str(agent_port),  # where another Ray holds the usual one, no job would start
            "RAY_CPUS": str(num_cpus),
            "RAY_TMPDIR": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "OMP_NUM_THREADS": "1",
        }
        with open(Path(folder) / "head.log", "w") as log:  # not a pipe, which Ray's daemons would keep open
            process = subprocess.Popen([ROOT / "infra" / "local_cluster.sh"], env=environment, stdout=log, stderr=log)
        try:
            address = f"http://127.0.0.1:{job_port}"
            _wait_until_it_answers(address, process, Path(folder) / "head.log")
            yield HeadNode(address, environment, Path(folder))
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_until_it_answers(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/version", timeout=2):
                return
        except urllib.error.HTTPError:
            return  # it responds, and refuses requests without the token
        except OSError:
            time.sleep(0.5)
    raise RuntimeError(f"The head node did not start:\n{log.read_text()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
