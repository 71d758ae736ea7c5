"""MLflow beside a run folder: uploads without duplicates, a server that never answers, the UI's own server."""

import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmma_core.errors import DmmaError, StorageError
from dmma_core.storage import paths
from dmma_core.storage.metrics_log import MetricsLog
from helpers.features import write_feature_set
from ray_jobs.common.reporting import (
    TrackedComparison,
    Uploader,
    _local_copy,
    local_mlflow_folder,
    require_tracking_server,
    set_status,
    sync_metrics,
    tracking_uri_for,
    without_password,
)
from ray_jobs.tools import sync_metrics as sync_metrics_job
from ray_jobs.tools import ui


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture
def comparison(tmp_path: Path) -> TrackedComparison:
    """A described comparison whose arms have one point each."""
    store = write_feature_set(tmp_path / "features", num_clips=2)
    uri = str(tmp_path / "runs" / "small")
    arms = {name: {"arm": name, "loop": {"num_steps": 4}, "long": "x" * 7000} for name in ("baseline", "depth")}
    for arm in arms:
        MetricsLog(f"{uri}/{arm}/metrics.jsonl", -1).append(point(1))
    return TrackedComparison.describe(uri, arms, store)


def point(step: int, loss: float = 1.0) -> dict[str, float]:
    return {"step": step, "samples": 4 * step, "wall_s": 1.5 * step, "unix_s": 1.79e9 + step, "train/loss": loss}


def test_points_go_up_once_also_after_a_session_was_lost(comparison: TrackedComparison) -> None:
    from mlflow import MlflowClient

    assert sync_metrics(comparison) == 6  # loss, step and seconds of one point, twice
    set_status(comparison, {"baseline": "FAILED", "depth": "KILLED"})
    log = MetricsLog(f"{comparison.uri}/depth/metrics.jsonl", last_step=0)  # the session that wrote point 1 was lost
    for step in (1, 2):
        log.append(point(step))
    again = TrackedComparison.describe(
        comparison.uri, comparison.arms, write_feature_set(Path(comparison.uri) / "f", 2)
    )
    assert again.key == comparison.key
    assert sync_metrics(again) == 3
    assert sync_metrics(again) == 0
    client = MlflowClient(tracking_uri=tracking_uri_for(comparison.uri))
    ids = paths.read_json(f"{comparison.uri}/mlflow.json")
    history = client.get_metric_history(ids["arms"]["depth"], "train/loss")
    assert [(metric.step, metric.timestamp) for metric in history] == [(4, 1790000001000), (8, 1790000002000)]
    assert client.get_run(ids["arms"]["depth"]).data.params["loop.num_steps"] == "4"
    assert len(client.search_runs([ids["experiment_id"]])) == 3


def test_a_changed_setting_becomes_a_tag(comparison: TrackedComparison, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    sync_metrics(comparison)
    store = write_feature_set(tmp_path / "again", num_clips=2)
    changed = {name: {"arm": name, "loop": {"num_steps": 9}} for name in ("baseline", "depth", "third")}
    MetricsLog(f"{comparison.uri}/third/metrics.jsonl", -1).append(point(1))
    assert sync_metrics(TrackedComparison.describe(comparison.uri, changed, store)) == 3
    client = MlflowClient(tracking_uri=tracking_uri_for(comparison.uri))
    run = client.get_run(paths.read_json(f"{comparison.uri}/mlflow.json")["arms"]["depth"])
    assert (run.data.params["loop.num_steps"], run.data.tags["now.loop.num_steps"]) == ("4", "9")


def test_passwords_of_a_tracking_server_are_never_shown(
    comparison: TrackedComparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:secret@127.0.0.1:9/mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(DmmaError, match=r"MLflow at http://127\.0\.0\.1:9/mlflow did not take") as caught:
        sync_metrics(comparison)
    assert "secret" not in str(caught.value)
    assert without_password("sqlite:////home/a@b/mlflow.db") == "sqlite:////home/a@b/mlflow.db"


def test_an_upload_that_broke_off_is_said(comparison: TrackedComparison, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(local_mlflow_folder(comparison.uri))
    folder.write_bytes(b"")  # a file where the database's folder would be
    with Uploader(comparison, patience_s=60.0) as uploader:
        uploader.finish({"baseline": "FINISHED"})
    assert "dmma sync-metrics" in caplog.text


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_holds_nothing_up(
    comparison: TrackedComparison, silent_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    begun_s = time.monotonic()
    with Uploader(comparison, patience_s=1.0) as uploader:
        assert time.monotonic() - begun_s < 1.0
        uploader.finish({"baseline": "FINISHED", "depth": "FINISHED"})
    assert time.monotonic() - begun_s < 5.0
    assert "dmma sync-metrics" in caplog.text


def test_the_uploader_uploads_and_closes_the_runs(comparison: TrackedComparison) -> None:
    from mlflow import MlflowClient

    with Uploader(comparison, patience_s=120.0) as uploader:
        uploader.finish({"baseline": "FINISHED", "depth": "FINISHED"})
    client = MlflowClient(tracking_uri=tracking_uri_for(comparison.uri))
    run = client.get_run(paths.read_json(f"{comparison.uri}/mlflow.json")["arms"]["baseline"])
    assert (run.info.status, run.data.metrics["train/loss"]) == ("FINISHED", 1.0)


def test_ui_serves_the_comparison_and_ends(comparison: TrackedComparison) -> None:
    from mlflow import MlflowClient

    sync_metrics(comparison)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = local_mlflow_folder(comparison.uri)
    with ui.mlflow_server(tracking_uri_for(comparison.uri), folder, port) as server:
        client = MlflowClient(tracking_uri=f"http://127.0.0.1:{port}")
        experiment = client.get_experiment_by_name("small")
        names = {run.info.run_name for run in client.search_runs([experiment.experiment_id])}
        assert names == {"small", "baseline", "depth"}
        url = ui.comparison_url(comparison.uri, f"http://127.0.0.1:{port}")
        ids = paths.read_json(f"{comparison.uri}/mlflow.json")
        assert all(run_id in url for run_id in ids["arms"].values())
        with (
            pytest.raises(DmmaError, match=f"Port {port} of this machine is taken"),
            ui.mlflow_server(tracking_uri_for(comparison.uri), folder, port),
        ):
            pass
    assert server.poll() is not None


def test_ui_without_results_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ui.JOB.main([str(tmp_path / "runs" / "none")]) == 1
    assert "There is no MLflow database" in capsys.readouterr().err


def test_dry_runs_see_a_taken_port_and_a_dead_server(
    comparison: TrackedComparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        argv = [comparison.uri, "--dry-run"]
        assert ui.JOB.main([*argv, f"port={taken.getsockname()[1]}"]) == 1
    assert "is taken" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for job in (ui.JOB, sync_metrics_job.JOB):
        assert job.main(argv) == 1
        assert "does not answer" in capsys.readouterr().err


def test_a_tracking_server_that_does_not_answer_is_a_sentence_without_its_password() -> None:
    require_tracking_server("sqlite:////tmp/x.db")
    with pytest.raises(DmmaError, match="MLflow at http://127.0.0.1:9 does not answer"):
        require_tracking_server("http://me:secret@127.0.0.1:9")
    for no_address in ("http://[bad", "http://127.0.0.1:port"):
        with pytest.raises(DmmaError, match="does not answer"):
            require_tracking_server(no_address)


def test_an_object_whose_name_leads_out_is_not_copied(bucket: str, tmp_path: Path) -> None:
    for name in ("table.md", "sounds/a.wav"):
        paths.write_bytes(f"{bucket}/comparison/{name}", name.encode())
    with _local_copy(f"{bucket}/comparison/") as folder:
        copied = {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*.*")}
    assert copied == {"table.md", "sounds/a.wav"}
    outside = Path(tempfile.gettempdir()) / f"{tmp_path.name}-escaped"
    filesystem, root = paths.filesystem_of(f"{bucket}/comparison")
    filesystem.pipe_file(f"{root}/../{outside.name}", b"from outside")
    with pytest.raises(StorageError, match=r"leads out of"), _local_copy(f"{bucket}/comparison"):
        pass
    assert not outside.exists()
