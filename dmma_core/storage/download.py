"""One file into a local one, over HTTP or from a mirror's folder, gone on with where an earlier attempt broke off.

Beside the growing file, as `<name>.part.source.json`, stands which version of which source its bytes are of. Bytes of another
source or version, or of a source that names none, are thrown away: no file is ever put together of two.
"""

import errno
import fcntl
import logging
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from dmma_core.errors import StorageError
from dmma_core.log import Progress
from dmma_core.storage import paths

_CHUNK_BYTES = 1 << 20
_MEBI = 1 << 20
_TIMEOUT_S = 60.0
_MAX_FRUITLESS_ATTEMPTS = 4
_log = logging.getLogger(__name__)


def download(url: str, part: Path, label: str, first_pause_s: float = 1.0) -> None:
    """Bring `url` wholly into the file `part`, going on behind the bytes of the same version that are there already.

    A broken connection is taken up again as long as attempts bring new bytes. Raises StorageError when it does not
    come back, is refused or no web address, or the disk is full or `part` not to be written; the bytes got so far stay
    for the next call.
    """
    try:
        urllib.parse.urlsplit(url)
    except ValueError as error:
        raise StorageError(f"{url} is no web address ({error}).", remedy="Check --mirror.") from error
    with _locked(part) as growing:
        fruitless, most = 0, growing.num_bytes
        while True:
            problem = _attempt(url, growing, label)
            if problem is None:
                return
            fruitless = 0 if growing.num_bytes > most else fruitless + 1
            most = max(most, growing.num_bytes)
            if fruitless == _MAX_FRUITLESS_ATTEMPTS:
                raise StorageError(
                    f"{url} broke off after {growing.num_bytes / _MEBI:.1f} MiB ({problem}).",
                    remedy="Run the same command again; it goes on from there.",
                )
            _log.info("%s: the connection broke (%s); going on.", label, problem)
            time.sleep(first_pause_s * 2**fruitless)


def copy(uri: str, part: Path, label: str) -> None:
    """Bring the file `uri` of a folder, local or gs://, wholly into the file `part`, going on as `download` does.

    Raises StorageError where it cannot be read, is changed meanwhile, or `part` cannot be written.
    """
    num_bytes, version = paths.size_and_version(uri)
    with _locked(part) as growing:
        if growing.version_of(uri) != version or growing.num_bytes > num_bytes:
            growing.begin(uri, version)
        have = growing.num_bytes
        growing.require_space(num_bytes - have)
        with paths.open_read(uri) as source:
            source.seek(have)
            _copy(source, growing, label, num_bytes)
        if paths.size_and_version(uri) != (num_bytes, version) or growing.num_bytes != num_bytes:
            raise StorageError(f"{uri} was changed while it was read.", remedy="Run the same command again.")


def discard(part: Path) -> None:
    """Remove `part` and what is noted of it."""
    part.unlink(missing_ok=True)
    _record_of(part).unlink(missing_ok=True)


class _Part:
    """The growing file, opened and locked, and the note of where its bytes came from."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file

    @property
    def num_bytes(self) -> int:
        return int(self._file.seek(0, 2))

    def version_of(self, source: str) -> str | None:
        """The version of `source` that its bytes are of. None where they are of none that is known."""
        record = _record_of(self._path)
        noted = paths.read_json(str(record)) if record.is_file() else {}
        return str(noted["version"]) if noted.get("source") == source else None

    def begin(self, source: str, version: str | None) -> None:
        """Throw away all bytes; those to come are of `version`, None where the source tells none."""
        self._file.truncate(0)
        _record_of(self._path).unlink(missing_ok=True)
        if version is not None:
            paths.write_json(str(_record_of(self._path)), {"source": source, "version": version})

    def write(self, chunk: bytes) -> None:
        try:
            rest = memoryview(chunk)
            while rest:  # an unbuffered file may take less than all
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise self._full_disk() from error
            raise

    def require_space(self, num_bytes: int) -> None:
        if num_bytes > shutil.disk_usage(self._path.parent).free:
            raise self._full_disk()

    def _full_disk(self) -> StorageError:
        return StorageError(
            f"The disk is full: {self._path} could not be written.",
            remedy="Free space, or choose another cache folder by DMMA_CACHE.",
        )


def _attempt(url: str, part: _Part, label: str) -> str | None:
    """One connection. Returns None when the file is whole, else why it is not."""
    version = part.version_of(url)
    have = part.num_bytes if version is not None else 0
    headers = {"User-Agent": "dmma", "Accept-Encoding": "identity"}
    if have and version is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the registry's and the mirror's URLs are http)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            given = _version(response.headers)
            if (
                response.status != 206
            ):  # the whole file: nothing was there, the file is another now, or no ranges are known
                part.begin(url, given)
                have = 0
            elif given not in (None, version):  # the server heeds no If-Range
                part.begin(url, None)
                return "the file was changed"
            length = response.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            part.require_space((total or 0) - have)
            _copy(response, part, label, total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing behind what is there: whole, or of another file
            if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return None
            part.begin(url, None)
            return "what was there did not fit"
        if error.code >= 500 or error.code == 429:
            return f"HTTP {error.code}"
        raise StorageError(
            f"{url} was refused (HTTP {error.code}: {error.reason}).",
            remedy="Open it in a browser; it may have moved or ask for a login. A mirror can be given by --mirror.",
        ) from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    got = part.num_bytes
    return None if total is None or got == total else f"{got} of {total} bytes came"


def _version(headers: Any) -> str | None:
    """What an answer tells of the version of its file, as If-Range takes it: a strong ETag, or the date of its change."""
    etag: str | None = headers.get("ETag")
    date: str | None = headers.get("Last-Modified")
    return etag if etag and not etag.startswith("W/") else date


def _copy(source: Any, part: _Part, label: str, total: int | None) -> None:
    """Append what `source` gives; `total` is the whole file's size, for the bar."""
    have = part.num_bytes
    with Progress(label, max(1, _mebi(total or have)), unit="MiB") as progress:
        shown = _mebi(have)
        progress.advance(shown)
        while chunk := source.read(_CHUNK_BYTES):
            part.write(chunk)
            have += len(chunk)
            progress.advance(_mebi(have) - shown)
            shown = _mebi(have)


def _mebi(num_bytes: int) -> int:
    return -(-num_bytes // _MEBI)


def _record_of(part: Path) -> Path:
    return part.with_name(part.name + ".source.json")


@contextmanager
def _locked(part: Path) -> Iterator[_Part]:
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        opened = part.open("ab", buffering=0)
    except OSError as error:
        raise StorageError(
            f"{part} could not be written ({error.strerror}).",
            remedy="Check its permissions, or choose another cache folder by DMMA_CACHE.",
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"{part} is being fetched by another process.", remedy="Wait for it, then run again."
            ) from error
        yield _Part(part, file)
