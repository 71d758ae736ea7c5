"""The order of training samples: a pure function of (seed, sample number).

Sample number n, counted over the full run and all workers, determines its epoch, its row and its noise. A run therefore
resumes exactly at any sample, with any number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dmma_core.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """Training rows of one feature store, each `repeats` times per epoch (VGGSound x5 with audio-text sets)."""

    store: int
    rows: Sequence[int]
    repeats: int = 1


class SampleOrder:
    """Endless sequence of (store, row), shuffled per epoch. Raises ConfigError without any row."""

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        self._entries = [(s.store, row) for s in sources for _ in range(s.repeats) for row in s.rows]
        if not self._entries:
            raise ConfigError("No clip is left to train on.", remedy="Check the split names and the manifest.")
        self._seed = seed
        self._epoch = -1
        self._permutation = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Samples in one epoch."""
        return len(self._entries)

    def __getitem__(self, sample: int) -> tuple[int, int]:
        """(store, row) of sample number `sample` (0, 1, …)."""
        epoch, position = divmod(sample, len(self._entries))
        if epoch != self._epoch:
            self._permutation = np.random.default_rng((self._seed, epoch)).permutation(len(self._entries))
            self._epoch = epoch
        return self._entries[int(self._permutation[position])]
