"""The train job on a real Ray: both arms, resuming, MLflow alive and dead, a failing arm, a killed worker, Ctrl-C."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from dmma_core.data.feature_store import FeatureStore
from dmma_core.storage import paths
from dmma_core.storage.lease import held
from dmma_core.storage.metrics_log import read_metrics
from dmma_core.storage.run_folder import MARKER, RunFolder
from helpers.features import write_feature_set
from ray_jobs import train
from ray_jobs.common.reporting import TrackedComparison
from ray_jobs.common.reporting import sync_metrics as upload
from ray_jobs.tools import sync_metrics

DEAD_SERVER = "http://127.0.0.1:9"  # the discard port: nothing listens there


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_feature_set(tmp_path_factory.mktemp("data") / "features", num_clips=9, num_val=3)


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def settings(store: FeatureStore, comparison_uri: Path | str, num_steps: int, *more: str) -> list[str]:
    loop = {"num_steps": num_steps, "batch_size": 4, "log_every": 2, "validate_every": 2, "checkpoint_every": 2}
    return [
        f"features_uri={store.uri}",
        f"comparison_uri={comparison_uri}",
        "preset=tiny",
        "device=cpu",
        *(f"recipe.loop.{name}={value}" for name, value in loop.items()),
        "recipe.ema.snapshot_every=2",
        "recipe.schedule.warmup_steps=2",
        "recipe.validation.num_times=1",
        *more,
    ]


def steps_of(comparison_uri: Path | str, arm: str) -> list[int]:
    return RunFolder(f"{comparison_uri}/{arm}").complete_steps()


def points_on_server(comparison_uri: Path | str, arm: str) -> dict[str, list[int]]:
    """Metric name -> samples of every stored value, in order, from the default SQLite file."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{comparison_uri.parent.parent}/mlflow/mlflow.db")
    run_id = paths.read_json(str(comparison_uri / "mlflow.json"))["arms"][arm]
    names = client.get_run(run_id).data.metrics
    return {name: sorted(m.step for m in client.get_metric_history(run_id, name)) for name in names}


@pytest.fixture(scope="module")
def trained(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """Both arms trained for two steps with MLflow in its default place, then to four with a dead server."""
    comparison_uri = tmp_path_factory.mktemp("work") / "runs" / "small"
    assert train.JOB.main(settings(store, comparison_uri, 2)) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", DEAD_SERVER)
        assert train.JOB.main(settings(store, comparison_uri, 4)) == 0
    return comparison_uri


def test_both_arms_train_and_resume(trained: Path) -> None:
    for arm in ("baseline", "depth"):
        assert steps_of(trained, arm) == [2, 4]
        points = read_metrics(RunFolder(str(trained / arm)).metrics)
        assert [point["step"] for point in points if "val/loss" in point] == [0, 2, 4]
        assert [point["samples"] for point in points if "train/loss" in point] == [8, 16]
    records = {
        arm: paths.read_json(str(trained / arm / "checkpoints/step=000000004" / MARKER))
        for arm in ("baseline", "depth")
    }
    assert {arm: record["model"]["depth"] for arm, record in records.items()} == {"baseline": "off", "depth": "both"}
    assert records["baseline"]["features_fingerprint"] == records["depth"]["features_fingerprint"]


def test_a_finished_run_is_left_as_it_is(
    trained: Path, store: FeatureStore, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")}
    assert train.JOB.main(settings(store, trained, 4)) == 0
    assert "weights average" not in capsys.readouterr().err
    assert train.JOB.main(settings(store, trained, 4, "recipe.ema.sigma_rel=0.1")) == 0
    assert (
        f"`dmma weights average {trained}/depth --sigma-rel 0.1` computes the one given now" in capsys.readouterr().err
    )
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*.safetensors")} == before


def test_what_a_dead_server_missed_is_uploaded_afterwards_once(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = points_on_server(trained, "depth")
    assert before["val/loss"] == [0, 8]
    for _ in range(2):
        assert sync_metrics.JOB.main([str(trained)]) == 0
        assert points_on_server(trained, "depth")["val/loss"] == [0, 8, 16]
    assert points_on_server(trained, "baseline")["train/loss"] == [8, 16]
    assert upload(TrackedComparison.read(str(trained))) == 0


def test_mlflow_shows_one_experiment_with_the_arms_below_a_parent(trained: Path, store: FeatureStore) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{trained.parent.parent}/mlflow/mlflow.db")
    ids = paths.read_json(str(trained / "mlflow.json"))
    experiment = client.get_experiment_by_name("small")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"small", "baseline", "depth"}
    for arm in ("baseline", "depth"):
        run = runs[arm]
        assert run.data.tags["mlflow.parentRunId"] == ids["parent"] == runs["small"].info.run_id
        assert run.data.tags["features_fingerprint"] == store.fingerprint
        assert run.data.tags["git_commit"]
        assert run.data.params["recipe.loop.batch_size"] == "4"
        assert run.info.status == "FINISHED"
    assert runs["depth"].data.params["model.depth"] == "both"


def test_one_arm_failing_leaves_the_other_unharmed(
    trained: Path, store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison_uri = tmp_path / "runs" / "copy"
    shutil.copytree(trained, comparison_uri)
    marker = comparison_uri / "depth/checkpoints/step=000000004" / MARKER
    paths.write_json(str(marker), {**paths.read_json(str(marker)), "features_fingerprint": "0" * 64})
    assert train.JOB.main(settings(store, comparison_uri, 6, "mlflow=false")) == 1
    error = capsys.readouterr().err
    assert "Arm depth failed" in error
    assert "another feature set" in error
    assert "Not affected: baseline" in error
    assert steps_of(comparison_uri, "baseline")[-1] == 6
    assert steps_of(comparison_uri, "depth")[-1] == 4


def after_first_points(comparison_uri: Path | str, arm: str, act: Callable[[], None]) -> threading.Thread:
    """Do something once the arm has trained a few steps."""

    def wait_and_act() -> None:
        limit_s = time.monotonic() + 240
        while time.monotonic() < limit_s:
            points = read_metrics(RunFolder(f"{comparison_uri}/{arm}").metrics)
            if points and points[-1]["step"] >= 4:
                act()
                return
            time.sleep(0.1)

    thread = threading.Thread(target=wait_and_act, daemon=True)
    thread.start()
    return thread


def kill_one_worker() -> None:
    workers = [p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or [])]
    ours = [p for p in workers if os.getpid() in {parent.pid for parent in p.parents()}]
    assert len(ours) == 2
    ours[0].kill()


def test_training_resumes_after_the_death_of_one_of_two_workers_with_its_run_on_a_bucket(
    store: FeatureStore, bucket: str, ray_cluster: None
) -> None:
    comparison_uri = f"{bucket}/runs/killed"
    killer = after_first_points(comparison_uri, "baseline", kill_one_worker)
    assert train.JOB.main(settings(store, comparison_uri, 16, "only=[baseline]", "num_workers=2", "mlflow=false")) == 0
    assert not killer.is_alive()
    assert steps_of(comparison_uri, "baseline")[-1] == 16
    points = read_metrics(RunFolder(f"{comparison_uri}/baseline").metrics)
    assert [point["step"] for point in points if "val/loss" in point] == list(range(0, 17, 2))
    assert paths.list_folders(comparison_uri) == ["baseline"]
    assert paths.list_folders(f"{comparison_uri}/baseline") == ["checkpoints", "ema_snapshots"]
    assert not paths.exists(f"{comparison_uri}/baseline/LEASE.json")


def test_ctrl_c_writes_a_checkpoint_and_the_same_command_resumes(
    store: FeatureStore, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison_uri = tmp_path / "runs" / "stopped"
    command = settings(store, comparison_uri, 2000, "only=[depth]", "recipe.loop.checkpoint_every=2000", "mlflow=false")
    after_first_points(comparison_uri, "depth", lambda: os.kill(os.getpid(), signal.SIGINT))
    assert train.JOB.main(command) == 130
    assert "run the same command to resume" in capsys.readouterr().err
    (stopped,) = steps_of(comparison_uri, "depth")
    assert 4 <= stopped < 2000
    assert train.JOB.main([*command, f"recipe.loop.num_steps={stopped + 1}"]) == 0
    assert steps_of(comparison_uri, "depth") == [stopped, stopped + 1]


def test_an_arm_that_another_job_trains_is_refused_and_the_other_arm_trains(
    store: FeatureStore, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison_uri = tmp_path / "runs" / "shared"
    TrackedComparison.describe(str(comparison_uri), {"depth": {"arm": "depth"}}, store)
    with held(f"{comparison_uri}/depth", "train", 0.25):
        for more in ([], ["only=[depth]"], ["--dry-run"]):
            assert train.JOB.main(settings(store, comparison_uri, 2, "mlflow=false", *more)) == 1
            error = capsys.readouterr().err
            assert f"Another job writes into {comparison_uri}/depth: train (process {os.getpid()} on" in error
        assert train.JOB.main(settings(store, comparison_uri, 2, "only=[baseline]", "mlflow=false")) == 0
    assert steps_of(comparison_uri, "baseline") == [2]
    assert sorted(TrackedComparison.read(str(comparison_uri)).arms) == ["baseline", "depth"]


def test_an_arm_that_another_job_took_over_stops_and_writes_no_more(
    store: FeatureStore, tmp_path: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison_uri = tmp_path / "runs" / "taken"
    lease = comparison_uri / "depth" / "LEASE.json"

    def take_over() -> None:
        paths.write_json(str(lease), {**paths.read_json(str(lease)), "token": "another", "host": "elsewhere"})

    command = settings(store, comparison_uri, 2000, "only=[depth]", "recipe.loop.checkpoint_every=2000", "mlflow=false")
    taker = after_first_points(comparison_uri, "depth", take_over)
    assert train.JOB.main(command) == 1
    taker.join()
    error = capsys.readouterr().err
    assert f"Arm depth failed: This job lost its lease on {comparison_uri}/depth" in error
    assert "taken over by train" in error and "elsewhere" in error
    assert steps_of(comparison_uri, "depth") == []
    assert not (comparison_uri / "depth" / "FAILED.json").exists()
    assert paths.read_json(str(lease))["token"] == "another"


def test_dry_run_checks_everything_and_changes_nothing(
    trained: Path, store: FeatureStore, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(str(path) for path in trained.rglob("*"))
    assert train.JOB.main(["--dry-run", *settings(store, trained, 9)]) == 0
    printed = capsys.readouterr().out
    assert "Arm depth: tiny, depth both" in printed
    assert "resuming at step 4" in printed
    assert "Order: baseline and depth; 1 worker an arm, each with no GPU and" in printed
    assert sorted(str(path) for path in trained.rglob("*")) == before


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("features_uri=/nowhere", "has no FEATURES.json"),
        ("only=[dept]", "unknown arms dept"),
        ("preset=huge", "no network preset 'huge'"),
        ("arms.depth.depth=sideways", "depth is 'sideways'"),
        ("num_workers=3", "cannot be split among 3 workers"),
        ("comparison_uri=/proc/nothing", "could not be|may not be|There is no"),
        ("recipe.loop.nmu_steps=3", "Did you mean"),
    ],
)
def test_bad_input_is_a_sentence(
    setting: str, sentence: str, store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    assert train.JOB.main([*settings(store, tmp_path / "runs" / "x", 2), setting, "--dry-run"]) in (1, 2)
    error = capsys.readouterr().err
    assert re.search(sentence, error)
    assert "Traceback" not in error


def test_runs_of_others_are_left_alone(store: FeatureStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "job.yaml").write_text("of another run")
    for more in ([], ["--dry-run"]):
        assert train.JOB.main([*settings(store, tmp_path, 2), *more]) == 1
        assert "was not written by this job and holds files that would be overwritten: depth" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["depth", "job.yaml"]
