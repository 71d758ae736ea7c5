"""Distance between two log-mel spectrograms: timbre, level and timing in one number."""

import numpy as np
import torch
from numpy.typing import NDArray

from dmma_core.models.audio_codec.mel import MEL_16K, MelSpectrogram


def log_mel_levels_db(audio_A: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mel magnitudes in dB [M=80, F] of a mono sound at 16 kHz, floor -100 dB (MMAudio, Table A5)."""
    wave_BA = torch.from_numpy(np.array(audio_A, np.float32))[None]
    log10_BMF: torch.Tensor = MelSpectrogram(MEL_16K)(wave_BA)
    levels_MF: NDArray[np.float32] = (20 * log10_BMF[0]).numpy()
    return levels_MF


def log_mel_distance_db(generated_A: NDArray[np.floating], reference_A: NDArray[np.floating]) -> float:
    """Mean absolute difference of the two log-mel spectrograms in dB; lower is better.

    Both at 16 kHz; sounds of unequal length are compared over the shorter one. It includes timing, so a good sound that
    is shifted has a large distance: use it together with the metrics that ignore timing.
    """
    length = min(len(generated_A), len(reference_A))
    difference_MF = log_mel_levels_db(generated_A[:length]) - log_mel_levels_db(reference_A[:length])
    return float(np.abs(difference_MF).mean())
