"""Who may use the tracking server and where it is: a real MLflow behind a proxy that asks for a password."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dmma_core.errors import ConfigError, DmmaError
from dmma_core.log import without_password
from dmma_core.storage import paths
from helpers.password_proxy import PasswordProxy, password_proxy
from helpers.tracked import write_comparison
from ray_jobs import train
from ray_jobs.common.reporting import describe_comparison, sync_metrics
from ray_jobs.common.tracking_server import (
    given_tracking_uri,
    local_mlflow_folder,
    require_tracking_server,
    tracking_client,
    tracking_uri_for,
)
from ray_jobs.tools import doctor, ui
from ray_jobs.tools import sync_metrics as sync_metrics_job

USER, PASSWORD, ENCODED = "anna@lab", "s/cr%t@1", "s%2Fcr%25t%401"
SPELLINGS = (PASSWORD, ENCODED, "s/cr%25t@1")


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # set first, so that what the code sets is undone afterwards
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PasswordProxy]:
    """MLflow's own server on a new database, reachable with the password only."""
    folder = tmp_path_factory.mktemp("guarded")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (
        ui.mlflow_server(f"sqlite:///{folder}/mlflow.db", str(folder), port),
        password_proxy(USER, PASSWORD, port) as proxy,
    ):
        yield proxy


def test_a_password_in_the_address_works_everywhere_and_is_written_nowhere(
    guarded: PasswordProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    comparison = write_comparison(tmp_path, "guarded")
    refused_before = guarded.refused
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "table.md").write_text("a table")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna%40lab:{ENCODED}@{guarded.host}")
    assert sync_metrics_job.JOB.main([comparison.uri, "--dry-run"]) == 0
    assert sync_metrics_job.JOB.main([comparison.uri]) == 0
    assert sync_metrics(comparison) == 0
    describe_comparison(comparison, {"verdict": "none"}, str(tmp_path / "table"), "comparison")
    assert ui.JOB.main([comparison.uri, "open_browser=false", "--dry-run"]) == 0
    assert ui.JOB.main([comparison.uri, "open_browser=false"]) == 0
    assert doctor._mlflow() == f"http://{guarded.host} answers"
    assert guarded.refused == refused_before
    printed = capsys.readouterr()
    assert f"MLflow: http://{guarded.host}/#/compare-runs" in printed.out
    assert f"MLflow at http://{guarded.host} and upload" in printed.out
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert f"http://{guarded.host}" in files[tmp_path / "runs" / "guarded" / "mlflow.json"].decode()
    assert tmp_path / "runs" / "guarded" / "comparison.json" in files
    with tracking_client(comparison.uri) as client:
        ids = paths.read_json(f"{comparison.uri}/mlflow.json")
        runs = [client.get_run(run_id) for run_id in (ids["parent"], *ids["arms"].values())]
        assert runs[1].data.metrics["train/loss"] == 1.0
        assert runs[0].data.tags["verdict"] == "none"
        assert [file.path for file in client.list_artifacts(ids["parent"], "comparison")] == ["comparison/table.md"]
    stored = " ".join(str(run.to_dictionary()) for run in runs)
    for secret in SPELLINGS:
        assert secret not in printed.out + printed.err + caplog.text + stored
        assert not any(secret.encode() in content for content in files.values())


def test_the_variables_alone_work_and_a_wrong_password_is_found_before_the_work(
    guarded: PasswordProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = write_comparison(tmp_path, "variables")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{guarded.host}")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    assert sync_metrics(comparison) == 6
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{USER}:wrong-one@{guarded.host}")
    for argv in ([comparison.uri, "--dry-run"], [comparison.uri]):
        assert sync_metrics_job.JOB.main(argv) == 1
        error = capsys.readouterr().err
        assert f"MLflow at http://{guarded.host}" in error
        assert "wrong-one" not in error
    with pytest.raises(
        DmmaError, match=r"refuses the user or the password \(HTTP 401\)\. Set MLFLOW_TRACKING_USERNAME"
    ):
        require_tracking_server(tracking_uri_for(comparison.uri))


def test_the_password_leaves_the_address_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://anna%40lab:{ENCODED}@host:5000/mlflow")
    for _ in range(2):
        assert given_tracking_uri() == "https://host:5000/mlflow"
        assert os.environ["MLFLOW_TRACKING_URI"] == "https://host:5000/mlflow"
        assert os.environ["MLFLOW_TRACKING_USERNAME"] == USER
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == PASSWORD
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://bob@host")  # the password stays the one that was given
    assert given_tracking_uri() == "http://host"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("bob", PASSWORD)


@pytest.mark.parametrize("raw", ["s/cret", "s?cret", "s#cret", "s[cret", "s\u2100cret"])
def test_a_password_that_breaks_the_address_is_refused_unshown(raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:{raw}@host:5000")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI") as caught:
        tracking_uri_for("runs/x")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://anna:secret@host:5000/mlflow", "http://host:5000/mlflow"),
        ("postgresql://anna:se/cr@t@host/db?password=secret", "postgresql://host/db"),
        ("sqlite:////home/a@b/mlflow.db", "sqlite:////home/a@b/mlflow.db"),
        ("relative/a@b", "relative/a@b"),
    ],
)
def test_addresses_are_shown_without_secrets(uri: str, shown: str) -> None:
    assert without_password(uri) == shown


def test_the_password_of_a_database_is_in_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = write_comparison(tmp_path)
    for uri in (
        "nonsense://anna:se%40cret@host/db",
        "mssql+nothing://a:se%40cret@host/db",
        "mysql://a:se%40cret@host/db",
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(DmmaError, match="://host/db did not accept") as caught:
            sync_metrics(comparison)
        assert not any(secret in str(caught.value) for secret in ("se%40cret", "se@cret"))


def test_a_server_that_does_not_answer_is_a_sentence() -> None:
    require_tracking_server("sqlite:////nowhere/x.db")
    with pytest.raises(DmmaError, match=r"MLflow at http://127.0.0.1:9 does not answer \(.*refused.*\)\. Start it"):
        require_tracking_server("http://127.0.0.1:9")
    for no_address in ("http://[bad", "http://127.0.0.1:port"):
        with pytest.raises(DmmaError, match="does not answer"):
            require_tracking_server(no_address)


def test_a_database_in_a_submitted_jobs_copy_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "working_dir_files" / "_ray_pkg_0123"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(ConfigError, match=r"would lie in the temporary copy.*MLFLOW_TRACKING_URI.*mlflow=false"):
        tracking_uri_for("gs://bucket/runs/x")
    assert train.JOB.main(["features_uri=gs://bucket/features/x", "comparison_uri=gs://bucket/runs/x"]) == 2
    assert "would lie in the temporary copy" in capsys.readouterr().err
    assert tracking_uri_for("/runs/x") == "sqlite:////mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(ConfigError, match="would lie in the temporary copy"):
        tracking_uri_for("/runs/x")
    for kept in ("sqlite:////data/mlflow.db", "http://host:5000"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", kept)
        assert tracking_uri_for("gs://bucket/runs/x") == kept
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.chdir(tmp_path)
    assert tracking_uri_for("gs://bucket/runs/x") == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert local_mlflow_folder("gs://bucket/runs/x") == f"{tmp_path}/mlflow"


def test_runs_in_a_bucket_go_to_a_database_here_and_its_place_is_printed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    local = write_comparison(tmp_path, "far")
    for uri in paths.list_files(local.uri):
        paths.upload(uri, f"{bucket}/runs/far{uri.removeprefix(local.uri)}")
    assert sync_metrics_job.JOB.main([f"{bucket}/runs/far"]) == 0
    assert f"uploaded to sqlite:///{tmp_path}/mlflow/mlflow.db" in capsys.readouterr().err
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("far")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 3
