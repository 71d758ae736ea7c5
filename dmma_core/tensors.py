"""Shape legend and the one way tensors become bytes.

A tensor's name ends in its shape. The letters mean, everywhere in DMMA:

    B  clips in a batch              L  latent steps (audio)           C  latent channels, or colour channels of a frame
    T  frames at the CLIP rate       S  Synchformer tokens             D  feature width of an encoder
    N  text tokens                   K  depth scalars per frame        E  hidden width of the flow network
    H  attention heads, or height    W  width of a frame               A  audio samples
    M  mel bins                      F  spectrogram frames
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

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

        Raises ValueError with a sentence otherwise: a wrong shape or a NaN must never reach a feature file.
        """
        if value.shape != self.shape:
            raise ValueError(f"{self.name} has shape {value.shape}, expected {self.shape}.")
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(value, dtype=self.dtype)
        if cast.dtype.kind == "f" and not np.isfinite(cast).all():
            raise ValueError(f"{self.name} holds values that are not finite in {self.dtype}.")
        return cast.tobytes()

    def from_bytes(self, data: bytes | memoryview) -> Array:
        """Array view on `data`, read-only, without a copy."""
        array: Array = np.frombuffer(data, dtype=self.dtype).reshape(self.shape)
        return array
