"""metrics.jsonl: appended, truncated after an interrupted session, always readable, also on a bucket."""

from pathlib import Path

import pytest

from dmma_core.storage.metrics_log import MetricsLog, read_metrics


def point(step: int, loss: float = 1.0) -> dict[str, float]:
    return {"step": step, "samples": 4 * step, "wall_s": 0.5 * step, "unix_s": 1.0, "train/loss": loss}


def test_points_are_readable_at_once(tmp_path: Path) -> None:
    uri = str(tmp_path / "run" / "metrics.jsonl")
    log = MetricsLog(uri, last_step=-1)
    log.append(point(1))
    log.append(point(2))
    assert read_metrics(uri) == [point(1), point(2)]


def test_points_after_the_checkpoint_are_cut(tmp_path: Path) -> None:
    uri = str(tmp_path / "metrics.jsonl")
    log = MetricsLog(uri, last_step=-1)
    for step in range(5):
        log.append(point(step))
    MetricsLog(uri, last_step=2).append(point(3, loss=0.5))
    assert read_metrics(uri) == [point(0), point(1), point(2), point(3, loss=0.5)]


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsLog(str(path), last_step=-1).append(point(1))
    path.write_text(path.read_text() + '{"step": 2, "sam')
    assert read_metrics(str(path)) == [point(1)]
    assert read_metrics(str(tmp_path / "absent.jsonl")) == []


def test_values_must_be_finite(tmp_path: Path) -> None:
    log = MetricsLog(str(tmp_path / "metrics.jsonl"), last_step=-1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append(point(1, loss=float("nan")))


def test_on_a_bucket_flush_makes_points_visible(bucket: str) -> None:
    uri = f"{bucket}/run/metrics.jsonl"
    log = MetricsLog(uri, last_step=-1)
    log.append(point(1))
    log.flush()
    assert read_metrics(uri) == [point(1)]
