"""State of an extraction: which shards are missing, and a collector that writes each shard once it is complete.

EXTRACTION.json, written first, records the inputs of a folder (manifest, encoders, shard size), so that a run resumed
after an interruption can never mix two feature sets.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from dmma_core.data.feature_schema import SCHEMA_VERSION, FeatureSchema
from dmma_core.data.feature_store import (
    CAPTIONS,
    Shard,
    plan_shards,
    shard_is_complete,
    write_shard,
)
from dmma_core.data.feature_store import MARKER as FEATURES
from dmma_core.data.manifest import REJECTED, Clip, Manifest, Rejected, caption_id_of, read_marker
from dmma_core.errors import SchemaError
from dmma_core.provenance import fingerprint
from dmma_core.storage import paths
from dmma_core.storage.overwriting import refuse_overwriting

PLAN = "EXTRACTION.json"
_WRITERS = 4
# If most clips of a shard fail, the cause is a lost mount or a full GPU, not bad clips: the shard must not be written.
# In small shards a few clips may always fail.
_MAX_REJECTED_SHARE = 0.5
_ALWAYS_TOLERATED = 8


def common_duration_s(manifest: Manifest) -> float:
    """The duration all clips share. Raises SchemaError for an empty manifest or one of several durations."""
    durations = sorted({clip.duration_s for clip in manifest.clips})
    if len(durations) != 1:
        found = f"clips of {durations[0]:g} to {durations[-1]:g} s" if durations else "no clips"
        raise SchemaError(
            f"The manifest {manifest.uri} contains {found}; a feature set needs one duration.",
            remedy="Run `dmma clean` again; look at its rejected.parquet.",
        )
    return durations[0]


def check_folder(uri: str, manifest: Manifest, clips_per_shard: int, bundle: str) -> None:
    """Raise SchemaError where `uri` already has another manifest, bundle or shard size. Changes nothing.

    Raises StorageError for a folder that holds other files of the names that an extraction writes.
    """
    is_own = paths.exists(paths.join(uri, PLAN))
    names = (PLAN, FEATURES, CAPTIONS, REJECTED, "part-00000.parquet", "part-00000.json")
    refuse_overwriting(uri, names, is_own, [paths.join(manifest.uri, REJECTED)])
    if is_own:
        plan = read_marker(uri, PLAN, "extract", SCHEMA_VERSION)
        wanted = {**_inputs(manifest, clips_per_shard), "bundle": bundle}
        found = {**plan, "bundle": plan["schema"]["bundle"]}
        _refuse_differences(uri, {key: (found[key], value) for key, value in wanted.items()})


def open_folder(uri: str, manifest: Manifest, schema: FeatureSchema, clips_per_shard: int) -> list[Shard]:
    """Record the extraction's inputs at `uri` and return all shards.

    Raises SchemaError where other inputs are recorded.
    """
    check_folder(uri, manifest, clips_per_shard, schema.bundle)
    if paths.exists(paths.join(uri, PLAN)):
        recorded = read_marker(uri, PLAN, "extract", SCHEMA_VERSION)["schema"]
        wanted = FeatureSchema.from_dict(recorded).to_dict()
        _refuse_differences(uri, {key: (wanted[key], value) for key, value in schema.to_dict().items()})
    else:
        inputs = _inputs(manifest, clips_per_shard)
        paths.write_json(
            paths.join(uri, PLAN), {**inputs, "schema_version": SCHEMA_VERSION, "schema": schema.to_dict()}
        )
    return plan_shards(manifest, clips_per_shard)


def is_finished(uri: str) -> bool:
    """Whether the extraction into `uri` is complete."""
    return paths.exists(paths.join(uri, FEATURES))


def unfinished(uri: str, shards: Sequence[Shard], schema: FeatureSchema) -> list[Shard]:
    """The shards without a marker: those left after an interruption."""
    return [shard for shard in shards if not shard_is_complete(uri, shard, schema)]


def captions_by_id(manifest: Manifest) -> dict[str, str]:
    """caption_id to caption, for every distinct caption and the empty one, which means "no text" in training."""
    return {caption_id_of(""): "", **{clip.caption_id: clip.caption for clip in manifest.clips}}


def has_captions(uri: str) -> bool:
    """Whether the caption table is written."""
    return paths.exists(paths.join(uri, CAPTIONS))


class ShardCollector:
    """Collects encoded and rejected clips in any order and writes each shard once all of its clips are collected.

    Shards are written in background threads, a few at a time. Use as a context manager: its exit waits for the writes
    and raises their errors.
    """

    def __init__(
        self,
        uri: str,
        schema: FeatureSchema,
        shards: Iterable[Shard],
        num_clips: int,
        require_lease: Callable[[], None] = lambda: None,
    ) -> None:
        """`shards` are those to write, `num_clips` is the number of clips of the full set; `require_lease` as in `write_shard`."""
        self._uri, self._schema, self._require_lease = uri, schema, require_lease
        self._tolerated = min(_ALWAYS_TOLERATED, num_clips // 2)
        self._shards = {shard.index: shard for shard in shards}
        self._rows: dict[int, list[Mapping[str, Any]]] = {index: [] for index in self._shards}
        self._rejected: dict[int, list[Rejected]] = {index: [] for index in self._shards}
        self._pool = ThreadPoolExecutor(_WRITERS, thread_name_prefix="dmma-shard")
        self._writes: deque[Future[None]] = deque()

    def __enter__(self) -> "ShardCollector":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            for write in self._writes:
                write.result()

    def add(self, shard: int, row: Mapping[str, Any] | Rejected) -> None:
        """Add one clip's Parquet row, or its rejection.

        Raises SchemaError where most clips of a shard were rejected.
        """
        if isinstance(row, Rejected):
            self._rejected[shard].append(row)
        else:
            self._rows[shard].append(row)
        if len(self._rows[shard]) + len(self._rejected[shard]) == len(self._shards[shard].clips):
            self._write(self._shards[shard], self._rows.pop(shard), self._rejected.pop(shard))

    def missing_clips(self) -> list[tuple[int, Clip]]:
        """Clips of unwritten shards that were neither added nor rejected, with the index of their shard."""
        collected = {row["clip_id"] for rows in self._rows.values() for row in rows}
        collected |= {row.clip_id for rows in self._rejected.values() for row in rows}
        clips = [(index, clip) for index in self._rows for clip in self._shards[index].clips]
        return [(index, clip) for index, clip in clips if clip.clip_id not in collected]

    def _write(self, shard: Shard, rows: list[Mapping[str, Any]], rejected: list[Rejected]) -> None:
        self._require_lease()
        if len(rejected) > max(self._tolerated, _MAX_REJECTED_SHARE * len(shard.clips)):
            reason, count = Counter(row.reason for row in rejected).most_common(1)[0]
            detail = next(row.detail for row in rejected if row.reason == reason)
            raise SchemaError(
                f"{len(rejected)} of the {len(shard.clips)} clips of {shard.name} could not be extracted, "
                f"{count} of them for the reason {reason}: {detail}",
                remedy="Fix the cause and run again; this shard was not written.",
            )
        while len(self._writes) >= 2 * _WRITERS:  # wait for the writers, to bound the memory
            self._writes.popleft().result()
        self._writes.append(
            self._pool.submit(write_shard, self._uri, shard, self._schema, rows, rejected, self._require_lease)
        )


def _inputs(manifest: Manifest, clips_per_shard: int) -> dict[str, Any]:
    return {"manifest_fingerprint": manifest.fingerprint, "clips_per_shard": clips_per_shard}


def _refuse_differences(uri: str, found_and_wanted: Mapping[str, tuple[Any, Any]]) -> None:
    differing = sorted(
        key for key, (found, wanted) in found_and_wanted.items() if fingerprint(found) != fingerprint(wanted)
    )
    if differing:
        raise SchemaError(
            f"{uri} contains features of other inputs: {', '.join(differing)} differ.",
            remedy="Use another out_uri, or delete that folder to extract again.",
        )
