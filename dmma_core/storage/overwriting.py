"""Protection against overwriting: a job overwrites neither its inputs nor files that it did not write.

Every job calls `refuse_overwriting` before it works and in its dry run. A folder belongs to a job if it contains the
file that the job writes first.
"""

import os
from collections.abc import Iterable, Sequence

from dmma_core.errors import StorageError
from dmma_core.storage import paths

_MAX_NAMED = 3


def refuse_overwriting(folder_uri: str, names: Iterable[str], is_own: bool, inputs: Sequence[str] = ()) -> None:
    """Raise StorageError if writing the files or folders `names` directly in `folder_uri` would overwrite other files.

    `inputs` are always refused, by whatever path or link they are reached; other existing files of these names are
    refused unless the folder `is_own`.
    """
    present = paths.list_names(folder_uri) & set(names)
    if not present:
        return
    read = {_identity(uri): uri for uri in inputs}
    for uri in (paths.join(folder_uri, name) for name in sorted(present)):
        if source := read.get(_identity(uri)):
            raise StorageError(
                f"{uri} would be overwritten, but it is the input {source}.",
                remedy="Give another place for the output.",
            )
    if not is_own:
        shown = ", ".join(sorted(present)[:_MAX_NAMED]) + (", …" if len(present) > _MAX_NAMED else "")
        raise StorageError(
            f"{folder_uri} was not written by this job and holds files that would be overwritten: {shown}.",
            remedy="Give another place for the output, or move these away.",
        )


def is_own_json(uri: str, *keys: str) -> bool:
    """Whether `uri` is a JSON object with `keys`, as a job writes it."""
    if not paths.exists(uri):
        return False
    try:
        record = paths.read_json(uri)
    except StorageError:
        return False
    return isinstance(record, dict) and set(keys) <= record.keys()


def _identity(uri: str) -> object:
    """Equal for two names of one file, existing or not: links, relative paths and file:// are resolved."""
    if paths.is_remote(uri):
        return paths.filesystem_of(uri)[1]
    path = paths.absolute(uri)
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
