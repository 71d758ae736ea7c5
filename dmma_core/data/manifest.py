"""The manifest: the clips of a dataset, their sources, and the rejected files with their reasons.

A manifest is a folder: `part-*.parquet` (one row per clip), `rejected.parquet` (clip_id, source_uri, reason, detail)
and `MANIFEST.json`, written last; without it the folder is incomplete. `CLEANING.json`, written first, marks the folder
as a manifest's.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmma_core.errors import IncompleteError, SchemaError, StorageError
from dmma_core.provenance import fingerprint, provenance
from dmma_core.storage import paths
from dmma_core.storage.overwriting import refuse_overwriting
from dmma_core.storage.parquet import read_table_at

SCHEMA_VERSION = 1
MARKER = "MANIFEST.json"
REJECTED = "rejected.parquet"
_START_MARKER = "CLEANING.json"
_ROWS_PER_PART = 50_000


@dataclass(frozen=True)
class Clip:
    """One clip: `duration_s` seconds of `source_uri`, starting at `start_s`. `clip_id` is unique within a dataset.

    `split` is "train", "val" or "test". `caption_id` is the sha256 (first 16 hex digits) of the caption's text.
    """

    clip_id: str
    dataset: str
    split: str
    caption: str
    caption_id: str
    source_uri: str
    source_sha256: str
    start_s: float
    duration_s: float
    has_video: bool
    has_text: bool


@dataclass(frozen=True)
class Rejected:
    """A file that did not become a clip. `reason` is a stable identifier, `detail` an error message."""

    clip_id: str
    source_uri: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Manifest:
    """A complete manifest in memory. `fingerprint` identifies the exact set of clips and their bytes."""

    uri: str
    dataset: str
    clips: tuple[Clip, ...]
    rejected: tuple[Rejected, ...]
    fingerprint: str


_ARROW_TYPES = {str: pa.string(), float: pa.float64(), bool: pa.bool_()}


def arrow_schema_of(row_class: type) -> pa.Schema:
    """Arrow schema of a flat dataclass of str, float and bool fields."""
    return pa.schema([pa.field(f.name, _ARROW_TYPES[f.type], nullable=False) for f in fields(row_class)])  # type: ignore[index]


def write_rows(uri: str, row_class: type, rows: Sequence[Any]) -> None:
    """Write dataclass rows as one Parquet file, atomically."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=arrow_schema_of(row_class))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    paths.write_bytes(uri, buffer.getvalue())


def read_rows(uri: str, row_class: type) -> list[Any]:
    """Read rows written by `write_rows`.

    Raises SchemaError if the columns differ, StorageError for a damaged file.
    """
    try:
        table = read_table_at(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(f"{uri} is damaged ({error}).", remedy="Run the job that writes it again.") from error
    if missing := {f.name for f in fields(row_class)} - set(table.column_names):
        raise SchemaError(f"{uri} lacks the columns {sorted(missing)}.", remedy="Run the job that writes it again.")
    return [row_class(**row) for row in table.select([f.name for f in fields(row_class)]).to_pylist()]


def caption_id_of(caption: str) -> str:
    """sha256 of the caption's text, first 16 hex digits."""
    return fingerprint(caption)[:16]


def check_manifest_folder(uri: str, inputs: Sequence[str]) -> None:
    """Raise StorageError if a manifest at `uri` would overwrite one of the files `inputs`, or files of other jobs."""
    is_own = any(paths.exists(paths.join(uri, name)) for name in (_START_MARKER, MARKER))
    refuse_overwriting(uri, (_START_MARKER, _part_name(0), REJECTED, MARKER), is_own, inputs)


def write_manifest(uri: str, dataset: str, clips: Sequence[Clip], rejected: Sequence[Rejected]) -> Manifest:
    """Write the manifest, marker last.

    The marker of an older manifest is removed first, then its files are replaced.
    """
    clips = sorted(clips, key=lambda clip: clip.clip_id)
    paths.write_json(paths.join(uri, _START_MARKER), {"schema_version": SCHEMA_VERSION, "dataset": dataset})
    paths.remove(paths.join(uri, MARKER))
    parts = [clips[i : i + _ROWS_PER_PART] for i in range(0, len(clips), _ROWS_PER_PART)]
    names = [_part_name(index) for index in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        write_rows(paths.join(uri, name), Clip, part)
    write_rows(paths.join(uri, REJECTED), Rejected, sorted(rejected, key=lambda row: row.source_uri))
    manifest = Manifest(uri, dataset, tuple(clips), tuple(rejected), fingerprint([asdict(clip) for clip in clips]))
    marker = {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset,
        "num_clips": len(clips),
        "num_rejected": len(rejected),
        "parts": names,
        "fingerprint": manifest.fingerprint,
        "provenance": provenance(),
    }
    paths.write_json(paths.join(uri, MARKER), marker)
    return manifest


def _part_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


def read_manifest(uri: str) -> Manifest:
    """Read a complete manifest. Raises IncompleteError without its marker, SchemaError for another version."""
    marker = read_marker(uri, MARKER, "clean", SCHEMA_VERSION)
    clips = [clip for name in marker["parts"] for clip in read_rows(paths.join(uri, name), Clip)]
    rejected = read_rows(paths.join(uri, REJECTED), Rejected)
    return Manifest(uri, marker["dataset"], tuple(clips), tuple(rejected), marker["fingerprint"])


def read_marker(uri: str, name: str, job: str, schema_version: int) -> dict[str, Any]:
    """Read the completeness marker of an artefact folder, written by `job`.

    Raises IncompleteError if it is absent, SchemaError for another schema version.
    """
    marker_uri = paths.join(uri, name)
    if not paths.exists(marker_uri):
        raise IncompleteError(
            f"{uri} has no {name}: it is absent or incomplete.",
            remedy=f"Run `dmma {job}` (again), or use another folder.",
        )
    marker: dict[str, Any] = paths.read_json(marker_uri)
    if marker.get("schema_version") != schema_version:
        raise SchemaError(
            f"{marker_uri} has schema version {marker.get('schema_version')!r}, but this version reads {schema_version}.",
            remedy=f"Run `dmma {job}` again into a new folder.",
        )
    return marker
