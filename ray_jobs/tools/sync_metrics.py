"""Upload a comparison's metrics and evaluations to MLflow afterwards; values that it has are not uploaded again."""

import logging
from collections.abc import Sequence

from dmma_core.job_configs import SyncMetricsConfig
from dmma_core.log import without_password
from dmma_core.storage import paths
from ray_jobs.common.job import Job
from ray_jobs.common.reporting import TrackedComparison, read_points, sync_metrics
from ray_jobs.common.tracking_server import require_tracking_server, tracking_uri_for

_log = logging.getLogger(__name__)


def plan(config: SyncMetricsConfig) -> Sequence[str]:
    """Check that there is a comparison and that MLflow answers; describe how many points would be compared with it."""
    comparison = TrackedComparison.read(config.comparison_uri)
    require_tracking_server(tracking_uri_for(config.comparison_uri))
    counts = {arm: len(read_points(paths.join(config.comparison_uri, arm))) for arm in comparison.arms}
    found = ", ".join(f"{count} points of {arm}" for arm, count in counts.items())
    return [
        f"Compare {found} with MLflow at {without_password(tracking_uri_for(config.comparison_uri))} and upload what is missing."
    ]


def run(config: SyncMetricsConfig) -> None:
    """Upload what is missing. Raises TrackingError where the server does not answer."""
    uploaded = sync_metrics(TrackedComparison.read(paths.absolute(config.comparison_uri)))
    _log.info("%d values were uploaded to %s.", uploaded, without_password(tracking_uri_for(config.comparison_uri)))


JOB = Job(
    name="sync-metrics",
    summary="Upload the metrics of runs/<name> to MLflow: after training without a server, or to another server.",
    config=SyncMetricsConfig,
    plan=plan,
    run=run,
    example="dmma sync-metrics runs/demo",
    positional="comparison_uri",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
