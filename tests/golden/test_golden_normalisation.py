"""Latent statistics of a training set equal the published ones."""

from collections.abc import Iterator

import numpy as np
import torch

from dmma_core.training.normalisation import column_statistics
from helpers.golden import assert_close, golden_file


class _Stored:
    """The part of a feature set that the statistics need: posterior means in full precision."""

    def __init__(self, mean_RLC: torch.Tensor) -> None:
        self.uri, self.schema, self.mean_RLC = "golden", self, mean_RLC

    def read_column(self, name: str, rows: list[int]) -> Iterator[np.ndarray]:
        return (self.mean_RLC[row].numpy() for row in rows)

    def spec(self, name: str) -> torch.Tensor:
        return self.mean_RLC[0]


def test_mean_and_unbiased_standard_deviation() -> None:
    file = golden_file("latent_stats")
    means_RLC = file["in.mean"]
    made = column_statistics(_Stored(means_RLC), "latent_mean", range(len(means_RLC)))  # type: ignore[arg-type]
    assert_close(torch.tensor(made.mean), file["latent_mean"])
    assert_close(torch.tensor(made.std), file["latent_std"])
