"""Depth networks of the `transformers` library (Depth Anything V2, DPT, …) as `DepthEncoder`; an optional extra."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from dmma_core.encoders.depth import DepthConfig, DepthEncoder
from dmma_core.encoders.torchvision_shim import make_torchvision_importable
from dmma_core.errors import ConfigError, WeightsError
from dmma_core.storage.weights import cache_folder

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
_FILES = (_CONFIG, _PREPROCESSOR, "model.safetensors")
_METRIC_TYPES = ("glpn", "tipsv2_dpt", "zoedepth")  # metric networks whose configuration does not state it
_METRES_FLOOR = 1e-3


class TransformersDepth(nn.Module):
    """Normalised images [B, 3, H, W] to inverse depth [B, H, W] by a `...ForDepthEstimation` model.

    Models of relative depth predict inverse depth; the output of metric ones (metres) is inverted.
    """

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], is_metric: bool) -> None:
        super().__init__()
        self.model, self.mean, self.std, self.is_metric = model, mean, std, is_metric

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        predicted_BHW: Tensor = self.model(pixel_values=pixels_BCHW).predicted_depth
        return 1 / predicted_BHW.clamp_min(_METRES_FLOOR) if self.is_metric else predicted_BHW.clamp_min(0)


def cached_network(name: str) -> str:
    """Path of the folder `name` in the weights cache. Raises WeightsError where it or one of its files is missing."""
    folder = cache_folder() / name
    if missing := [file for file in _FILES if not (folder / file).is_file()]:
        raise WeightsError(
            f"The depth network {folder} is missing or incomplete: it lacks {', '.join(missing)}.",
            remedy=f"Put the files of a depth network of the Hugging Face hub there: {', '.join(_FILES)}.",
        )
    return str(folder)


def transformers_depth(
    folder: str, normalization: str = "per_frame", raw_scale: float | None = None, half_precision: bool = False
) -> DepthEncoder:
    """A depth network from a local folder in the layout of the Hugging Face hub (config, preprocessor, safetensors).

    Frames are resized as by MiDaS, to the size and multiple in the preprocessor's configuration.
    `depth_estimation_type` in config.json states whether the network predicts inverse depth ("relative") or metres
    ("metric"). Raises ConfigError without the extra and WeightsError for a folder that is incomplete or of another
    kind. Nothing is downloaded, and no code from the folder is run.
    """
    make_torchvision_importable()
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "Depth networks of transformers need the transformers library, which is not installed.",
            remedy="Install the extra: pip install 'dmma[video-depth]'.",
        ) from error
    try:
        architecture, preprocessor = (_read_json(folder, name) for name in (_CONFIG, _PREPROCESSOR))
        model, report = transformers.AutoModelForDepthEstimation.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        size = preprocessor["size"]["height"] if isinstance(preprocessor["size"], dict) else int(preprocessor["size"])
        mean, std = tuple(preprocessor["image_mean"]), tuple(preprocessor["image_std"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"{folder} is not a complete depth network of transformers ({type(error).__name__}: {error}).",
            remedy=f"It needs {', '.join(_FILES)}.",
        ) from error
    if missing := sorted(report["missing_keys"]):  # the library would initialise them randomly
        raise WeightsError(
            f"{folder} lacks weights of {type(model).__name__}: {', '.join(missing[:5])}.",
            remedy="Use the complete model.safetensors of the network.",
        )
    kind = getattr(model.config, "depth_estimation_type", None)
    is_metric = kind == "metric" or (kind is None and model.config.model_type in _METRIC_TYPES)
    config = DepthConfig(
        f"{model.config.model_type}-{'metric' if is_metric else 'relative'}",
        size,
        preprocessor.get("ensure_multiple_of") or 1,
        raw_scale=raw_scale,
        normalization=normalization,
        half_precision=half_precision,
        architecture=json.dumps(architecture, sort_keys=True),
        frames_per_batch=16,
    )
    return DepthEncoder(config, TransformersDepth(model, mean, std, is_metric)).eval()


def _read_json(folder: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / name).read_text())
    return content
