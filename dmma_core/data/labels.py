"""Captions and splits of clips from published tables: TSV or CSV, with and without a header."""

import csv
import hashlib
import io
import logging
import posixpath
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dmma_core.errors import ConfigError
from dmma_core.storage import paths
from dmma_core.storage.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES

_log = logging.getLogger(__name__)

_ID_COLUMNS = ("id", "clip_id", "file", "filename", "file_name", "video_id", "youtube_id", "name", "path")
_CAPTION_COLUMNS = ("label", "caption", "caption_1", "desc", "description", "text", "class")
_START_COLUMNS = ("start", "start_s", "start_time", "start_seconds")
_SPLIT_COLUMNS = ("split", "subset")
# Words that cameras, phones, recorders and editors write into file names. They do not describe the sound.
_DEVICE_WORDS = frozenset(
    """
    img image pic photo vid video movie mov mvi clip file media track audio sound dsc dscn dscf pxl gopr gopro dji
    whatsapp signal telegram messenger instagram facebook tiktok youtube vgg vggsound screen screenshot recording
    recorded record capture captured scene shot take part untitled unnamed new copy final cut edit edited trim trimmed
    version draft test sample demo export exported output render rendered converted compressed download downloaded
    default camera cam front rear portrait landscape timelapse slow slowmo motion hdr uhd fhd full high low quality
    """.split()  # noqa: SIM905  (one word per line would fill a screen)
)
_VOWELS = frozenset("aeiouy")
_APOSTROPHES = "'’"
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class LabelTable:
    """Captions and splits by clip id; a table may contain either or both."""

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
    may be file names. If the start has its own column, the clip id is `<id>_<start, six digits>`. The first of
    several captions of an id is used. Raises ConfigError if no such columns are found or a split is unknown.
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
        _log.warning("%s has %d more captions for ids that already have one; the first is used.", uri, num_repeated)
    return LabelTable(captions, splits)


def caption_from_name(clip_id: str) -> str:
    """The words of a file name if at least two are descriptive, else "": "dog_barking-02" gives "dog barking";
    IMG_1234, "final cut v2", dates, ids and a single word give "".

    A descriptive word has at least three letters (two in scripts other than Latin), a vowel if it is Latin, and is not one
    that cameras, phones and editors write. Short words between such words are kept. Parts with digits and parts of mixed
    case, as in ids, are dropped.
    """
    kinds = [unicodedata.category(character)[0] for character in clip_id]  # letter, mark, number, …
    parts = "".join(c if kind in "LMN" or c in _APOSTROPHES else " " for c, kind in zip(clip_id, kinds, strict=True))
    words = [part for part in parts.split() if _is_word(part)]
    descriptive = [index for index, word in enumerate(words) if _is_descriptive(word)]
    return " ".join(words[descriptive[0] : descriptive[-1] + 1]) if len(descriptive) >= 2 else ""


def _is_word(part: str) -> bool:
    """Without digits, in lower case, upper case or with one capital, and not a word that devices write."""
    is_plain = part[1:] in (part[1:].lower(), part[1:].upper()) and not any(c.isnumeric() for c in part)
    return is_plain and part.lower() not in _DEVICE_WORDS


def _is_descriptive(word: str) -> bool:
    plain = unicodedata.normalize("NFD", word.lower())
    if not unicodedata.name(plain[0], "").startswith("LATIN"):
        return len(word) >= 2
    return len(word) >= 3 and not _VOWELS.isdisjoint(plain)


def split_by_hash(clip_id: str, val_fraction: float, test_fraction: float, seed: int = 0) -> str:
    """Split of a clip from its id alone: it does not change when other clips are added or removed."""
    position = _position(clip_id, seed)
    if position < test_fraction:
        return "test"
    return "val" if position < test_fraction + val_fraction else "train"


def splits_by_hash(clip_ids: Iterable[str], val_fraction: float, test_fraction: float, seed: int = 0) -> dict[str, str]:
    """`split_by_hash` of every clip, but with three or more clips no split with a fraction above 0 stays empty.

    If the hash leaves one empty, the boundaries between test, val and train (in the order of the hashes) move by as few
    clips as possible.
    """
    ordered = sorted(clip_ids, key=lambda clip_id: (_position(clip_id, seed), clip_id))
    by_hash = [split_by_hash(clip_id, val_fraction, test_fraction, seed) for clip_id in ordered]
    num_test, num_val = by_hash.count("test"), by_hash.count("val")
    if len(ordered) >= 3:
        min_test, min_val = int(test_fraction > 0), int(val_fraction > 0)
        moved = max(min_test - num_test, 0)
        num_held_out = min(num_test + moved + max(num_val - moved, min_val), len(ordered) - 1)
        num_test = min(num_test + moved, num_held_out - min_val)
        num_val = num_held_out - num_test
    names = ["test"] * num_test + ["val"] * num_val
    return dict(zip(ordered, names + ["train"] * (len(ordered) - len(names)), strict=True))


def _position(clip_id: str, seed: int) -> float:
    """The hash of a clip's id as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{clip_id}".encode()).digest()[:8], "big") / 2.0**64


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
    """Meaning -> column by a header's names; None if the row is not a header."""
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
        raise ConfigError(f"{uri}, row {number}: the start {text!r} is not a number.", remedy="Correct it.") from error


def _split_named(uri: str, number: int, text: str) -> str:
    if text.lower() not in _SPLITS:
        raise ConfigError(f"{uri}, row {number}: unknown split {text!r}.", remedy="Use train, val or test.")
    return _SPLITS[text.lower()]
