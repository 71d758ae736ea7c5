"""Conditional writes of small files that several processes change: they fail if another process changed the file.

On gs:// the object's generation decides (preconditions of the JSON API: 0 stands for "absent"). On a disk a new file
is created by a hard link, which fails if it exists, and is replaced or removed under a lock (flock) on the file.
"""

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dmma_core.errors import AbsentError, StorageError
from dmma_core.storage import paths

_LOCK_LIMIT_S = 10.0
_ABSENT = "0"


@dataclass(frozen=True)
class Stored:
    """Contents of a file and its version: the generation on gs://, empty on a disk."""

    data: bytes
    version: str = ""


def read(uri: str) -> Stored | None:
    """The current file, None if there is none. Raises StorageError."""
    try:
        # In this order: contents newer than the version only make a later `replace` fail.
        version = paths.size_and_version(uri)[1] if paths.is_remote(uri) else ""
        return Stored(paths.read_bytes(uri), version)
    except AbsentError:
        return None


def create(uri: str, data: bytes) -> Stored | None:
    """Write a new file atomically; None if the file exists. Raises StorageError.

    On gs:// the result may be None although this call wrote the file: if the first response was lost, the retried request
    finds its own file. The caller recognises it by its contents. The same holds for `replace`.
    """
    if paths.is_remote(uri):
        return _upload(uri, data, _ABSENT)
    path = paths.absolute(uri)
    temporary = f"{path}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
    paths.write_bytes(temporary, data)
    try:
        with paths.storage_errors(uri):
            return _linked(temporary, path, data)
    finally:
        os.unlink(temporary)


def replace(uri: str, data: bytes, old: Stored) -> Stored | None:
    """Write the file in place of `old`; None if it is no longer `old`. Raises StorageError."""
    if paths.is_remote(uri):
        return _upload(uri, data, old.version)
    with _locked(uri) as present:
        if present != old.data:
            return None
        paths.write_bytes(uri, data)
    return Stored(data)


def remove(uri: str, old: Stored) -> bool:
    """Remove the file if it still is `old`; returns whether it was. Raises StorageError."""
    if not paths.is_remote(uri):
        with _locked(uri) as present:
            if present == old.data:
                os.unlink(paths.absolute(uri))
        return present == old.data
    filesystem, path = paths.filesystem_of(uri)
    bucket, name, _ = filesystem.split_path(path)
    with paths.storage_errors(uri):
        try:
            filesystem.call("DELETE", "b/{}/o/{}", bucket, name, ifGenerationMatch=old.version)
        except (FileNotFoundError, FileExistsError):  # gcsfs raises the latter for every precondition that fails
            return False
    return True


def update_json(uri: str, change: Callable[[Any], Any]) -> Any:
    """Write `change(value)` of the file's value (None if there is no file), and return it.

    `change` is called again if another process wrote the file meanwhile, so that no process's change is lost.
    """
    while True:
        old = read(uri)
        value = change(paths.parse_json(uri, old.data) if old else None)
        data = paths.json_bytes(value)
        if replace(uri, data, old) if old else create(uri, data):
            return value


def _upload(uri: str, data: bytes, generation: str) -> Stored | None:
    filesystem, path = paths.filesystem_of(uri)
    bucket, name, _ = filesystem.split_path(path)
    address = f"{filesystem._location}/upload/storage/v1/b/{quote(bucket)}/o"
    parameters = {"uploadType": "media", "name": name, "ifGenerationMatch": generation}
    headers = {"Content-Type": "application/octet-stream"}
    with paths.storage_errors(uri):
        try:
            created = filesystem.call("POST", address, headers=headers, data=data, json_out=True, **parameters)
        except FileExistsError:  # the precondition failed
            return None
        except FileNotFoundError:
            if generation == _ABSENT:  # there is no such bucket
                raise
            return None
    return Stored(data, created["generation"])


def _linked(temporary: str, path: str, data: bytes) -> Stored | None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return None
    return Stored(data)


@contextmanager
def _locked(uri: str) -> Iterator[bytes | None]:
    """Contents of a local file, locked against changes by other processes inside the block; None if there is none."""
    path = paths.absolute(uri)
    with paths.storage_errors(uri):
        while True:
            try:
                file = open(path, "r+b")  # noqa: SIM115  (closed below; network file systems lock writable files only)
            except FileNotFoundError:
                yield None
                return
            with file:
                _lock(file.fileno(), uri)
                if _is_at(file.fileno(), path):  # else it was replaced or removed while waiting for the lock
                    yield file.read()
                    return


def _lock(descriptor: int, uri: str) -> None:
    deadline_s = time.monotonic() + _LOCK_LIMIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                raise StorageError(
                    f"{uri} has been locked by another process for {_LOCK_LIMIT_S:g} s.",
                    remedy="Is a process of this job paused? End it, then run again.",
                ) from None
            time.sleep(0.01)


def _is_at(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
