"""From decoded sound to mono samples on the clip's time line."""

from typing import Any

import numpy as np

from dmma_core.errors import MediaError
from dmma_core.storage.media.resample import Samples, resample

_HIGHEST_RATE_HZ = 768_000
# Timestamps may be rounded (Matroska: 1 ms). Up to this deviation packets follow each other without a seam.
_SEAM_S = 0.03
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
    """Collects decoded sound at its own rate, placed by timestamps: late starts and holes become silence.

    Sound before `from_s` (a whole second, so that every rate has a sample exactly there) is dropped.
    """

    def __init__(self, uri: str, from_s: int) -> None:
        self._uri, self._from_s = uri, from_s
        self._pieces: list[Samples] = []
        self._rate_hz = self._num_samples = 0

    @property
    def end_s(self) -> float:
        """Time of the end of what was collected so far; 0 before anything was."""
        return self._from_s + self._num_samples / self._rate_hz if self._rate_hz else 0.0

    def add(self, frame: Any, time_s: float | None) -> None:
        """Append an av.AudioFrame that starts at `time_s` (None: directly behind the one before)."""
        if self._rate_hz not in (0, frame.sample_rate):
            raise MediaError(
                f"{self._uri} changes its sample rate from {self._rate_hz} to {frame.sample_rate} Hz on the way.",
                reason="unsupported",
                remedy="Encode it again at one rate.",
            )
        if frame.sample_rate > _HIGHEST_RATE_HZ:
            raise MediaError(
                f"{self._uri} says that it has {frame.sample_rate} samples a second; no sound has.",
                reason="damaged",
                remedy="Fetch the file again, or leave it out.",
            )
        self._rate_hz = frame.sample_rate
        mono_A = mono_of(frame)
        if time_s is not None:
            late = round((time_s - self._from_s) * self._rate_hz) - self._num_samples
            if not self._pieces or abs(late) > _SEAM_S * self._rate_hz:
                if late > 0:
                    self._append(np.zeros(late, dtype=np.float32))
                mono_A = mono_A[max(0, -late) :]
        self._append(mono_A)

    def _append(self, mono_A: Samples) -> None:
        if len(mono_A):
            self._pieces.append(mono_A)
            self._num_samples += len(mono_A)

    def cut(self, start_s: float, num_samples: int | None, rate_hz: int) -> Samples:
        """`num_samples` samples (None: all) from `start_s` on at `rate_hz`, in [-1, 1], silence behind the end."""
        native_A = np.concatenate(self._pieces) if self._pieces else np.zeros(0, dtype=np.float32)
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
