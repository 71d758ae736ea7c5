"""A folder of rendered clips: `<clip_id>.mp4`, `captions.tsv`, `truth.parquet`, and `RENDER.json`, written last.

Clips are rendered in blocks. A finished block has its part of the truth in `truth-parts/`, so that interrupted
rendering resumes after the last finished block; the parts are joined at the end.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dmma_core.config_loading import config_to_dict
from dmma_core.data.manifest import read_marker
from dmma_core.data.scene_config import SceneConfig
from dmma_core.data.scenes.clip import SceneTruth, render_clip
from dmma_core.errors import ConfigError, SchemaError
from dmma_core.provenance import fingerprint, provenance
from dmma_core.storage import paths
from dmma_core.storage.media import write_video
from dmma_core.storage.overwriting import refuse_overwriting
from dmma_core.storage.parquet import read_table_at

SCHEMA_VERSION = 1
MARKER = "RENDER.json"
TRUTH, CAPTIONS = "truth.parquet", "captions.tsv"
_SETTINGS, _PARTS = "scenes.json", "truth-parts"
_CLIPS_PER_BLOCK = 8
_ARRAYS = {"distance_m": "float32", "position_m": "float32", "contact_s": "float64", "onset_s": "float64"}
_COLUMN_TYPES: dict[Any, Any] = {str: pa.string(), float: pa.float64(), int: pa.int64()}


def blocks_of(config: SceneConfig) -> list[range]:
    """Clip numbers of each block."""
    starts = range(0, config.num_clips, _CLIPS_PER_BLOCK)
    return [range(start, min(start + _CLIPS_PER_BLOCK, config.num_clips)) for start in starts]


def is_rendered(uri: str) -> bool:
    """Whether the folder has its marker."""
    return paths.exists(paths.join(uri, MARKER))


def check_settings(config: SceneConfig, uri: str) -> None:
    """Raise ConfigError where `uri` contains clips of other settings, StorageError for files of others."""
    settings_uri = paths.join(uri, _SETTINGS)
    names = {
        _SETTINGS,
        _PARTS,
        TRUTH,
        CAPTIONS,
        MARKER,
        *(name for name in paths.list_names(uri) if name.startswith("scene_")),
    }
    refuse_overwriting(uri, names, is_own=paths.exists(settings_uri))
    if paths.exists(settings_uri) and (found := paths.read_json(settings_uri)) != config_to_dict(config):
        differing = sorted(key for key, value in config_to_dict(config).items() if found.get(key) != value)
        raise ConfigError(
            f"{uri} contains clips of other settings ({', '.join(differing)} differ).",
            remedy="Use another out_uri or the old settings, or remove the folder.",
        )


def unfinished_blocks(config: SceneConfig, uri: str) -> list[range]:
    """Record the settings in the folder and return the blocks left to render; none once the folder is complete.

    Raises ConfigError as `check_settings` does.
    """
    check_settings(config, uri)
    if is_rendered(uri):
        return []
    paths.write_json(paths.join(uri, _SETTINGS), config_to_dict(config))
    return [block for block in blocks_of(config) if not paths.exists(_part_uri(uri, block))]


def render_block(config: SceneConfig, uri: str, block: range) -> int:
    """Render one block's clips into the folder, its truth last. Returns the number of clips."""
    truths = []
    for index in block:
        clip = render_clip(config, index)
        video_uri = paths.join(uri, f"{clip.truth.clip_id}.mp4")
        write_video(video_uri, clip.frames_THWC, config.fps, clip.audio_A, config.sample_rate_hz)
        truths.append(clip.truth)
    paths.write_bytes(_part_uri(uri, block), truth_bytes(truths))
    return len(truths)


def complete_render(config: SceneConfig, uri: str) -> None:
    """Join the parts into truth and captions, then write the marker. All blocks must be finished."""
    truths = [truth for block in blocks_of(config) for truth in read_truth(_part_uri(uri, block)).values()]
    paths.write_bytes(paths.join(uri, TRUTH), truth_bytes(truths))
    lines = ["id\tlabel", *(f"{truth.clip_id}\t{truth.caption}" for truth in truths)]
    paths.write_bytes(paths.join(uri, CAPTIONS), ("\n".join(lines) + "\n").encode())
    settings = config_to_dict(config)
    marker = {
        "schema_version": SCHEMA_VERSION,
        "num_clips": len(truths),
        "settings": settings,
        "fingerprint": fingerprint(settings),
        "truth_sha256": paths.sha256_of(paths.join(uri, TRUTH)),
        "provenance": provenance(),
    }
    paths.write_json(paths.join(uri, MARKER), marker)
    paths.remove(paths.join(uri, _PARTS))


def read_render_marker(uri: str) -> dict[str, Any]:
    """The folder's marker. Raises IncompleteError where rendering did not complete_render."""
    return read_marker(uri, MARKER, "render", SCHEMA_VERSION)


def truth_bytes(truths: Sequence[SceneTruth]) -> bytes:
    """Truth of clips of one shape as a Parquet file: one row per clip, flattened arrays, shapes as metadata."""
    first = truths[0]
    columns = []
    for field in fields(SceneTruth):
        if field.name in _ARRAYS:
            columns.append(pa.field(field.name, pa.list_(pa.from_numpy_dtype(np.dtype(_ARRAYS[field.name])))))
        elif field.name == "depth_m":
            metadata = {"shape": json.dumps(first.depth_m.shape), "dtype": "float16", "unit": "metre"}
            columns.append(pa.field("depth_m", pa.binary(first.depth_m.nbytes), metadata=metadata))
        else:
            columns.append(pa.field(field.name, _COLUMN_TYPES[field.type]))
    rows = []
    for truth in truths:
        row = {field.name: getattr(truth, field.name) for field in fields(SceneTruth)}
        row |= {name: np.ravel(row[name]) for name in _ARRAYS}
        rows.append(row | {"depth_m": np.ascontiguousarray(truth.depth_m, "<f2").tobytes()})
    schema = pa.schema(columns, metadata={"schema_version": str(SCHEMA_VERSION)})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def read_truth(uri: str) -> dict[str, SceneTruth]:
    """Truth by clip id, from `truth.parquet` or its folder.

    Raises SchemaError for a file of another kind or version.
    """
    file_uri = uri if uri.endswith(".parquet") else paths.join(uri, TRUTH)
    try:
        table = read_table_at(file_uri)
    except pa.ArrowException as error:
        raise SchemaError(
            f"{file_uri} is not a readable Parquet file ({error}).", remedy="Render the clips again."
        ) from error
    names = [field.name for field in fields(SceneTruth)]
    version = (table.schema.metadata or {}).get(b"schema_version", b"").decode()
    if version != str(SCHEMA_VERSION) or set(names) - set(table.column_names):
        raise SchemaError(
            f"{file_uri} is not a truth file of schema version {SCHEMA_VERSION} (found {version or 'none'}).",
            remedy="Run `dmma render` again into a new folder.",
        )
    shape = json.loads(table.schema.field("depth_m").metadata[b"shape"])
    truths = {}
    for row in table.select(names).to_pylist():
        arrays: dict[str, Any] = {name: np.asarray(row[name], dtype) for name, dtype in _ARRAYS.items()}
        arrays["position_m"] = arrays["position_m"].reshape(-1, 3)
        depth_m = np.frombuffer(row["depth_m"], "<f2").reshape(shape)
        truths[row["clip_id"]] = SceneTruth(**(row | arrays | {"depth_m": depth_m}))
    return truths


def _part_uri(uri: str, block: range) -> str:
    return paths.join(uri, _PARTS, f"part-{block.start:08d}.parquet")
