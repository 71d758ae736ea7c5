"""From rows to batches of torch tensors, read ahead by one thread so that training does not wait for data."""

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

_READ_AHEAD = 4
Item = TypeVar("Item")


@dataclass(frozen=True)
class ClipBatch:
    """B clips. Features keep their stored dtype (float16); the training step casts them.

    `sample_B` is the sample number of each clip (for its random draws), `rgb`, `depth` and `sync` are zero where
    `has_video_B` is False, `text` likewise where `has_text_B` is False.
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
    """Endless batches of this rank from global sample `first_sample` on.

    One global batch is `batch_size` consecutive samples, split evenly over the ranks: which clips a step sees does not
    depend on how many workers there are. `batch_size` must be a multiple of `world_size`.
    """
    assert batch_size % world_size == 0
    per_rank = batch_size // world_size

    def read(step: int) -> ClipBatch:
        start = first_sample + step * batch_size + rank * per_rank
        samples = range(start, start + per_rank)
        return collate(stores, [order[sample] for sample in samples], samples)

    return read_ahead(read)


def read_ahead(read: Callable[[int], Item]) -> Generator[Item, None, None]:
    """Yield read(0), read(1), … in order while a thread stays up to four items ahead. Errors reach the caller."""
    ready: queue.Queue[Item | BaseException] = queue.Queue(maxsize=_READ_AHEAD)
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
        except BaseException as error:  # handed over to the consumer, which raises it
            put(error)

    threading.Thread(target=work, name="dmma-read-ahead", daemon=True).start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
