from dataclasses import replace
from pathlib import Path

import pytest

from dmma_core.data.manifest import (
    MARKER,
    Rejected,
    caption_id_of,
    read_manifest,
    read_rows,
    write_manifest,
    write_rows,
)
from dmma_core.errors import IncompleteError, SchemaError, StorageError
from dmma_core.storage import paths
from helpers.rows import make_clip

CLIPS = [make_clip(index) for index in (3, 1, 2, 0)]
REJECTED = [Rejected("x", "/videos/x.mp4", "silent", "The track is silent."), Rejected("y", "/a/y.mp4", "black", "")]


def test_round_trip_in_clip_id_order(tmp_path: Path) -> None:
    written = write_manifest(str(tmp_path), "set", CLIPS, REJECTED)
    read = read_manifest(str(tmp_path))
    assert read.clips == written.clips == tuple(sorted(CLIPS, key=lambda clip: clip.clip_id))
    assert sorted(read.rejected, key=lambda row: row.clip_id) == REJECTED
    assert (read.dataset, read.fingerprint) == ("set", written.fingerprint)


def test_round_trip_on_a_bucket(bucket: str) -> None:
    written = write_manifest(f"{bucket}/m", "set", CLIPS, REJECTED)
    assert read_manifest(f"{bucket}/m").fingerprint == written.fingerprint


def test_the_fingerprint_depends_on_the_contents_alone(tmp_path: Path) -> None:
    first = write_manifest(str(tmp_path / "a"), "set", CLIPS, [])
    reordered = write_manifest(str(tmp_path / "b"), "set", CLIPS[::-1], REJECTED)
    changed = write_manifest(str(tmp_path / "c"), "set", [replace(CLIPS[0], start_s=0.5), *CLIPS[1:]], [])
    assert first.fingerprint == reordered.fingerprint != changed.fingerprint


def test_an_empty_manifest_and_unusual_texts_are_kept(tmp_path: Path) -> None:
    assert write_manifest(str(tmp_path / "empty"), "set", [], []).clips == read_manifest(str(tmp_path / "empty")).clips
    odd = replace(CLIPS[0], clip_id="-odd ü", caption='a "quoted"\ncaption\t', has_text=False)
    write_manifest(str(tmp_path / "odd"), "set", [odd], [])
    assert read_manifest(str(tmp_path / "odd")).clips == (odd,)


def test_rewriting_replaces_the_clips(tmp_path: Path) -> None:
    write_manifest(str(tmp_path), "set", CLIPS, [])
    write_manifest(str(tmp_path), "set", CLIPS[:1], [])
    assert read_manifest(str(tmp_path)).clips == (CLIPS[0],)


def test_without_its_marker_it_is_incomplete(tmp_path: Path) -> None:
    write_manifest(str(tmp_path), "set", CLIPS, [])
    (tmp_path / MARKER).unlink()
    with pytest.raises(IncompleteError, match=r"has no MANIFEST\.json.* Run `dmma clean`"):
        read_manifest(str(tmp_path))


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    write_manifest(str(tmp_path), "set", CLIPS, [])
    marker = paths.read_json(str(tmp_path / MARKER))
    paths.write_json(str(tmp_path / MARKER), {**marker, "schema_version": 99})
    with pytest.raises(SchemaError, match="schema version 99, but this version reads 1"):
        read_manifest(str(tmp_path))


def test_missing_columns_are_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "rows.parquet")
    write_rows(uri, Rejected, REJECTED)
    assert read_rows(uri, Rejected) == REJECTED
    with pytest.raises(SchemaError, match="lacks the columns .*caption"):
        read_rows(uri, type(CLIPS[0]))


def test_a_damaged_part_is_reported(tmp_path: Path) -> None:
    write_manifest(str(tmp_path), "set", CLIPS, [])
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(StorageError, match=r"part-00000\.parquet is damaged"):
        read_manifest(str(tmp_path))


def test_caption_ids_depend_on_the_text() -> None:
    assert caption_id_of("a dog") == caption_id_of("a dog") != caption_id_of("a dog ")
    assert len(caption_id_of("")) == 16
