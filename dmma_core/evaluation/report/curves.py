"""Loss curves from a run's metrics.jsonl."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmma_core.errors import IncompleteError
from dmma_core.storage.metrics_log import read_metrics
from dmma_core.storage.run_folder import RunFolder

CURVES = ("train/loss", "val/loss")


@dataclass(frozen=True)
class Curve:
    """Values of one metric against samples seen, ascending, at least one point."""

    samples: NDArray[np.float64]
    values: NDArray[np.float64]


def read_curves(run_uri: str) -> dict[str, Curve]:
    """Loss curves of a run; a metric that was never logged is not in the result.

    Raises IncompleteError if nothing was logged, for example because the run folder was moved.
    """
    uri = RunFolder(run_uri).metrics
    points = read_metrics(uri)
    found = {name: [(p["samples"], p[name]) for p in points if name in p] for name in CURVES}
    if not any(found.values()):
        raise IncompleteError(f"{uri} contains no losses.", remedy="Restore the run folder to compare loss curves.")
    return {name: Curve(*np.array(sorted(pairs), np.float64).T) for name, pairs in found.items() if pairs}
