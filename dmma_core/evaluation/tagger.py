"""TinyTagger: a small audio tagger of rendered clips, for distribution metrics on any machine.

It only knows the sound classes of rendered clips, so its metrics carry its name (FD_tinytagger, …) and are not
comparable with those of PANNs, PaSST or VGGish.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dmma_core.errors import WeightsError
from dmma_core.models.audio_codec.mel import MelConfig, MelSpectrogram
from dmma_core.storage import paths
from dmma_core.storage.state_dicts import load_strictly
from dmma_core.storage.tensor_files import read_tensors, write_tensors

SAMPLE_RATE_HZ = 16_000
EMBEDDING_WIDTH = 32
WEIGHTS_FOLDER = Path(__file__).resolve().parent / "tiny_weights"
_WEIGHTS, _RECORD = "tiny_tagger.safetensors", "tiny_tagger.json"
_MEL = MelConfig(SAMPLE_RATE_HZ, num_mels=64, fft_size=1024, hop_samples=512, max_hz=8_000.0, log_base="e")
_MEL_CENTRE, MEL_SCALE = -6.0, 3.0  # scales log-mels of sounds between -60 and 0 dBFS to about [-2, 2]
_CHANNELS = (16, 32, 64, 96)


@dataclass(frozen=True)
class TaggerOutput:
    """Embeddings [B, D] and class logits [B, G] of a batch of sounds."""

    embedding_BD: Tensor
    logits_BG: Tensor


class TinyTagger(nn.Module):
    """Log-mel, four strided 3x3 convolutions, pooling over time and frequency, linear embedding and classes.

    Accepts any length above 0.02 s. `classes` are the names of the logits, in order.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.mel = MelSpectrogram(_MEL)
        blocks: list[nn.Module] = []
        for num_in, num_out in zip((1, *_CHANNELS), _CHANNELS, strict=False):
            blocks += [nn.Conv2d(num_in, num_out, 3, stride=2, padding=1), nn.GroupNorm(8, num_out), nn.SiLU()]
        self.trunk = nn.Sequential(*blocks)
        self.embed = nn.Linear(2 * _CHANNELS[-1], EMBEDDING_WIDTH)
        self.classify = nn.Linear(EMBEDDING_WIDTH, len(self.classes))

    def log_mel(self, wave_BA: Tensor) -> Tensor:
        """Input of the convolutions [B, 1, M, F], about [-2, 2]."""
        log_mel_BMF: Tensor = self.mel(wave_BA)
        return ((log_mel_BMF - _MEL_CENTRE) / MEL_SCALE)[:, None]

    def tag_log_mel(self, log_mel_B1MF: Tensor) -> TaggerOutput:
        """Tag the output of `log_mel`."""
        maps = self.trunk(log_mel_B1MF)
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        embedding_BD = self.embed(pooled)
        return TaggerOutput(embedding_BD, self.classify(nn.functional.silu(embedding_BD)))

    def forward(self, wave_BA: Tensor) -> TaggerOutput:
        """Tag mono sounds [B, A] at SAMPLE_RATE_HZ."""
        return self.tag_log_mel(self.log_mel(wave_BA))


def save_tagger(tagger: TinyTagger, record: Mapping[str, Any], folder: str | Path = WEIGHTS_FOLDER) -> None:
    """Write weights and `record` (training and accuracy), with the classes, into `folder`."""
    write_tensors(paths.join(str(folder), _WEIGHTS), tagger.state_dict())
    paths.write_json(paths.join(str(folder), _RECORD), {**record, "classes": list(tagger.classes)})


def load_tagger(folder: str | Path = WEIGHTS_FOLDER) -> TinyTagger:
    """The trained tagger, in evaluation mode. Raises WeightsError if its files are missing or do not match."""
    weights, record = paths.join(str(folder), _WEIGHTS), paths.join(str(folder), _RECORD)
    if not (paths.exists(weights) and paths.exists(record)):
        raise WeightsError(
            f"{folder} has no trained tiny tagger ({_WEIGHTS}, {_RECORD}).", remedy="Run `dmma pretrain-tiny`."
        )
    tagger = TinyTagger(paths.read_json(record)["classes"])
    load_strictly(tagger, read_tensors(weights), "the tiny tagger", weights)
    return tagger.eval()


def tagger_sha256() -> str:
    """sha256 of the weights, which identifies the evaluator: only metrics of the same weights are comparable."""
    return paths.sha256_of(paths.join(str(WEIGHTS_FOLDER), _WEIGHTS))
