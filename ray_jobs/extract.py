"""Manifest to features: videos are decoded on CPU tasks, encoded on an actor pool, and stored shard by shard.

After an interruption the same command resumes with the missing shards. Every clip is in the feature set once, or in its
rejected list with the reason.
"""

import logging
import os
import warnings
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import pyarrow as pa
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from dmma_core.data import extraction
from dmma_core.data.cleaning import rejected_lines
from dmma_core.data.extraction import ShardCollector
from dmma_core.data.feature_store import FeatureStore, Shard, complete_features, write_captions
from dmma_core.data.manifest import REJECTED, Clip, Manifest, Rejected, read_manifest, read_rows
from dmma_core.encoders.bundle import load_bundle
from dmma_core.encoders.bundle_options import parse_bundle_name
from dmma_core.job_configs import ExtractConfig
from dmma_core.log import Progress
from dmma_core.storage import media, paths
from dmma_core.storage.lease import Lease, held, require_free
from ray_jobs.common.job import Job
from ray_jobs.common.runtime import connect, plain_errors
from ray_jobs.stages.decode import DecodeStage
from ray_jobs.stages.encode import BundleDescription, DecodeAndEncodeStage, EncodeStage, LoadBundle, describe_bundle
from ray_jobs.stages.write import write_encoded

_log = logging.getLogger(__name__)
_PROCESS_DIED = (
    ray.exceptions.ActorDiedError,
    ray.exceptions.ActorUnavailableError,
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.OutOfMemoryError,
)


@dataclass(frozen=True)
class _Pool:
    """Number of encoder actors, and the resources of each."""

    size: int
    num_gpus: float

    @property
    def resources(self) -> dict[str, float]:
        return {"num_cpus": 1, "num_gpus": self.num_gpus}


def plan(config: ExtractConfig) -> Sequence[str]:
    """Check manifest, target folder and weights; describe what would be extracted."""
    manifest, duration_s = _inputs(config)
    paths.check_writable(config.out_uri)
    require_free(config.out_uri)
    schema = _loader(config, duration_s, "cpu")().schema
    row_bytes = sum(spec.num_bytes for spec in schema.tensors)
    return [
        f"Extract {len(manifest.clips)} clips of {duration_s:g} s from {config.manifest_uri} "
        f"with the bundle {config.bundle}, {row_bytes / 1024:.0f} KiB a clip.",
        f"Write them to {config.out_uri}, {config.clips_per_shard} clips a file.",
    ]


def run(config: ExtractConfig) -> None:
    """Extract with the configured bundle."""
    _, duration_s = _inputs(config)
    with connect():
        extract(config, _loader(config, duration_s, "cuda" if _pool(config).num_gpus else "cpu"))


def extract(config: ExtractConfig, load: LoadBundle) -> None:
    """Complete the feature set at `config.out_uri`, with the encoders that `load` returns in each worker.

    Only the driver writes there, as long as it holds the lease on the folder.
    """
    manifest = read_manifest(config.manifest_uri)
    with held(config.out_uri, "extract") as lease, connect(), plain_errors():
        pool = _pool(config)
        captions = {} if extraction.has_captions(config.out_uri) else extraction.captions_by_id(manifest)
        bundle = ray.get(ray.remote(describe_bundle).options(**pool.resources).remote(load, captions))
        shards = extraction.open_folder(config.out_uri, manifest, bundle.schema, config.clips_per_shard)
        if extraction.is_finished(config.out_uri):
            _log.info("%s is complete already; nothing to do.", config.out_uri)
            return
        if captions:
            write_captions(config.out_uri, bundle.schema, captions, bundle.text)
        _extract_shards(config, shards, bundle, pool, load, lease)
        lease.require()
        complete_features(config.out_uri, manifest, bundle.schema, shards)
    _report(config.out_uri, manifest)


def _inputs(config: ExtractConfig) -> tuple[Manifest, float]:
    """The manifest and its clips' duration, after all checks that need neither Ray nor weights."""
    media.require_decoder(config.decoder)
    bundle = parse_bundle_name(config.bundle).name
    manifest = read_manifest(config.manifest_uri)
    extraction.check_folder(config.out_uri, manifest, config.clips_per_shard, bundle)
    return manifest, extraction.common_duration_s(manifest)


def _extract_shards(
    config: ExtractConfig,
    shards: Sequence[Shard],
    bundle: BundleDescription,
    pool: _Pool,
    load: LoadBundle,
    lease: Lease,
) -> None:
    left = extraction.unfinished(config.out_uri, shards, bundle.schema)
    num_clips = sum(len(shard.clips) for shard in left)
    if len(left) < len(shards):
        _log.info(
            "%d of %d shards are complete already; %d clips are left.", len(shards) - len(left), len(shards), num_clips
        )
    work = [
        (shard.index, shard.clips[start : start + config.clips_per_batch])
        for shard in left
        for start in range(0, len(shard.clips), config.clips_per_batch)
    ]
    all_clips = sum(len(shard.clips) for shard in shards)
    with (
        ShardCollector(config.out_uri, bundle.schema, left, all_clips, lease.require) as collector,
        Progress("extract", num_clips) as progress,
    ):
        try:
            write_encoded(_encoded(work, config, bundle, pool, load), collector, progress)
        except _PROCESS_DIED as error:
            _log.warning("A worker process died (%s). Missing clips are retried one by one.", type(error).__name__)
        if missing := [(shard, (clip,)) for shard, clip in collector.missing_clips()]:
            write_encoded(_encoded(missing, config, bundle, pool, load, tolerate_deaths=True), collector, progress)
        for shard, clip in collector.missing_clips():
            detail = "The worker process died each time it processed this clip, also when it processed no other."
            collector.add(shard, Rejected(clip.clip_id, clip.source_uri, "worker_died", detail))


def _encoded(
    work: Sequence[tuple[int, Sequence[Clip]]],
    config: ExtractConfig,
    bundle: BundleDescription,
    pool: _Pool,
    load: LoadBundle,
    tolerate_deaths: bool = False,
) -> Generator[pa.Table]:
    """Encoded clips of all batches of `work`, in the order of completion.

    A batch whose worker dies twice ends the iteration, or is left out with `tolerate_deaths`. Closing the generator
    ends the work.
    """
    if not work:
        return
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1 if tolerate_deaths else 0
    context.target_max_block_size = None  # a batch of clips stays one block, see stages/encode.py
    schema = bundle.schema
    decode = DecodeStage(bundle.frame_requests, schema.sample_rate_hz, schema.num_samples, config.decoder)
    rows = [{"shard": shard, "clips": [asdict(clip) for clip in clips]} for shard, clips in work]
    actors = {
        "batch_size": None,
        "batch_format": "pyarrow",
        # With one task in flight, a clip that kills its actor affects no other clip.
        "compute": ray.data.ActorPoolStrategy(
            size=pool.size, max_tasks_in_flight_per_actor=1 if tolerate_deaths else None
        ),
        "max_restarts": -1,
        "max_task_retries": 1,  # Ray Data's default, no limit, would hang on a file that kills its decoder
        **pool.resources,
    }
    with ray.data.DataContext.current(context), warnings.catch_warnings():  # of this dataset alone
        warnings.simplefilter(
            "ignore", RayDeprecationWarning
        )  # this version of Ray has no other setting for max_task_retries
        batches = ray.data.from_items(rows, override_num_blocks=len(rows))
        if pool.num_gpus:
            decoded = batches.map_batches(decode.__call__, batch_size=None, batch_format="pyarrow", num_cpus=1)
            encoded = decoded.map_batches(EncodeStage, fn_constructor_args=(load,), **actors)
        else:
            # One actor a core does both: separate decoding tasks would never get a core.
            encoded = batches.map_batches(DecodeAndEncodeStage, fn_constructor_args=(decode, load), **actors)
    yield from encoded.iter_batches(batch_size=None, batch_format="pyarrow")


def _pool(config: ExtractConfig) -> _Pool:
    resources = ray.cluster_resources()
    if num_gpus := resources.get("GPU", 0):
        return _Pool(config.num_encoders or max(1, int(num_gpus / config.gpus_per_encoder)), config.gpus_per_encoder)
    cores = min(int(resources.get("CPU", 1)), (os.cpu_count() or 1) * len(ray.nodes()))
    return _Pool(config.num_encoders or max(1, cores), 0)


def _loader(config: ExtractConfig, duration_s: float, device: str) -> LoadBundle:
    return partial(
        load_bundle,
        config.bundle,
        duration_s,
        device,
        weights={role: paths.absolute(file) for role, file in config.encoder_weights.items()},
        with_vocoder=False,
    )


def _report(uri: str, manifest: Manifest) -> None:
    num_rows = len(FeatureStore(uri))
    rejected = read_rows(paths.join(uri, REJECTED), Rejected)
    print("\n".join([f"{num_rows} of {len(manifest.clips)} clips in {uri}.", *rejected_lines(rejected, "clips", uri)]))


JOB = Job(
    name="extract",
    summary="CLIP, depth, Synchformer and audio features of every clip of a manifest, into Parquet.",
    config=ExtractConfig,
    plan=plan,
    run=run,
    example="dmma extract --config tiny manifest_uri=manifest/demo out_uri=features/demo",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
