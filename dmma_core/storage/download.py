"""One file over HTTP, resumed where an earlier attempt broke off."""

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
from typing import IO, Any

from dmma_core.errors import StorageError
from dmma_core.log import Progress

_CHUNK_BYTES = 1 << 20
_MEBI = 1 << 20
_TIMEOUT_S = 60.0
_MAX_FRUITLESS_ATTEMPTS = 4
_log = logging.getLogger(__name__)


def download(url: str, part: Path, label: str, first_pause_s: float = 1.0) -> None:
    """Bring `url` wholly into the file `part`, going on behind the bytes that are there already.

    A broken connection is taken up again as long as attempts bring new bytes. Raises StorageError when it does not
    come back, is refused or no web address, or the disk is full or `part` not to be written; the bytes got so far stay
    for the next call.
    """
    try:
        urllib.parse.urlsplit(url)
    except ValueError as error:
        raise StorageError(f"{url} is no web address ({error}).", remedy="Check --mirror.") from error
    with _locked(part) as file:
        fruitless = 0
        while True:
            before = file.seek(0, 2)
            problem = _attempt(url, file, label)
            if problem is None:
                return
            fruitless = fruitless + 1 if file.seek(0, 2) == before else 0
            if fruitless == _MAX_FRUITLESS_ATTEMPTS:
                raise StorageError(
                    f"{url} broke off after {file.seek(0, 2) / _MEBI:.1f} MiB ({problem}).",
                    remedy="Run the same command again; it goes on from there.",
                )
            _log.info("%s: the connection broke (%s); going on.", label, problem)
            time.sleep(first_pause_s * 2**fruitless)


def _attempt(url: str, file: IO[bytes], label: str) -> str | None:
    """One connection. Returns None when the file is whole, else why it is not."""
    have = file.seek(0, 2)
    headers = {"User-Agent": "dmma", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (the registry's and the mirror's URLs are http)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            if have and response.status != 206:  # the server knows no ranges: from the start
                have = 0
                file.truncate(0)
            total = _total_bytes(response, have)
            _check_space(Path(file.name), (total or 0) - have)
            _copy(response, file, label, have, total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing behind what is there: whole, or of another file
            if error.headers.get("Content-Range", "").rpartition("/")[2] == str(have):
                return None
            file.truncate(0)
            return "what was there did not fit"
        if error.code >= 500 or error.code == 429:
            return f"HTTP {error.code}"
        raise StorageError(
            f"{url} was refused (HTTP {error.code}: {error.reason}).",
            remedy="Open it in a browser; it may have moved or ask for a login. A mirror can be given by --mirror.",
        ) from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full_disk(Path(file.name)) from error
        raise
    got = file.seek(0, 2)
    return None if total is None or got == total else f"{got} of {total} bytes came"


def _copy(response: Any, file: IO[bytes], label: str, have: int, total: int | None) -> None:
    with Progress(label, max(1, -(-(total or have) // _MEBI)), unit="MiB") as progress:
        shown = have // _MEBI
        progress.advance(shown)
        while chunk := response.read(_CHUNK_BYTES):
            file.write(chunk)
            have += len(chunk)
            progress.advance(have // _MEBI - shown)
            shown = have // _MEBI
    file.flush()


def _total_bytes(response: Any, have: int) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None else have + int(length)


def _check_space(part: Path, wanted: int) -> None:
    if wanted > shutil.disk_usage(part.parent).free:
        raise _full_disk(part)


def _full_disk(part: Path) -> StorageError:
    return StorageError(
        f"The disk is full: {part} could not be written.",
        remedy="Free space, or choose another cache folder by DMMA_CACHE.",
    )


@contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
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
        yield file
