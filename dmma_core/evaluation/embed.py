"""Networks for metrics: the interface, and its implementation by the tiny tagger."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dmma_core.evaluation.metric_specs import NETWORK
from dmma_core.evaluation.tagger import load_tagger, tagger_sha256

Float = NDArray[np.float32]


class MetricNetwork(Protocol):
    """Computes an embedding and class logits of a sound.

    `name` is the suffix of its metrics, `sha256` that of its weights.
    """

    name: str
    sha256: str

    def embed(self, audio_A: Float) -> tuple[Float, Float]:
        """Embedding [D] and logits [G] of a mono sound at SAMPLE_RATE_HZ (16 kHz)."""
        ...


class TinyTaggerNetwork:
    """The tiny tagger on the CPU. Raises WeightsError if it is not trained yet."""

    name = NETWORK

    def __init__(self) -> None:
        self._tagger = load_tagger()
        self.sha256 = tagger_sha256()

    @torch.inference_mode()
    def embed(self, audio_A: Float) -> tuple[Float, Float]:
        tagged = self._tagger(torch.from_numpy(audio_A)[None])
        return tagged.embedding_BD[0].numpy(), tagged.logits_BG[0].numpy()
