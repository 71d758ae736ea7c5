"""From decoded sound to mono samples on the clip's time line."""

import math
from typing import Any

import numpy as np

from dmma_core.errors import MediaError
from dmma_core.storage.media.resample import Samples, resample

_HIGHEST_RATE_HZ = 768_000
# Timestamps may be rounded (Matroska: 1 ms). Up to this deviation packets are joined without a gap.
_MAX_JITTER_S = 0.002
# Collected beyond the requested end, for the resampling filter.
_TAIL_S = 0.1
# Limit of the silence that gaps in the timestamps cause, if no end is requested.
_MAX_SILENCE_S = 60.0
_FULL_SCALE = {"u1": 128.0, "i2": 32768.0, "i4": 2147483648.0, "i8": 9223372036854775808.0, "f4": 1.0, "f8": 1.0}


def mono_of(frame: Any) -> Samples:
    """Mean over the channels of an av.AudioFrame as float32 [A], full scale 1."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    offset = 128.0 if values.dtype == np.uint8 else 0.0
    scale = _FULL_SCALE[values.dtype.str[1:]]
    mean_A: Samples = ((values.mean(axis=0, dtype=np.float64) - offset) / scale).astype(np.float32)
    return mean_A


class SoundTrack:
    """Collects decoded sound at its own rate, placed by timestamps: late starts and gaps become silence.

    Every sample is placed on the time line of the file, whichever part is requested: within half a sample of its timestamp,
    or within _MAX_JITTER_S if it directly follows the previous packet. Sound before `from_s` (an integer, so that every rate
    has a sample exactly there) and well after `until_s` is dropped, which bounds memory.
    """

    def __init__(self, uri: str, from_s: int, until_s: float) -> None:
        self._uri, self._from_s, self._until_s = uri, from_s, until_s + _TAIL_S
        self._pieces: list[tuple[int, Samples]] = []  # (index of the first sample counted from `from_s`, samples)
        self._rate_hz = 0
        self._next: int | None = None  # index of the sample after the last packet, counted from `from_s`

    @property
    def end_s(self) -> float:
        """End time of the sound decoded so far; 0 before the first packet."""
        return 0.0 if self._next is None else self._from_s + self._next / self._rate_hz

    @property
    def is_complete(self) -> bool:
        return self.end_s > self._until_s

    def add(self, frame: Any, time_s: float | None) -> None:
        """Append an av.AudioFrame that starts at `time_s` (None: directly after the previous one)."""
        if self._rate_hz not in (0, frame.sample_rate):
            raise MediaError(
                f"{self._uri} changes its sample rate from {self._rate_hz} to {frame.sample_rate} Hz within the file.",
                reason="unsupported",
                remedy="Encode it again at one rate.",
            )
        if frame.sample_rate > _HIGHEST_RATE_HZ:
            raise MediaError(
                f"{self._uri} states a sample rate of {frame.sample_rate} Hz, which is not plausible.",
                reason="damaged",
                remedy="Fetch the file again, or leave it out.",
            )
        self._rate_hz = frame.sample_rate
        mono_A = mono_of(frame)
        start = self._next or 0
        if time_s is not None:
            # Rounded before the subtraction: the same rounding for every `from_s`.
            stamped = round(time_s * self._rate_hz) - self._from_s * self._rate_hz
            if self._next is None:
                start = stamped
            elif abs(stamped - start) > _MAX_JITTER_S * self._rate_hz:
                mono_A = mono_A[max(0, start - stamped) :]  # without the overlap with the previous packet
                start = max(start, stamped)
        self._next = start + len(mono_A)
        self._keep(start, mono_A)

    def _keep(self, start: int, mono_A: Samples) -> None:
        """Store the part between the limits."""
        skipped = max(0, -start)
        if math.isfinite(self._until_s):
            mono_A = mono_A[: max(0, math.ceil((self._until_s - self._from_s) * self._rate_hz) - start)]
        if len(mono_A) > skipped:
            self._pieces.append((start + skipped, mono_A[skipped:]))

    def _native(self) -> Samples:
        """The stored sound from `from_s` on, gaps filled with silence."""
        length = max((start + len(mono_A) for start, mono_A in self._pieces), default=0)
        silence_s = (length - sum(len(mono_A) for _, mono_A in self._pieces)) / (self._rate_hz or 1)
        if math.isinf(self._until_s) and silence_s > _MAX_SILENCE_S:
            raise MediaError(
                f"The timestamps of the sound of {self._uri} have gaps of {silence_s:.0f} s.",
                reason="damaged",
                remedy="Request a shorter duration, or leave it out.",
            )
        native_A = np.zeros(length, dtype=np.float32)
        for start, mono_A in self._pieces:
            native_A[start : start + len(mono_A)] = mono_A
        return native_A

    def cut(self, start_s: float, num_samples: int | None, rate_hz: int) -> Samples:
        """`num_samples` samples (None: all) from `start_s` on at `rate_hz`, in [-1, 1], padded with silence.

        The first sample is within half a sample of `start_s`.
        """
        native_A = self._native()
        if not np.isfinite(native_A).all():
            raise MediaError(
                f"The sound of {self._uri} decodes to values that are not numbers.",
                reason="damaged",
                remedy="Fetch the file again, or leave it out.",
            )
        audio_A = resample(native_A, self._rate_hz, rate_hz) if self._rate_hz else native_A
        first = round((start_s - self._from_s) * rate_hz)
        audio_A = audio_A[first : None if num_samples is None else first + num_samples]
        if num_samples is not None and len(audio_A) < num_samples:
            audio_A = np.pad(audio_A, (0, num_samples - len(audio_A)))
        return np.clip(audio_A, -1.0, 1.0)
