"""Any depth network of the `transformers` library (Depth Anything V2, DPT, …) behind `DepthEncoder`: an optional extra."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dmma_core.encoders.depth import DepthConfig, DepthEncoder
from dmma_core.encoders.torchvision_shim import make_torchvision_importable
from dmma_core.errors import ConfigError, WeightsError

_METRES_FLOOR = 1e-3


class TransformersDepth(nn.Module):
    """Normalised pictures [B, 3, H, W] to inverse depth [B, H, W] by a `...ForDepthEstimation` model.

    Models of relative depth give inverse depth already; of metric ones (metres) the reciprocal is taken.
    """

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], is_metric: bool) -> None:
        super().__init__()
        self.model, self.mean, self.std, self.is_metric = model, mean, std, is_metric

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        predicted_BHW: Tensor = self.model(pixel_values=pixels_BCHW).predicted_depth
        return 1 / predicted_BHW.clamp_min(_METRES_FLOOR) if self.is_metric else predicted_BHW.clamp_min(0)


def transformers_depth(
    folder: str, normalization: str = "per_frame", raw_scale: float | None = None, half_precision: bool = False
) -> DepthEncoder:
    """A depth network from a local folder in the layout of the Hugging Face hub (config, preprocessor, safetensors).

    Frames are resized as MiDaS does, to the size and multiple that the preprocessor states. Raises ConfigError without
    the extra and WeightsError for a folder that is incomplete; nothing is downloaded.
    """
    make_torchvision_importable()
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "Depth networks of transformers need the library.",
            remedy="Install the extra: pip install dmma[video-depth].",
        ) from error
    try:
        preprocessor: dict[str, Any] = json.loads((Path(folder) / "preprocessor_config.json").read_text())
        model = transformers.AutoModelForDepthEstimation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        size = preprocessor["size"]["height"]
        mean, std = tuple(preprocessor["image_mean"]), tuple(preprocessor["image_std"])
    except (OSError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{folder} is not a complete depth network of transformers ({type(error).__name__}: {error}).",
            remedy="It needs config.json, preprocessor_config.json and model.safetensors.",
        ) from error
    is_metric = getattr(model.config, "depth_estimation_type", "relative") == "metric"
    config = DepthConfig(
        f"{model.config.model_type}-{'metric' if is_metric else 'relative'}",
        size,
        preprocessor.get("ensure_multiple_of", 1),
        raw_scale=raw_scale,
        normalization=normalization,
        half_precision=half_precision,
        frames_per_batch=16,
    )
    return DepthEncoder(config, TransformersDepth(model, mean, std, is_metric)).eval()
