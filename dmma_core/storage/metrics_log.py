"""metrics.jsonl of a run: one JSON object per logged point, appended during training.

    {"step": 20, "samples": 320, "wall_s": 12.5, "unix_s": 1790000000.1, "train/loss": 1.02, ...}

`step` and `samples` are the numbers of trained steps and samples, `wall_s` the seconds of training over all sessions of
the run, `unix_s` the time of the point. All other keys are metrics. This file is authoritative; a tracking server
receives a copy.
"""

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from dmma_core.storage import paths

COUNTERS = ("step", "samples", "wall_s", "unix_s")
MetricsPoint = dict[str, float]
_RESEND_EVERY_S = 30.0
_log = logging.getLogger(__name__)


class MetricsLog:
    """Appends points to `uri`. Points after `last_step`, from an interrupted session, are removed first.

    Objects in a bucket cannot be appended to, so there the full file is uploaded again: on `flush`, and every 30 s.
    """

    def __init__(self, uri: str, last_step: int) -> None:
        self._uri = uri
        self._points = [point for point in read_metrics(uri) if point["step"] <= last_step]
        self._remote = paths.is_remote(uri)
        self._write_all()

    def append(self, point: MetricsPoint) -> None:
        """Add one point; its values must be finite."""
        self._points.append(point)
        if not self._remote:
            paths.append_text(self._uri, _lines([point]))
        elif time.monotonic() - self._written_s > _RESEND_EVERY_S:
            self._write_all()

    def flush(self) -> None:
        """Make every appended point visible to readers."""
        if self._remote:
            self._write_all()

    def _write_all(self) -> None:
        paths.write_bytes(self._uri, _lines(self._points).encode())
        self._written_s = time.monotonic()


def read_metrics(uri: str) -> list[MetricsPoint]:
    """All points of a metrics.jsonl, in order; empty if there is no file.

    Damaged lines are skipped with a warning.
    """
    if not paths.exists(uri):
        return []
    points: list[MetricsPoint] = []
    for line in paths.read_text(uri).split("\n"):
        try:
            point: Any = json.loads(line) if line else None
        except json.JSONDecodeError:
            _log.warning(
                "%s has a damaged line after step %s; it is skipped.", uri, points[-1]["step"] if points else 0
            )
            continue
        if point is not None:
            points.append(point)
    return points


def _lines(points: Sequence[MetricsPoint]) -> str:
    return "".join(json.dumps(point, allow_nan=False) + "\n" for point in points)
