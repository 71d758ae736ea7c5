"""Training of the tiny tagger on rendered sounds; one to two minutes on one core for about a thousand clips."""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dmma_core.evaluation.tagger import MEL_SCALE, TinyTagger
from dmma_core.log import Progress

_BATCH_SIZE = 32
_PEAK_RATE = 2e-3
_GAIN_SPREAD = (
    1.0  # standard deviation of the random gain in nepers (8.7 dB): the class must not be inferred from the level
)
_log = logging.getLogger(__name__)


def train_tagger(
    waves_BA: NDArray[np.float32], labels_B: Sequence[int], classes: Sequence[str], seed: int, num_steps: int = 600
) -> TinyTagger:
    """Train on mono sounds [B, A] at 16 kHz; `labels_B` are indices into `classes`. Deterministic for a seed.

    Augmentation on the log-mel: random gain, cyclic shift in time, one time mask and one frequency mask.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tagger = TinyTagger(classes)
    with torch.no_grad():
        chunks = [tagger.log_mel(torch.from_numpy(waves_BA[i : i + 64])) for i in range(0, len(waves_BA), 64)]
    log_mels, labels = torch.cat(chunks), torch.as_tensor(labels_B)
    optimiser = torch.optim.AdamW(tagger.parameters(), lr=_PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _PEAK_RATE, total_steps=num_steps, pct_start=0.1)
    with Progress("tagger", num_steps, unit="step") as shown:
        for _ in range(num_steps):
            rows = torch.randint(len(labels), (_BATCH_SIZE,), generator=generator)
            tagged = tagger.tag_log_mel(_augmented(log_mels[rows], generator))
            loss = nn.functional.cross_entropy(tagged.logits_BG, labels[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            shown.advance(note=f"loss {loss.item():.3f}")
    return tagger.eval()


@torch.inference_mode()
def tagger_accuracy(tagger: TinyTagger, waves_BA: NDArray[np.float32], labels_B: Sequence[int]) -> float:
    """Top-1 accuracy over the sounds."""
    parts = [tagger(torch.from_numpy(waves_BA[i : i + 64])).logits_BG.argmax(1) for i in range(0, len(waves_BA), 64)]
    return float((torch.cat(parts) == torch.as_tensor(labels_B)).float().mean())


def _augmented(log_mel_B1MF: Tensor, generator: torch.Generator) -> Tensor:
    batch = log_mel_B1MF.clone()
    _, _, num_mels, num_frames = batch.shape
    batch += torch.randn(len(batch), 1, 1, 1, generator=generator) * _GAIN_SPREAD / MEL_SCALE
    for index in range(len(batch)):
        shift, frame, mel = torch.randint(num_frames, (3,), generator=generator).tolist()
        batch[index] = batch[index].roll(shift, dims=-1)
        batch[index, :, :, frame : frame + num_frames // 8] = batch[index].mean()
        batch[index, :, mel % num_mels : mel % num_mels + num_mels // 8] = batch[index].mean()
    return batch
