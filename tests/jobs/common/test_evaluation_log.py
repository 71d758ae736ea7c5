"""What evaluate and compare measured reaches the runs in MLflow: at once, or by `dmma sync-metrics` afterwards."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from dmma_core.evaluation.report_file import read_report
from dmma_core.storage import paths
from dmma_core.storage.run_folder import RunFolder
from dmma_core.training.checkpoint import write_checkpoint
from helpers.generated import GeneratedPair
from helpers.tracked import write_comparison
from ray_jobs import compare, evaluate
from ray_jobs.common.evaluation_log import log_evaluation
from ray_jobs.tools import sync_metrics

STEP, SAMPLES = 100, 1600


@dataclass(frozen=True)
class Chain:
    """A comparison's folder, and the folder of sounds of each of its arms."""

    runs: str
    generated: dict[str, str]
    folder: Path

    def evaluate(self, arm: str, *settings: str) -> int:
        places = [f"generated_uri={self.generated[arm]}", f"report_uri={self.folder}/{arm}.json"]
        return evaluate.JOB.main([*places, *settings])

    def run_of(self, role: str) -> Run:
        ids = paths.read_json(f"{self.runs}/mlflow.json")
        client = MlflowClient(tracking_uri=f"sqlite:///{self.folder}/mlflow/mlflow.db")
        return client.get_run(ids["arms"].get(role, ids["parent"]))

    def history(self, role: str, metric: str) -> list[tuple[int, float]]:
        client = MlflowClient(tracking_uri=f"sqlite:///{self.folder}/mlflow/mlflow.db")
        return [(each.step, each.value) for each in client.get_metric_history(self.run_of(role).info.run_id, metric)]


@pytest.fixture(scope="module")
def chain(generated_pair: GeneratedPair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Runs with a checkpoint each, with synthetic sounds; the first evaluation has no server."""
    folder = tmp_path_factory.mktemp("evaluated")
    runs = write_comparison(folder, "small").uri
    generated = {}
    for arm, uri in (("baseline", generated_pair.baseline), ("depth", generated_pair.depth)):
        made_by = write_checkpoint(RunFolder(f"{runs}/{arm}"), {}, {"step": STEP, "samples": SAMPLES})
        generated[arm] = f"{folder}/generated/{arm}"
        for file in paths.list_files(uri):
            paths.upload(file, generated[arm] + file.removeprefix(uri))
        record = paths.read_json(f"{uri}/GENERATION.json")
        paths.write_json(f"{generated[arm]}/GENERATION.json", {**record, "checkpoint_uri": made_by.uri})
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Chain(runs, generated, folder)


def test_without_a_server_the_report_is_complete_and_the_values_follow_later(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nobody answers
    assert chain.evaluate("depth", "--dry-run") == 1
    assert "MLflow at http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert chain.evaluate("depth", "--dry-run", "mlflow=false") == 0
    assert chain.evaluate("depth") == 0
    assert "are only there: MLflow at http://127.0.0.1:9" in capsys.readouterr().err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert chain.evaluate("baseline", "mlflow=false") == 0
    assert not (chain.folder / "mlflow").exists()
    assert sync_metrics.JOB.main([chain.runs]) == 0
    for arm in ("baseline", "depth"):
        report = read_report(f"{chain.folder}/{arm}.json")
        for metric, sides in report.record["aggregates"].items():
            assert chain.history(arm, f"eval/test/{metric}") == [(SAMPLES, sides["generated"])]
            if "ground_truth" in sides:
                assert chain.history(arm, f"eval_ground_truth/test/{metric}") == [(SAMPLES, sides["ground_truth"])]
        assert {"eval/test/envelope_l1", "train/loss"} <= chain.run_of(arm).data.metrics.keys()


def test_a_repeated_evaluation_counts_only_where_it_differs(chain: Chain) -> None:
    report = read_report(f"{chain.folder}/depth.json")
    before = chain.history("depth", "eval/test/envelope_l1")
    assert log_evaluation(report, mlflow=True)
    assert chain.history("depth", "eval/test/envelope_l1") == before
    report.record["aggregates"] = {"envelope_l1": {"generated": 7.0, "ground_truth": float("nan"), "num_clips": 8}}
    for _ in range(2):
        assert log_evaluation(report, mlflow=True)
    assert sorted(chain.history("depth", "eval/test/envelope_l1")) == sorted([*before, (SAMPLES, 7.0)])
    assert chain.run_of("depth").data.metrics["eval/test/envelope_l1"] == 7.0


def test_a_comparison_is_on_the_parent_run(chain: Chain) -> None:
    reports = [f"{arm}_report_uri={chain.folder}/{arm}.json" for arm in ("baseline", "depth")]
    out = chain.folder / "comparison"
    for _ in range(2):
        assert compare.JOB.main([*reports, f"out_uri={out}", "num_resamples=200", "num_examples=1"]) == 0
    table = json.loads((out / "table.json").read_text())
    run = chain.run_of("parent")
    for row in table["metrics"]:
        at = f"compare/test/{row['name']}"
        for name in ("difference", "low", "high"):
            assert chain.history("parent", f"{at}/{name}") == [(SAMPLES, row[name])]
        assert run.data.tags[at] == row["verdict"]
    assert run.data.tags["verdict"] == table["verdict"]
    assert run.data.tags["mlflow.note.content"] == f"# demo\n\n{(out / 'table.md').read_text()}"
    client = MlflowClient(tracking_uri=f"sqlite:///{chain.folder}/mlflow/mlflow.db")
    attached = {file.path for file in client.list_artifacts(run.info.run_id, "comparison")}
    assert attached >= {f"comparison/{name}" for name in ("report.html", "table.md", "table.json", "sounds")}


def test_a_run_without_a_comparison_costs_a_warning(chain: Chain, caplog: pytest.LogCaptureFixture) -> None:
    report = read_report(f"{chain.folder}/depth.json")
    report.record["run_uri"] = f"{chain.folder}/imported/net"
    assert not log_evaluation(report, mlflow=True)
    assert "is no comparison" in caplog.text
    assert not (chain.folder / "imported").exists()
