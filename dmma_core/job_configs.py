"""The root configuration of every job: its inputs, its output, and the configs of the components it uses.

Every `*_uri` is a local path or gs://bucket/path. Components own their configs; this module only puts them together.
"""

from dataclasses import dataclass, field

from dmma_core.config_loading import known_keys
from dmma_core.data.cleaning_config import CleaningConfig
from dmma_core.data.scene_config import SceneConfig
from dmma_core.encoders.pretraining.config import PretrainingConfig
from dmma_core.errors import ConfigError
from dmma_core.evaluation.evaluator_config import EvaluatorConfig
from dmma_core.generation.sampling_config import SamplingConfig
from dmma_core.models.presets import mmdit_config
from dmma_core.recipe import Recipe


@dataclass(frozen=True)
class RenderConfig:
    """Rendered clips with captions and truth go to `out_uri`."""

    out_uri: str = "data/rendered"
    scenes: SceneConfig = field(default_factory=SceneConfig)


@dataclass(frozen=True)
class CleanConfig:
    """All video and sound files below `videos_uri` are checked; manifest and rejected list go to `out_uri`.

    `captions_uri` is a TSV or CSV of ids and captions, and splits if it has them (absent: captions from
    those file names that hold words).
    `splits_uri` is one of ids and splits; then files that it does not name are rejected.
    """

    videos_uri: str = "data/videos"
    out_uri: str = "manifest/demo"
    dataset: str = "demo"
    captions_uri: str | None = None
    splits_uri: str | None = None
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)


@dataclass(frozen=True)
class ExtractConfig:
    """A manifest becomes a feature set. Clips are stored `clips_per_shard` a file and encoded `clips_per_batch` at once.

    `bundle` is "tiny", "mmaudio_16k" or "mmaudio_44k", with options behind it: mmaudio_44k+per_clip+half. `encoder_weights`
    maps a role of the bundle ("clip", "depth", "synchformer", "vae", "vocoder") to a local file that replaces its own; give
    `dmma generate` and `dmma weights import` the same. `decoder` is "pyav" or "decord".
    `num_encoders` absent means one per GPU (per `gpus_per_encoder` of one), or one per core where there is no GPU.
    """

    manifest_uri: str = "manifest/demo"
    out_uri: str = "features/demo"
    bundle: str = "tiny"
    encoder_weights: dict[str, str] = field(default_factory=dict)
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
        if self.gpus_per_encoder > 1 and self.gpus_per_encoder % 1:
            raise ConfigError(
                f"gpus_per_encoder is {self.gpus_per_encoder}.", remedy="Use a part of one, or whole GPUs."
            )


@dataclass(frozen=True)
class ArmConfig:
    """What an arm adds to the network: depth "off", "rgb_like", "scalars" or "both", and how it joins the picture.

    `fusion` is "concat", "sum", "gated", or "deepmmaudio" for the form of that paper (with depth "rgb_like").
    """

    depth: str = "off"
    fusion: str = "concat"


@dataclass(frozen=True)
class TrainConfig:
    """`comparison_uri` is the folder of the comparison; each arm is a run below it. `only` names some of the arms (empty: all).

    `preset` is a network that `dmma doctor --models` lists. `arms` given in a file replace the default ones.
    `init_uri` is a run (an own one, or one of `dmma weights import`) whose averaged network and latent statistics every arm
    starts from, those of its newest checkpoint or of `init_step`; `preset` must be the same there. Depth that an arm adds
    has no effect until trained. An arm that resumes does not need that run any more.
    `num_workers` is per arm. `device` is "auto" (GPUs if the cluster has any), "cpu" or "cuda". An arm whose worker died
    resumes from its newest checkpoint, at most `max_restarts` times. `mlflow` off writes metrics.jsonl alone.
    A run that resumes with another `recipe` is refused. More steps and other intervals are always possible; the settings
    that `allow_changes` names may change as well, for example recipe.optim.learning_rate. Every change is recorded.
    """

    features_uri: str = "features/demo"
    comparison_uri: str = "runs/demo"
    preset: str = "small_44k"
    init_uri: str = ""
    init_step: int | None = None
    arms: dict[str, ArmConfig] = field(
        default_factory=lambda: {"baseline": ArmConfig(), "depth": ArmConfig(depth="both")}
    )
    only: list[str] = field(default_factory=list)
    num_workers: int = 1
    device: str = "auto"
    max_restarts: int = 3
    mlflow: bool = True
    recipe: Recipe = field(default_factory=Recipe)
    allow_changes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.device not in {"auto", "cpu", "cuda"}:
            raise ConfigError(f"device is {self.device!r}.", remedy="Use auto, cpu or cuda.")
        if self.num_workers < 1 or self.max_restarts < 0:
            raise ConfigError(
                f"num_workers is {self.num_workers}, max_restarts {self.max_restarts}.",
                remedy="Give at least 1 worker and 0 restarts or more.",
            )
        if self.init_step is not None and not self.init_uri:
            raise ConfigError("init_step is given without init_uri.", remedy="Give the run whose checkpoint is meant.")
        if unknown := sorted(set(self.allow_changes) - set(known_keys(Recipe, "recipe."))):
            raise ConfigError(
                f"allow_changes names {', '.join(unknown)}, which is no setting of the recipe.",
                remedy="Give full names, for example recipe.optim.learning_rate.",
            )
        if not self.arms:
            raise ConfigError("There is no arm to train.", remedy="Give one, for example arms.depth.depth=both.")
        if unknown := sorted(set(self.only) - set(self.arms)):
            raise ConfigError(
                f"only names the unknown arms {', '.join(unknown)}.", remedy=f"Arms: {', '.join(sorted(self.arms))}."
            )
        if strange := [name for name in self.arms if not name.replace("-", "").replace("_", "").isalnum()]:
            raise ConfigError(f"An arm is named {strange[0]!r}.", remedy="Use letters, digits, - and _.")
        for name, arm in self.arms.items():
            try:
                mmdit_config(self.preset, depth=arm.depth, fusion=arm.fusion, num_depth_scalars=1)
            except ConfigError as error:
                raise ConfigError(f"Arm {name}: {error.message}", remedy=error.remedy) from error

    def chosen_arms(self) -> dict[str, ArmConfig]:
        """The arms to train, by name."""
        return {name: arm for name, arm in self.arms.items() if not self.only or name in self.only}


@dataclass(frozen=True)
class SyncMetricsConfig:
    """The comparison whose metrics are uploaded, to MLFLOW_TRACKING_URI or to the SQLite file beside the runs."""

    comparison_uri: str = "runs/demo"


@dataclass(frozen=True)
class UiConfig:
    """The comparison to show, and the port of the MLflow server on this machine's loopback address."""

    comparison_uri: str = "runs/demo"
    port: int = 5000
    open_browser: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ConfigError(f"port is {self.port}.", remedy="Use a number from 1 to 65535.")


@dataclass(frozen=True)
class GenerateConfig:
    """`video` (a single file, with `prompt` and `start_s`) or `features_uri` and `split`; one of the two.

    `checkpoint` is "best" (the lowest validation loss among those that are there) or "newest"; `step` names one by its step.
    `weights` is "ema" or "model"; `max_clips` limits a split.
    `encoder_weights` are those that `dmma extract` was given, and a vocoder of one's own. `out_uri` is by default
    generated/<comparison>/<arm>@<step>. `audio_format` is "flac" or "wav"; `with_video` puts the sound under the picture too.
    `device` is "auto" (a GPU if there is one), "cpu" or "cuda".
    """

    run_uri: str = "runs/demo/depth"
    checkpoint: str = "best"
    step: int | None = None
    weights: str = "ema"
    encoder_weights: dict[str, str] = field(default_factory=dict)
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
        if self.checkpoint not in {"best", "newest"}:
            raise ConfigError(f"checkpoint is {self.checkpoint!r}.", remedy="Use best or newest, or give step=….")
        if self.weights not in {"ema", "model"}:
            raise ConfigError(f"weights is {self.weights!r}.", remedy="Use ema or model.")
        if self.batch_size < 1 or (self.max_clips is not None and self.max_clips < 1) or self.start_s < 0:
            raise ConfigError(
                f"batch_size is {self.batch_size}, max_clips {self.max_clips}, start_s {self.start_s}.",
                remedy="Give counts of 1 or more and a start of 0 or more.",
            )
        if self.prompt and not self.video:
            raise ConfigError("A prompt is given without a video.", remedy="Clips of a split have their own captions.")


@dataclass(frozen=True)
class EvaluateConfig:
    """A folder of generated sounds becomes a report: `report_uri` is a .json file.

    The means go to evaluations.jsonl of the run as well, and with `mlflow` on from there to its MLflow run.
    """

    generated_uri: str = "generated/demo/depth"
    report_uri: str = "reports/demo/depth.json"
    mlflow: bool = True
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)

    def __post_init__(self) -> None:
        if not self.report_uri.endswith(".json"):
            raise ConfigError(f"report_uri is {self.report_uri!r}.", remedy="Give a file name that ends with .json.")


@dataclass(frozen=True)
class CompareConfig:
    """Two reports become a comparison in the folder `out_uri`; `name` is what the comparison is called.

    `num_resamples` and `seed` are those of the bootstrap, `num_examples` clips are shown side by side. Differences go
    to evaluations.jsonl of the runs' folder as well; `mlflow` on puts them, the table and all files on its MLflow run.
    """

    baseline_report_uri: str = "reports/demo/baseline.json"
    depth_report_uri: str = "reports/demo/depth.json"
    out_uri: str = "comparison/demo"
    name: str = "demo"
    num_resamples: int = 10_000
    seed: int = 0
    num_examples: int = 4
    mlflow: bool = True

    def __post_init__(self) -> None:
        if self.num_resamples < 100:
            raise ConfigError(f"num_resamples is {self.num_resamples}.", remedy="Use at least 100; 10000 is usual.")
        if self.num_examples < 0:
            raise ConfigError(f"num_examples is {self.num_examples}.", remedy="Use 0 or more.")


@dataclass(frozen=True)
class DemoConfig:
    """`clips`: a folder of your own videos (`captions`: a TSV/CSV for them); without it `num_clips` clips are rendered.

    `num_steps` replaces the training steps of `dmma train --config tiny`. Everything is written below `work_uri`: data, manifest,
    features, runs, generated, reports and comparison, with a folder of the demo's name in each. Other videos, captions or
    settings get another name. `mlflow` off keeps training and comparison out of MLflow.
    """

    clips: str = ""
    captions: str = ""
    num_clips: int = 240
    num_steps: int | None = None
    work_uri: str = "."
    mlflow: bool = True

    def __post_init__(self) -> None:
        if self.captions and not self.clips:
            raise ConfigError("Captions are given without clips.", remedy="Give the folder of videos as clips=….")


@dataclass(frozen=True)
class PretrainTinyConfig:
    """Weights and cards go to `out_uri`, or into the package where it is empty. `num_threads` are the CPU's for training."""

    out_uri: str = ""
    num_threads: int = 2
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)

    def __post_init__(self) -> None:
        if self.num_threads < 1:
            raise ConfigError(f"num_threads is {self.num_threads}.", remedy="Use 1 or more.")
