"""Render blocks of clips on all cores.

INPUT scene settings, a folder, and a range of clip numbers; OUTPUT the number of clips written. One task a block on one
CPU: numpy and the encoder run on one thread each, and a block is small enough that little is lost when a machine dies.
"""

from collections.abc import Iterator, Sequence

import ray

from dmma_core.data.scenes import SceneConfig, render_block

_IN_FLIGHT_PER_CPU = 2


def _render(config: SceneConfig, uri: str, block: range) -> int:
    return render_block(config, uri, block)


def render_blocks(config: SceneConfig, uri: str, blocks: Sequence[range]) -> Iterator[int]:
    """Numbers of clips of the blocks, in the order of completion."""
    task = ray.remote(num_cpus=1, max_retries=2)(_render)
    window = _IN_FLIGHT_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(blocks)
    running: list[ray.ObjectRef] = []
    while True:
        while len(running) < window and (block := next(waiting, None)) is not None:
            running.append(task.remote(config, uri, block))
        if not running:
            return
        finished, running = ray.wait(running, num_returns=1)
        yield from ray.get(finished)
