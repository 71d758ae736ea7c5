"""The storage API: local folders and gs:// buckets behind the same functions (fsspec, gcsfs).

A URI is a local path, `file://…` or `gs://bucket/…`. Writes are atomic: a reader sees the old file or the complete
new one. Completeness markers are ordinary files written last.
"""

import errno
import hashlib
import json
import os
import posixpath
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import fsspec

from dmma_core.errors import AbsentError, StorageError
from dmma_core.log import without_password

if TYPE_CHECKING:  # the command line reads paths where pyarrow need not be installed
    from pyarrow import fs as pafs

_CHUNK_BYTES = 1 << 20
_CONNECT_LIMIT_S = 30.0
_SILENCE_LIMIT_S = 60.0


def is_remote(uri: str) -> bool:
    return "://" in uri and not uri.startswith("file://")


def absolute(uri: str) -> str:
    """`uri` independent of the working directory, for other processes."""
    return uri if is_remote(uri) else str(filesystem_of(uri)[1])


def filesystem_of(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """fsspec filesystem and the path inside it. Raises StorageError for a scheme other than file:// and gs://."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return fsspec.filesystem("file"), os.path.abspath(os.path.expanduser(uri))
    if scheme == "file":
        return fsspec.filesystem("file"), os.path.abspath(rest)
    if scheme == "gs":
        # gcsfs otherwise asks a gRPC endpoint for the kind of bucket before nearly every call (up to 100 s each
        # if that endpoint does not respond, as with storage emulators).
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        token = "anon" if os.environ.get("STORAGE_EMULATOR_HOST") else None
        return _google_storage(token), rest.rstrip("/")
    raise StorageError(
        f"{without_password(uri)!r} has the unknown scheme {scheme}://.", remedy="Use a local path or gs://bucket/path."
    )


def _google_storage(token: str | None) -> fsspec.AbstractFileSystem:
    from aiohttp import ClientTimeout

    # Listings are never cached: another process may just have written the marker that is looked for. gcsfs sets no time
    # limit by default and would wait forever for a lost response; after these limits it retries.
    limits = ClientTimeout(total=None, sock_connect=_CONNECT_LIMIT_S, sock_read=_SILENCE_LIMIT_S)
    return fsspec.filesystem("gs", token=token, use_listings_cache=False, requests_timeout=limits)


def arrow_filesystem_of(uri: str) -> tuple["pafs.FileSystem", str]:
    """pyarrow filesystem over the same fsspec one. Never pass a gs:// URI to pyarrow: its own client may hang."""
    from pyarrow import fs as pafs

    filesystem, path = filesystem_of(uri)
    if not is_remote(uri):
        return pafs.LocalFileSystem(use_mmap=True), path
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


def join(base: str, *parts: str) -> str:
    """`base/part/…`. Raises StorageError if a part would lead out of `base` (absolute, or through '..')."""
    relative = posixpath.normpath("/".join(parts)) if parts else "."
    if relative.startswith(("/", "../")) or relative == ".." or any("\\" in part or "\0" in part for part in parts):
        raise StorageError(
            f"{'/'.join(parts)!r} leads out of {base}.", remedy="Use a name without '..' or a leading '/'."
        )
    if relative == "." or not base:
        return base or relative
    return f"{base.rstrip('/')}/{relative}"


def exists(uri: str) -> bool:
    filesystem, path = filesystem_of(uri)
    with storage_errors(uri):
        return bool(filesystem.exists(path))


def list_files(uri: str, suffix: str = "") -> list[str]:
    """URIs of all files below `uri`, sorted, whose name ends with `suffix`. An absent folder is an error."""
    filesystem, root = filesystem_of(uri)
    if not is_remote(uri) and not os.path.isdir(root):
        raise StorageError(f"There is no folder {uri}.", remedy="Check the path.")
    with storage_errors(uri):
        found = filesystem.find(root)
    base = uri.rstrip("/")
    names = sorted(path[len(root) :].lstrip("/") for path in found)
    return [f"{base}/{name}" for name in names if name.endswith(suffix) and not _is_temporary(name)]


def list_folders(uri: str) -> list[str]:
    """Names of the folders directly below `uri`, sorted; an absent `uri` has none."""
    filesystem, root = filesystem_of(uri)
    if not exists(uri):
        return []
    with storage_errors(uri):
        entries = filesystem.ls(root, detail=True)
    return sorted(posixpath.basename(e["name"].rstrip("/")) for e in entries if e["type"] == "directory")


def list_names(uri: str) -> set[str]:
    """Names of the files and folders directly below `uri`; an absent one has none."""
    filesystem, root = filesystem_of(uri)
    if not exists(uri):
        return set()
    with storage_errors(uri):
        return {posixpath.basename(path.rstrip("/")) for path in filesystem.ls(root, detail=False)}


@contextmanager
def open_read(uri: str) -> Iterator[IO[bytes]]:
    filesystem, path = filesystem_of(uri)
    with storage_errors(uri), filesystem.open(path, "rb") as file:
        yield file


@contextmanager
def open_write(uri: str) -> Iterator[IO[bytes]]:
    """Write `uri` atomically: nothing appears there if the block raises or the process dies."""
    filesystem, path = filesystem_of(uri)
    with storage_errors(uri):
        if is_remote(uri):
            # Spooled locally, then uploaded: an open gcsfs file would be flushed later by the garbage collector.
            with tempfile.NamedTemporaryFile(prefix="dmma-upload-") as spool:
                yield spool
                spool.flush()
                filesystem.put_file(spool.name, path)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            with open(temporary, "wb") as local:
                yield local
                local.flush()
                os.fsync(local.fileno())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def read_bytes(uri: str) -> bytes:
    if is_remote(uri):
        filesystem, path = filesystem_of(uri)
        with storage_errors(uri):  # one request, or size and contents may be of two versions
            data: bytes = filesystem.cat_file(path)
        return data
    with open_read(uri) as file:
        return file.read()


def write_bytes(uri: str, data: bytes) -> None:
    with open_write(uri) as file:
        file.write(data)


def append_text(uri: str, text: str) -> None:
    """Add `text` to the end of a local file. Objects of a bucket cannot be appended to: rewrite them."""
    assert not is_remote(uri)
    _, path = filesystem_of(uri)
    with storage_errors(uri), open(path, "a", encoding="utf-8") as file:
        file.write(text)


def read_text(uri: str) -> str:
    return _decoded(uri, read_bytes(uri))


def read_json(uri: str) -> Any:
    return parse_json(uri, read_bytes(uri))


def parse_json(uri: str, data: bytes) -> Any:
    """The value of a JSON file with the contents `data`. Raises StorageError for invalid UTF-8 or JSON."""
    try:
        return json.loads(_decoded(uri, data))
    except ValueError as error:
        raise StorageError(f"{uri} is not valid JSON ({error}).", remedy="Run the job that writes it again.") from error


def _decoded(uri: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StorageError(f"{uri} is not UTF-8 text ({error.reason}).", remedy="Save it as UTF-8.") from error


def write_json(uri: str, value: Any) -> None:
    write_bytes(uri, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """`value` in the format of this project's JSON files."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def remove(uri: str) -> None:
    """Remove a file, or a folder with its contents; does nothing if there is none."""
    filesystem, path = filesystem_of(uri)
    if exists(uri):
        with storage_errors(uri):
            filesystem.rm(path, recursive=True)


def sha256_of(uri: str) -> str:
    digest = hashlib.sha256()
    with open_read(uri) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def size_and_version(uri: str) -> tuple[int, str]:
    """Size of a file in bytes, and an identifier that changes when the file is replaced."""
    filesystem, path = filesystem_of(uri)
    with storage_errors(uri):
        info = filesystem.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError
    version = info["generation"] if is_remote(uri) else f"{info['ino']}-{os.stat(path).st_mtime_ns}"
    return int(info["size"]), str(version)


def upload(file: str, uri: str) -> None:
    """Copy a local file to `uri` atomically."""
    filesystem, path = filesystem_of(uri)
    if is_remote(uri):
        with storage_errors(uri):
            filesystem.put_file(file, path)
        return
    with open_read(file) as source, open_write(uri) as target:
        shutil.copyfileobj(source, target, _CHUNK_BYTES)


def check_writable(uri: str) -> None:
    """Write and remove a small file below `uri`. Raises StorageError if that is not possible.

    If the local folder `uri` does not exist yet, its nearest existing parent is tested, and no folder is created.
    """
    folder = uri if is_remote(uri) else absolute(uri)
    while not (is_remote(folder) or os.path.exists(folder)):
        folder = os.path.dirname(folder)
    probe = join(folder, f".dmma-write-test-{secrets.token_hex(4)}")
    write_bytes(probe, b"")
    remove(probe)


def _is_temporary(name: str) -> bool:
    return ".tmp-" in posixpath.basename(name)


@contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Convert errors of the operating system and the bucket's client to StorageError with the URI and the remedy."""
    try:
        yield
    except FileNotFoundError as error:
        raise AbsentError(f"There is no {uri}.", remedy="Check the path, or run the job that writes it.") from error
    except PermissionError as error:
        raise StorageError(f"{uri} may not be accessed ({error}).", remedy="Check its permissions.") from error
    except IsADirectoryError as error:
        raise StorageError(f"{uri} is a folder, a file was expected.", remedy="Give the path of a file.") from error
    except (NotADirectoryError, FileExistsError) as error:  # the latter from makedirs
        raise StorageError(f"{uri} lies below a file, a folder was expected.", remedy="Check the path.") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            place = tempfile.gettempdir() if is_remote(uri) else uri  # uploads are spooled there
            raise StorageError(
                f"The disk is full: {place} could not be written.", remedy="Free space and run again."
            ) from error
        raise StorageError(
            f"{uri} could not be read or written ({_one_line(error)}).", remedy="Check the storage."
        ) from error
    except _remote_errors(uri) as error:
        if isinstance(error, ValueError) and not str(error).startswith("Bad Request"):
            raise
        raise StorageError(
            f"The storage refused {uri} ({_one_line(error)}).",
            remedy="Check the bucket's name, the network, and `gcloud auth application-default login`.",
        ) from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _remote_errors(uri: str) -> tuple[type[Exception], ...]:
    """Errors of a bucket's client besides OSError; of ValueError only its "Bad Request" is converted."""
    if not is_remote(uri):
        return ()
    from aiohttp import ClientError
    from gcsfs.retry import ChecksumError, HttpError
    from google.auth.exceptions import GoogleAuthError

    return ClientError, HttpError, ChecksumError, GoogleAuthError, ValueError
