"""Render blocks of clips on all cores.

INPUT scene settings, a folder, and a range of clip numbers; OUTPUT the number of clips written. One task a block on one
CPU: numpy and the encoder run on one thread each. A block is small, so a machine that dies loses little work.
"""

from collections.abc import Iterator, Sequence

from dmma_core.data.scenes import SceneConfig, render_block
from ray_jobs.common.bounded_tasks import bounded_tasks


def render_blocks(config: SceneConfig, uri: str, blocks: Sequence[range]) -> Iterator[int]:
    """Numbers of clips of the blocks, in the order of completion."""
    return bounded_tasks(render_block, ((config, uri, block) for block in blocks))
