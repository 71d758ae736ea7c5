"""Files of the tiny encoders: half-precision safetensors and a card with their metrics."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from dmma_core.encoders import clip as clip_module
from dmma_core.encoders import depth as depth_module
from dmma_core.encoders.clip import ClipEncoder
from dmma_core.encoders.depth import DepthEncoder
from dmma_core.provenance import provenance
from dmma_core.storage import paths
from dmma_core.storage.tensor_files import write_tensors

PACKAGE_FOLDER = clip_module.TINY_WEIGHTS.parent
CARD = "CARD.json"
Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def rounded_to_half(module: Module) -> Module:
    """Round all weights to half precision, in place, as stored: the metrics must be those of the files."""
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half().float())
    return module


def save_tiny(folder: str | Path, clip: ClipEncoder, depth: DepthEncoder, record: Mapping[str, Any]) -> None:
    """Write both weights in half precision, then the card with `record`, sizes and sha256."""
    files = {clip_module.TINY_WEIGHTS.name: clip.model, depth_module.TINY_WEIGHTS.name: depth.network}
    card: dict[str, Any] = {**record, "files": {}, "provenance": provenance()}
    for name, module in files.items():
        uri = paths.join(str(folder), name)
        state = {
            key: value.half() if value.is_floating_point() else value for key, value in module.state_dict().items()
        }
        write_tensors(uri, state)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        card["files"][name] = {"sha256": paths.sha256_of(uri), "num_parameters": parameters}
    paths.write_json(paths.join(str(folder), CARD), card)
