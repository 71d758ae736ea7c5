"""Sound for a held-out split of a feature set, or for one video of your own."""

import logging
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from dmma_core.data.feature_store import FeatureStore
from dmma_core.data.manifest import Clip
from dmma_core.errors import ConfigError, MediaError
from dmma_core.generation.pipeline import GenerationFolder, SoundGenerator, generation_plan, write_sounds
from dmma_core.generation.single import clip_of_video, features_of_clip
from dmma_core.job_configs import GenerateConfig
from dmma_core.log import Progress
from dmma_core.provenance import fingerprint
from dmma_core.storage import paths
from dmma_core.storage.run_folder import Checkpoint, RunFolder
from dmma_core.tensors import Array
from ray_jobs.common.job import Job
from ray_jobs.common.reporting import DESCRIPTION

_log = logging.getLogger(__name__)
Rows = Iterable[tuple[Clip, Mapping[str, Array]]]


def plan(config: GenerateConfig) -> list[str]:
    """Check checkpoint, features or video, and write access; describe what would be generated."""
    generator = _generator(config)
    clips, _, source = _inputs(config, generator)
    folder = _folder(config, generator, source)
    folder.check(clips)
    paths.check_writable(folder.uri)
    return [f"Sounds to generate with {generator.checkpoint.uri} in {folder.uri}: {len(clips)}."]


def run(config: GenerateConfig) -> None:
    """Generate every missing sound, then write the marker."""
    generator = _generator(config)
    clips, rows, source = _inputs(config, generator)
    folder = _folder(config, generator, source)
    folder.claim(clips)
    failures = []
    num_pending = sum(not folder.is_done(clip) for clip in clips)
    with Progress(f"generate {generator.checkpoint.record['arm']}", num_pending) as shown:
        for failure in write_sounds(generator, folder, rows, config.sampling, config.batch_size):
            failures += [failure] if failure else []
            shown.advance()
    training = _training(config, generator)
    folder.complete([clip.clip_id for clip in clips], failures, training)
    if training["overfitting"]:
        _log.warning("%s The checkpoint of step %d was used.", training["overfitting"], generator.checkpoint.step)
    print(f"{folder.uri}: sound for {len(clips) - len(failures)} of {len(clips)} clips.")
    if failures:
        print(f"The failed clips, with their reasons: {folder.failures_uri}.")
    if len(failures) == len(clips):
        raise MediaError(
            f"None of the {len(clips)} sounds could be written; the first error: {failures[0].detail}",
            reason=failures[0].reason,
            remedy="Remove the cause, then run the same command again.",
        )


def _generator(config: GenerateConfig) -> SoundGenerator:
    if bool(config.video) == bool(config.features_uri):
        raise ConfigError(
            "Give either a video or features_uri.", remedy="For example: dmma generate clip.mp4 --run RUN."
        )
    return SoundGenerator(_checkpoint(config), config.weights, config.device, config.encoder_weights)


def _checkpoint(config: GenerateConfig) -> Checkpoint:
    run = RunFolder(paths.absolute(config.run_uri))
    return run.best_checkpoint() if config.step is None and config.checkpoint == "best" else run.checkpoint(config.step)


def _training(config: GenerateConfig, generator: SoundGenerator) -> dict[str, Any]:
    """What GENERATION.json reports of the network: how it was trained, and how its checkpoint was chosen."""
    newest = RunFolder(paths.absolute(config.run_uri)).checkpoint()
    choice = config.checkpoint if config.step is None else "step"
    return {**generator.checkpoint.training, "choice": choice, "overfitting": newest.overfitting}


def _inputs(config: GenerateConfig, generator: SoundGenerator) -> tuple[list[Clip], Rows, dict[str, Any]]:
    """Clips, their features (read lazily), and what identifies them in the folder's plan."""
    if config.video:
        clip = clip_of_video(config.video, config.prompt, config.start_s, generator.schema.duration_s)
        lazily = ((clip, features_of_clip(generator.bundle, clip)) for _ in range(1))
        return [clip], lazily, {"video_sha256": clip.source_sha256, "prompt": config.prompt, "start_s": config.start_s}
    store = FeatureStore(config.features_uri)
    generator.schema.require_equal(store.schema, config.features_uri)
    rows = store.rows_of_split(config.split)[: config.max_clips]
    if not rows:
        raise ConfigError(f"{config.features_uri} has no clip in split {config.split!r}.", remedy="Give another split.")
    source = {
        "features_uri": paths.absolute(config.features_uri),
        "features_fingerprint": store.fingerprint,
        "split": config.split,
    }
    return [store.clips[row] for row in rows], ((store.clips[row], store.read(row)) for row in rows), source


def _folder(config: GenerateConfig, generator: SoundGenerator, source: Mapping[str, Any]) -> GenerationFolder:
    """The folder at `out_uri`, or the default one. By default each video, prompt, start and seed has its own."""
    made_with = generation_plan(generator, config.sampling, config.weights, **source)
    uri = config.out_uri or _default_uri(RunFolder(paths.absolute(config.run_uri)), generator.checkpoint.step)
    if config.video and not config.out_uri:
        uri = paths.join(uri, f"{posixpath.basename(config.video)}-{fingerprint(made_with)[:8]}")
    return GenerationFolder(uri, made_with, audio_suffix=f".{config.audio_format}", with_video=config.with_video)


def _default_uri(run: RunFolder, step: int) -> str:
    """generated/<comparison>/<arm>@<step>, or generated/<run>@<step> of a run that is no arm of a comparison."""
    above = RunFolder(run.uri.rpartition("/")[0])
    comparison = [above.name] if paths.exists(paths.join(above.uri, DESCRIPTION)) else []
    return paths.join("generated", *comparison, f"{run.name}@{step}")


JOB = Job(
    name="generate",
    summary=__doc__ or "",
    config=GenerateConfig,
    plan=plan,
    run=run,
    example='dmma generate clip.mp4 --run runs/demo/depth --prompt "a dog barking"\n'
    "dmma generate --run runs/demo/depth --features features/demo split=test",
    flags={"--run": "run_uri", "--prompt": "prompt", "--features": "features_uri", "--out": "out_uri"},
    positional="video",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
