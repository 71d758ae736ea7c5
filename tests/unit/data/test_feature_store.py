import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dmma_core.data import feature_store
from dmma_core.data.feature_store import (
    FeatureStore,
    complete_features,
    plan_shards,
    shard_is_complete,
    shard_key,
    write_shard,
)
from dmma_core.data.manifest import Rejected, read_manifest, read_rows, write_manifest
from dmma_core.errors import IncompleteError, SchemaError, StorageError
from dmma_core.storage import paths
from helpers.rows import SCHEMA, make_clip, make_features, make_row, write_features, write_text


def rejection(clip_id: str) -> Rejected:
    return Rejected(clip_id, "/videos/x.mp4", "damaged", "It ends in the middle.")


@pytest.fixture(params=["local", "gs"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('bucket')}/set" if request.param == "gs" else str(tmp_path / "set")


def test_every_row_is_read_back_for_its_clip(uri: str) -> None:
    manifest = write_features(uri, num_clips=11)
    store = FeatureStore(uri)
    store.verify()
    assert tuple(store.clips) == manifest.clips and len(store) == 11
    for row in (10, 0, 5, 4, 3):  # across files and row groups, in no order
        read = store.read(row)
        for name, expected in make_features(row).items():
            np.testing.assert_array_equal(read[name], expected.astype(np.float16))
        np.testing.assert_array_equal(read["text"], np.full((2, 2), row % 3, np.float16))
    assert store.rows_of_split("test") == [3, 7]
    assert store.rows_of_split("absent") == []


def test_rows_are_views_that_cannot_be_changed(tmp_path: Path) -> None:
    write_features(str(tmp_path / "set"), 2)
    with pytest.raises(ValueError, match="read-only"):
        FeatureStore(str(tmp_path / "set")).read(0)["rgb"][0, 0] = 1


def test_the_cache_is_bounded_and_correct(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_features(str(tmp_path / "set"), 40, clips_per_shard=20)
    monkeypatch.setattr(feature_store, "_CACHE_BYTES", 700)
    store = FeatureStore(str(tmp_path / "set"))
    for row in np.random.default_rng(0).integers(0, 40, 200):
        assert float(store.read(int(row))["latent_mean"][0, 0]) == row
    assert len(store._cache) <= 2


def test_several_threads_may_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_features(str(tmp_path / "set"), 40, clips_per_shard=20)
    monkeypatch.setattr(feature_store, "_CACHE_BYTES", 700)
    store = FeatureStore(str(tmp_path / "set"))

    def read(seed: int) -> bool:
        rows = np.random.default_rng(seed).integers(0, 40, 400).tolist()
        return all(float(store.read(row)["latent_mean"][0, 0]) == row for row in rows)

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, range(4)))
    finally:
        sys.setswitchinterval(before_s)


def test_tensors_are_stored_plain(tmp_path: Path) -> None:
    """Uncompressed and without dictionaries: 100 times faster to read than Parquet's defaults."""
    write_features(str(tmp_path / "set"), 20, clips_per_shard=20)
    file = pq.ParquetFile(tmp_path / "set" / "part-00000.parquet")
    assert file.num_row_groups == 3
    group = file.metadata.row_group(0)
    for index in range(group.num_columns):
        column = group.column(index)
        assert column.compression == "UNCOMPRESSED" and not column.has_dictionary_page


def test_shards_depend_on_the_manifest_alone(tmp_path: Path) -> None:
    manifest = write_manifest(str(tmp_path), "rows", [make_clip(index) for index in (4, 2, 0, 3, 1)], [])
    shards = plan_shards(manifest, 2)
    assert [[clip.clip_id[-1] for clip in shard.clips] for shard in shards] == [["0", "1"], ["2", "3"], ["4"]]
    assert [shard.name for shard in shards] == ["part-00000", "part-00001", "part-00002"]
    assert plan_shards(read_manifest(str(tmp_path)), 2) == shards


def test_a_shard_is_complete_only_for_its_own_clips_and_encoders(uri: str) -> None:
    clips = tuple(make_clip(index) for index in range(3))
    shard = feature_store.Shard(0, clips)
    assert not shard_is_complete(uri, shard, SCHEMA)
    write_shard(uri, shard, SCHEMA, [make_row(clip) for clip in clips], [])
    assert shard_is_complete(uri, shard, SCHEMA)
    assert not shard_is_complete(uri, replace(shard, clips=clips[:2]), SCHEMA)
    assert not shard_is_complete(uri, replace(shard, clips=(*clips[:2], replace(clips[2], start_s=9.0))), SCHEMA)
    assert not shard_is_complete(uri, shard, replace(SCHEMA, encoders={"clip": "c1", "depth": "d0"}))
    assert len(shard_key(shard, SCHEMA)) == 64


@pytest.mark.parametrize("rows", [[0, 1], [0, 1, 1], [0, 1, 2, 3], [0, 1, 4]])
def test_a_shard_accepts_exactly_its_clips(tmp_path: Path, rows: list[int]) -> None:
    shard = feature_store.Shard(0, tuple(make_clip(index) for index in range(3)))
    with pytest.raises(SchemaError, match=r"Shard part-00000 .* expected 3"):
        write_shard(str(tmp_path), shard, SCHEMA, [make_row(make_clip(index)) for index in rows], [])
    assert list(tmp_path.iterdir()) == []


def test_rejected_clips_are_counted_and_listed(tmp_path: Path) -> None:
    manifest = write_manifest(str(tmp_path / "m"), "rows", [make_clip(index) for index in range(4)], [])
    uri = str(tmp_path / "set")
    first, second = shards = plan_shards(manifest, 2)
    write_shard(uri, first, SCHEMA, [make_row(first.clips[1])], [rejection("clip-0000")])
    write_shard(uri, second, SCHEMA, [], [rejection("clip-0002"), rejection("clip-0003")])
    write_text(uri, manifest.clips)
    complete_features(uri, manifest, SCHEMA, shards)
    store = FeatureStore(uri)
    assert [clip.clip_id for clip in store.clips] == ["clip-0001"]
    assert [row.clip_id for row in read_rows(f"{uri}/rejected.parquet", Rejected)] == [
        "clip-0000",
        "clip-0002",
        "clip-0003",
    ]
    marker = paths.read_json(f"{uri}/FEATURES.json")
    assert (marker["num_rows"], marker["num_rejected"]) == (1, 3)


def test_files_do_not_depend_on_the_order_of_arrival(tmp_path: Path) -> None:
    shard = feature_store.Shard(0, tuple(make_clip(index) for index in range(5)))
    rows = [make_row(clip) for clip in shard.clips]
    for name, order in (("a", rows), ("b", rows[::-1])):
        write_shard(str(tmp_path / name), shard, SCHEMA, order, [])
    assert (tmp_path / "a/part-00000.parquet").read_bytes() == (tmp_path / "b/part-00000.parquet").read_bytes()


def test_the_fingerprint_depends_on_contents_and_encoders(tmp_path: Path) -> None:
    for name, num_clips in (("a", 6), ("b", 6), ("c", 7)):
        write_features(str(tmp_path / name), num_clips)
    a, b, c = (FeatureStore(str(tmp_path / name)).fingerprint for name in "abc")
    assert a == b != c


def test_unfinished_sets_are_refused(tmp_path: Path) -> None:
    manifest = write_features(str(tmp_path / "set"), 6)
    shards = plan_shards(manifest, 4)
    (tmp_path / "set" / "part-00001.json").unlink()
    with pytest.raises(IncompleteError, match="lacks part-00001"):
        complete_features(str(tmp_path / "set"), manifest, SCHEMA, shards)
    (tmp_path / "set" / "FEATURES.json").unlink()
    with pytest.raises(IncompleteError, match="absent or incomplete.* Run `dmma extract`"):
        FeatureStore(str(tmp_path / "set"))


def test_a_truncated_part_is_reported(tmp_path: Path) -> None:
    write_features(str(tmp_path / "set"), 6)
    part = tmp_path / "set" / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(StorageError, match=r"part-00001\.parquet is damaged"):
        FeatureStore(str(tmp_path / "set"))
    part.unlink()
    with pytest.raises(StorageError, match=r"There is no .*part-00001\.parquet"):
        FeatureStore(str(tmp_path / "set"))


def test_verify_finds_exchanged_contents(tmp_path: Path) -> None:
    write_features(str(tmp_path / "set"), 8)
    first, second = (tmp_path / "set" / f"part-0000{index}.parquet" for index in (0, 1))
    first.write_bytes(second.read_bytes())
    with pytest.raises(StorageError, match=r"part-00000\.parquet differs from its recorded sha256"):
        FeatureStore(str(tmp_path / "set")).verify()


def test_changed_captions_are_refused(tmp_path: Path) -> None:
    write_features(str(tmp_path / "set"), 6)
    write_text(str(tmp_path / "set"), [make_clip(0)])
    with pytest.raises(StorageError, match=r"captions\.parquet differs"):
        FeatureStore(str(tmp_path / "set"))


def test_columns_of_other_encoders_are_refused(tmp_path: Path) -> None:
    write_features(str(tmp_path / "set"), 6)
    marker = paths.read_json(str(tmp_path / "set/FEATURES.json"))
    marker["schema"]["tensors"][2]["shape"] = [3, 3]
    paths.write_json(str(tmp_path / "set/FEATURES.json"), marker)
    with pytest.raises(SchemaError, match="columns of .* differ from FEATURES.json"):
        FeatureStore(str(tmp_path / "set"))


def test_clips_keep_all_their_fields(tmp_path: Path) -> None:
    manifest = write_features(str(tmp_path / "set"), 3)
    assert [asdict(clip) for clip in FeatureStore(str(tmp_path / "set")).clips] == [asdict(c) for c in manifest.clips]
