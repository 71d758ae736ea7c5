"""Communication between the workers of one run. A single worker communicates nothing."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Workers:
    """This process's `rank` among `size` equal workers, and the device of its network."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model wrapped for training: its gradients become the means over all workers."""
        if self.size == 1:
            return model
        # Buffers are constants here; synchronising them in every step would only cost time.
        device_ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=device_ids, forward_sync_buffers=False)

    def total(self, *values: float) -> list[float]:
        """Sum of each value over the workers, in float64, equal on all of them."""
        if self.size == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(shared)
        summed: list[float] = shared.tolist()
        return summed

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one worker."""
        return self.total(float(flag))[0] > 0
