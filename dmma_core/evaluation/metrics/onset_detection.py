"""Onset detection: spectral flux and peak picking.

Source: Boeck and Widmer 2013, "Maximum filter vibrato suppression" (spectral flux) and Boeck et al. 2012, "Evaluating
the online capabilities of onset detection methods" (peak picking), with the settings of librosa 0.11's `onset_detect`,
which the onset evaluation of CondFoleyGen and MMAudio uses.
"""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from dmma_core.models.audio_codec.mel import MelConfig, slaney_mel_basis

Float = NDArray[np.float64]

SAMPLE_RATE_HZ = 22_050
FFT_SIZE, HOP_SAMPLES, NUM_MELS = 2048, 512, 128
_DYNAMIC_RANGE_DB = 80.0
# Peak picking in frames (0.03 s and 0.10 s at this rate and hop, rounded down).
_MAX_BEFORE, _MEAN_BEFORE, _MEAN_AFTER, _WAIT = 1, 4, 5, 1


def detect_onsets(audio_A: NDArray[np.floating], threshold: float) -> NDArray[np.int64]:
    """Sample indices (multiples of HOP_SAMPLES, ascending) of the onsets in a mono sound at SAMPLE_RATE_HZ.

    `threshold` in [0, 1]: minimum difference of the flux, scaled to [0, 1] over the sound, from its local mean.
    """
    flux_F = onset_strength(audio_A)
    flux_F -= flux_F.min(initial=np.inf) if len(flux_F) else 0.0
    if not len(flux_F) or flux_F.max() == 0:
        return np.zeros(0, np.int64)
    return _pick_peaks(flux_F / flux_F.max(), threshold) * HOP_SAMPLES


def onset_strength(audio_A: NDArray[np.floating]) -> Float:
    """Spectral flux [F = 1 + A // HOP_SAMPLES]: mean increase over the mel bands, in dB, from one frame to the next."""
    if not len(audio_A):
        return np.zeros(0)
    wave_A = torch.from_numpy(np.asarray(audio_A, np.float32))
    spectrum = torch.stft(
        wave_A,
        FFT_SIZE,
        HOP_SAMPLES,
        window=torch.hann_window(FFT_SIZE),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    mel_MF = _mel_basis() @ spectrum.abs().square()
    level_MF = 10 * mel_MF.clamp(min=1e-10).log10()
    level_MF = level_MF.clamp(min=float(level_MF.max()) - _DYNAMIC_RANGE_DB)
    rise_F = (level_MF[:, 1:] - level_MF[:, :-1]).clamp(min=0).mean(dim=0)
    # One frame for the difference, two because an event enters a centred window half its length before its centre.
    delay = 1 + FFT_SIZE // (2 * HOP_SAMPLES)
    flux_F = torch.nn.functional.pad(rise_F, (delay, 0))[: level_MF.shape[1]]
    return np.asarray(flux_F.numpy(), np.float64)


def _pick_peaks(flux_F: Float, threshold: float) -> NDArray[np.int64]:
    """Frames not below the previous one, above the local mean by `threshold`, and not directly after a peak."""
    peaks: list[int] = []
    for frame in range(len(flux_F)):
        if peaks and frame - peaks[-1] <= _WAIT:
            continue
        value = flux_F[frame]
        is_maximum = value >= flux_F[max(frame - _MAX_BEFORE, 0) : frame + 1].max()
        if is_maximum and value >= flux_F[max(frame - _MEAN_BEFORE, 0) : frame + _MEAN_AFTER].mean() + threshold:
            peaks.append(frame)
    return np.array(peaks, np.int64)


@cache
def _mel_basis() -> torch.Tensor:
    return slaney_mel_basis(MelConfig(SAMPLE_RATE_HZ, NUM_MELS, FFT_SIZE, HOP_SAMPLES, SAMPLE_RATE_HZ / 2, "e"))
