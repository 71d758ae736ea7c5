"""Render training samples of the tiny encoders on all cores.

INPUT scene settings and a range of clip numbers; OUTPUT Samples of these clips. One task per sixteen clips on one CPU;
they come back in order, so the same seed gives the same training set on any number of cores.
"""

from collections.abc import Iterator

import ray

from dmma_core.data.scenes import SceneConfig
from dmma_core.encoders.pretraining.data import Samples, sample_clips

_CLIPS_PER_TASK = 16
_IN_FLIGHT_PER_CPU = 2


def sample_all(scenes: SceneConfig) -> Iterator[Samples]:
    """Samples of all clips of `scenes`, in order, a few at a time."""
    task = ray.remote(num_cpus=1, max_retries=2)(sample_clips)
    window = _IN_FLIGHT_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    starts = range(0, scenes.num_clips, _CLIPS_PER_TASK)
    waiting = iter([range(start, min(start + _CLIPS_PER_TASK, scenes.num_clips)) for start in starts])
    running: list[ray.ObjectRef] = []
    while True:
        while len(running) < window and (indices := next(waiting, None)) is not None:
            running.append(task.remote(scenes, indices))
        if not running:
            return
        yield ray.get(running.pop(0))
