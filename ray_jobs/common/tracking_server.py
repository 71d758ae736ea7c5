"""MLflow's tracking server: its address, its user, and whether it answers.

MLFLOW_TRACKING_URI names it; without that variable it is a SQLite file beside the runs. A user and a password come in
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or in an http address. From the address they are moved into those
two variables, where MLflow reads them. An address that is shown, logged or stored never contains them.
"""

import logging
import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from dmma_core.errors import ConfigError, DmmaError
from dmma_core.log import without_password
from dmma_core.storage import paths
from ray_jobs.common.job import in_submitted_copy

if TYPE_CHECKING:
    from mlflow import MlflowClient

_URI, _USER, _PASSWORD = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_SECRETS = (_PASSWORD, "MLFLOW_TRACKING_TOKEN")
_SQLITE = "sqlite:///"
_CHECK_TIMEOUT_S = 5
_MAX_REASON_LENGTH = 200
# Few and short retries: without a server MLflow would otherwise retry for minutes. Variables that are set win.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


class TrackingError(DmmaError):
    """The tracking server does not answer, or refuses."""


def tracking_uri_for(comparison_uri: str) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the folder `mlflow` beside the folder of runs.

    Raises ConfigError for an unusable address, and where the file would be lost with a submitted job's working directory.
    """
    given = given_tracking_uri()
    is_lost = (
        given.startswith(_SQLITE) and not given.startswith(f"{_SQLITE}/") if given else paths.is_remote(comparison_uri)
    )
    if is_lost and in_submitted_copy():
        raise ConfigError(
            f"MLflow's database for {comparison_uri} would lie in the temporary copy of the project that a submitted "
            "job runs in, and be lost with it.",
            remedy=f"Set {_URI} to a server where the cluster is started, or give mlflow=false and upload later with "
            "`dmma sync-metrics`.",
        )
    return given or f"{_SQLITE}{local_mlflow_folder(comparison_uri)}/mlflow.db"


def given_tracking_uri() -> str:
    """MLFLOW_TRACKING_URI, "" where it is not set. The user and password of an http address move to their variables.

    Raises ConfigError, without showing the address, where it cannot be split into its parts.
    """
    uri = os.environ.get(_URI, "")
    if not is_server(uri):
        return uri
    try:
        parts = urlsplit(uri)
    except ValueError:  # its text may contain the password
        raise ConfigError(f"{_URI} is no web address.", remedy="Give it as http://host:port.") from None
    if "@" in f"{parts.path}{parts.query}{parts.fragment}":
        raise ConfigError(
            f"{_URI} has an @ behind its host, as if its password held a /, ? or #.",
            remedy=f"Percent-encode the password (%2F, %3F, %23), or give it as {_PASSWORD}.",
        )
    user, separator, host = parts.netloc.rpartition("@")
    if not separator:
        return uri
    for name, value in zip((_USER, _PASSWORD), user.split(":", 1), strict=False):
        os.environ[name] = unquote(value)
    os.environ[_URI] = urlunsplit(parts._replace(netloc=host))
    return os.environ[_URI]


def is_server(uri: str) -> bool:
    """Whether a tracking URI is the address of a server, not of a database or a folder."""
    return uri.lower().startswith(("http://", "https://"))


def local_mlflow_folder(comparison_uri: str) -> str:
    """Absolute folder of the default database and artefacts; runs in a bucket have it below the working directory."""
    if paths.is_remote(comparison_uri):
        return paths.absolute("mlflow")
    return os.path.join(os.path.dirname(os.path.dirname(paths.absolute(comparison_uri))), "mlflow")


def require_tracking_server(uri: str) -> None:
    """Raise DmmaError unless the tracking server at `uri` answers and accepts the user; databases need no server."""
    if not is_server(uri):
        return
    _prepare_mlflow()
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    remedy = f"Start it, or unset {_URI}; training needs none, `dmma sync-metrics` uploads later."
    # Not /health, which answers without a password. MLflow's own request sends what the client would send later.
    try:
        answer = http_request(
            get_default_host_creds(uri),
            "/api/2.0/mlflow/experiments/search",
            "POST",
            max_retries=0,
            timeout=_CHECK_TIMEOUT_S,
            json={"max_results": 1},
        )
    except MlflowException as error:
        reason = _reason(error, uri)
        raise TrackingError(f"MLflow at {without_password(uri)} does not answer ({reason}).", remedy=remedy) from None
    if answer.status_code in (401, 403):
        raise TrackingError(
            f"MLflow at {without_password(uri)} refuses the user or the password (HTTP {answer.status_code}).",
            remedy=f"Set {_USER} and {_PASSWORD}.",
        )
    if answer.status_code != 200:
        raise TrackingError(
            f"MLflow at {without_password(uri)} does not answer (HTTP {answer.status_code}).", remedy=remedy
        )


@contextmanager
def tracking_client(comparison_uri: str) -> Iterator["MlflowClient"]:
    """A client of the tracking server. Its errors become TrackingErrors."""
    _prepare_mlflow()
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = tracking_uri_for(comparison_uri)
    try:
        if uri.startswith(_SQLITE):
            os.makedirs(os.path.dirname(uri.removeprefix(_SQLITE)) or ".", exist_ok=True)
        yield mlflow.MlflowClient(tracking_uri=uri)
    except (
        MlflowException,
        SQLAlchemyError,
        ImportError,
        OSError,
    ) as error:  # the latter for a database without driver
        raise TrackingError(
            f"MLflow at {without_password(uri)} did not accept the request ({_reason(error, uri)}).",
            remedy=f"Start the server, or unset {_URI}.",
        ) from None


def _prepare_mlflow() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _reason(error: BaseException, uri: str) -> str:
    """Short reason of an error, that of the network if it was a network error. Without passwords in any encoding."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, (ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)):
        cause = cause.__cause__ or cause.__context__
    text = next(iter(str(cause or error).splitlines()), "") or type(cause or error).__name__
    text = text.replace(uri, without_password(uri))
    in_uri = uri.partition("://")[2].rpartition("@")[0].partition(":")[2]
    for secret in filter(None, (in_uri, *map(os.environ.get, _SECRETS))):
        for spelling in (secret, quote(secret, safe=""), unquote(secret)):
            text = text.replace(spelling, "***")
    return text[:_MAX_REASON_LENGTH]
