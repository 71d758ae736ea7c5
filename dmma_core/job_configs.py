"""The root configuration of every job: its inputs, its output, and the configs of the components it uses.

Every `*_uri` is a local path or gs://bucket/path. Components define their own configs; this module only combines them.
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
    """Rendered clips with captions and ground truth are written to `out_uri`."""

    out_uri: str = "data/rendered"
    scenes: SceneConfig = field(default_factory=SceneConfig)


@dataclass(frozen=True)
class CleanConfig:
    """Checks all video and sound files below `videos_uri`; writes manifest and list of rejected files to `out_uri`.

    `captions_uri` is a TSV or CSV table of ids, captions and, optionally, splits; without it captions are made from file
    names that contain words. `splits_uri` is a table of ids and splits; files that it does not list are rejected.
    """

    videos_uri: str = "data/videos"
    out_uri: str = "manifest/demo"
    dataset: str = "demo"
    captions_uri: str | None = None
    splits_uri: str | None = None
    cleaning: CleaningConfig = field(default_factory=CleaningConfig)


@dataclass(frozen=True)
class ExtractConfig:
    """From a manifest to a feature set. A file holds `clips_per_shard` clips; `clips_per_batch` are encoded at once.

    `bundle` is "tiny", "mmaudio_16k" or "mmaudio_44k", with options appended: mmaudio_44k+per_clip+half. `encoder_weights`
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
                f"gpus_per_encoder is {self.gpus_per_encoder}.", remedy="Use a fraction of one GPU, or a whole number."
            )


@dataclass(frozen=True)
class ArmConfig:
    """The depth of an arm, "off", "rgb_like", "scalars" or "both", and its fusion with the video features.

    `fusion` is "concat", "sum", "gated", or "deepmmaudio" for the form of that paper (with depth "rgb_like").
    """

    depth: str = "off"
    fusion: str = "concat"


@dataclass(frozen=True)
class TrainConfig:
    """`comparison_uri` is the folder of the comparison; each arm is a run below it. `only` selects arms (empty: all).

    `preset` is a network that `dmma doctor --models` lists. `arms` given in a file replace the default ones.
    With `init_uri`, a training run or one written by `dmma weights import`, every arm starts from the averaged network and
    the latent statistics of that run's newest checkpoint, or of `init_step`; `preset` must be that run's. Depth that an arm
    adds has no effect until trained. An arm that resumes no longer needs that run.
    `num_workers` is per arm. `device` is "auto" (GPUs if the cluster has any), "cpu" or "cuda". An arm whose worker died
    resumes from its newest checkpoint, at most `max_restarts` times. With `mlflow` off only metrics.jsonl is written.
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
            raise ConfigError(
                "init_step is given without init_uri.", remedy="Give the run of that checkpoint as init_uri."
            )
        if unknown := sorted(set(self.allow_changes) - set(known_keys(Recipe, "recipe."))):
            raise ConfigError(
                f"allow_changes names {', '.join(unknown)}, which is not a setting of the recipe.",
                remedy="Give full names, for example recipe.optim.learning_rate.",
            )
        if not self.arms:
            raise ConfigError("There is no arm to train.", remedy="Give one, for example arms.depth.depth=both.")
        if unknown := sorted(set(self.only) - set(self.arms)):
            raise ConfigError(
                f"only names the unknown arms {', '.join(unknown)}.", remedy=f"Arms: {', '.join(sorted(self.arms))}."
            )
        if invalid := [name for name in self.arms if not name.replace("-", "").replace("_", "").isalnum()]:
            raise ConfigError(f"An arm is named {invalid[0]!r}.", remedy="Use letters, digits, - and _.")
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
    """The comparison whose metrics are uploaded, to MLFLOW_TRACKING_URI or to the SQLite file next to the runs."""

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

    `checkpoint` is "best" (lowest validation loss of the existing ones) or "newest"; `step` selects one by its step.
    `weights` is "ema" or "model"; `max_clips` limits a split.
    `encoder_weights` are those given to `dmma extract` and, optionally, another vocoder. `out_uri` is by default
    generated/<comparison>/<arm>@<step>. `audio_format` is "flac" or "wav"; `with_video` also writes videos with the sound.
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
    """From a folder of generated sounds to a report: `report_uri` is a .json file.

    The means are also appended to evaluations.jsonl of the run and, with `mlflow` on, uploaded to its MLflow run.
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
    """From two reports to a comparison in the folder `out_uri`; `name` is the name of the comparison.

    `num_resamples` and `seed` are those of the bootstrap, `num_examples` clips are shown side by side. Differences are
    also appended to evaluations.jsonl of the runs' folder; with `mlflow` on, they, the table and all files are uploaded.
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
    settings get another name. With `mlflow` off nothing is logged to MLflow.
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
    """Weights and model cards are written to `out_uri`, or into the package if it is empty. `num_threads`: CPU threads."""

    out_uri: str = ""
    num_threads: int = 2
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)

    def __post_init__(self) -> None:
        if self.num_threads < 1:
            raise ConfigError(f"num_threads is {self.num_threads}.", remedy="Use 1 or more.")
