import time
from dataclasses import replace
from pathlib import Path

import pytest

from dmma_core.data import extraction
from dmma_core.data.extraction import ShardCollector
from dmma_core.data.feature_store import plan_shards, write_shard
from dmma_core.data.manifest import Clip, Manifest, Rejected, write_manifest
from dmma_core.errors import LeaseLostError, SchemaError, StorageError
from dmma_core.storage import paths
from dmma_core.storage.lease import held
from helpers.rows import SCHEMA, make_clip, make_row


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_manifest(str(tmp_path / "manifest"), "rows", [make_clip(index) for index in range(30)], [])


def reject(clip: Clip) -> Rejected:
    return Rejected(clip.clip_id, clip.source_uri, "unreadable", "There is no file.")


def test_shards_are_written_as_soon_as_they_are_full(tmp_path: Path, manifest: Manifest) -> None:
    uri, shards = str(tmp_path / "set"), plan_shards(manifest, 10)
    with ShardCollector(uri, SCHEMA, shards, 30) as collector:
        for clip in reversed(shards[1].clips):
            collector.add(1, make_row(clip))
        collector.add(0, make_row(shards[0].clips[3]))
        missing = [clip.clip_id for shard, clip in collector.missing_clips() if shard == 0]
    assert len(missing) == 9 and shards[0].clips[3].clip_id not in missing
    assert extraction.unfinished(uri, shards, SCHEMA) == [shards[0], shards[2]]


def test_a_shard_that_mostly_failed_is_not_written(tmp_path: Path, manifest: Manifest) -> None:
    uri, (shard, *_) = str(tmp_path / "set"), plan_shards(manifest, 30)
    with (
        pytest.raises(SchemaError, match=r"16 of the 30 clips .* unreadable: There is no file\. .* was not written"),
        ShardCollector(uri, SCHEMA, [shard], 30) as collector,
    ):
        for index, clip in enumerate(shard.clips):
            collector.add(0, reject(clip) if index < 16 else make_row(clip))
    assert not paths.exists(uri)


def test_all_clips_of_a_small_shard_may_fail(tmp_path: Path, manifest: Manifest) -> None:
    uri, shards = str(tmp_path / "set"), plan_shards(manifest, 4)
    with ShardCollector(uri, SCHEMA, shards, 30) as collector:
        for clip in shards[0].clips:
            collector.add(0, reject(clip))
    assert shards[0] not in extraction.unfinished(uri, shards, SCHEMA)


def test_a_failed_write_is_raised_in_the_caller(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "set").write_bytes(b"a file where the folder should be")
    (shard, *_) = plan_shards(manifest, 2)
    with (
        pytest.raises(StorageError, match="lies below a file"),
        ShardCollector(str(tmp_path / "set"), SCHEMA, [shard], 30) as collector,
    ):
        for clip in shard.clips:
            collector.add(0, make_row(clip))


def test_a_lost_lease_ends_the_writing_before_the_marker(tmp_path: Path, manifest: Manifest) -> None:
    uri, (first, second, *_) = str(tmp_path / "set"), plan_shards(manifest, 2)
    lease = tmp_path / "set" / "LEASE.json"
    with held(uri, "extract", 0.1) as own, ShardCollector(uri, SCHEMA, [first, second], 30, own.require) as collector:
        for clip in first.clips:
            collector.add(0, make_row(clip))
        paths.write_json(str(lease), {**paths.read_json(str(lease)), "token": "another"})
        time.sleep(0.7)
        collector.add(1, make_row(second.clips[0]))
        with pytest.raises(LeaseLostError, match="taken over"):
            collector.add(1, make_row(second.clips[1]))
    assert extraction.unfinished(uri, [first, second], SCHEMA) == [second]
    assert not paths.exists(f"{uri}/{second.name}.parquet")
    assert lease.exists()


def test_a_lease_lost_while_a_shard_is_written_leaves_it_without_a_marker(tmp_path: Path, manifest: Manifest) -> None:
    uri, (shard, *_) = str(tmp_path / "set"), plan_shards(manifest, 2)

    def require() -> None:
        if paths.exists(f"{uri}/{shard.name}.parquet"):
            raise LeaseLostError("This job lost its lease.")

    with pytest.raises(LeaseLostError):
        write_shard(uri, shard, SCHEMA, [make_row(clip) for clip in shard.clips], [], require)
    assert extraction.unfinished(uri, [shard], SCHEMA) == [shard]


def test_a_folder_keeps_its_inputs(tmp_path: Path, manifest: Manifest) -> None:
    uri = str(tmp_path / "set")
    extraction.check_folder(uri, manifest, 10, "rows")
    assert extraction.open_folder(uri, manifest, SCHEMA, 10) == extraction.open_folder(uri, manifest, SCHEMA, 10)
    extraction.check_folder(uri, manifest, 10, "rows")
    with pytest.raises(SchemaError, match="bundle, clips_per_shard differ"):
        extraction.check_folder(uri, manifest, 11, "tiny")
    with pytest.raises(SchemaError, match="encoders differ"):
        extraction.open_folder(uri, manifest, replace(SCHEMA, encoders={"clip": "other"}), 10)


def test_one_duration_is_required(tmp_path: Path, manifest: Manifest) -> None:
    assert extraction.common_duration_s(manifest) == 1.0
    mixed = replace(manifest, clips=(*manifest.clips, replace(make_clip(31), duration_s=8.0)))
    with pytest.raises(SchemaError, match="clips of 1 to 8 s"):
        extraction.common_duration_s(mixed)
    with pytest.raises(SchemaError, match="contains no clips"):
        extraction.common_duration_s(replace(manifest, clips=()))
