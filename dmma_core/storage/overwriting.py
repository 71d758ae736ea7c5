"""No job writes over a file that is not its own: neither over one of its inputs, nor in a folder that it did not begin.

Every job asks `refuse_overwriting` before it works and in its dry run. A folder is a job's own when the file is there that
the job writes into it first.
"""

import os
from collections.abc import Iterable, Sequence

from dmma_core.errors import StorageError
from dmma_core.storage import paths

_MAX_NAMED = 3


def refuse_overwriting(folder_uri: str, names: Iterable[str], is_own: bool, inputs: Sequence[str] = ()) -> None:
    """Raise StorageError where writing the files or folders `names` directly in `folder_uri` would cost other files.

    Refused are `inputs` always, by whatever path or link they are reached, and anything else of these names unless the
    folder `is_own`. Nothing is refused where none of the names is there.
    """
    present = paths.list_names(folder_uri) & set(names)
    if not present:
        return
    read = {_identity(uri): uri for uri in inputs}
    for uri in (paths.join(folder_uri, name) for name in sorted(present)):
        if source := read.get(_identity(uri)):
            raise StorageError(
                f"{uri} would be written over, but it is the input {source}.",
                remedy="Give another place for the output.",
            )
    if not is_own:
        shown = ", ".join(sorted(present)[:_MAX_NAMED]) + (", …" if len(present) > _MAX_NAMED else "")
        raise StorageError(
            f"{folder_uri} was not begun by this job and holds what would be written over: {shown}.",
            remedy="Give another place for the output, or move these away.",
        )


def is_own_json(uri: str, *keys: str) -> bool:
    """Whether `uri` is a JSON object that has `keys`, as a job wrote it."""
    if not paths.exists(uri):
        return False
    try:
        record = paths.read_json(uri)
    except StorageError:
        return False
    return isinstance(record, dict) and set(keys) <= record.keys()


def _identity(uri: str) -> object:
    """Equal for two names of one file, existing or not: links, relative paths and file:// lead to the same."""
    if paths.is_remote(uri):
        return paths.filesystem_of(uri)[1]
    path = paths.absolute(uri)
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino
