"""Names of the folders of a demo. One name stands for one set of inputs: other inputs never meet older results.

A folder has the plain name of the demo, or, where that name is taken by other inputs, one with their fingerprint behind
it. The file demo.json in manifest/<name> and runs/<name> records the inputs, as a fingerprint of each.
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
    """`text` names folders of `folders` for the inputs `inputs`; `note` says why it is not the plain name."""

    text: str
    folders: tuple[str, ...]
    inputs: Mapping[str, str]
    note: str = ""

    def claim(self, work_uri: str) -> None:
        """Record the inputs. Do it before anything is written there."""
        paths.write_json(paths.join(work_uri, self.folders[0], self.text, RECORD), dict(self.inputs))


def name_for(work_uri: str, plain: str, folders: tuple[str, ...], inputs: Mapping[str, str]) -> Name:
    """The plain name if it is free or these inputs' own, else the one with their fingerprint. Writes nothing."""
    if not any(paths.exists(paths.join(work_uri, folder, plain)) for folder in folders):
        return Name(plain, folders, inputs)
    name = f"{plain}-{fingerprint(dict(inputs))[:6]}"
    record = paths.join(work_uri, folders[0], plain, RECORD)
    if not paths.exists(record):
        note = f"There are folders called {plain} that no demo has made; the demo's own are called {name}."
        return Name(name, folders, inputs, note)
    found = paths.read_json(record)
    if changed := sorted(key for key in {*found, *inputs} if found.get(key) != inputs.get(key)):
        made = f"{folders[0]}/{plain} was made from other inputs ({', '.join(changed)})"
        return Name(name, folders, inputs, f"{made}; the new folders are called {name}.")
    return Name(plain, folders, inputs)


def others(work_uri: str, plain: str, current: tuple[Name, ...]) -> list[str]:
    """Folders that a demo called `plain` has made of other inputs, relative to `work_uri`. Only recorded ones count."""
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
