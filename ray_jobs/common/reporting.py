"""MLflow beside the run folders: the folders are the record, the tracking server gets a copy, live or afterwards.

    runs/<name>/comparison.json     arms with their parameters, tags; written by the driver before training
                mlflow.json         tracking server, experiment and run ids, once they exist there
                <arm>/metrics.jsonl what is uploaded; MLflow's step is the number of samples seen
                <arm>/evaluations.jsonl  the same from `dmma evaluate`; <name>/evaluations.jsonl from `dmma compare`

One experiment is one comparison; a parent run has the arms as children. Only the driver sends requests to the server,
from a separate thread: a slow or dead server costs a warning, never training time. `dmma sync-metrics` uploads the same.
"""

import json
import logging
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import DmmaError, StorageError
from dmma_core.log import without_password
from dmma_core.provenance import git_commit
from dmma_core.storage import paths
from dmma_core.storage.conditional import update_json
from dmma_core.storage.metrics_log import COUNTERS, MetricsPoint, read_metrics
from dmma_core.storage.run_folder import RunFolder
from ray_jobs.common.tracking_server import local_mlflow_folder, tracking_client, tracking_uri_for

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DESCRIPTION = "comparison.json"
IDS = "mlflow.json"
PARENT = "parent"
COLOUR = "mlflow.runColor"  # the tag that MLflow's charts take a run's colour from
ARM_COLOURS = {"baseline": "#b4641a", "depth": "#1b6f8f"}  # those of the report's page
Known = dict[tuple[str, int], float]
"""Newest value that a run has on the server, by metric and number of samples."""

_log = logging.getLogger(__name__)
_MORE_COLOURS = ("#7a4fa3", "#4d8a2f", "#c2406f", "#8a7a1f", "#2f9c8f", "#5a5f66")
_MEASURED = ("eval", "compare")  # prefixes of the metrics of evaluate and compare
_UPLOAD_EVERY_S = 10.0
_METRICS_PER_REQUEST = 900  # the server takes 1,000
_PARAMS_PER_REQUEST = 100
_MAX_PARAM_LENGTH = 5_000
_MAX_TAG_LENGTH = 8_000


@dataclass(frozen=True)
class TrackedComparison:
    """What MLflow records of a comparison: its arms with their parameters (dotted names) and its tags."""

    uri: str
    key: str
    arms: Mapping[str, Mapping[str, str]]
    tags: Mapping[str, str]

    @classmethod
    def describe(
        cls, uri: str, parameters: Mapping[str, Mapping[str, Any]], store: FeatureStore
    ) -> "TrackedComparison":
        """Write comparison.json. A comparison that resumes keeps its key, and the arms that are not trained this time.

        Two jobs that train one arm each may do this at the same time. The result has only the arms given here, so that
        each job uploads its own.
        """
        tags = {
            "git_commit": git_commit(),
            "features_uri": store.uri,
            "features_fingerprint": store.fingerprint,
            "dataset": store.dataset,
            "bundle": store.schema.bundle,
            "comparison_uri": uri,
        }
        arms = {arm: _flat(values) for arm, values in parameters.items()}
        new = cls(uri, uuid4().hex, arms, tags)

        def merged(before: dict[str, Any] | None) -> dict[str, Any]:
            kept = before or {}
            return {**asdict(new), "key": kept.get("key", new.key), "arms": {**kept.get("arms", {}), **arms}}

        return replace(cls(**update_json(paths.join(uri, DESCRIPTION), merged)), arms=arms)

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


def sync_metrics(comparison: TrackedComparison, known: dict[str, Known] | None = None) -> int:
    """Upload every value that the server lacks; returns their number. Repeating it adds nothing.

    `known` keeps between calls what the server has, per run id. Raises TrackingError.
    """
    known = {} if known is None else known
    with tracking_client(comparison.uri) as client:
        uploaded = 0
        for role, run_id in _ensure_runs(client, comparison).items():
            if points := read_points(comparison.uri if role == PARENT else paths.join(comparison.uri, role)):
                known_of_run = known.pop(run_id, None) or _known_on_server(client, run_id)
                uploaded += _upload(client, run_id, points, known_of_run)
                known[run_id] = known_of_run  # not after a failed upload: the server is then asked what arrived
        return uploaded


def read_points(run_uri: str) -> list[MetricsPoint]:
    """All points of a run that are uploaded: those of its training, then those of its evaluations."""
    run = RunFolder(run_uri)
    return [*read_metrics(run.metrics), *read_metrics(run.evaluations)]


def set_status(comparison: TrackedComparison, statuses: Mapping[str, str]) -> None:
    """Close the runs of the given arms as FINISHED, FAILED or KILLED, and the parent with the worst of them."""
    with tracking_client(comparison.uri) as client:
        ids = _ensure_runs(client, comparison)
        for arm, status in statuses.items():
            client.set_terminated(ids[arm], status)
        worst = next((s for s in ("FAILED", "KILLED") if s in statuses.values()), "FINISHED")
        client.set_terminated(ids[PARENT], worst)


def describe_comparison(
    comparison: TrackedComparison, tags: Mapping[str, str], folder: str, artifact_path: str
) -> None:
    """Set tags on the parent run and attach all files of `folder` to it. Raises TrackingError."""
    with tracking_client(comparison.uri) as client, _local_copy(folder) as local:
        run_id = _ensure_runs(client, comparison)[PARENT]
        for key, value in tags.items():
            client.set_tag(run_id, key, value[:_MAX_TAG_LENGTH])
        client.log_artifacts(run_id, local, artifact_path)


class Uploader:
    """Uploads a comparison's metrics in the background while it trains. Its exit waits at most `patience_s`."""

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
        """Set the final status of the arms; the last upload closes their runs with it."""
        self._statuses = statuses

    def _work(self) -> None:
        known: dict[str, Known] = {}
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
                    _log.warning("%s Training continues; metrics.jsonl has everything.", error)
                self._failed = True


def _ensure_runs(client: "MlflowClient", comparison: TrackedComparison) -> dict[str, str]:
    """Ids of the arms' runs on the server, and of the comparison's own run as PARENT.

    The server is asked every time: missing runs are created, those in state "deleted" are restored. mlflow.json gets
    the ids.
    """
    experiment_id = _ensure_experiment(client, comparison)
    found = _find_runs(client, experiment_id, comparison)
    ids: dict[str, str] = {}
    for role in (PARENT, *comparison.arms):
        run, parameters = found.get(role), comparison.arms.get(role, {})
        own = {}
        if role != PARENT:
            colour = run.data.tags.get(COLOUR) if run else None  # a person may have chosen another one
            own = {"mlflow.parentRunId": ids[PARENT], COLOUR: colour or _free_colour(role, found.values())}
        if run:
            ids[role] = str(run.info.run_id)
            if run.info.lifecycle_stage == "deleted":
                client.restore_run(ids[role])
                _log.info("MLflow's run %s of %s was in state deleted; it is restored.", ids[role], role)
            _set_tags(client, run, own)
            _log_parameters(client, run, parameters)
            continue
        tags = {"dmma.key": comparison.key, "dmma.arm": role, **comparison.tags, **own}
        name = comparison.name if role == PARENT else role
        found[role] = client.create_run(experiment_id, tags=tags, run_name=name)
        ids[role] = str(found[role].info.run_id)
        _log_parameters(client, found[role], parameters)
    _remember(comparison, experiment_id, ids)
    return ids


def _ensure_experiment(client: "MlflowClient", comparison: TrackedComparison) -> str:
    experiment = client.get_experiment_by_name(comparison.name)  # also one in state deleted
    if experiment is None:
        is_local = tracking_uri_for(comparison.uri).startswith("sqlite:")
        location = f"file://{local_mlflow_folder(comparison.uri)}/artifacts/{comparison.name}" if is_local else None
        return str(client.create_experiment(comparison.name, artifact_location=location))
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
        _log.info("MLflow's experiment %s was in state deleted; it is restored.", comparison.name)
    return str(experiment.experiment_id)


def _find_runs(client: "MlflowClient", experiment_id: str, comparison: TrackedComparison) -> dict[str, "Run"]:
    """The comparison's runs by arm, found by their tags. Of several for one arm, the oldest that is not deleted."""
    from mlflow.entities import ViewType

    runs = client.search_runs([experiment_id], f"tags.`dmma.key` = '{comparison.key}'", run_view_type=ViewType.ALL)
    runs = sorted(runs, key=lambda run: (run.info.lifecycle_stage != "deleted", -run.info.start_time))
    return {run.data.tags["dmma.arm"]: run for run in runs}


def _remember(comparison: TrackedComparison, experiment_id: str, ids: Mapping[str, str]) -> None:
    """Write mlflow.json where it differs, keeping arms that another job trains. Log which of its runs were gone."""
    ids_uri = paths.join(comparison.uri, IDS)
    place = {"tracking_uri": without_password(tracking_uri_for(comparison.uri)), "key": comparison.key}
    before = paths.read_json(ids_uri) if paths.exists(ids_uri) else {}
    is_same_place = all(before.get(name) == value for name, value in place.items())
    record = {
        **place,
        "experiment": comparison.name,
        "experiment_id": experiment_id,
        "parent": ids[PARENT],
        "arms": {**(before["arms"] if is_same_place else {}), **{arm: ids[arm] for arm in comparison.arms}},
    }
    if before == record:
        return
    if is_same_place:
        known = {PARENT: before["parent"], **before["arms"]}
        if gone := [role for role, run_id in known.items() if ids.get(role, run_id) != run_id]:
            _log.info(
                "MLflow no longer had the runs of %s that %s names; everything is uploaded to new ones.",
                ", ".join(gone),
                ids_uri,
            )
    paths.write_json(ids_uri, record)


def _free_colour(arm: str, others: Iterable["Run"]) -> str:
    """The arm's colour in MLflow's charts: its own, or the first that no other run of the comparison has."""
    taken = {run.data.tags.get(COLOUR) for run in others} | set(ARM_COLOURS.values())
    return ARM_COLOURS.get(arm) or next((each for each in _MORE_COLOURS if each not in taken), _MORE_COLOURS[-1])


def _set_tags(client: "MlflowClient", run: "Run", tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        if run.data.tags.get(key) != value:
            client.set_tag(run.info.run_id, key, value)


def _log_parameters(client: "MlflowClient", run: "Run", parameters: Mapping[str, str]) -> None:
    """Parameters can't be changed in MLflow: one that differs from an earlier session's becomes a tag `now.<name>`."""
    from mlflow.entities import Param

    present = run.data.params
    new = [Param(key, value) for key, value in parameters.items() if key not in present]
    for start in range(0, len(new), _PARAMS_PER_REQUEST):
        client.log_batch(run.info.run_id, params=new[start : start + _PARAMS_PER_REQUEST])
    changed = {f"now.{key}": value for key, value in parameters.items() if present.get(key, value) != value}
    _set_tags(client, run, changed)


def _known_on_server(client: "MlflowClient", run_id: str) -> Known:
    names = client.get_run(run_id).data.metrics
    history = [metric for name in names for metric in client.get_metric_history(run_id, name)]
    return {(metric.key, metric.step): metric.value for metric in sorted(history, key=lambda each: each.timestamp)}


def _upload(client: "MlflowClient", run_id: str, points: list[MetricsPoint], known: Known) -> int:
    """A value of training is uploaded once; that of an evaluation again where a repetition gave another result."""
    from mlflow.entities import Metric

    newest: dict[tuple[str, int], Metric] = {}
    for point in points:
        samples, unix_ms = int(point["samples"]), int(1000 * point["unix_s"])
        values = {name: value for name, value in point.items() if name not in COUNTERS}
        if "wall_s" in point:
            values |= {"progress/step": point["step"], "progress/wall_s": point["wall_s"]}
        newest |= {(name, samples): Metric(name, float(value), unix_ms, samples) for name, value in values.items()}
    new = [
        metric
        for key, metric in newest.items()
        if key not in known or (metric.key.startswith(_MEASURED) and known[key] != metric.value)
    ]
    for start in range(0, len(new), _METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=new[start : start + _METRICS_PER_REQUEST])
    known.update({(metric.key, metric.step): metric.value for metric in new})
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
    """`folder` itself if it is local, else a temporary copy. Raises StorageError for file names that lead out of it."""
    if not paths.is_remote(folder):
        yield paths.absolute(folder)
        return
    with tempfile.TemporaryDirectory(prefix="dmma-artifacts-") as copy:
        for uri in paths.list_files(folder):
            paths.write_bytes(paths.join(copy, uri[len(folder.rstrip("/")) + 1 :]), paths.read_bytes(uri))
        yield copy
