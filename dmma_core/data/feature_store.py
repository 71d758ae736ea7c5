"""Feature sets on storage: written shard by shard with markers, read row by row without copies.

    features/<dataset>/part-00000.parquet   one file per shard, all its rows
                       part-00000.json      marker of that shard: rows, sha256, rejected clips; written after the file
                       captions.parquet     text features, one row per distinct caption
                       rejected.parquet     clips that could not be extracted, with their reason
                       FEATURES.json        schema, encoder fingerprints, parts and checksums; written last

A shard is a fixed set of clips, determined by the manifest. A repeated run writes the same shards and skips those with
a marker, so every clip is in the set exactly once, even if the job was killed several times.
"""

import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dmma_core.data.feature_schema import SCHEMA_VERSION, TENSORS, FeatureSchema, rows_to_table
from dmma_core.data.manifest import REJECTED, Clip, Manifest, Rejected, caption_id_of, read_marker, write_rows
from dmma_core.errors import IncompleteError, SchemaError, StorageError
from dmma_core.provenance import fingerprint, provenance
from dmma_core.storage import paths
from dmma_core.storage.parquet import open_parquet, read_table
from dmma_core.tensors import Array

MARKER = "FEATURES.json"
CAPTIONS = "captions.parquet"
ROWS_PER_GROUP = 8
_CACHE_BYTES = 512 << 20


@dataclass(frozen=True)
class Shard:
    """A fixed set of clips, stored in `part-<index>.parquet`."""

    index: int
    clips: tuple[Clip, ...]

    @property
    def name(self) -> str:
        return f"part-{self.index:05d}"


def plan_shards(manifest: Manifest, clips_per_shard: int) -> list[Shard]:
    """Split the manifest into shards, in clip_id order; the same manifest always has the same shards."""
    clips = manifest.clips
    return [
        Shard(index, tuple(clips[start : start + clips_per_shard]))
        for index, start in enumerate(range(0, len(clips), clips_per_shard))
    ]


def shard_key(shard: Shard, schema: FeatureSchema) -> str:
    """Identifies a shard's contents: its clips and the encoders. A marker with another key is ignored."""
    return fingerprint({"clips": [asdict(clip) for clip in shard.clips], "schema": schema.to_dict()})


def shard_is_complete(uri: str, shard: Shard, schema: FeatureSchema) -> bool:
    """Whether the shard has a marker of these clips and encoders."""
    marker_uri = paths.join(uri, f"{shard.name}.json")
    return paths.exists(marker_uri) and paths.read_json(marker_uri).get("key") == shard_key(shard, schema)


def write_shard(
    uri: str,
    shard: Shard,
    schema: FeatureSchema,
    rows: Sequence[Mapping[str, Any]],
    rejected: Sequence[Rejected],
    require_lease: Callable[[], None] = lambda: None,
) -> None:
    """Write one shard (rows from `FeatureSchema.encode_row`, any order), then its marker.

    Raises SchemaError unless `rows` and `rejected` together contain each of the shard's clips exactly once.
    `require_lease`, called before the file and before the marker, raises where the folder is another job's now.
    """
    found = sorted([row["clip_id"] for row in rows] + [row.clip_id for row in rejected])
    if found != sorted(clip.clip_id for clip in shard.clips):
        raise SchemaError(f"Shard {shard.name} of {uri} has {len(found)} clips, expected {len(shard.clips)}.")
    ordered = sorted(rows, key=lambda row: row["clip_id"])
    data = _parquet(rows_to_table(ordered, schema.row_schema()))
    require_lease()
    part_uri = paths.join(uri, f"{shard.name}.parquet")
    paths.write_bytes(part_uri, data)
    marker = {
        "key": shard_key(shard, schema),
        "num_rows": len(ordered),
        "sha256": _sha256(data),
        "rejected": [asdict(row) for row in rejected],
    }
    require_lease()
    paths.write_json(paths.join(uri, f"{shard.name}.json"), marker)


def write_captions(uri: str, schema: FeatureSchema, captions: Mapping[str, str], text: Mapping[str, Array]) -> None:
    """Write the caption table: `captions` maps caption_id to text, `text` caption_id to features [N, D]."""
    rows = [
        {"caption_id": key, "caption": captions[key], schema.text.name: schema.text.to_bytes(text[key])}
        for key in sorted(captions)
    ]
    paths.write_bytes(paths.join(uri, CAPTIONS), _parquet(rows_to_table(rows, schema.caption_schema())))


def complete_features(uri: str, manifest: Manifest, schema: FeatureSchema, shards: Sequence[Shard]) -> None:
    """Combine the shards' markers into rejected.parquet and FEATURES.json. Raises IncompleteError if one is missing."""
    unfinished = [shard.name for shard in shards if not shard_is_complete(uri, shard, schema)]
    if unfinished or not paths.exists(paths.join(uri, CAPTIONS)):
        raise IncompleteError(f"{uri} lacks {', '.join(unfinished) or CAPTIONS}.", remedy="Run `dmma extract` again.")
    markers = {shard.name: paths.read_json(paths.join(uri, f"{shard.name}.json")) for shard in shards}
    rejected = [Rejected(**row) for marker in markers.values() for row in marker["rejected"]]
    write_rows(paths.join(uri, REJECTED), Rejected, rejected)
    parts = [
        {"name": f"{name}.parquet", "num_rows": marker["num_rows"], "sha256": marker["sha256"]}
        for name, marker in markers.items()
    ]
    record = {
        "schema_version": SCHEMA_VERSION,
        "dataset": manifest.dataset,
        "schema": schema.to_dict(),
        "num_rows": sum(part["num_rows"] for part in parts),
        "num_rejected": len(rejected),
        "parts": parts,
        "captions_sha256": paths.sha256_of(paths.join(uri, CAPTIONS)),
        "manifest_fingerprint": manifest.fingerprint,
        "provenance": provenance(),
    }
    identity = {key: record[key] for key in ("schema", "parts", "captions_sha256")}
    paths.write_json(paths.join(uri, MARKER), {**record, "fingerprint": fingerprint(identity)})


class FeatureStore:
    """Random access to a complete feature set. Local files are memory-mapped; remote ones are read once, in full.

    `fingerprint` identifies contents and encoders. Rows are numbered 0 … len-1 in clip_id order; callers find them by
    `clips` and must not store row numbers. Raises IncompleteError, SchemaError or StorageError for a set that is
    unfinished, of another version, or damaged.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        marker = read_marker(uri, MARKER, "extract", SCHEMA_VERSION)
        self.schema = FeatureSchema.from_dict(marker["schema"])
        self.dataset: str = marker["dataset"]
        self.fingerprint: str = marker["fingerprint"]
        self._files: list[pq.ParquetFile] = []
        self._row_group: list[tuple[int, int, int]] = []  # per row: file, row group, row inside the group
        self.clips: list[Clip] = []
        for part in marker["parts"]:
            self._open_part(part)
        self._texts = self._read_captions(marker["captions_sha256"])
        self._cache: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()  # training and validation prefetch in different threads

    def __len__(self) -> int:
        return len(self.clips)

    def rows_of_split(self, split: str) -> list[int]:
        """Row numbers of the clips of `split`."""
        return [row for row, clip in enumerate(self.clips) if clip.split == split]

    def read(self, row: int) -> dict[str, Array]:
        """All tensors of one row as read-only views, and `text` [N, D]."""
        file, group, offset = self._row_group[row]
        table = self._group(file, group)
        features = {name: self.schema.spec(name).from_bytes(table[name][offset].as_buffer()) for name in TENSORS}
        features["text"] = self._texts[self.clips[row].caption_id]
        return features

    def read_column(self, name: str, rows: Iterable[int]) -> Iterator[Array]:
        """The tensor `name` of each of `rows` (ascending, for speed), without reading other columns."""
        opened, table = (-1, -1), None
        for row in rows:
            file, group, offset = self._row_group[row]
            if table is None or (file, group) != opened:
                table = self._files[file].read_row_group(group, columns=[name], use_threads=False)
                opened = (file, group)
            yield self.schema.spec(name).from_bytes(table[name][offset].as_buffer())

    @property
    def empty_text(self) -> Array:
        """Text features [N, D] of the empty caption. Raises SchemaError where the set was extracted without them."""
        try:
            return self._texts[caption_id_of("")]
        except KeyError:
            raise SchemaError(
                f'{self.uri} contains no features of the empty caption, which mean "no text" in training.',
                remedy="Extract again with this version.",
            ) from None

    def verify(self) -> None:
        """Compare every part with its recorded sha256. Raises StorageError for the first difference."""
        for part in read_marker(self.uri, MARKER, "extract", SCHEMA_VERSION)["parts"]:
            part_uri = paths.join(self.uri, part["name"])
            if paths.sha256_of(part_uri) != part["sha256"]:
                raise StorageError(
                    f"{part_uri} differs from its recorded sha256.", remedy="Delete it and extract again."
                )

    def _open_part(self, part: Mapping[str, Any]) -> None:
        part_uri = paths.join(self.uri, part["name"])
        try:
            file = _open_part_file(part_uri)
        except pa.ArrowInvalid as error:
            raise StorageError(
                f"{part_uri} is damaged ({error}).", remedy="Delete it and its .json, extract again."
            ) from error
        if not file.schema_arrow.equals(self.schema.row_schema()):
            raise SchemaError(f"The columns of {part_uri} differ from {MARKER}.", remedy="Delete it and extract again.")
        if file.metadata.num_rows != part["num_rows"]:
            raise SchemaError(f"{part_uri} has {file.metadata.num_rows} rows, but {MARKER} states {part['num_rows']}.")
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            self._row_group += [(len(self._files), group, offset) for offset in range(rows)]
        columns = [name for name in file.schema_arrow.names if name not in TENSORS]
        self.clips += [Clip(**row) for row in file.read(columns=columns, use_threads=False).to_pylist()]
        self._files.append(file)

    def _read_captions(self, sha256: str) -> dict[str, Array]:
        data = paths.read_bytes(paths.join(self.uri, CAPTIONS))
        if _sha256(data) != sha256:
            raise StorageError(f"{self.uri}/{CAPTIONS} differs from its recorded sha256.", remedy="Extract again.")
        table = read_table(data)
        values = (self.schema.text.from_bytes(value.as_buffer()) for value in table[self.schema.text.name])
        return dict(zip(table["caption_id"].to_pylist(), values, strict=True))

    def _group(self, file: int, group: int) -> pa.Table:
        key = (file, group)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
            table = self._files[file].read_row_group(group, columns=list(TENSORS), use_threads=False)
            self._cache[key] = table
            self._cached_bytes += table.nbytes
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
            return table


def _open_part_file(uri: str) -> pq.ParquetFile:
    filesystem, path = paths.arrow_filesystem_of(uri)
    if paths.is_remote(uri):
        return open_parquet(paths.read_bytes(uri))
    if not paths.exists(uri):
        raise StorageError(f"There is no {uri}.", remedy="Run `dmma extract` again.")
    return open_parquet(filesystem.open_input_file(path))


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none", use_dictionary=False, row_group_size=ROWS_PER_GROUP)
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
