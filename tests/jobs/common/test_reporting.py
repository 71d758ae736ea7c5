"""MLflow beside a run folder: uploads without duplicates, a server that never answers, the UI's own server."""

import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient

from dmma_core.errors import DmmaError, StorageError
from dmma_core.evaluation.report import page
from dmma_core.storage import paths
from dmma_core.storage.metrics_log import MetricsLog
from helpers.features import write_feature_set
from helpers.tracked import point, write_comparison
from ray_jobs.common.reporting import TrackedComparison, Uploader, _local_copy, set_status, sync_metrics
from ray_jobs.common.tracking_server import local_mlflow_folder, tracking_uri_for
from ray_jobs.tools import sync_metrics as sync_metrics_job
from ray_jobs.tools import ui

PAGE_TEMPLATE = Path(page.__file__).with_name("page.html.j2")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables without runs; creating them takes seconds."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def comparison(tmp_path: Path, empty_database: Path) -> TrackedComparison:
    """A described comparison whose arms have one point each, and an empty database where it looks for one."""
    made = write_comparison(tmp_path)
    folder = Path(local_mlflow_folder(made.uri))
    folder.mkdir()
    shutil.copy(empty_database, folder)
    return made


def test_points_go_up_once_also_after_a_session_was_lost(comparison: TrackedComparison) -> None:
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


def test_jobs_that_train_one_arm_each_describe_one_comparison(tmp_path: Path) -> None:
    store, uri = write_feature_set(tmp_path / "features", num_clips=2), str(tmp_path / "runs" / "shared")
    names = [f"arm-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda name: TrackedComparison.describe(uri, {name: {"arm": name}}, store), names))
    assert sorted(TrackedComparison.read(uri).arms) == names
    assert len({each.key for each in made}) == 1
    for each in made[:2]:
        MetricsLog(f"{uri}/{next(iter(each.arms))}/metrics.jsonl", -1).append(point(1))
        assert sync_metrics(each) == 3  # its own arm alone, which the other jobs leave to it
    assert sorted(paths.read_json(f"{uri}/mlflow.json")["arms"]) == names[:2]


def test_a_changed_setting_becomes_a_tag(comparison: TrackedComparison, tmp_path: Path) -> None:
    sync_metrics(comparison)
    store = write_feature_set(tmp_path / "again", num_clips=2)
    changed = {name: {"arm": name, "loop": {"num_steps": 9}} for name in ("baseline", "depth", "third")}
    MetricsLog(f"{comparison.uri}/third/metrics.jsonl", -1).append(point(1))
    assert sync_metrics(TrackedComparison.describe(comparison.uri, changed, store)) == 3
    client = MlflowClient(tracking_uri=tracking_uri_for(comparison.uri))
    run = client.get_run(paths.read_json(f"{comparison.uri}/mlflow.json")["arms"]["depth"])
    assert (run.data.params["loop.num_steps"], run.data.tags["now.loop.num_steps"]) == ("4", "9")


@pytest.fixture
def ids_were(comparison: TrackedComparison) -> dict[str, Any]:
    """mlflow.json after a first upload."""
    assert sync_metrics(comparison) == 6
    return dict(paths.read_json(f"{comparison.uri}/mlflow.json"))


def histories(comparison: TrackedComparison) -> dict[str, list[tuple[int, float]]]:
    """Samples and training losses of every arm as a new client reads them, by the ids in mlflow.json."""
    client = MlflowClient(tracking_uri=tracking_uri_for(comparison.uri))
    ids = paths.read_json(f"{comparison.uri}/mlflow.json")
    assert {run.info.run_id for run in client.search_runs([ids["experiment_id"]])} == {
        ids["parent"],
        *ids["arms"].values(),
    }
    return {
        arm: [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "train/loss")]
        for arm, run_id in ids["arms"].items()
    }


def test_a_deleted_database_is_filled_again(comparison: TrackedComparison, ids_were: dict[str, Any]) -> None:
    Path(tracking_uri_for(comparison.uri).removeprefix("sqlite:///")).unlink()
    twice = f"from ray_jobs.tools.sync_metrics import JOB; raise SystemExit(sum(JOB.main([{comparison.uri!r}]) for _ in '12'))"
    done = subprocess.run(
        [sys.executable, "-c", twice], capture_output=True, text=True
    )  # a process knows no other's file
    assert done.returncode == 0, done.stderr
    assert "6 values were uploaded" in done.stderr
    assert "0 values were uploaded" in done.stderr
    assert "no longer had the runs of parent, baseline, depth" in done.stderr
    database = sqlite3.connect(tracking_uri_for(comparison.uri).removeprefix("sqlite:///"))
    rows = database.execute("select step, value from metrics where key = 'train/loss'").fetchall()
    assert rows == [(4, 1.0), (4, 1.0)]
    ids = paths.read_json(f"{comparison.uri}/mlflow.json")
    kept = {run_id for (run_id,) in database.execute("select run_uuid from runs")}
    assert kept == {ids["parent"], *ids["arms"].values()}
    assert not kept & set(ids_were["arms"].values())


def test_runs_and_experiments_in_state_deleted_are_restored(
    comparison: TrackedComparison, ids_were: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client = MlflowClient(tracking_uri=tracking_uri_for(comparison.uri))
    client.delete_run(ids_were["arms"]["depth"])
    MetricsLog(f"{comparison.uri}/depth/metrics.jsonl", 1).append(point(2))
    assert sync_metrics(comparison) == 3
    assert "of depth was in state deleted; it is restored" in caplog.text
    client.delete_experiment(ids_were["experiment_id"])
    MetricsLog(f"{comparison.uri}/baseline/metrics.jsonl", 1).append(point(2))
    assert sync_metrics(comparison) == 3
    assert "experiment small was in state deleted; it is restored" in caplog.text
    assert paths.read_json(f"{comparison.uri}/mlflow.json") == ids_were
    assert histories(comparison) == {"baseline": [(4, 1.0), (8, 1.0)], "depth": [(4, 1.0), (8, 1.0)]}


def test_runs_that_are_gone_are_created_again_while_training_uploads(
    comparison: TrackedComparison, ids_were: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    known: dict[str, dict[tuple[str, int], float]] = {}
    assert sync_metrics(comparison, known) == 0
    client = MlflowClient(tracking_uri=tracking_uri_for(comparison.uri))
    for run_id in (ids_were["parent"], ids_were["arms"]["depth"]):
        client.set_tag(run_id, "dmma.key", "of another comparison")  # to ours it is as if they had been purged
    assert sync_metrics(comparison, known) == 3
    assert "no longer had the runs of parent, depth" in caplog.text
    ids = paths.read_json(f"{comparison.uri}/mlflow.json")
    assert ids["arms"]["baseline"] == ids_were["arms"]["baseline"]
    for arm in ("baseline", "depth"):
        run = client.get_run(ids["arms"][arm])
        assert (run.data.tags["mlflow.parentRunId"], run.data.metrics["train/loss"]) == (ids["parent"], 1.0)


def test_arms_have_colours_of_their_own_and_those_of_the_page(comparison: TrackedComparison, tmp_path: Path) -> None:
    def colours() -> dict[str, str]:
        sync_metrics(comparison)
        ids = paths.read_json(f"{comparison.uri}/mlflow.json")
        return {arm: client.get_run(run_id).data.tags["mlflow.runColor"] for arm, run_id in ids["arms"].items()}

    client = MlflowClient(tracking_uri=tracking_uri_for(comparison.uri))
    first = colours()
    css = PAGE_TEMPLATE.read_text()
    assert f"--first: {first['baseline']};" in css
    assert f"--second: {first['depth']};" in css
    client.set_tag(paths.read_json(f"{comparison.uri}/mlflow.json")["arms"]["depth"], "mlflow.runColor", "#123456")
    more = {arm: {"arm": arm} for arm in ("a", "z")}
    comparison = TrackedComparison.describe(comparison.uri, more, write_feature_set(tmp_path / "again", num_clips=2))
    later = colours()
    assert (later["baseline"], later["depth"]) == (first["baseline"], "#123456"), "a person's choice is kept"
    assert len(set(later.values())) == 4


def test_a_failed_upload_is_reported(comparison: TrackedComparison, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(local_mlflow_folder(comparison.uri))
    shutil.rmtree(folder)
    folder.write_bytes(b"")  # a file where the database's folder would be
    with Uploader(comparison, patience_s=60.0) as uploader:
        uploader.finish({"baseline": "FINISHED"})
    assert "dmma sync-metrics" in caplog.text


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_delays_nothing(
    comparison: TrackedComparison, silent_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent_server)
    started_s = time.monotonic()
    with Uploader(comparison, patience_s=1.0) as uploader:
        assert time.monotonic() - started_s < 1.0
        uploader.finish({"baseline": "FINISHED", "depth": "FINISHED"})
    assert time.monotonic() - started_s < 5.0
    assert "dmma sync-metrics" in caplog.text


def test_the_uploader_uploads_and_closes_the_runs(comparison: TrackedComparison) -> None:
    with Uploader(comparison, patience_s=120.0) as uploader:
        uploader.finish({"baseline": "FINISHED", "depth": "FINISHED"})
    client = MlflowClient(tracking_uri=tracking_uri_for(comparison.uri))
    run = client.get_run(paths.read_json(f"{comparison.uri}/mlflow.json")["arms"]["baseline"])
    assert (run.info.status, run.data.metrics["train/loss"]) == ("FINISHED", 1.0)


def test_ui_serves_the_comparison_and_ends(comparison: TrackedComparison) -> None:
    sync_metrics(comparison)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = local_mlflow_folder(comparison.uri)
    with ui.mlflow_server(tracking_uri_for(comparison.uri), folder, port) as server:
        served = psutil.Process(server.pid)
        commands = [word for each in (served, *served.children(recursive=True)) for word in each.cmdline()]
        assert not [word for word in commands if "sqlite" in word], "another database's address may hold a password"
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
    with socket.create_server(("127.0.0.1", 0)) as taken:
        argv = [comparison.uri, "--dry-run"]
        assert ui.JOB.main([*argv, f"port={taken.getsockname()[1]}"]) == 1
    assert "is taken" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for job in (ui.JOB, sync_metrics_job.JOB):
        assert job.main(argv) == 1
        assert "does not answer" in capsys.readouterr().err


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
