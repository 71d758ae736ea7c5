"""Batches of torch tensors from feature rows, prefetched by one thread so that training does not wait for data."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dmma_core.data.feature_store import FeatureStore
from dmma_core.data.mixing import SampleOrder

_NUM_PREFETCHED = 4
Item = TypeVar("Item")


@dataclass(frozen=True)
class ClipBatch:
    """B clips. Features keep their stored dtype (float16); the training step casts them.

    `sample_B` is the sample number of each clip, which seeds its noise. `rgb`, `depth` and `sync` are zero where
    `has_video_B` is False, and so is `text` where `has_text_B` is False.
    """

    clip_ids: tuple[str, ...]
    sample_B: Tensor
    has_video_B: Tensor
    has_text_B: Tensor
    latent_mean_BLC: Tensor
    latent_std_BLC: Tensor
    rgb_BTD: Tensor
    depth_BTD: Tensor
    depth_scalars_BTK: Tensor
    sync_BSD: Tensor
    text_BND: Tensor

    def to(self, device: torch.device | str) -> "ClipBatch":
        """The same batch with its tensors on `device`."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "clip_ids"}
        return replace(self, **{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})


def collate(stores: Sequence[FeatureStore], picks: Sequence[tuple[int, int]], samples: Sequence[int]) -> ClipBatch:
    """Read the rows `picks` = (store, row) and stack them; `samples` are their sample numbers."""
    clips = [stores[store].clips[row] for store, row in picks]
    rows = [stores[store].read(row) for store, row in picks]

    def stack(name: str) -> Tensor:
        return torch.from_numpy(np.stack([row[name] for row in rows]))

    return ClipBatch(
        clip_ids=tuple(clip.clip_id for clip in clips),
        sample_B=torch.tensor(list(samples), dtype=torch.int64),
        has_video_B=torch.tensor([clip.has_video for clip in clips]),
        has_text_B=torch.tensor([clip.has_text for clip in clips]),
        latent_mean_BLC=stack("latent_mean"),
        latent_std_BLC=stack("latent_std"),
        rgb_BTD=stack("rgb"),
        depth_BTD=stack("depth"),
        depth_scalars_BTK=stack("depth_scalars"),
        sync_BSD=stack("sync"),
        text_BND=stack("text"),
    )


def training_batches(
    stores: Sequence[FeatureStore],
    order: SampleOrder,
    first_sample: int,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[ClipBatch]:
    """Endless iterator over this rank's batches, starting at global sample `first_sample`.

    A global batch is `batch_size` consecutive samples, split evenly over the ranks, so the clips of a step do not
    depend on the number of workers. `batch_size` must be a multiple of `world_size`.
    """
    assert batch_size % world_size == 0
    per_rank = batch_size // world_size

    def read(step: int) -> ClipBatch:
        start = first_sample + step * batch_size + rank * per_rank
        samples = range(start, start + per_rank)
        return collate(stores, [order[sample] for sample in samples], samples)

    return prefetch(read)


def prefetch(read: Callable[[int], Item]) -> Generator[Item, None, None]:
    """Yield read(0), read(1), … in order; a thread prefetches up to four items. Errors are raised in the caller."""
    ready: queue.Queue[Item | BaseException] = queue.Queue(maxsize=_NUM_PREFETCHED)
    stopped = threading.Event()

    def put(item: Item | BaseException) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            index = 0
            while not stopped.is_set():
                put(read(index))
                index += 1
        except BaseException as error:  # raised by the consumer
            put(error)

    threading.Thread(target=work, name="dmma-prefetch", daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
