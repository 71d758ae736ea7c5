"""Compare the reports of two arms: a table, a verdict, and a page with videos and sounds."""

from collections.abc import Mapping

import torch

from dmma_core.data.feature_store import FeatureStore
from dmma_core.encoders.bundle import load_depth
from dmma_core.encoders.bundle_options import parse_bundle_name
from dmma_core.errors import DmmaError
from dmma_core.evaluation.compare import compare, require_comparable
from dmma_core.evaluation.report.curves import Curve, read_curves
from dmma_core.evaluation.report.examples import DepthOf, choose_examples, make_examples, write_example_sounds
from dmma_core.evaluation.report.folder import FILES, ComparisonFolder
from dmma_core.evaluation.report.page import report_page
from dmma_core.evaluation.report_file import Report, read_report
from dmma_core.evaluation.verdict import table_markdown, table_record
from dmma_core.job_configs import CompareConfig
from dmma_core.storage import paths
from ray_jobs.common.evaluation_log import comparison_uri_of, log_comparison
from ray_jobs.common.job import Job
from ray_jobs.common.tracking_server import require_tracking_server, tracking_uri_for


def plan(config: CompareConfig) -> list[str]:
    """Check both reports, the depth encoder, write access and MLflow; describe what would be compared."""
    first, second = _reports(config)
    require_comparable(first, second)
    _depth_of(first)
    ComparisonFolder(config.out_uri, first, second).require_own()
    paths.check_writable(config.out_uri)
    if config.mlflow:
        require_tracking_server(tracking_uri_for(comparison_uri_of(first)))
    return [
        f"Would compare {second.arm} with {first.arm} on {len(first.clip_ids)} clips "
        f"({config.num_resamples} resamples) and write {', '.join(FILES)} to {config.out_uri}."
    ]


def run(config: CompareConfig) -> None:
    """Compare, write the tables and the page, and attach them to the comparison's run in MLflow."""
    first, second = _reports(config)
    if config.mlflow:
        tracking_uri_for(comparison_uri_of(first))  # raises where the database would be lost
    comparison = compare(first, second, config.num_resamples, config.seed)
    folder = ComparisonFolder(config.out_uri, first, second)
    folder.claim()
    chosen = choose_examples(first, config.num_examples)
    examples = make_examples(first, second, chosen, _depth_of(first))
    curves, missing = _curves(first, second)
    page = report_page(config.name, comparison, curves, examples, missing)
    table = table_markdown(comparison)
    sounds = write_example_sounds(first, second, chosen, folder.sounds_uri)
    paths.write_bytes(paths.join(config.out_uri, "table.md"), table.encode())
    paths.write_bytes(paths.join(config.out_uri, "report.html"), page.encode())
    paths.write_json(paths.join(config.out_uri, "table.json"), table_record(comparison))
    folder.remove_other_sounds(sounds)
    log_comparison(comparison, config.name, config.out_uri, config.mlflow)
    print(table)
    print(f"Report: {paths.join(config.out_uri, 'report.html')}")


def _reports(config: CompareConfig) -> tuple[Report, Report]:
    return (
        read_report(paths.absolute(config.baseline_report_uri)),
        read_report(paths.absolute(config.depth_report_uri)),
    )


def _depth_of(report: Report) -> DepthOf:
    """The depth encoder of the bundle that the report's features come from."""
    encoder = load_depth(parse_bundle_name(FeatureStore(report.record["features_uri"]).schema.bundle))
    return lambda frames_THWC: encoder.inverse_depth(torch.from_numpy(frames_THWC)).numpy()


def _curves(first: Report, second: Report) -> tuple[Mapping[str, Mapping[str, Curve]], str]:
    """Loss curves of both arms, or none and the reason."""
    try:
        return {report.arm: read_curves(report.record["run_uri"]) for report in (first, second)}, ""
    except DmmaError as error:
        return {}, f"The loss curves are not shown: {error}"


JOB = Job(
    name="compare",
    summary=__doc__ or "",
    config=CompareConfig,
    plan=plan,
    run=run,
    example="dmma compare baseline_report_uri=reports/demo/baseline.json depth_report_uri=reports/demo/depth.json",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
