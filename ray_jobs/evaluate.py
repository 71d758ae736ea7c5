"""Measure a folder of generated sounds, and the true sounds as the upper limit."""

from dmma_core.evaluation.embed import TinyTaggerNetwork
from dmma_core.evaluation.evaluate import GeneratedSet, evaluate, known_scenes, open_generated
from dmma_core.evaluation.metric_specs import METRIC_SPECS
from dmma_core.evaluation.report_file import check_report_uri
from dmma_core.evaluation.verdict import number
from dmma_core.job_configs import EvaluateConfig
from dmma_core.log import Progress
from dmma_core.storage import paths
from ray_jobs.common.evaluation_log import log_evaluation
from ray_jobs.common.job import Job
from ray_jobs.common.tracking_server import require_tracking_server, tracking_uri_for


def plan(config: EvaluateConfig) -> list[str]:
    """Check the generated folder, the evaluator's weights and write access; describe what would be measured."""
    generated, network = open_generated(config.generated_uri), TinyTaggerNetwork()
    check_report_uri(config.report_uri)
    paths.check_writable(config.report_uri.rpartition("/")[0] or ".")
    if config.mlflow:
        require_tracking_server(_tracking_uri(generated))
    num_rendered = len(known_scenes(generated.clips))
    return [
        f"Would measure {len(generated.clips)} sounds of {generated.uri} ({num_rendered} of rendered clips, "
        f"{len(generated.failures)} failed in generation) with the {network.name}, and write {config.report_uri}."
    ]


def run(config: EvaluateConfig) -> None:
    """Measure every clip, write the report, and log its values to the run in MLflow."""
    generated = open_generated(config.generated_uri)
    check_report_uri(config.report_uri)
    if config.mlflow:
        _tracking_uri(generated)  # raises where the database would be lost
    with Progress(f"evaluate {generated.record['arm']}", len(generated.clips)) as shown:
        for report in evaluate(generated, config.evaluator, TinyTaggerNetwork(), config.report_uri):
            if report is None:
                shown.advance()
                continue
            for spec in METRIC_SPECS:
                if spec.name in report.record["aggregates"]:
                    value = report.record["aggregates"][spec.name]
                    print(
                        f"{spec.name:32} {number(value['generated']):>9}   ground truth {number(value['ground_truth'])}"
                    )
            for name, reason in report.record["unavailable"].items():
                print(f"{name:32} not available: {reason}")
            print(f"Report: {report.uri}")
            log_evaluation(report, config.mlflow)


def _tracking_uri(generated: GeneratedSet) -> str:
    """MLflow's address for the comparison that the sounds' run belongs to."""
    return tracking_uri_for(generated.run_uri.rpartition("/")[0])


JOB = Job(
    name="evaluate",
    summary=__doc__ or "",
    config=EvaluateConfig,
    plan=plan,
    run=run,
    example="dmma evaluate generated_uri=generated/demo/depth report_uri=reports/demo/depth.json",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
