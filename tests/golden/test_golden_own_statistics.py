"""Outputs of small networks filled by the rule are unchanged; needs no reference data (see regenerate.py)."""

import json
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from helpers.own_statistics import FILE, LOOSE, STATISTICS, own_outputs, statistics

RECORDED = json.loads(FILE.read_text())
NAMES = [name for name in RECORDED if name != "statistics"]


@pytest.fixture(scope="module")
def outputs() -> Mapping[str, Tensor]:
    return own_outputs()


def test_every_output_is_recorded(outputs: Mapping[str, Tensor]) -> None:
    assert tuple(RECORDED["statistics"]) == STATISTICS
    assert list(outputs) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_the_recorded_ones(outputs: Mapping[str, Tensor], name: str) -> None:
    """Each statistic may differ by the largest effect of an error of `tolerance * largest` in every value."""
    value, recorded = outputs[name], RECORDED[name]
    tolerance = 1e-3 if name.startswith(LOOSE) else 2e-5
    largest, total = recorded[2], recorded[3]
    assert torch.isfinite(value).all()
    assert recorded[1] > 0, "an output without variation proves nothing"
    step = tolerance * largest
    bounds = (step, step, step, value.numel() * step, 2 * step * total, step)
    for what, now, before, bound in zip(STATISTICS, statistics(value), recorded, bounds, strict=True):
        assert abs(now - before) <= bound, f"{what} is {now}, was {before}"
