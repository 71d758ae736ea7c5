"""pretrain-tiny: train the tiny CLIP, the tiny depth network, and the tiny tagger on rendered clips."""

import time
from collections.abc import Sequence
from dataclasses import asdict

import torch

from dmma_core.data.scenes import OBJECT_CLASSES
from dmma_core.encoders.pretraining.data import Samples, join_samples, sample_scenes
from dmma_core.encoders.pretraining.files import PACKAGE_FOLDER, rounded_to_half, save_tiny
from dmma_core.encoders.pretraining.metrics import THRESHOLDS, clip_metrics, depth_metrics
from dmma_core.encoders.pretraining.training import train_clip, train_depth
from dmma_core.evaluation.tagger import WEIGHTS_FOLDER, save_tagger
from dmma_core.evaluation.tagger_training import tagger_accuracy, train_tagger
from dmma_core.job_configs import PretrainTinyConfig
from dmma_core.log import Progress
from dmma_core.storage import paths
from ray_jobs.common.job import Job
from ray_jobs.common.runtime import connect, plain_errors
from ray_jobs.stages.sample_clips import sample_all


def plan(config: PretrainTinyConfig) -> Sequence[str]:
    sizes = config.pretraining
    for folder in _folders(config):
        paths.check_writable(folder)
    return [
        f"Render frames, depth and sound of {sizes.num_clips} clips for training and {sizes.num_unseen_clips} others.",
        f"Train depth ({sizes.num_depth_steps} steps), CLIP ({sizes.num_clip_steps}), tagger ({sizes.num_tagger_steps}).",
        f"Write the weights and their metrics to {' and '.join(_folders(config))}.",
    ]


def run(config: PretrainTinyConfig) -> None:
    sizes, started_s = config.pretraining, time.monotonic()
    encoders_folder, tagger_folder = _folders(config)
    seen = _render(sizes.seed, sizes.num_clips)
    unseen = _render(sizes.unseen_seed, sizes.num_unseen_clips)
    torch.set_num_threads(config.num_threads)
    depth = rounded_to_half(train_depth(seen, sizes))
    figures = {"depth": depth_metrics(depth, unseen, seen)}
    clip = rounded_to_half(train_clip(seen, depth, sizes))
    figures["clip"] = clip_metrics(clip, depth, unseen)
    count = sizes.num_tagger_clips
    tagger = train_tagger(
        seen.audio_BA[:count], seen.class_B[:count].tolist(), OBJECT_CLASSES, sizes.seed, sizes.num_tagger_steps
    )
    accuracy = tagger_accuracy(tagger, unseen.audio_BA, unseen.class_B.tolist())
    seconds = round(time.monotonic() - started_s)
    save_tiny(encoders_folder, clip, depth, {"training": asdict(sizes), "unseen": figures, "wall_s": seconds})
    save_tagger(tagger, {"training": asdict(sizes), "unseen_accuracy": accuracy, "name": "tiny tagger"}, tagger_folder)
    for role, values in figures.items():
        for name, value in values.items():
            threshold = THRESHOLDS.get((role, name))
            reached = "" if threshold is None else "reached" if value >= threshold else "MISSED"
            verdict = f"  (threshold {threshold}: {reached})" if reached else ""
            print(f"{role} {name}: {value:.3f}{verdict}")
    print(f"tagger accuracy: {accuracy:.3f}\nWeights in {encoders_folder} and {tagger_folder} after {seconds} s.")


def _render(seed: int, num_clips: int) -> Samples:
    parts = []
    with connect(), plain_errors(), Progress("render samples", num_clips) as shown:
        for part in sample_all(sample_scenes(seed, num_clips)):
            parts.append(part)
            shown.advance(len(part.class_B))
    return join_samples(parts)


def _folders(config: PretrainTinyConfig) -> tuple[str, str]:
    return (config.out_uri, config.out_uri) if config.out_uri else (str(PACKAGE_FOLDER), str(WEIGHTS_FOLDER))


JOB = Job(
    name="pretrain-tiny",
    summary="Train the tiny encoders and the tiny tagger that come with DMMA, on rendered clips.",
    config=PretrainTinyConfig,
    plan=plan,
    run=run,
    example="dmma pretrain-tiny out_uri=weights/tiny pretraining.seed=7",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
