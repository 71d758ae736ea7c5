"""Latent statistics of a training set equal the published ones."""

import torch

from dmma_core.training.latent_statistics import latent_statistics
from helpers.golden import assert_close, golden_file


class _Stored:
    """As much of a feature set as the statistics read: posterior means in full precision."""

    def __init__(self, mean_RLC: torch.Tensor) -> None:
        self.uri, self.schema, self.mean_RLC = "golden", self, mean_RLC

    def rows_of_split(self, split: str) -> list[int]:
        return list(range(len(self.mean_RLC)))

    def read(self, row: int) -> dict[str, object]:
        return {"latent_mean": self.mean_RLC[row].numpy()}

    def spec(self, name: str) -> torch.Tensor:
        return self.mean_RLC[0]


def test_mean_and_unbiased_standard_deviation() -> None:
    file = golden_file("latent_stats")
    made = latent_statistics(_Stored(file["in.mean"]))  # type: ignore[arg-type]
    assert_close(torch.tensor(made.mean), file["latent_mean"])
    assert_close(torch.tensor(made.std), file["latent_std"])
