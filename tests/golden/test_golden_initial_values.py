"""Initial weights have the published statistics (zero, one, range, standard deviation)."""

from typing import Any

import pytest

from dmma_core.models.initialisation import initialise
from dmma_core.models.mmaudio_interop import to_official
from dmma_core.models.mmdit import MMDiT
from helpers.golden import GoldenFile, golden_json
from helpers.golden_mmdit import golden_config

NAMES = ["init_stats_mm", "init_stats_deep"]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("name", NAMES)
def test_statistics(name: str, version: str) -> None:
    file = golden_json(name)
    prefix = "deep_" if name.endswith("deep") else "mm_"
    meta: dict[str, Any] = {"config": {**file["config"], "v2": version == "v2"}}
    config = golden_config(GoldenFile(f"{prefix}fresh", meta, {}))
    model = MMDiT(config)
    initialise(model, seed=0)
    ours = to_official(model)
    expected = file["variants"][version]
    assert set(ours) == set(expected)
    for key, statistics in expected.items():
        value = ours[key]
        assert list(value.shape) == statistics["shape"], key
        if statistics["nan"]:
            assert value.isnan().all(), key
            continue
        assert bool((value == 0).all()) == statistics["all_zero"], key
        assert bool((value == 1).all()) == statistics["all_one"], key
        if statistics["all_zero"] or statistics["all_one"]:
            continue
        count = value.numel()
        slack = 5 / count**0.5  # about five standard errors
        assert abs(float(value.std(unbiased=False)) - statistics["std"]) <= slack * statistics["std"], key
        assert abs(float(value.mean())) <= slack * statistics["std"], key
        assert float(value.abs().max()) <= statistics["absmax"] * (1 + max(slack, 0.3)), key
