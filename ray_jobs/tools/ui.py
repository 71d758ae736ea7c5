"""Open MLflow on a comparison: on the tracking server in use, or on a local server on the SQLite file."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import quote

from dmma_core.errors import DmmaError, StorageError
from dmma_core.job_configs import UiConfig
from dmma_core.log import without_password
from dmma_core.storage import paths
from ray_jobs.common.job import Job
from ray_jobs.common.reporting import IDS
from ray_jobs.common.tracking_server import (
    is_server,
    local_mlflow_folder,
    require_tracking_server,
    tracking_uri_for,
)

_log = logging.getLogger(__name__)
_START_LIMIT_S = 180.0


def plan(config: UiConfig) -> Sequence[str]:
    """Check that there is something to show, and that the server answers or can be started."""
    uri = tracking_uri_for(config.comparison_uri)
    _require_database(uri)
    require_tracking_server(uri)
    if not is_server(uri):
        _require_free(config.port)
    return [f"Show {config.comparison_uri} from {without_password(uri)} at {_base_url(config, uri)}."]


def run(config: UiConfig) -> None:
    """Serve until interrupted; where MLFLOW_TRACKING_URI is a server, only print the address."""
    uri = tracking_uri_for(config.comparison_uri)
    _require_database(uri)
    url = comparison_url(config.comparison_uri, _base_url(config, uri))
    if is_server(uri):
        _show(url, config.open_browser)
        return
    with mlflow_server(uri, local_mlflow_folder(config.comparison_uri), config.port) as server:
        _show(url, config.open_browser)
        print("Ctrl-C ends the server.", flush=True)
        with suppress(KeyboardInterrupt):
            server.wait()


def comparison_url(comparison_uri: str, base_url: str) -> str:
    """The page that shows the arms of a comparison side by side; the start page where nothing was uploaded yet."""
    ids_uri = paths.join(comparison_uri, IDS)
    if not paths.exists(ids_uri):
        return base_url
    ids = paths.read_json(ids_uri)
    runs = ",".join(f'"{run_id}"' for run_id in ids["arms"].values())
    experiment = f'"{ids["experiment_id"]}"'
    return f"{base_url}/#/compare-runs?runs={quote(f'[{runs}]')}&experiments={quote(f'[{experiment}]')}"


@contextmanager
def mlflow_server(tracking_uri: str, folder: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's own server on loopback, ready inside the block and stopped after it.

    Raises DmmaError where it does not start, for example because the port is taken.
    """
    _require_free(port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", f"{folder}/artifacts"]
    settings = {
        "MLFLOW_BACKEND_STORE_URI": tracking_uri,  # may contain a password, and `ps` shows command lines
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes instead of 10
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    os.makedirs(folder, exist_ok=True)
    log_path = os.path.join(folder, "server.log")
    with open(log_path, "wb") as log:
        server = subprocess.Popen(
            command, env={**os.environ, **settings}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_it_answers(server, f"http://127.0.0.1:{port}/health", log_path)
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DmmaError(
                f"Port {port} of this machine is taken ({error.strerror}).", remedy="Give another one: port=5001."
            ) from error


def _wait_until_it_answers(server: subprocess.Popen[bytes], url: str, log_path: str) -> None:
    _log.info("MLflow is starting (10 to 40 s) …")
    limit_s = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < limit_s:
        if server.poll() is not None:
            break
        with suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            answer.read()
            return
        time.sleep(0.3)
    raise DmmaError("The MLflow server did not start.", remedy=f"Its output is in {log_path}.")


def _base_url(config: UiConfig, tracking_uri: str) -> str:
    return without_password(tracking_uri).rstrip("/") if is_server(tracking_uri) else f"http://127.0.0.1:{config.port}"


def _require_database(tracking_uri: str) -> None:
    path = tracking_uri.removeprefix("sqlite:///")
    if path != tracking_uri and not os.path.exists(path):
        raise StorageError(
            f"There is no MLflow database {path}.",
            remedy="Train first, or upload with `dmma sync-metrics runs/<name>`.",
        )


def _show(url: str, open_browser: bool) -> None:
    print(f"MLflow: {url}", flush=True)
    if open_browser:
        with suppress(webbrowser.Error):
            webbrowser.open(url)


JOB = Job(
    name="ui",
    summary="Start the MLflow UI on a comparison's results and print its address.",
    config=UiConfig,
    plan=plan,
    run=run,
    example="dmma ui runs/demo port=5001 open_browser=false",
    positional="comparison_uri",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
