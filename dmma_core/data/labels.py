"""Captions and splits of clips, from tables as they are published: TSV or CSV, with and without a header."""

import csv
import hashlib
import io
import logging
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dmma_core.errors import ConfigError
from dmma_core.storage import paths
from dmma_core.storage.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES

_log = logging.getLogger(__name__)

_ID_COLUMNS = ("id", "clip_id", "file", "filename", "file_name", "video_id", "youtube_id", "name", "path")
_CAPTION_COLUMNS = ("label", "caption", "caption_1", "desc", "description", "text", "class")
_START_COLUMNS = ("start", "start_s", "start_time", "start_seconds")
_SPLIT_COLUMNS = ("split", "subset")
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class LabelTable:
    """Captions and splits by clip id; a table may hold either or both."""

    captions: Mapping[str, str]
    splits: Mapping[str, str]


def clip_id_of(name: str) -> str:
    """Clip id of a file name, a path or an id: the last part without a known media suffix."""
    base = posixpath.basename(name.strip().replace("\\", "/"))
    for suffix in VIDEO_SUFFIXES + AUDIO_SUFFIXES:
        if base.lower().endswith(suffix):
            return base[: -len(suffix)]
    return base


def read_labels(uri: str) -> LabelTable:
    """Read a table of ids with captions, splits, or both.

    With a header, columns are found by their usual names (`id` or `file`, `label` or `caption`, `split`). Without one
    the columns are id, caption (VGGSound's test labels), or id, start second, caption, split (VGGSound's full table). Ids
    may be file names. Where the start stands in a column of its own, the clip id is `<id>_<start, six digits>`. The first
    of several captions of an id counts. Raises ConfigError where no such columns are found or a split is unknown.
    """
    rows = _rows(uri)
    if not rows:
        raise ConfigError(f"{uri} is empty.", remedy="Give a table with the columns id and label.")
    columns = _columns_by_header(rows[0])
    if columns is None:
        columns = _columns_by_content(rows[0])
    else:
        rows = rows[1:]
    if "id" not in columns or not columns.keys() & {"caption", "split"}:
        raise ConfigError(
            f"{uri} has no columns for the id and for the label or the split: its first row is {rows[:1]}.",
            remedy="Give it a header, for example id<TAB>label.",
        )
    captions: dict[str, str] = {}
    splits: dict[str, str] = {}
    num_repeated = 0
    for number, row in enumerate(rows, start=1):
        cells = {name: row[index].strip() for name, index in columns.items() if index < len(row)}
        if not cells.get("id"):
            continue
        clip_id = clip_id_of(cells["id"])
        if cells.get("start"):
            clip_id = f"{clip_id}_{_whole_seconds(uri, number, cells['start']):06d}"
        if cells.get("caption"):
            num_repeated += captions.setdefault(clip_id, cells["caption"]) != cells["caption"]
        if cells.get("split"):
            splits.setdefault(clip_id, _split_named(uri, number, cells["split"]))
    if num_repeated:
        _log.warning("%s gives %d further captions for ids it named before; the first counts.", uri, num_repeated)
    return LabelTable(captions, splits)


def caption_from_name(clip_id: str) -> str:
    """Words of a file name: "dog_barking-02" gives "dog barking"; a YouTube id with its start gives nothing."""
    if re.fullmatch(r"[\w-]{11}_\d{6}", clip_id):
        return ""
    words = [word for word in re.split(r"[\s_.-]+", clip_id) if word and not word.isdigit()]
    return " ".join(words)


def split_by_hash(clip_id: str, val_fraction: float, test_fraction: float, seed: int = 0) -> str:
    """Split of a clip from its id alone: it stays the same whatever other clips come or go."""
    digest = hashlib.sha256(f"{seed}:{clip_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2.0**64
    if position < test_fraction:
        return "test"
    return "val" if position < test_fraction + val_fraction else "train"


def _rows(uri: str) -> list[list[str]]:
    text = paths.read_text(uri).lstrip("\ufeff")
    first_line = text.partition("\n")[0]
    tabs = uri.lower().endswith(".tsv") or "\t" in first_line
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t" if tabs else ",")
    try:
        return [row for row in lines if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ConfigError(f"{uri}, line {lines.line_num}: {error}.", remedy="Save it as plain TSV or CSV.") from error


def _columns_by_header(row: list[str]) -> dict[str, int] | None:
    """Meaning -> column by a header's names; None where the row is no header."""
    names = [cell.strip().lower().lstrip("#").strip() for cell in row]
    known = {"id": _ID_COLUMNS, "caption": _CAPTION_COLUMNS, "start": _START_COLUMNS, "split": _SPLIT_COLUMNS}
    columns = {}
    for meaning, accepted in known.items():
        found = [name for name in accepted if name in names]
        if found:
            columns[meaning] = names.index(found[0])
    return columns if "id" in columns else None


def _columns_by_content(row: list[str]) -> dict[str, int]:
    """Meaning -> column of a table without a header, from its first row."""
    if len(row) >= 3 and row[1].strip().isdigit():
        columns = {"id": 0, "start": 1, "caption": 2}
        return {**columns, "split": 3} if len(row) >= 4 and row[3].strip().lower() in _SPLITS else columns
    if len(row) == 2:
        return {"id": 0, "split" if row[1].strip().lower() in _SPLITS else "caption": 1}
    return {}


def _whole_seconds(uri: str, number: int, text: str) -> int:
    try:
        return int(float(text))
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{uri}, row {number}: the start {text!r} is no number.", remedy="Correct it.") from error


def _split_named(uri: str, number: int, text: str) -> str:
    if text.lower() not in _SPLITS:
        raise ConfigError(f"{uri}, row {number}: unknown split {text!r}.", remedy="Use train, val or test.")
    return _SPLITS[text.lower()]
