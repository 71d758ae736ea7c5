"""Published weights in a local cache: listed, fetched, verified. There is no fall-back to random weights.

    <cache>/<filename>                  the file, as published; from `dmma weights fetch`, or copied by hand
            <filename>.verified.json    sha256 and size at the first fetch, of files whose authors publish none
            <filename>.part             of an interrupted fetch; its .part.source.json records the source

The cache is the folder DMMA_CACHE, or ~/.cache/dmma/weights. A mirror is a folder (local or gs://) or a web server with
the same file names; any cache folder can be a mirror.
"""

import difflib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from dmma_core.errors import ConfigError, StorageError, WeightsError
from dmma_core.storage import download, paths
from dmma_core.storage.weights_registry import FILES, GROUPS, NON_COMMERCIAL, WeightsFile

REGISTRY: Mapping[str, WeightsFile] = {file.name: file for file in FILES}
_ROUNDING = 0.1  # relative tolerance of rounded sizes
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Folder of published weights on this machine. Raises ConfigError if DMMA_CACHE is not a local folder."""
    folder = os.environ.get("DMMA_CACHE") or "~/.cache/dmma/weights"
    if paths.is_remote(folder):
        raise ConfigError(
            f"DMMA_CACHE is {folder}, but the cache of published weights must be a local folder.",
            remedy="Use a local folder; weights in a bucket are fetched into it by `dmma weights fetch NAME --mirror URI`.",
        )
    return Path(paths.absolute(folder))


def describe(name: str) -> WeightsFile:
    """Registry entry of `name`. Raises WeightsError that lists similar names."""
    if name not in REGISTRY:
        near = difflib.get_close_matches(name, REGISTRY, n=3) or sorted(REGISTRY)
        raise WeightsError(f"There are no published weights {name!r}.", remedy=f"Known: {', '.join(near)}.")
    return REGISTRY[name]


def expand(names: Iterable[str]) -> list[str]:
    """Expand groups ("bundle_mmaudio_44k", "all") to names of files, in order and without duplicates."""
    expanded: list[str] = []
    for name in names:
        expanded += REGISTRY if name == "all" else GROUPS.get(name) or (describe(name).name,)
    return list(dict.fromkeys(expanded))


def inventory() -> tuple[list[str], list[str]]:
    """Names of the files in the cache, and of the missing ones."""
    present = [name for name, file in REGISTRY.items() if os.path.isfile(_location(file))]
    return present, [name for name in REGISTRY if name not in present]


def path_of(name: str) -> str:
    """Local path of the file `name`. Never fetches.

    Raises WeightsError, with the command that fetches it, if it is missing or has another size than published.
    """
    file = describe(name)
    location = _location(file)
    if not _exists(location):
        raise WeightsError(
            f"{file.purpose}: the weights {location} are missing.",
            remedy=f"Get them with `dmma weights fetch {name}`, or copy the file from {file.url} there.",
        )
    _require_size(file, location)
    return str(location)


def fetch(name: str, mirror: str | None = None, offline: bool = False) -> str:
    """Fetch `name` into the cache, compare its sha256, and return its path. A file in the cache is only verified.

    `mirror` replaces the public source. Raises WeightsError for another sha256 or size than published (the file is
    removed), or with `offline` where the file is missing; StorageError if the source cannot be read or the cache
    cannot be written.
    """
    file = describe(name)
    location = _location(file)
    if _exists(location):
        verify(name)
        return str(location)
    if offline:
        raise WeightsError(
            f"{location} is missing and --offline forbids fetching it.",
            remedy=f"Fetch it from {file.url} on a connected machine and copy it there, or use --mirror.",
        )
    _require_writable(location.parent)
    _log.info("%s: %s. Licence: %s.", name, file.purpose, file.license)
    if file.license == NON_COMMERCIAL:
        _log.warning("%s and works derived from it may not be used commercially (Creative Commons BY-NC 4.0).", name)
    part = location.with_name(location.name + ".part")
    _download(file, mirror, part)
    sha256 = paths.sha256_of(str(part))
    wrong = None
    if file.sha256 not in (None, sha256):
        wrong = f"sha256 {sha256}; published is {file.sha256}"
    elif file.sha256 is None:
        wrong = _wrong_size(file, part)
    if wrong:
        download.discard(part)
        raise WeightsError(
            f"{file.filename} from {file.url if mirror is None else mirror} has {wrong}.",
            remedy="It was removed. Fetch it again; if this repeats, the source has changed: do not use it.",
        )
    part.replace(location)
    download.discard(part)  # the record of its source
    if file.sha256 is None:
        _record(location, sha256)
    return str(location)


def publish(name: str, mirror: str) -> str:
    """Copy the file `name` of the cache to the folder `mirror`, local or gs://, after comparing its sha256.

    Returns its URI in the mirror. A file of the same size in the mirror is kept. Raises WeightsError if the file in
    the cache is missing or another, StorageError if the mirror cannot be written.
    """
    verify(name)
    location, target = path_of(name), paths.join(mirror, describe(name).filename)
    if paths.exists(target) and paths.size_and_version(target)[0] == os.path.getsize(location):
        return target
    _log.info("Uploading %s to %s.", name, target)
    paths.upload(location, target)
    return target


def verify(name: str) -> str:
    """Compare the cached file with its published sha256, or with that of its first fetch. Returns the sha256.

    Raises WeightsError if it differs or the file is missing.
    """
    file = describe(name)
    location = Path(path_of(name))
    expected = file.sha256 or _recorded(location)
    sha256 = paths.sha256_of(str(location))
    if expected not in (None, sha256):
        raise WeightsError(
            f"{location} has sha256 {sha256}, expected {expected}.",
            remedy=f"Delete it and run `dmma weights fetch {name}`.",
        )
    if expected is None:
        _record(location, sha256)
    return sha256


def _location(file: WeightsFile) -> Path:
    return cache_folder() / file.filename


def _exists(location: Path) -> bool:
    if location.is_dir():
        raise WeightsError(f"{location} is a folder, but a file of this name is expected.", remedy="Remove the folder.")
    return os.path.isfile(location)  # unlike Path.is_file, False for an unreadable folder


def _require_size(file: WeightsFile, path: Path) -> None:
    if wrong := _wrong_size(file, path):
        raise WeightsError(
            f"{path} has {wrong}: it is truncated or another file.",
            remedy=f"Delete it and run `dmma weights fetch {file.name}`.",
        )


def _wrong_size(file: WeightsFile, path: Path) -> str | None:
    size, tolerance = path.stat().st_size, _ROUNDING * file.size_bytes if file.size_is_rounded else 0
    if abs(size - file.size_bytes) <= tolerance:
        return None
    return f"{size:,} bytes, published are {file.size_bytes:,}"


def _require_writable(folder: Path) -> None:
    try:
        paths.check_writable(str(folder))
    except StorageError as error:
        raise StorageError(
            f"The cache folder {folder} cannot be written: {error.message}",
            remedy="Check its permissions, or set DMMA_CACHE to another folder.",
        ) from error


def _download(file: WeightsFile, mirror: str | None, part: Path) -> None:
    if mirror is None:
        download.download(file.url, part, file.name)
    elif mirror.startswith(("http://", "https://")):
        download.download(f"{mirror.rstrip('/')}/{file.filename}", part, file.name)
    else:
        download.copy_file(paths.join(paths.absolute(mirror), file.filename), part, file.name)


def _recorded(location: Path) -> str | None:
    record = location.with_name(location.name + ".verified.json")
    return str(paths.read_json(str(record))["sha256"]) if record.is_file() else None


def _record(location: Path, sha256: str) -> None:
    record = location.with_name(location.name + ".verified.json")
    paths.write_json(str(record), {"sha256": sha256, "size_bytes": location.stat().st_size})
