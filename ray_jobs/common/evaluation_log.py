"""Results of `dmma evaluate` and `dmma compare`, logged to evaluations.jsonl beside the runs and from there to MLflow.

    eval/<split>/<metric>, eval_ground_truth/<split>/<metric>     of an arm, at the samples its checkpoint had seen
    compare/<split>/<metric>/difference, …/low, …/high            of the comparison (the parent run); verdicts are tags

The reports hold all of it and more, so a failure to write or to upload is only a warning.
"""

import logging
import math
import sys
import time
from collections.abc import Mapping

from dmma_core.errors import DmmaError
from dmma_core.evaluation.compare import Comparison
from dmma_core.evaluation.report_file import Report
from dmma_core.evaluation.verdict import overall_verdict, table_markdown
from dmma_core.storage.metrics_log import MetricsLog
from dmma_core.storage.run_folder import RunFolder
from ray_jobs.common.reporting import TrackedComparison, describe_comparison, sync_metrics

_PREFIXES = {"generated": "eval", "ground_truth": "eval_ground_truth"}
_log = logging.getLogger(__name__)


def comparison_uri_of(report: Report) -> str:
    """Folder of the comparison that the report's run belongs to."""
    return str(report.record["run_uri"]).rpartition("/")[0]


def log_evaluation(report: Report, mlflow: bool) -> bool:
    """Log a report's aggregates with its run, and upload them if `mlflow`. False, with a warning, where that failed."""
    values = {
        f"{prefix}/{report.record['split']}/{metric}": sides[side]
        for metric, sides in report.record["aggregates"].items()
        for side, prefix in _PREFIXES.items()
        if side in sides
    }
    try:
        comparison = TrackedComparison.read(comparison_uri_of(report))
        _record(report.record["run_uri"], report, values)
        if mlflow:
            sync_metrics(comparison)
    except DmmaError as error:
        _log.warning("The values of %s are only there: %s", report.uri, error)
        return False
    return True


def log_comparison(compared: Comparison, name: str, folder: str, mlflow: bool) -> bool:
    """Log differences and intervals with the comparison of the first report's run; if `mlflow`, upload them with the
    verdicts, the table and all files of `folder`. False, with a warning, where that failed."""
    split = compared.first.record["split"]
    values: dict[str, float] = {}
    tags = {"verdict": overall_verdict(compared), "mlflow.note.content": f"# {name}\n\n{table_markdown(compared)}"}
    for row in compared.rows:
        at = f"compare/{split}/{row.spec.name}"
        tags[at] = row.verdict
        interval = row.interval
        values |= {f"{at}/difference": interval.difference, f"{at}/low": interval.low, f"{at}/high": interval.high}
    try:
        comparison = TrackedComparison.read(comparison_uri_of(compared.first))
        _record(comparison.uri, compared.second, values)
        if mlflow:
            sync_metrics(comparison)
            describe_comparison(comparison, tags, folder, "comparison")
    except DmmaError as error:
        _log.warning("The values of %s are only there: %s", folder, error)
        return False
    return True


def _record(run_uri: str, report: Report, values: Mapping[str, float]) -> None:
    """Append the values to evaluations.jsonl of a run, at what the report's checkpoint had been trained on."""
    checkpoint = RunFolder(report.record["run_uri"]).checkpoint(report.record["step"])
    log = MetricsLog(RunFolder(run_uri).evaluations, last_step=sys.maxsize)
    counters = {"step": checkpoint.step, "samples": checkpoint.record["samples"], "unix_s": round(time.time(), 3)}
    log.append({**counters, **{name: value for name, value in values.items() if math.isfinite(value)}})
    log.flush()
