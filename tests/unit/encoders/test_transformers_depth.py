"""Depth networks of transformers behind DepthEncoder, on a small random Depth Anything saved in the hub's layout."""

import json
from pathlib import Path

import pytest
import torch

from dmma_core.encoders.torchvision_shim import make_torchvision_importable
from dmma_core.encoders.transformers_depth import transformers_depth
from dmma_core.errors import WeightsError

make_torchvision_importable()
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=["relative", "metric"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param)
    backbone = transformers.Dinov2Config(
        image_size=56, patch_size=14, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False,
    )  # fmt: skip
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone, reassemble_hidden_size=32, neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8,
        head_hidden_size=8, depth_estimation_type=request.param, max_depth=20 if request.param == "metric" else None,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(path)
    preprocessor = {
        "size": {"height": 56, "width": 56},
        "ensure_multiple_of": 14,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return path


def test_maps_equal_the_librarys_own_forward_pass(folder: Path) -> None:
    encoder = transformers_depth(str(folder))
    frames_THWC = torch.randint(0, 256, (3, 56, 56, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    maps_THW = encoder.inverse_depth(frames_THWC)
    model = transformers.AutoModelForDepthEstimation.from_pretrained(folder).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels_BCHW = ((frames_THWC / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        predicted_THW = model(pixel_values=pixels_BCHW).predicted_depth
    expected_THW = 1 / predicted_THW if folder.name.startswith("metric") else predicted_THW
    torch.testing.assert_close(maps_THW, expected_THW, rtol=1e-4, atol=1e-6)
    assert maps_THW.min() >= 0
    assert encoder.inverse_depth(frames_THWC[:, :40]).shape[1:] == (42, 56)


def test_an_incomplete_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not a complete depth network"):
        transformers_depth(str(tmp_path))
