"""Depth networks of transformers in DepthEncoder, with a small random Depth Anything saved in the hub's layout."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dmma_core.encoders.bundle import load_depth
from dmma_core.encoders.bundle_options import parse_bundle_name
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


def test_maps_equal_those_of_the_librarys_forward_pass(folder: Path) -> None:
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


@pytest.fixture
def cached(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as "My-Depth.1" of a weights cache."""
    monkeypatch.setenv("DMMA_CACHE", str(tmp_path))
    return Path(shutil.copytree(folder, tmp_path / "My-Depth.1"))


def test_a_folder_of_the_cache_is_an_option_of_any_bundle(folder: Path, cached: Path) -> None:
    options = parse_bundle_name("tiny+transformers=My-Depth.1+per_frame")
    frames_THWC = torch.randint(0, 256, (2, 56, 56, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    expected = transformers_depth(str(folder))
    encoder = load_depth(options)
    assert torch.equal(encoder.inverse_depth(frames_THWC), expected.inverse_depth(frames_THWC))
    assert encoder.fingerprint() == expected.fingerprint()  # independent of the folder's path


def test_the_fingerprint_covers_weights_and_settings(cached: Path) -> None:
    prints = {transformers_depth(str(cached)).fingerprint()}
    changes = {
        "preprocessor_config.json": {"ensure_multiple_of": 28, "image_mean": [0.5, 0.5, 0.5], "size": 112},
        "config.json": {"depth_estimation_type": "metric", "max_depth": 80, "head_in_index": 2},
    }
    for name, values in changes.items():
        content = json.loads((cached / name).read_text())
        for key, value in values.items():
            if content.get(key) != value:
                (cached / name).write_text(json.dumps({**content, key: value}))
                print_ = transformers_depth(str(cached)).fingerprint()
                assert print_ not in prints, key
                prints.add(print_)
        (cached / name).write_text(json.dumps(content))
    state = load_file(cached / "model.safetensors")
    state[min(state)] += 1
    save_file(state, cached / "model.safetensors", metadata={"format": "pt"})
    assert transformers_depth(str(cached)).fingerprint() not in prints


def test_weights_in_half_precision_are_computed_in_single(cached: Path) -> None:
    state = {key: value.half() for key, value in load_file(cached / "model.safetensors").items()}
    save_file(state, cached / "model.safetensors", metadata={"format": "pt"})
    assert transformers_depth(str(cached)).inverse_depth(torch.zeros(1, 56, 56, 3, dtype=torch.uint8)).isfinite().all()


def test_incomplete_or_foreign_folders_are_refused(cached: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent is missing or incomplete: it lacks config.json, preproc"):
        load_depth(parse_bundle_name("tiny+transformers=absent"))
    weights = cached / "model.safetensors"
    state = load_file(weights)
    absent = max(state)
    save_file({key: value for key, value in state.items() if key != absent}, weights, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"lacks weights of DepthAnythingForDepthEstimation: {absent}"):
        transformers_depth(str(cached))
    os.truncate(weights, 1000)
    with pytest.raises(WeightsError, match="not a complete depth network of transformers .SafetensorError"):
        transformers_depth(str(cached))
    weights.unlink()
    with pytest.raises(WeightsError, match=r"it lacks model.safetensors\."):
        load_depth(parse_bundle_name("tiny+transformers=My-Depth.1"))
    save_file(state, weights, metadata={"format": "pt"})
    preprocessor, config = cached / "preprocessor_config.json", cached / "config.json"
    settings = preprocessor.read_text()
    for bad in ('{"size": [56]}', "{}", "not JSON", "[]"):
        preprocessor.write_text(bad)
        with pytest.raises(WeightsError, match="not a complete depth network"):
            transformers_depth(str(cached))
    preprocessor.write_text(settings)
    code = {"auto_map": {"AutoConfig": "own.Config", "AutoModelForDepthEstimation": "own.Model"}}
    for other in ({"model_type": "bert"}, {"model_type": "video_depth_anything"}, {}, code):
        config.write_text(json.dumps(other))
        with pytest.raises(WeightsError, match="not a complete depth network"):
            transformers_depth(str(cached))
