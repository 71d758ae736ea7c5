"""Resumable download of one file, over HTTP or from a mirror folder.

`<name>.part.source.json` records the source and version of the bytes in the partial file. Bytes of another source or
version, or of a source without versions, are discarded, so a file never mixes the bytes of two.
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
from dmma_core.log import Progress, without_password
from dmma_core.storage import paths

_CHUNK_BYTES = 1 << 20
_MEBI = 1 << 20
_TIMEOUT_S = 60.0
_FIRST_PAUSE_S = 1.0
_MAX_FAILED_ATTEMPTS = 4
_log = logging.getLogger(__name__)


def download(url: str, part: Path, label: str) -> None:
    """Download `url` into the file `part`, resuming after the bytes of the same version that it already contains.

    A broken connection is retried until several attempts in a row add no bytes; then, for a refused or invalid URL, a
    full disk or an unwritable `part`, StorageError is raised. The bytes so far are kept for the next call.
    """
    try:
        has_user = "@" in urllib.parse.urlsplit(url).netloc
    except ValueError:  # its text may hold a password
        raise StorageError(f"{without_password(url)} is not a valid URL.", remedy="Check --mirror.") from None
    if has_user:
        raise StorageError(
            f"{without_password(url)} is given with a user or a password, which are not sent.",
            remedy="Give a mirror that needs none, or a bucket.",
        )
    with _locked(part) as part_file:
        failed, most = 0, part_file.num_bytes
        while True:
            problem = _attempt(url, part_file, label)
            if problem is None:
                return
            failed = 0 if part_file.num_bytes > most else failed + 1
            most = max(most, part_file.num_bytes)
            if failed == _MAX_FAILED_ATTEMPTS:
                raise StorageError(
                    f"The download of {url} stopped after {part_file.num_bytes / _MEBI:.1f} MiB ({problem}).",
                    remedy="Run the same command again; it resumes from there.",
                )
            _log.info("%s: connection lost (%s); retrying.", label, problem)
            time.sleep(_FIRST_PAUSE_S * 2**failed)


def copy_file(uri: str, part: Path, label: str) -> None:
    """Copy the file `uri` (local or gs://) into the file `part`, resuming as `download` does.

    Raises StorageError if it cannot be read, changes during the copy, or `part` cannot be written.
    """
    num_bytes, version = paths.size_and_version(uri)
    with _locked(part) as part_file:
        if part_file.version_of(uri) != version or part_file.num_bytes > num_bytes:
            part_file.restart(uri, version)
        have = part_file.num_bytes
        part_file.require_space(num_bytes - have)
        with paths.open_read(uri) as source:
            source.seek(have)
            _append(source, part_file, label, num_bytes)
        if paths.size_and_version(uri) != (num_bytes, version) or part_file.num_bytes != num_bytes:
            raise StorageError(f"{uri} changed while it was read.", remedy="Run the same command again.")


def discard(part: Path) -> None:
    """Remove `part` and the record of its source."""
    part.unlink(missing_ok=True)
    _record_of(part).unlink(missing_ok=True)


class _Part:
    """The partial file, opened and locked, and the record of its source."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file

    @property
    def num_bytes(self) -> int:
        return int(self._file.seek(0, 2))

    def version_of(self, source: str) -> str | None:
        """Version of `source` that its bytes belong to; None if unknown."""
        record = _record_of(self._path)
        recorded = paths.read_json(str(record)) if record.is_file() else {}
        return str(recorded["version"]) if recorded.get("source") == source else None

    def restart(self, source: str, version: str | None) -> None:
        """Discard all bytes and record the `version` of the next ones; None if the source has no versions."""
        self._file.truncate(0)
        _record_of(self._path).unlink(missing_ok=True)
        if version is not None:
            paths.write_json(str(_record_of(self._path)), {"source": source, "version": version})

    def write(self, chunk: bytes) -> None:
        try:
            rest = memoryview(chunk)
            while rest:  # an unbuffered file may write fewer bytes
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
            remedy="Free space, or set DMMA_CACHE to another cache folder.",
        )


def _attempt(url: str, part: _Part, label: str) -> str | None:
    """One connection. Returns None when the file is complete, else the reason."""
    version = part.version_of(url)
    have = part.num_bytes if version is not None else 0
    headers = {"User-Agent": "dmma", "Accept-Encoding": "identity"}
    if have and version is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the registry's and the mirror's URLs are http)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            given = _version_of_response(response.headers)
            if response.status != 206:  # the full file: no bytes yet, a changed file, or no support for ranges
                part.restart(url, given)
                have = 0
            elif given not in (None, version):  # the server ignores If-Range
                part.restart(url, None)
                return "the file changed"
            length = response.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            part.require_space((total or 0) - have)
            _append(response, part, label, total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # no bytes left: the file is complete, or another file
            if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return None
            part.restart(url, None)
            return "the partial file did not match"
        if error.code >= 500 or error.code == 429:
            return f"HTTP {error.code}"
        raise StorageError(
            f"{url} was refused (HTTP {error.code}: {error.reason}).",
            remedy="Open it in a browser: it may have moved or need a login. Another source can be set with --mirror.",
        ) from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    got = part.num_bytes
    return None if total is None or got == total else f"received {got} of {total} bytes"


def _version_of_response(headers: Any) -> str | None:
    """Version of the file in a response, for If-Range: a strong ETag, else the Last-Modified date, if any."""
    etag: str | None = headers.get("ETag")
    date: str | None = headers.get("Last-Modified")
    return etag if etag and not etag.startswith("W/") else date


def _append(source: Any, part: _Part, label: str, total: int | None) -> None:
    """Append the bytes of `source`; `total` is the size of the full file, for the progress bar."""
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
            remedy="Check its permissions, or set DMMA_CACHE to another cache folder.",
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(
                f"{part} is being fetched by another process.", remedy="Wait until it ends, then run again."
            ) from error
        yield _Part(part, file)
