"""MLflow beside the run folders: the folders are the truth, the tracking server gets a copy, live or afterwards.

    runs/<name>/comparison.json     arms with their parameters, tags; written by the driver before training
                mlflow.json         tracking server, experiment and run ids, once they exist there
                <arm>/metrics.jsonl what is uploaded; MLflow's step is the number of samples seen

One experiment is one comparison; a parent run holds the arms as children. The driver alone talks to the server, from a
thread of its own: a slow or dead server costs a warning, never training time. `dmma sync-metrics` is the same upload.
"""

import json
import logging
import os
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import DmmaError, StorageError
from dmma_core.provenance import git_commit
from dmma_core.storage import paths
from dmma_core.storage.metrics_log import COUNTERS, Point, read_metrics
from dmma_core.storage.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient

_HEALTH_TIMEOUT_S = 5
DESCRIPTION = "comparison.json"
IDS = "mlflow.json"
_log = logging.getLogger(__name__)
_UPLOAD_EVERY_S = 10.0
_METRICS_PER_REQUEST = 900  # the server takes 1,000
_PARAMS_PER_REQUEST = 100
_MAX_PARAM_LENGTH = 5_000
# Few and short attempts: without a server MLflow would otherwise try for minutes. Variables that are set win.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


class TrackingError(DmmaError):
    """The tracking server does not answer, or refuses."""


@dataclass(frozen=True)
class TrackedComparison:
    """What MLflow is told about a comparison: its arms with their parameters (dotted names) and its tags."""

    uri: str
    key: str
    arms: Mapping[str, Mapping[str, str]]
    tags: Mapping[str, str]

    @classmethod
    def describe(
        cls, uri: str, parameters: Mapping[str, Mapping[str, Any]], store: FeatureStore
    ) -> "TrackedComparison":
        """Write comparison.json. The key is kept when the run goes on, arms that don't take part this time as well."""
        description_uri = paths.join(uri, DESCRIPTION)
        before = paths.read_json(description_uri) if paths.exists(description_uri) else {}
        arms = {**before.get("arms", {}), **{arm: _flat(values) for arm, values in parameters.items()}}
        tags = {
            "git_commit": git_commit(),
            "features_uri": store.uri,
            "features_fingerprint": store.fingerprint,
            "dataset": store.dataset,
            "bundle": store.schema.bundle,
            "comparison_uri": uri,
        }
        made = cls(uri, before.get("key", uuid4().hex), arms, tags)
        paths.write_json(description_uri, asdict(made))
        return made

    @classmethod
    def read(cls, uri: str) -> "TrackedComparison":
        """Read it back; the folder may have been moved meanwhile. Raises StorageError where nothing was trained."""
        description_uri = paths.join(uri, DESCRIPTION)
        if not paths.exists(description_uri):
            raise StorageError(f"{uri} is no comparison: it has no {DESCRIPTION}.", remedy="Give runs/<name>.")
        return cls(**{**paths.read_json(description_uri), "uri": uri})

    @property
    def name(self) -> str:
        return RunFolder(self.uri).name


def tracking_uri_for(comparison_uri: str) -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in the folder `mlflow` beside the folder of runs."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local_mlflow_folder(comparison_uri)}/mlflow.db"


def without_password(uri: str) -> str:
    """A tracking URI that may be shown and stored: `user:password@` is left out."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def require_tracking_server(uri: str) -> None:
    """Raise DmmaError unless the tracking server at `uri` answers; files and databases need none."""
    if not uri.startswith("http"):
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_HEALTH_TIMEOUT_S) as answer:  # noqa: S310
            answer.read()
    except (OSError, HTTPException, ValueError) as error:  # the last two for an address that is none
        raise DmmaError(
            f"MLflow at {without_password(uri)} does not answer ({error}).",
            remedy="Start it, or unset MLFLOW_TRACKING_URI; training goes on without it, `dmma sync-metrics` uploads later.",
        ) from error


def local_mlflow_folder(comparison_uri: str) -> str:
    """Absolute folder of the default database and artefacts; runs in a bucket have it below the working directory."""
    if paths.is_remote(comparison_uri):
        return paths.absolute("mlflow")
    return os.path.join(os.path.dirname(os.path.dirname(paths.absolute(comparison_uri))), "mlflow")


def sync_metrics(comparison: TrackedComparison, known: dict[str, set[tuple[str, int]]] | None = None) -> int:
    """Upload every point that the server lacks; returns how many values that were. Repeating it adds nothing.

    `known` remembers between calls what the server has, per arm. Raises TrackingError.
    """
    known = {} if known is None else known
    with _server(comparison.uri) as client:
        ids = _ensure_runs(client, comparison)
        uploaded = 0
        for arm in comparison.arms:
            points = read_metrics(RunFolder(paths.join(comparison.uri, arm)).metrics)
            if points and arm not in known:
                known[arm] = _known_on_server(client, ids["arms"][arm])
            uploaded += _upload(client, ids["arms"][arm], points, known.setdefault(arm, set()))
        return uploaded


def set_status(comparison: TrackedComparison, statuses: Mapping[str, str]) -> None:
    """Close the runs of the given arms as FINISHED, FAILED or KILLED, and the parent with the worst of them."""
    with _server(comparison.uri) as client:
        ids = _ensure_runs(client, comparison)
        for arm, status in statuses.items():
            client.set_terminated(ids["arms"][arm], status)
        worst = next((s for s in ("FAILED", "KILLED") if s in statuses.values()), "FINISHED")
        client.set_terminated(ids["parent"], worst)


def log_artifacts(run_uri: str, folder: str, artifact_path: str = "") -> bool:
    """Attach all files of `folder` to the MLflow run of `run_uri`: an arm, or the comparison itself (its parent run).

    False, with a warning, where there is no such run or the server does not answer: artefacts are copies.
    """
    run_uri = paths.absolute(run_uri).rstrip("/")
    is_comparison = paths.exists(paths.join(run_uri, DESCRIPTION))
    comparison_uri, arm = (run_uri, None) if is_comparison else run_uri.rsplit("/", 1)
    try:
        comparison = TrackedComparison.read(comparison_uri)
        with _server(comparison_uri) as client, _local_copy(folder) as local:
            ids = _ensure_runs(client, comparison)
            client.log_artifacts(ids["arms"][arm] if arm else ids["parent"], local, artifact_path or None)
    except (DmmaError, KeyError) as error:
        _log.warning("%s was not attached to MLflow: %s", folder, error)
        return False
    return True


class Uploader:
    """Uploads a comparison's metrics in the background while it trains. A context manager; leaving waits a little."""

    def __init__(self, comparison: TrackedComparison, enabled: bool = True, patience_s: float = 30.0) -> None:
        self._comparison, self._patience_s = comparison, patience_s
        self._statuses: Mapping[str, str] = {}
        self._ended = threading.Event()
        self._failed = self._complete = False
        self._thread = threading.Thread(target=self._work, name="dmma-mlflow", daemon=True) if enabled else None

    def __enter__(self) -> "Uploader":
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if not self._thread:
            return
        self._thread.join(self._patience_s)
        if not self._complete:
            _log.warning(
                "Not all metrics reached MLflow. They are in metrics.jsonl; `dmma sync-metrics %s` uploads them.",
                self._comparison.uri,
            )

    def finish(self, statuses: Mapping[str, str]) -> None:
        """Tell how the arms ended; the last upload closes their runs."""
        self._statuses = statuses

    def _work(self) -> None:
        known: dict[str, set[tuple[str, int]]] = {}
        ended = False
        while not ended:
            ended = self._ended.wait(_UPLOAD_EVERY_S)
            try:
                sync_metrics(self._comparison, known)
                if ended and self._statuses:
                    set_status(self._comparison, self._statuses)
                self._failed, self._complete = False, ended
            except DmmaError as error:
                if not self._failed:
                    _log.warning("%s Training goes on; metrics.jsonl has everything.", error)
                self._failed = True


@contextmanager
def _server(comparison_uri: str) -> Iterator["MlflowClient"]:
    """A client of the tracking server. Whatever goes wrong with it becomes a TrackingError."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    from mlflow.exceptions import MlflowException

    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.tracking"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    uri = tracking_uri_for(comparison_uri)
    try:
        if uri.startswith("sqlite:///"):
            os.makedirs(os.path.dirname(uri.removeprefix("sqlite:///")) or ".", exist_ok=True)
        yield mlflow.MlflowClient(tracking_uri=uri)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"MLflow at {without_password(uri)} did not take what was sent ({_first_line(error, uri)}).",
            remedy="Start the server, or unset MLFLOW_TRACKING_URI.",
        ) from error


def _first_line(error: Exception, uri: str) -> str:
    text = next(iter(str(error).splitlines()), type(error).__name__)
    return text.replace(uri, without_password(uri))[:200]


def _ensure_runs(client: "MlflowClient", comparison: TrackedComparison) -> dict[str, Any]:
    """Experiment, parent and child runs of a comparison, made where the server lacks them. Their ids are remembered."""
    ids_uri, uri = paths.join(comparison.uri, IDS), without_password(tracking_uri_for(comparison.uri))
    ids: dict[str, Any] = paths.read_json(ids_uri) if paths.exists(ids_uri) else {}
    if ids.get("tracking_uri") == uri and ids.get("key") == comparison.key and set(comparison.arms) <= set(ids["arms"]):
        return ids
    experiment_id = _ensure_experiment(client, comparison)
    parent = _ensure_run(client, experiment_id, comparison, None, {})
    arms = {}
    for arm, parameters in comparison.arms.items():
        arms[arm] = _ensure_run(client, experiment_id, comparison, arm, {"mlflow.parentRunId": parent})
        _log_parameters(client, arms[arm], parameters)
    ids = {
        "tracking_uri": uri,
        "key": comparison.key,
        "experiment": comparison.name,
        "experiment_id": experiment_id,
        "parent": parent,
        "arms": arms,
    }
    paths.write_json(ids_uri, ids)
    return ids


def _ensure_experiment(client: "MlflowClient", comparison: TrackedComparison) -> str:
    experiment = client.get_experiment_by_name(comparison.name)
    if experiment is not None:
        return str(experiment.experiment_id)
    is_local = tracking_uri_for(comparison.uri).startswith("sqlite:")
    location = f"file://{local_mlflow_folder(comparison.uri)}/artifacts/{comparison.name}" if is_local else None
    return str(client.create_experiment(comparison.name, artifact_location=location))


def _ensure_run(
    client: "MlflowClient", experiment_id: str, comparison: TrackedComparison, arm: str | None, tags: Mapping[str, str]
) -> str:
    """Id of the run tagged with the comparison's key and the arm ("parent" for none), made if the server lacks it."""
    role = arm or "parent"
    found = client.search_runs([experiment_id], f"tags.`dmma.key` = '{comparison.key}' and tags.`dmma.arm` = '{role}'")
    if found:
        return str(found[0].info.run_id)
    own = {"dmma.key": comparison.key, "dmma.arm": role, **comparison.tags, **tags}
    name = arm or comparison.name
    return str(client.create_run(experiment_id, tags=own, run_name=name).info.run_id)


def _log_parameters(client: "MlflowClient", run_id: str, parameters: Mapping[str, str]) -> None:
    """Parameters can't be changed in MLflow: one that differs from an earlier session's becomes a tag `now.<name>`."""
    from mlflow.entities import Param

    present = client.get_run(run_id).data.params
    new = [Param(key, value) for key, value in parameters.items() if key not in present]
    for start in range(0, len(new), _PARAMS_PER_REQUEST):
        client.log_batch(run_id, params=new[start : start + _PARAMS_PER_REQUEST])
    for key, value in parameters.items():
        if present.get(key, value) != value:
            client.set_tag(run_id, f"now.{key}", value)


def _known_on_server(client: "MlflowClient", run_id: str) -> set[tuple[str, int]]:
    names = client.get_run(run_id).data.metrics
    return {(name, metric.step) for name in names for metric in client.get_metric_history(run_id, name)}


def _upload(client: "MlflowClient", run_id: str, points: list[Point], known: set[tuple[str, int]]) -> int:
    from mlflow.entities import Metric

    new = []
    for point in points:
        samples, unix_ms = int(point["samples"]), int(1000 * point["unix_s"])
        values = {name: value for name, value in point.items() if name not in COUNTERS}
        for name, value in {**values, "progress/step": point["step"], "progress/wall_s": point["wall_s"]}.items():
            if (name, samples) not in known:
                new.append(Metric(name, float(value), unix_ms, samples))
                known.add((name, samples))
    try:
        for start in range(0, len(new), _METRICS_PER_REQUEST):
            client.log_batch(run_id, metrics=new[start : start + _METRICS_PER_REQUEST])
    except BaseException:
        known.clear()  # what arrived is asked from the server the next time
        raise
    return len(new)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[f"{prefix}{key}"] = text[:_MAX_PARAM_LENGTH]
    return flat


@contextmanager
def _local_copy(folder: str) -> Iterator[str]:
    """`folder` itself if it is local, else a temporary copy of its files. Raises StorageError for names that lead out of it."""
    if not paths.is_remote(folder):
        yield paths.absolute(folder)
        return
    with tempfile.TemporaryDirectory(prefix="dmma-artifacts-") as copy:
        for uri in paths.list_files(folder):
            paths.write_bytes(paths.join(copy, uri[len(folder.rstrip("/")) + 1 :]), paths.read_bytes(uri))
        yield copy
