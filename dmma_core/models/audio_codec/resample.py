"""Resampling by a windowed sinc, as the published feature extraction does it before the mel spectrogram."""

from math import ceil, gcd

import torch
from torch import Tensor, nn

_NUM_ZERO_CROSSINGS = 64
_ROLLOFF = 0.9475937167399596  # cutoff as a share of the lower Nyquist frequency
_KAISER_BETA = 14.769656459379492


def resample(wave_BA: Tensor, rate_hz: int, new_rate_hz: int) -> Tensor:
    """Waveforms [B, A] at another rate, without delay; the new length is ceil(A * new_rate / rate).

    A sinc of 64 zero crossings a side under a Kaiser window, the settings of torchaudio's "kaiser best" recipe.
    """
    divisor = gcd(rate_hz, new_rate_hz)
    rate, new_rate = rate_hz // divisor, new_rate_hz // divisor
    if rate == new_rate:
        return wave_BA
    kernel, reach = _sinc_kernel(rate, new_rate)
    padded = nn.functional.pad(wave_BA, (reach, reach + rate)).unsqueeze(1)
    phases = nn.functional.conv1d(padded, kernel.to(wave_BA), stride=rate)  # [B, new_rate, A / rate]
    return phases.transpose(1, 2).flatten(1)[:, : ceil(wave_BA.shape[1] * new_rate / rate)]


def _sinc_kernel(rate: int, new_rate: int) -> tuple[Tensor, int]:
    """One filter [1, taps] for each of the `new_rate` output steps of a period, and how far it reaches back."""
    cutoff = min(rate, new_rate) * _ROLLOFF
    reach = ceil(_NUM_ZERO_CROSSINGS * rate / cutoff)
    inputs = torch.arange(-reach, reach + rate, dtype=torch.float64) / rate
    outputs = torch.arange(new_rate, dtype=torch.float64)[:, None] / new_rate
    crossings = ((inputs - outputs) * cutoff).clamp(-_NUM_ZERO_CROSSINGS, _NUM_ZERO_CROSSINGS)
    beta = torch.tensor(_KAISER_BETA, dtype=torch.float64)
    window = torch.i0(beta * (1.0 - (crossings / _NUM_ZERO_CROSSINGS).square()).sqrt()) / torch.i0(beta)
    return (torch.sinc(crossings) * window * (cutoff / rate))[:, None].float(), reach
