"""A described comparison with logged points, as `dmma train` leaves it, for tests of what goes to MLflow."""

from pathlib import Path

from dmma_core.storage.metrics_log import MetricsLog
from helpers.features import write_feature_set
from ray_jobs.common.reporting import TrackedComparison


def point(step: int, loss: float = 1.0) -> dict[str, float]:
    """One line of metrics.jsonl of a run with 4 clips a step."""
    return {"step": step, "samples": 4 * step, "wall_s": 1.5 * step, "unix_s": 1.79e9 + step, "train/loss": loss}


def write_comparison(folder: Path, name: str = "small") -> TrackedComparison:
    """Two arms with one point each, which are three values in MLflow: loss, step and seconds."""
    store = write_feature_set(folder / "features", num_clips=2)
    uri = str(folder / "runs" / name)
    arms = {arm: {"arm": arm, "loop": {"num_steps": 4}, "long": "x" * 7000} for arm in ("baseline", "depth")}
    for arm in arms:
        MetricsLog(f"{uri}/{arm}/metrics.jsonl", -1).append(point(1))
    return TrackedComparison.describe(uri, arms, store)
