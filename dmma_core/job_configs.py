"""The root configuration of every job: its inputs, its output, and the configs of the components it uses.

Every `*_uri` is a local path or gs://bucket/path. Components own their configs; this module only puts them together.
"""

from dataclasses import dataclass, field

from dmma_core.errors import ConfigError
from dmma_core.generation.sampling_config import SamplingConfig


@dataclass(frozen=True)
class GenerateConfig:
    """`video` (a single file, with `prompt` and `start_s`) or `features_uri` and `split`; one of the two.

    `weights` is "ema" or "model"; `step` a checkpoint's step, newest if absent; `max_clips` limits a split.
    """

    run_uri: str = "runs/demo/depth"
    step: int | None = None
    weights: str = "ema"
    video: str = ""
    prompt: str = ""
    start_s: float = 0.0
    features_uri: str = ""
    split: str = "test"
    max_clips: int | None = None
    out_uri: str = ""
    audio_format: str = "flac"
    with_video: bool = True
    batch_size: int = 8
    device: str = "auto"
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.audio_format not in {"flac", "wav"}:
            raise ConfigError(f"audio_format is {self.audio_format!r}.", remedy="Use flac or wav.")
        if self.weights not in {"ema", "model"}:
            raise ConfigError(f"weights is {self.weights!r}.", remedy="Use ema or model.")
