"""The root configuration of every job: its inputs, its output, and the configs of the components it uses.

Every `*_uri` is a local path or gs://bucket/path. Components own their configs; this module only puts them together.
"""

from dataclasses import dataclass, field

from dmma_core.data.cleaning import CleaningConfig
from dmma_core.errors import ConfigError
from dmma_core.generation.sampling_config import SamplingConfig


@dataclass(frozen=True)
class CleanConfig:
    """All video and sound files below `videos_uri` are checked; manifest and rejected list go to `out_uri`.

    `captions_uri` is a TSV or CSV of ids and captions, and splits if it has them (empty: captions from the file names).
    `splits_uri` is one of ids and splits; then files that it does not name are rejected.
    """

    videos_uri: str = "data/videos"
    out_uri: str = "manifest/demo"
    dataset: str = "demo"
    captions_uri: str = ""
    splits_uri: str = ""
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)


@dataclass(frozen=True)
class ExtractConfig:
    """A manifest becomes a feature set. Clips are stored `clips_per_shard` a file and encoded `clips_per_batch` at once.

    `weights` maps a role of the bundle ("clip", "depth", …) to a file that replaces its own. `num_encoders` absent means
    one per GPU (per `gpus_per_encoder` of one), or one for two cores where there is no GPU.
    """

    manifest_uri: str = "manifest/demo"
    out_uri: str = "features/demo"
    bundle: str = "tiny"
    weights: dict[str, str] = field(default_factory=dict)
    depth_normalization: str | None = None
    half_precision: bool = False
    decoder: str = "pyav"
    clips_per_shard: int = 256
    clips_per_batch: int = 4
    num_encoders: int | None = None
    gpus_per_encoder: float = 1.0

    def __post_init__(self) -> None:
        if self.decoder not in {"pyav", "decord"}:
            raise ConfigError(f"decoder is {self.decoder!r}.", remedy="Use pyav or decord.")
        for name in ("clips_per_shard", "clips_per_batch", "num_encoders", "gpus_per_encoder"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name} is {value}.", remedy="Use a positive number.")


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
