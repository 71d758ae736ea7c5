"""The folder of a comparison: plan.json names its two reports, `sounds` contains the sounds of the page.

comparison/<name>/  plan.json, table.md, table.json, report.html, sounds/<clip_id>.<ground_truth or arm>.{wav,png}
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dmma_core.errors import StorageError
from dmma_core.evaluation.report_file import Report
from dmma_core.storage import paths
from dmma_core.storage.overwriting import is_own_json, refuse_overwriting

FILES = ("table.md", "report.html", "table.json")
_PLAN, _SOUNDS = "plan.json", "sounds"
_IDENTITY = ("arm", "generation_fingerprint", "features_fingerprint")


@dataclass(frozen=True)
class ComparisonFolder:
    """The output folder of the comparison of two reports. The same reports replace it, others are refused.

    Reports are the same if they measure the same sounds with the same evaluator, at any URI.
    """

    uri: str
    first: Report
    second: Report

    def require_own(self) -> None:
        """Raises StorageError if the folder holds the comparison of other reports, or other files of these names."""
        plan_uri = paths.join(self.uri, _PLAN)
        is_own = is_own_json(plan_uri, "reports")
        refuse_overwriting(self.uri, (_PLAN, *FILES, _SOUNDS), is_own, [self.first.uri, self.second.uri])
        if not is_own:
            return
        stored = paths.read_json(plan_uri)
        if [entry["identity"] for entry in stored["reports"]] != [entry["identity"] for entry in self._reports()]:
            found = " and ".join(entry["uri"] for entry in stored["reports"])
            raise StorageError(
                f"{self.uri} holds a comparison of other reports or other sounds: {found}.",
                remedy="Give another out_uri, or delete that folder.",
            )

    def claim(self) -> None:
        """Claim the folder for the two reports. Raises StorageError if it belongs to another comparison."""
        self.require_own()
        paths.write_json(paths.join(self.uri, _PLAN), {"reports": self._reports()})

    @property
    def sounds_uri(self) -> str:
        return paths.join(self.uri, _SOUNDS)

    def remove_other_sounds(self, names: Iterable[str]) -> None:
        """Remove all other files from `sounds`: an earlier comparison may have shown other clips."""
        kept = set(names)
        if not paths.exists(self.sounds_uri):
            return
        for uri in paths.list_files(self.sounds_uri):
            if uri.rpartition("/")[2] not in kept:
                paths.remove(uri)

    def _reports(self) -> list[dict[str, Any]]:
        return [
            {
                "uri": paths.absolute(report.uri),
                "identity": {
                    **{key: report.record[key] for key in _IDENTITY},
                    "evaluator_fingerprint": report.record["evaluator"]["fingerprint"],
                },
            }
            for report in (self.first, self.second)
        ]
