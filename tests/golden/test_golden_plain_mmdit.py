"""The plain network of the benchmarks also computes the published functions."""

import pytest
import torch

from benchmarks.plain_mmdit import PlainMMDiT
from dmma_core.models.mmaudio_interop import official_shapes
from helpers.golden import assert_close, fill_state_dict, golden_file, golden_names
from helpers.golden_mmdit import TOLERANCE, golden_config, golden_features


@pytest.mark.parametrize("name", golden_names("mm_tiny_v[0-9]", "deep_tiny_v[0-9]", default="mm_tiny_v1"))
@torch.inference_mode()
def test_forward_and_sampling(name: str) -> None:
    file = golden_file(name)
    config = golden_config(file)
    plain = PlainMMDiT(config)
    plain.load_state_dict(fill_state_dict(official_shapes(config), file.meta["salt"]))
    features, tolerance = golden_features(file), TOLERANCE[config.version]
    assert_close(plain(file["in.latent"], file["in.t"], features), file["forward.flow"], tolerance)
    for name in file.names():
        if name.startswith("euler") and name.endswith(".x1"):
            steps = int(name.removeprefix("euler").removesuffix(".x1"))
            assert_close(plain.sample(file["in.x0"], features, steps, 4.5), file[name], tolerance)
