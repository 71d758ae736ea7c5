"""Names of the folders of a demo. One name stands for one set of inputs, so results of different inputs never mix.

A folder has the plain name of the demo. Where that name is taken by other inputs, the fingerprint of the inputs is
added to it. The file demo.json in manifest/<name> and runs/<name> records the inputs, as a fingerprint of each.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dmma_core.provenance import fingerprint
from dmma_core.storage import paths

RECORD = "demo.json"
DATA_FOLDERS = ("manifest", "features")  # the first holds the record
RENDERED_FOLDERS = (*DATA_FOLDERS, "data")  # one's own videos may lie in data; no demo writes there then
RUN_FOLDERS = ("runs", "generated", "reports", "comparison")


@dataclass(frozen=True)
class Name:
    """`text` names folders in `folders` for the inputs `inputs`; `note` is the reason why it is not the plain name."""

    text: str
    folders: tuple[str, ...]
    inputs: Mapping[str, str]
    note: str = ""

    def claim(self, work_uri: str) -> None:
        """Record the inputs. To be called before anything is written to the folders."""
        paths.write_json(paths.join(work_uri, self.folders[0], self.text, RECORD), dict(self.inputs))


def name_for(work_uri: str, plain: str, folders: tuple[str, ...], inputs: Mapping[str, str]) -> Name:
    """The plain name if it is free or belongs to these inputs, else the one with their fingerprint. Writes nothing."""
    if not any(paths.exists(paths.join(work_uri, folder, plain)) for folder in folders):
        return Name(plain, folders, inputs)
    name = f"{plain}-{fingerprint(dict(inputs))[:6]}"
    record = paths.join(work_uri, folders[0], plain, RECORD)
    if not paths.exists(record):
        note = f"There are folders named {plain} that no demo created; this demo's folders are named {name}."
        return Name(name, folders, inputs, note)
    found = paths.read_json(record)
    if changed := sorted(key for key in {*found, *inputs} if found.get(key) != inputs.get(key)):
        created = f"{folders[0]}/{plain} was created from other inputs ({', '.join(changed)})"
        return Name(name, folders, inputs, f"{created}; the new folders are named {name}.")
    return Name(plain, folders, inputs)


def others(work_uri: str, plain: str, current: tuple[Name, ...]) -> list[str]:
    """Folders that a demo named `plain` created from other inputs, relative to `work_uri`. Only those with a record."""
    pattern = re.compile(re.escape(plain) + "(-[0-9]+-steps|-[0-9a-f]{6})*")
    return [
        f"{folder}/{found}"
        for name in current
        for found in paths.list_folders(paths.join(work_uri, name.folders[0]))
        if pattern.fullmatch(found) and found != name.text
        if paths.exists(paths.join(work_uri, name.folders[0], found, RECORD))
        for folder in name.folders
        if paths.exists(paths.join(work_uri, folder, found))
    ]
