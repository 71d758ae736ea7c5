"""Render training samples of the tiny encoders on all cores.

INPUT scene settings and a range of clip numbers; OUTPUT Samples of these clips. One task per sixteen clips on one CPU;
they come back in order, so the same seed gives the same training set on any number of cores.
"""

from collections.abc import Iterator

from dmma_core.data.scenes import SceneConfig
from dmma_core.encoders.pretraining.data import Samples, sample_clips
from ray_jobs.common.bounded_tasks import bounded_tasks

_CLIPS_PER_TASK = 16


def sample_all(scenes: SceneConfig) -> Iterator[Samples]:
    """Samples of all clips of `scenes`, in order, a few at a time."""
    starts = range(0, scenes.num_clips, _CLIPS_PER_TASK)
    blocks = (range(start, min(start + _CLIPS_PER_TASK, scenes.num_clips)) for start in starts)
    return bounded_tasks(sample_clips, ((scenes, block) for block in blocks), in_order=True)
