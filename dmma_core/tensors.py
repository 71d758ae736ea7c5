"""Legend of the shape suffixes, stored tensors as bytes, and the device of a setting.

A tensor's name ends in its shape. The letters have the same meaning in all of DMMA:

    B  clips in a batch              L  latent steps (audio)           C  latent channels, or colour channels of a frame
    T  frames at the CLIP rate       S  Synchformer tokens             D  feature width of an encoder
    N  text tokens                   K  depth scalars per frame        E  hidden width of the flow network
    H  attention heads, or height    W  width of a frame               A  audio samples
    M  mel bins                      F  spectrogram frames
    G  classes of a tagger           R  resamples of a bootstrap
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from dmma_core.errors import ConfigError

Array = NDArray[np.generic]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one stored tensor, e.g. `TensorSpec("rgb", (64, 1024), "float16")`."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float16"

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def to_bytes(self, value: Array) -> bytes:
        """Little-endian, C-order bytes of `value`, which must have exactly this shape and be finite in this dtype.

        Raises ValueError otherwise: a wrong shape or a NaN must never be written to a feature file.
        """
        if value.shape != self.shape:
            raise ValueError(f"{self.name} has shape {value.shape}, expected {self.shape}.")
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(value, dtype=self.dtype)
        if cast.dtype.kind == "f" and not np.isfinite(cast).all():
            raise ValueError(f"{self.name} contains values that are not finite in {self.dtype}.")
        return cast.tobytes()

    def from_bytes(self, data: bytes | memoryview) -> Array:
        """Read-only array view of `data`, without a copy."""
        array: Array = np.frombuffer(data, dtype=self.dtype).reshape(self.shape)
        return array


def device_named(name: str) -> torch.device:
    """The torch device of a setting: "auto" is the first GPU if there is one, else the CPU.

    Raises ConfigError for a name unknown to torch, or for a GPU that does not exist.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"There is no device {name!r}.", remedy="Use auto, cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"Device {name} does not exist: torch {torch.__version__} finds {torch.cuda.device_count()} GPUs.",
            remedy="Use device=auto, or install a CUDA build of torch (in a checkout: `make setup TORCH=cuda`).",
        )
    return device
