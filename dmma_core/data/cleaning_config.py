"""Criteria for clips. Separate from the checks, so that reading a configuration loads no decoder."""

from dataclasses import dataclass

from dmma_core.errors import ConfigError


@dataclass(frozen=True)
class CleaningConfig:
    """Criteria for a file to become a clip of `duration_s` seconds from `start_s` on.

    A window of 50 ms counts as silent below `silence_dbfs` (RMS, full scale 1); the longest run of silent windows may
    last `max_silent_share` of the clip (1: only entirely silent clips are rejected). A clip is black if 99 % of its
    pixels never exceed `black_level`, and still if no pixel of its 64x64 copy changes by more than `still_range`
    (grey levels of 255; 0 disables either check). `silence_dbfs` null disables the check for silence.
    """

    start_s: float = 0.0
    duration_s: float = 8.0
    require_video: bool = True
    require_audio: bool = True
    check_truncated: bool = True
    silence_dbfs: float | None = -60.0
    max_silent_share: float = 0.75
    black_level: float = 24.0
    still_range: float = 6.0
    check_duplicates: bool = True
    val_fraction: float = 0.1
    test_fraction: float = 0.1
    split_seed: int = 0

    def __post_init__(self) -> None:
        if self.duration_s <= 0 or self.start_s < 0:
            raise ConfigError(
                f"The cut is start_s={self.start_s}, duration_s={self.duration_s}.",
                remedy="Use start_s >= 0 and duration_s > 0.",
            )
        if not (self.require_video or self.require_audio):
            raise ConfigError("Neither video nor audio is required.", remedy="Require at least one of them.")
        if self.silence_dbfs is not None and self.silence_dbfs > 0:
            raise ConfigError(f"silence_dbfs is {self.silence_dbfs}.", remedy="Use a level below 0 dBFS, or null.")
        if not 0 < self.max_silent_share <= 1:
            raise ConfigError(f"max_silent_share is {self.max_silent_share}.", remedy="Use a share above 0, up to 1.")
        if min(self.val_fraction, self.test_fraction) < 0 or self.val_fraction + self.test_fraction >= 1:
            raise ConfigError(
                f"val_fraction={self.val_fraction} and test_fraction={self.test_fraction} leave nothing for training.",
                remedy="Use fractions of at least 0 with a sum below 1.",
            )
