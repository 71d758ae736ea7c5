"""Imports of libraries that import torchvision; all code must import them by these functions.

torchvision's Python package needs the schemas of two operators, `nms` and `qnms`, which its compiled library registers.
The CUDA wheel cannot load that library with a CPU build of torch, and `import torchvision` (so timm and open_clip) then
fails with "operator torchvision::nms does not exist". DMMA uses neither operator, so declaring their schemas is enough.
Where the compiled library loads, nothing is declared.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_torch: Any = torch  # these torch functions have no type annotations
_declared: list[Any] = []  # a schema lives as long as its library object


def make_torchvision_importable() -> None:
    """Declare the operators that torchvision needs at import, if its compiled library cannot be loaded.

    May be called repeatedly.
    """
    if _declared or "torchvision" in sys.modules or _compiled_library_loads():
        return
    library: Any = _torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _declared.append(library)


def import_timm() -> ModuleType:
    """The timm package."""
    make_torchvision_importable()
    import timm

    module: ModuleType = timm
    return module


def import_open_clip() -> Any:
    """The open_clip package."""
    make_torchvision_importable()
    import open_clip

    return open_clip


def _compiled_library_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # importing timm will report that torchvision is not installed
    for library in Path(spec.origin).parent.glob("_C*"):
        try:
            _torch.ops.load_library(str(library))
        except OSError:
            return False
        return True
    return False
