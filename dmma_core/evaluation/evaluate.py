"""From a folder of generated sounds to a report: every clip measured, with its ground truth as the upper bound."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dmma_core.config_loading import config_to_dict
from dmma_core.data.feature_store import FeatureStore
from dmma_core.data.manifest import Clip, Rejected, read_marker, read_rows
from dmma_core.data.scenes import read_truth
from dmma_core.errors import ConfigError, SchemaError
from dmma_core.evaluation.embed import MetricNetwork
from dmma_core.evaluation.evaluator_config import EvaluatorConfig
from dmma_core.evaluation.measure import KnownScene, load_sound, measure_clip
from dmma_core.evaluation.metric_specs import METRIC_SPECS, NETWORK
from dmma_core.evaluation.metrics.divergence import kl_divergences
from dmma_core.evaluation.report_file import Report, write_report
from dmma_core.evaluation.set_metrics import SetArrays, set_statistics, value_of
from dmma_core.provenance import fingerprint, provenance
from dmma_core.storage import paths

GENERATION_MARKER, GENERATION_VERSION = "GENERATION.json", 2
EVALUATOR_VERSION = 1
"""Increased whenever a metric's computation changes: reports of two versions are not comparable."""

ReportRow = dict[str, Any]
SIDES = ("generated", "ground_truth")


@dataclass(frozen=True)
class GeneratedSet:
    """A complete folder of generated sounds and the clips they belong to, in the order of their ids."""

    uri: str
    record: dict[str, Any]
    clips: tuple[Clip, ...]
    failures: tuple[Rejected, ...]

    @property
    def run_uri(self) -> str:
        """The run whose checkpoint made the sounds."""
        return paths.absolute(self.record["checkpoint_uri"]).rpartition("/checkpoints/")[0]

    def sound_uri(self, clip: Clip) -> str:
        return paths.join(self.uri, f"{clip.clip_id}{self.record['audio_suffix']}")


def open_generated(uri: str) -> GeneratedSet:
    """Read the folder's marker and the clips of its feature set; a local URI becomes an absolute path.

    Raises IncompleteError without the marker, ConfigError for sounds of a single video (they have no ground truth),
    SchemaError if the feature set has changed since generation.
    """
    uri = paths.absolute(uri)
    record = read_marker(uri, GENERATION_MARKER, "generate", GENERATION_VERSION)
    if not record["clips"]:
        raise ConfigError(f"{uri} contains no sounds: every clip failed.", remedy="See its failures.parquet.")
    if "features_uri" not in record:
        raise ConfigError(
            f"{uri} contains the sound of a single video.", remedy="Generate a split: features_uri=… split=test."
        )
    store = FeatureStore(record["features_uri"])
    if store.fingerprint != record["features_fingerprint"]:
        raise SchemaError(
            f"{store.uri} changed since {uri} was generated from it.",
            remedy="Run `dmma generate` again, into a new folder.",
        )
    clips = {clip.clip_id: clip for clip in store.clips}
    failures = read_rows(paths.join(uri, "failures.parquet"), Rejected)
    return GeneratedSet(uri, record, tuple(clips[clip_id] for clip_id in sorted(record["clips"])), tuple(failures))


def evaluate(
    generated: GeneratedSet, config: EvaluatorConfig, network: MetricNetwork, report_uri: str
) -> Iterator[Report | None]:
    """Measure all clips one after the other (one clip's sound in memory at a time) and write the report.

    Yields None after each clip, and the written report at the end.
    """
    scenes = known_scenes(generated.clips)
    rows: list[ReportRow] = []
    vectors: list[dict[str, Any]] = []
    for clip in generated.clips:
        row, vector = _measure(clip, generated.sound_uri(clip), scenes.get(clip.clip_id), config, network)
        rows.append(row)
        vectors.append(vector)
        yield None
    arrays = {name: np.stack([vector[name] for vector in vectors]) for name in vectors[0]}
    aggregates, unavailable = _aggregate(rows, arrays)
    record = {
        **_identity(generated, config, network),
        "rendered_clips": len(scenes),
        "rows": rows,
        "aggregates": aggregates,
        "unavailable": unavailable,
        "failures": [asdict(failure) for failure in generated.failures],
        "provenance": provenance(),
    }
    yield write_report(report_uri, record, arrays)


def known_scenes(clips: Sequence[Clip]) -> dict[str, KnownScene]:
    """Known scenes of rendered clips, whose folder contains truth.parquet, by clip id. Real clips are not in the result."""
    scenes: dict[str, KnownScene] = {}
    for folder in sorted({clip.source_uri.rpartition("/")[0] for clip in clips}):
        truth_uri = paths.join(folder, "truth.parquet")
        if paths.exists(truth_uri):
            truths = read_truth(truth_uri)
            inside = [clip for clip in clips if clip.source_uri.rpartition("/")[0] == folder and clip.clip_id in truths]
            scenes |= {clip.clip_id: _cut(truths[clip.clip_id], clip) for clip in inside}
    return scenes


def _cut(truth: Any, clip: Clip) -> KnownScene:
    """The part of a rendered scene that the clip shows."""
    first, length = round(clip.start_s * truth.fps), int(clip.duration_s * truth.fps)
    onsets_s = [float(onset) - clip.start_s for onset in truth.onset_s]
    return KnownScene(
        np.asarray(truth.distance_m[first : first + length], np.float32),
        truth.fps,
        [onset for onset in onsets_s if 0 <= onset < clip.duration_s],
    )


def _measure(
    clip: Clip, sound_uri: str, scene: KnownScene | None, config: EvaluatorConfig, network: MetricNetwork
) -> tuple[ReportRow, dict[str, Any]]:
    sound = load_sound(sound_uri, 0.0, clip.duration_s)
    true_sound = load_sound(clip.source_uri, clip.start_s, clip.duration_s)
    measured = measure_clip(sound, true_sound, scene, config)
    upper_bound = measure_clip(true_sound, true_sound, scene, config)
    embedding, logits = network.embed(sound.audio_A)
    true_embedding, true_logits = network.embed(true_sound.audio_A)
    for side, side_logits in ((measured, logits), (upper_bound, true_logits)):
        side.values[f"KL_{NETWORK}"] = float(kl_divergences(side_logits[None], true_logits[None])[0])
    row = {
        "clip_id": clip.clip_id,
        "caption": clip.caption,
        "source_uri": paths.absolute(clip.source_uri),
        "start_s": clip.start_s,
        "duration_s": clip.duration_s,
        "sound_uri": sound_uri,
        "generated": measured.values,
        "ground_truth": upper_bound.values,
        "missing": measured.missing,
    }
    vector = {"embedding": embedding, "logits": logits, "true_embedding": true_embedding, "true_logits": true_logits}
    return row, vector


def _aggregate(rows: Sequence[ReportRow], arrays: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Value of every metric on both sides, and for those without one the reason."""
    aggregates: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    for spec in METRIC_SPECS:
        if spec.per_clip:
            measured = [row for row in rows if spec.name in row["generated"]]
            if measured:
                means = {side: float(np.mean([row[side][spec.name] for row in measured])) for side in SIDES}
                aggregates[spec.name] = {**means, "num_clips": len(measured)}
            else:
                reasons = Counter(row["missing"].get(spec.name, "unknown") for row in rows)
                unavailable[spec.name] = "; ".join(f"{reason} ({count} clips)" for reason, count in reasons.items())
    for side, prefix in zip(SIDES, ("", "true_"), strict=True):
        statistics, missing = set_statistics(
            SetArrays(
                arrays[f"{prefix}embedding"],
                arrays[f"{prefix}logits"],
                arrays["true_embedding"],
                _column(rows, side, "mean_level_dbfs"),
                _column(rows, side, "mean_inverse_distance_per_m"),
            )
        )
        for name, statistic in statistics.items():
            aggregates.setdefault(name, {"num_clips": len(rows)})[side] = value_of(statistic, len(rows))
        unavailable |= missing
    return aggregates, unavailable


def _column(rows: Sequence[ReportRow], side: str, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([row[side].get(name, np.nan) for row in rows], np.float64)


def _identity(generated: GeneratedSet, config: EvaluatorConfig, network: MetricNetwork) -> dict[str, Any]:
    """Sounds and evaluator: the part of a report that decides whether two reports are comparable."""
    record = generated.record
    evaluator = {
        "version": EVALUATOR_VERSION,
        "settings": config_to_dict(config),
        "networks": {network.name: network.sha256},
    }
    return {
        "arm": record["arm"],
        "step": record["step"],
        "split": record["split"],
        "run_uri": generated.run_uri,
        "generated_uri": generated.uri,
        "generation_fingerprint": record["fingerprint"],
        "sampling": record["sampling"],
        "weights": record["weights"],
        "training": record["training"],
        "sample_rate_hz": record["sample_rate_hz"],
        "features_uri": paths.absolute(record["features_uri"]),
        "features_fingerprint": record["features_fingerprint"],
        "clip_ids": [clip.clip_id for clip in generated.clips],
        "evaluator": {**evaluator, "fingerprint": fingerprint(evaluator)},
    }
